"""Says what `ship` found: the candidates beside the dense model, which was chosen, and where it lies."""

from textwrap import fill
from typing import Any

from hardtack.reports.scorecard import counted
from hardtack.reports.text import byte_text, table

Facts = dict[str, Any]


def shipped_text(result: Facts) -> str:
    """Render the table of candidates and the lines about the chosen one."""
    lines = [result["dense"], *result["candidates"]]
    attacks = list(result["dense"]["under_attack"])
    rows = [_row(facts, attacks, result["chosen"]) for facts in lines]
    head = ("model", "parameters", "disk", "ms", "clean", *(f"under {name}" for name in attacks), "limits")
    limits = ", ".join(f"{name} {value:g}" for name, value in result["limits"].items() if value is not None)
    tested = result["test"]
    left = "".join(f", {rate:.3f} under {name}" for name, rate in tested["under_attack"].items())
    tokens = result["dense"]["latency_tokens"]
    return "\n".join(
        [
            table(head, rows, right=range(1, 5 + len(attacks))),
            f"all on validation; ms: one forward of one text of {tokens} tokens; limits: {limits or 'none'}",
            f"chosen: {result['chosen']}; on test, read once: {tested['accuracy']:.3f} clean{left}",
            f"model: {result['model']}",
            f"report: {result['report']}",
            *(fill(f"note: {note}", 110, subsequent_indent="  ") for note in result.get("notes", ())),
        ]
    )


def _row(facts: Facts, attacks: list[str], chosen: str) -> list[str]:
    under = [f"{facts['under_attack'][name]:.3f}" for name in attacks]
    size = "-" if facts["disk_bytes"] is None else byte_text(facts["disk_bytes"])
    met = "chosen" if facts["name"] == chosen else "met" if facts["meets"] else "missed"
    costs = [counted(facts["parameters"]), size, f"{facts['latency_ms']:.2f}"]
    return [facts["name"], *costs, f"{facts['accuracy']:.3f}", *under, met]
