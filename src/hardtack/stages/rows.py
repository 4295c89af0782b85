"""The rows and outcomes that `evaluate` leaves in its folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hardtack.evaluation.attacks.protocol import Outcome
from hardtack.storage import write_atomic


class Rows:
    """The rows and outcomes of a folder; a row with the same id is replaced, never doubled."""

    def __init__(self, folder: Path):
        self.rows, self.outcomes = folder / "rows.jsonl", folder / "outcomes.jsonl"

    def all(self) -> list[dict[str, Any]]:
        """Return every row, in the order in which they were first written."""
        return [json.loads(line) for line in lines_of(self.rows)]

    def ids(self) -> set[str]:
        """Return the ids of the rows that are there."""
        return {row["id"] for row in self.all()}

    def put(self, row: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
        """Write a row with its outcomes: the outcomes first, so that a row never stands without them."""
        if outcomes:
            kept = [line for line in lines_of(self.outcomes) if json.loads(line)["row"] != row["id"]]
            fresh = [
                json.dumps({"row": row["id"], **outcome._asdict()}, ensure_ascii=False)
                for outcome in outcomes
            ]
            write_atomic(self.outcomes, "".join(f"{line}\n" for line in [*kept, *fresh]))
        rows = {one["id"]: one for one in [*self.all(), row]}  # a replaced row keeps its place
        write_atomic(self.rows, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows.values()))


def lines_of(file: Path) -> list[str]:
    """Return a file's lines; none where there is no file.

    Not `splitlines`: texts may hold U+0085 or U+2028, at which that cuts too and JSON does not.
    """
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
