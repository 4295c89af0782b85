"""Docstrings are plain text in Google form; here they become Markdown, or reStructuredText that is safe."""

import inspect
import re
from collections.abc import Iterable

# A paragraph that starts so gets a heading; a method's docstring is free to have any of them.
LABEL = re.compile(r"^(Sources?|Claim|In steps|Differs from [^:]+|Repaired [^:]+):\s*")
ITEM = re.compile(r"^(\d+\.|-) ")
ARXIV = re.compile(r"\barXiv (\d{4}\.\d{4,5})")
FLAG = re.compile(r"(?<![\w`-])(--[a-z][a-z.-]*[a-z])")
CODE = re.compile(r"(`[^`]+`)")


def markdown(text: str | None, *, level: int = 2) -> str:
    """Turn a docstring into Markdown: labelled paragraphs get a heading, indented ones stay as they are.

    Args:
        text: the docstring, or None.
        level: of the headings.
    """
    parts = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text or "")):
        if block.startswith(" "):
            parts.append(f"```text\n{inspect.cleandoc(block)}\n```")
            continue
        if found := LABEL.match(block):
            parts.append(f"{'#' * level} {' '.join(found[1].split())}")
            block = block[found.end() :]
            block = block[:1].upper() + block[1:]
        lead, *items = re.split(r"\n(?=(?:\d+\.|-) )", block)
        if items and not ITEM.match(lead):
            parts.append(inline(lead))
            lead, *items = items
        parts.append("\n".join(map(inline, (lead, *items))))
    return "\n\n".join(part for part in parts if part.strip())


def halves(text: str | None) -> tuple[str, str]:
    """Split a docstring, but for its first line, into its plain paragraphs and those from a label on."""
    _, _, body = inspect.cleandoc(text or "").partition("\n\n")
    blocks = re.split(r"\n\s*\n", body)
    first = next((number for number, block in enumerate(blocks) if LABEL.match(block)), len(blocks))
    return "\n\n".join(blocks[:first]), "\n\n".join(blocks[first:])


def inline(text: str) -> str:
    """Escape what Markdown would misread, outside of code; name papers by links."""
    parts = CODE.split(text)
    for number in range(0, len(parts), 2):
        plain = re.sub(r"([\\*_<\[\]|])", r"\\\1", parts[number])
        plain = FLAG.sub(r"`\1`", plain)
        parts[number] = ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", plain)
    return "".join(parts)


def escaped(lines: Iterable[str]) -> list[str]:
    """Escape what reStructuredText would misread, but for examples; single backticks mean code."""
    found, example = [], False
    for line in lines:
        example = line.strip().startswith(">>>") or (example and bool(line.strip()))
        if example:
            found.append(line)
            continue
        parts = CODE.split(line)
        for number, part in enumerate(parts):
            if number % 2:
                parts[number] = f"`{part}`"  # followed by a letter it would not be code: "`x`s"
                if parts[number + 1][:1].isalnum():
                    parts[number] += "\\ "
            else:
                parts[number] = re.sub(r"([\\*|]|_(?=\W|$))", r"\\\1", part)
        found.append("".join(parts))
    return found


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a Markdown table; cells are Markdown of one line."""
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    lines = [list(head), ["---"] * len(list(head)), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(value: object) -> str:
    """Write a value as code."""
    return f"`{value}`"
