"""Console examples in Markdown: what is typed (`$ ...`), what is shown below it, and where both stand."""

import re
from collections.abc import Iterator
from typing import NamedTuple

FENCE = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMPLAINT = re.compile(r"hardtack( \w+)?: ")  # the one line of exit status 2, or of Ctrl-C
INTERRUPT = "^C"


class Command(NamedTuple):
    """One command and the lines that the page shows below it."""

    line: str
    shown: tuple[str, ...]

    @property
    def interrupted(self) -> bool:
        """Whether the reader is told to press Ctrl-C."""
        return INTERRUPT in self.shown

    @property
    def status(self) -> int:
        """The exit status that the page promises: a line of complaint means 2, Ctrl-C 130."""
        if self.interrupted:
            return 130
        return 2 if any(COMPLAINT.match(line) for line in self.shown) else 0


class Block(NamedTuple):
    """One fence: its language, its text, and where that text starts and ends in the page."""

    language: str
    text: str
    start: int
    end: int


def blocks(page: str) -> Iterator[Block]:
    """Yield the console and Python fences of a page, in order."""
    for found in FENCE.finditer(page):
        yield Block(found[1], found[2], found.start(2), found.end(2))


def commands(text: str) -> list[Command]:
    """Split a console block into its commands."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    if parts[0].strip():
        raise ValueError(f"a console block starts with its output: {parts[0]!r}")
    lines = [part.splitlines() for part in parts[1:]]
    return [Command(line, tuple(shown)) for line, *shown in lines]
