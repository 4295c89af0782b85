"""Writes a page as Markdown for a wiki or a pull request, or its rows as CSV for a spreadsheet."""

import csv
import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hardtack.reports.blocks import (
    Attacked,
    Block,
    Cell,
    Checks,
    Commands,
    Figures,
    Findings,
    Items,
    Sentences,
    Table,
    Text,
)
from hardtack.reports.table import wilson

if TYPE_CHECKING:
    from hardtack.reports.page import Page

COLUMNS = (
    "id", "task", "split", "attack", "shifted_from", "examples", "seed", "trained_seed", "method",
    "objective", "epochs", "epoch_rule", "granularity", "sparsity", "prunable", "parameters", "flops",
    "disk_bytes", "clean_accuracy", "perplexity", "accuracy_under_attack", "attack_success_rate",
    "mean_queries", "data_fingerprint",
)  # fmt: skip
RATES = ("clean_accuracy", "accuracy_under_attack")
MEASURED = ("latency_ms", "seconds", "memory_bytes")


def csv_text(page: "Page") -> str:
    """Write one line a row: model, what was measured, rates with their Wilson interval, costs, flags."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    bounds = [f"{name}_{side}" for name in RATES for side in ("low", "high")]
    writer.writerow(["model", *COLUMNS, *bounds, *MEASURED, "flags"])
    for model in page.models:
        for entry in model.entries:
            row = entry.row
            intervals = [wilson(row, name) for name in RATES]
            ends = [
                end for one in intervals for end in ((None, None) if one is None else (one.low, one.high))
            ]
            known = [
                *(row.get(name) for name in COLUMNS),
                *ends,
                *(row["measured"].get(name) for name in MEASURED),
            ]
            writer.writerow(
                [_safe(value) for value in [model.label, *known, " ".join(map(str, row["flags"]))]]
            )
    return stream.getvalue()


def _safe(value: object) -> object:
    """Keep a spreadsheet from taking a text for a formula."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def markdown(page: "Page") -> str:
    """Write the page as Markdown; plots become their reading and their numbers."""
    parts = [f"# {_line(page.title)}", _line(page.lead)]
    for section in page.sections:
        parts.append(f"## {section.title}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text():
            return _line(block.text)
        case Items():
            return _list(map(_line, block.items))
        case Findings():
            return _list(
                f"**{_line(f.question)}**: {_line(f.answer)}. {_line(f.detail)}" for f in block.findings
            )
        case Checks():
            marks = {True: "yes", False: "careful"}
            return _list(f"{marks[c.good]}: **{c.what}**: {_line(c.text)}" for c in block.checks)
        case Table():
            return _table(block)
        case Figures():
            shown = (
                f"### {_line(f.title)}\n\n{_line(f.reading)}\n\n{_table(f.table)}" for f in block.figures
            )
            return "\n\n".join(shown)
        case Sentences():
            return "\n\n".join([f"### {_line(block.title)}", *map(_example, block.examples)])
        case Commands():
            return "\n\n".join(
                f"{_line(c.title)} ({'; '.join(map(_line, c.facts))})\n\n{_fenced(c.words)}"
                for c in block.commands
            )


def _fenced(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())  # no fence, which a name could close


def _example(example: Attacked) -> str:
    lines = [_line(example.name)]
    for name, sides in (("before", example.before), ("after", example.after)):
        for side in sides:
            shown = "".join(f"**{_line(p.text)}**" if p.changed else _line(p.text, keep=True) for p in side)
            lines.append(f"{name}: {shown}")
    lines += [f"changed: {_line(change)}" for change in example.changes]
    return _list([*lines, *map(_line, example.fates)])


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(table: Table) -> str:
    rule = ["---:" if place in table.right else "---" for place in range(len(table.head))]
    lines = [
        [_line(name) for name in table.head],
        rule,
        *([_cell(cell) for cell in row] for row in table.rows),
    ]
    return "\n".join([_line(table.caption), "", *(f"| {' | '.join(line)} |" for line in lines)])


def _cell(cell: Cell) -> str:
    note = f" ({cell.note})" if cell.note else ""
    return _line(" ".join(part for part in (cell.text, *cell.links) if part) + note)


def _line(text: str, *, keep: bool = False) -> str:
    """Keep a text on one line and from meaning anything to Markdown or HTML."""
    escaped = "".join(f"\\{letter}" if letter in "\\`*_{}[]<>|#~" else letter for letter in text)
    joined = " ".join(escaped.split())
    if keep:
        joined = (
            (" " if escaped[:1].isspace() else "")
            + joined
            + (" " if escaped[-1:].isspace() and joined else "")
        )
    return joined
