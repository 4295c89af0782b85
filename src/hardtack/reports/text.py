"""Renders tables as plain monospaced text that is readable at 100 columns and pastes as Markdown."""

import io
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

WIDTH = 100
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Container[int] = ()) -> str:
    """Render rows of cells under a head; the columns whose numbers are in `right` are set flush right.

    None becomes "-"; where 100 columns are too few, the columns of words are folded.

    >>> print(table(("name", "n"), [("a", "10"), ("b", None)], right=(1,)))
    | name |  n |
    |------|----|
    | a    | 10 |
    | b    |  - |
    """
    from rich.box import MARKDOWN
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=MARKDOWN)
    for place, name in enumerate(head):
        numbers = place in right
        grid.add_column(Text(name), justify="right" if numbers else "left", overflow="fold", no_wrap=numbers)
    for row in rows:
        grid.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    # Text cells, no colours and a fixed width: the same characters on every terminal and in every file.
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False, emoji=False)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())


def byte_text(count: float) -> str:
    """Write a number of bytes with a unit of a thousand: 1234567 -> "1.2 MB"."""
    size, unit = float(count), 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 or size >= 99.95 else f"{size:.1f} {UNITS[unit]}"


def second_text(seconds: float) -> str:
    """Write a duration: 3.2 s, 4 min 10 s, 2 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate_text(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Write a rate with its interval, where it has one: 0.880 [0.828, 0.918]."""
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def signed_text(value: float, low: float, high: float) -> str:
    """Write a difference with its sign and interval: +0.120 [+0.060, +0.180]."""
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def soup_text(result: Mapping[str, Any]) -> str:
    """Render which models joined a soup, in the order in which they were tried, and with which scores."""
    head, said = ("model", "alone", "soup with it", "joined"), {True: "yes", False: "no"}
    rows = [
        (one["model"], *(rate_text(one[name]) for name in ("score", "score_with_it")), said[one["joined"]])
        for one in result["ingredients"]
    ]
    scored = result["scored_by"].replace("_", " ")
    return f"{table(head, rows, right=(1, 2))}\n{scored} on validation of the result: {result['score']:.3f}"


def facts_text(facts: Mapping[str, Any]) -> str:
    """Render names and values as a table of two columns, the parts of a nested dict line by line."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= (
            {f"{name}.{part}": inner for part, inner in value.items()}
            if isinstance(value, Mapping)
            else {name: value}
        )
    return table(("name", "value"), [(name, fact(name, value)) for name, value in flat.items()])


def fact(name: str, value: Any) -> str:
    """Write one value for a table of facts: bytes and seconds with a unit, nested values as JSON."""
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if isinstance(value, bool | str):
        return str(value)
    if not isinstance(value, int | float):
        return json.dumps(value, ensure_ascii=False)
    if name.endswith("bytes"):
        return byte_text(value)
    if name.endswith("seconds"):
        return second_text(value)
    if isinstance(value, int):
        return f"{value:,}" if name.rpartition(".")[2] not in ("seed", "head_seed", "format") else str(value)
    return f"{value:.4g}"
