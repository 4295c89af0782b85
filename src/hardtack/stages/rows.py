"""The rows and outcomes that `evaluate` leaves in its folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hardtack.evaluation.attacks.protocol import Outcome
from hardtack.runs import write_atomic


class Rows:
    """The rows and outcomes of a folder; a row with the same id is replaced, never doubled."""

    def __init__(self, folder: Path):
        self.rows, self.outcomes = folder / "rows.jsonl", folder / "outcomes.jsonl"

    def all(self) -> list[dict[str, Any]]:
        """Return every row, in the order in which they were first written."""
        return [json.loads(line) for line in self.rows.read_text().splitlines()] if self.rows.exists() else []

    def ids(self) -> set[str]:
        """Return the ids of the rows that are there."""
        return {row["id"] for row in self.all()}

    def put(self, row: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
        """Write a row with its outcomes: the outcomes first, so that a row never stands without them."""
        if outcomes:
            lines = self.outcomes.read_text().splitlines() if self.outcomes.exists() else []
            kept = [line for line in lines if json.loads(line)["row"] != row["id"]]
            fresh = [
                json.dumps({"row": row["id"], **outcome._asdict()}, ensure_ascii=False)
                for outcome in outcomes
            ]
            write_atomic(self.outcomes, "".join(f"{line}\n" for line in [*kept, *fresh]))
        rows = [other for other in self.all() if other["id"] != row["id"]] + [row]
        write_atomic(self.rows, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows))
