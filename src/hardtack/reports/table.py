"""Tables of result rows: one line a row, or the card with one line a model."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from hardtack.reports.folders import Row
from hardtack.reports.text import byte_text, rate_text, table
from hardtack.stats import Interval, proportion


def rows_text(rows: Iterable[Row]) -> str:
    """Render result rows: what was measured, clean, and under attack with its Wilson interval."""
    cells, flags = [], []
    for row in rows:
        cells.append((
            row.get("method"), sparsity_text(row.get("sparsity")), row.get("seed"), row.get("split"),
            row.get("attack") or "clean", row.get("examples"), rate_text(row.get("clean_accuracy")),
            interval_text(row, "accuracy_under_attack"),
            None if row.get("mean_queries") is None else f"{row['mean_queries']:.1f}",
        ))  # fmt: skip
        flags += [f"flag: {flag}" for flag in row.get("flags") or ()]
    head = ("method", "sparsity", "seed", "split", "attack", "n", "clean", "under attack", "queries")
    return "\n".join([table(head, cells, right=(1, 2, 5, 6, 7, 8)), *dict.fromkeys(flags)])


def wilson(row: Row, name: str) -> Interval | None:
    """Return the 95% Wilson interval of a rate of a row over the row's examples, if it has that rate."""
    if row.get(name) is None:
        return None
    return proportion(round(row[name] * row["examples"]), row["examples"])


def interval_text(row: Row, name: str) -> str:
    """Write a rate of a row with its 95% Wilson interval."""
    interval = wilson(row, name)
    return "-" if interval is None else rate_text(row[name], interval.low, interval.high)


def sparsity_text(sparsity: Any) -> str:
    """Write a sparsity: a fraction with two decimals, anything else as it is."""
    if isinstance(sparsity, float | int):
        return f"{sparsity:.2f}"
    return "-" if sparsity is None else str(sparsity)


def card(rows: Sequence[Row]) -> Row:
    """Gather rows into one line a model: clean over the whole split, and under each attack."""
    names = ("method", "objective", "sparsity", "model", "ticket", "seed")
    lines: dict[str, Row] = {}
    for row in rows:
        what = {name: row.get(name) for name in names}
        line = lines.setdefault(json.dumps(what, default=str), {**what, "clean": None, "attacks": {}})
        line["disk_bytes"] = row.get("disk_bytes")
        if row.get("attack"):
            line["attacks"][row["attack"]] = row
        else:
            line["clean"] = row
    return {
        "lines": list(lines.values()),
        "attacks": list(dict.fromkeys(row["attack"] for row in rows if row.get("attack"))),
        "seeds": len({row.get("seed") for row in rows}),
    }


def card_text(result: Row) -> str:
    """Render the demo's card."""
    found = card(result["rows"])
    cells = []
    for line in found["lines"]:
        clean = line["clean"] or next(iter(line["attacks"].values()))
        size = None if line["disk_bytes"] is None else byte_text(line["disk_bytes"])
        under = [
            interval_text(line["attacks"].get(attack, {}), "accuracy_under_attack")
            for attack in found["attacks"]
        ]
        what = [line["method"], line["objective"], sparsity_text(line["sparsity"]), size]
        cells.append([*what, rate_text(clean["clean_accuracy"]), *under])
    head = ("method", "objective", "sparsity", "size", "clean", *found["attacks"])
    return table(head, cells, right=range(2, len(head)))
