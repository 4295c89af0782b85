"""Tables of result rows: one line a row, or the card with one line a model."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from hardtack.reports.folders import Row
from hardtack.reports.text import WIDTH, byte_text, rate_text, second_text, table
from hardtack.stats import Interval, proportion


def rows_text(rows: Iterable[Row], explain: Mapping[str, str] | None = None) -> str:
    """Render result rows: clean, and under attack with its Wilson interval; then the flags.

    Args:
        rows: as in rows.jsonl.
        explain: flag -> what it means.
    """
    rows = list(rows)
    where = [] if len({row.get("task") for row in rows}) < 2 else ["task"]
    texts = [row for row in rows if row.get("perplexity") is not None]
    cells, flags = [], []
    for row in rows:
        what = [row.get("method"), sparsity_text(row.get("sparsity")), *(row.get(name) for name in where)]
        what += [row.get("split"), row.get("attack") or "clean"]
        numbers = [] if not texts else [f"{row['perplexity']:.2f}" if row in texts else None]
        if len(texts) < len(rows):
            queries = row.get("mean_queries")
            numbers += [rate_text(row.get("clean_accuracy")), interval_text(row, "accuracy_under_attack")]
            numbers.append(None if queries is None else f"{queries:.1f}")
        cells.append([*what, row.get("examples"), *numbers])
        flags += row.get("flags") or ()
    rates = ("clean", "under attack [95%]", "queries") if len(texts) < len(rows) else ()
    measured = ("n", *(["perplexity"] if texts else ()), *rates)
    head = ("method", "sparsity", *where, "split", "attack", *measured)
    notes = [f"flag {flag}: {(explain or {}).get(flag, '')}".rstrip(": ") for flag in dict.fromkeys(flags)]
    return "\n".join(
        [
            table(head, cells, right=(1, *range(len(head) - len(measured), len(head)))),
            *(f"\n{cases}" for row in rows for cases in cases_text(row)),
            *(textwrap.fill(note, WIDTH) for note in notes),
        ]
    )


def cases_text(row: Row) -> list[str]:
    """Render the accuracy for each value of each column by which a row is broken down."""
    return [
        table(
            (column, "n", "accuracy [95%]"),
            [
                (value, one["examples"], rate_text(one["accuracy"], *_wilson_ends(one)))
                for value, one in values.items()
            ],
            right=(1, 2),
        )
        for column, values in (row.get("by") or {}).items()
    ]


def _wilson_ends(one: Row) -> tuple[float, float]:
    interval = proportion(round(one["accuracy"] * one["examples"]), one["examples"])
    return interval.low, interval.high


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


def card(result: Row) -> Row:
    """Gather the demo's lines, one a model, into what the card shows.

    Args:
        result: what `stages.demo` returns; each of its `lines` is one model with its `rows`.
    """
    lines = []
    for line in result["lines"]:
        attacked = {
            row["attack"]: wilson(row, "accuracy_under_attack") for row in line["rows"] if row["attack"]
        }
        size = line["rows"][0]["disk_bytes"] if line["ticket_bytes"] is None else line["ticket_bytes"]
        lines.append(
            {
                "name": line["name"],
                "sparsity": line["sparsity"] or 0.0,
                "bytes": size,
                "clean": next(row["clean_accuracy"] for row in line["rows"] if row["attack"] is None),
                "under_attack": {name: list(interval) for name, interval in attacked.items() if interval},
                "seconds": sum(
                    line[name] or 0.0 for name in ("search_seconds", "train_seconds", "attack_seconds")
                ),
            }
        )
    examples = sorted({row["examples"] for line in result["lines"] for row in line["rows"] if row["attack"]})
    return {"lines": lines, "examples": examples, "note": result["note"], "seconds": result["seconds"]}


def card_text(result: Row) -> str:
    """Render the demo's card: a line a model with sparsity, size, clean and attacked accuracy, seconds."""
    found = card(result)
    attacks = list(dict.fromkeys(name for line in found["lines"] for name in line["under_attack"]))
    cells = []
    for line in found["lines"]:
        under = [line["under_attack"].get(name) for name in attacks]
        shown = [None if one is None else f"{one[0]:.2f} [{one[1]:.2f}, {one[2]:.2f}]" for one in under]
        size = None if line["bytes"] is None else byte_text(line["bytes"])
        what = [line["name"], sparsity_text(line["sparsity"]), size, f"{line['clean']:.3f}"]
        cells.append([*what, *shown, f"{line['seconds']:.0f}"])
    head = ("model", "sparsity", "size", "clean", *attacks, "seconds")
    examples = ", ".join(map(str, found["examples"]))
    return "\n".join(
        [
            table(head, cells, right=range(1, len(head))),
            "clean: accuracy on the whole test split; attacks: accuracy left under attack, 95% interval,",
            f"on the same {examples} examples for every model",
            "size: a model's folder, or a ticket without its base; seconds: search, training and attacks",
            f"{found['note']}; {second_text(found['seconds'])} in all; everything is in {result['folder']}",
        ]
    )
