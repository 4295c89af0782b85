"""The rows of a study, one file for all its evaluations, and the part of them that is committed.

`rows.jsonl` and `outcomes.jsonl` in the study's folder are always made from the cells' own files, in the
order of the expansion; so no row is lost or doubled, whatever was killed. Committed rows lie under
`docs/results/RECIPE/HARDWARE/` and stand for evaluations of the same id on such a machine.
"""

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hardtack import cost
from hardtack.errors import InputError
from hardtack.runs import Json
from hardtack.stages.rows import lines_of
from hardtack.storage import write_atomic
from hardtack.studies.cells import Cell
from hardtack.studies.states import States, result_of

Row = dict[str, Any]
LARGEST = 1_400_000  # bytes of a committed file of outcomes; a longer list goes into several
PART = 20_000  # outcomes compressed at a time, so that files are cut between lines
NO_TEXT = ("row", "id", "status", "queries")
"""What is committed of an outcome."""


def hardware_name(device: str, threads: int) -> str:
    """Return a folder's name for a kind of machine, e.g. "linux-intel-xeon-processor-1-threads"."""
    facts = {**cost.hardware(device), "threads": f"{threads} threads"}
    return re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, facts.values())).lower()).strip("-")


class Committed:
    """The rows and outcomes that are committed for one recipe and one kind of machine."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: dict[str, list[Row]] = {}  # cell id -> rows
        for number, line in enumerate(lines_of(folder / "rows.jsonl"), start=1):
            try:
                row = json.loads(line)
                self.rows.setdefault(row["cell"], []).append(row)
            except (ValueError, TypeError, KeyError):
                raise InputError(f"{folder / 'rows.jsonl'} line {number} is no row of a study") from None

    def outcomes(self) -> Iterator[Row]:
        """Yield the committed outcomes."""
        for file in sorted(self.folder.glob("outcomes-*.jsonl.gz")):
            yield from map(json.loads, gzip.decompress(file.read_bytes()).decode().split("\n")[:-1])

    def write(self, rows: Sequence[Row], outcomes: Iterable[Row]) -> None:
        """Write rows and outcomes; what was committed of cells that the recipe no longer has stays, last.

        The same rows and outcomes give the same bytes.
        """
        known, ids = {row["cell"] for row in rows}, {row["id"] for row in rows}
        older = [row for id, many in self.rows.items() if id not in known for row in many]
        kept = [line for line in self.outcomes() if line["row"] in {row["id"] for row in older} - ids]
        lines = [_line({name: line[name] for name in NO_TEXT}) for line in [*outcomes, *kept]]
        self.folder.mkdir(parents=True, exist_ok=True)
        files = _compressed(list(dict.fromkeys(lines)))
        once = {(row["cell"], row["id"]): row for row in reversed([*rows, *older])}  # cells may share an id
        for number, content in enumerate(files):
            write_atomic(self.folder / f"outcomes-{number:03}.jsonl.gz", content)
        for file in self.folder.glob("outcomes-*.jsonl.gz"):
            if int(file.name[9:12]) >= len(files):
                file.unlink()
        write_atomic(self.folder / "rows.jsonl", "".join(map(_line, reversed(once.values()))))


def _compressed(lines: Sequence[str]) -> list[bytes]:
    """Compress lines into files of at most LARGEST bytes; without a time, equal lines give equal bytes."""
    files: list[bytes] = []
    for start in range(0, len(lines), PART):
        part = gzip.compress("".join(lines[start : start + PART]).encode(), mtime=0)
        if files and len(files[-1]) + len(part) <= LARGEST:
            files[-1] += part  # members of one gzip file
        else:
            files.append(part)
    return files


class Results:
    """Gathers the rows and outcomes of a study's evaluations.

    Args:
        folder: the study's.
        states: says which cells are done.
        committed: what stands for cells that are not.
        typed: text as it stands in settings -> as it was typed, with its $VARIABLES.
    """

    def __init__(self, folder: Path, states: States, committed: Committed, typed: Mapping[str, str]):
        self.folder, self.states, self.committed, self.typed = folder, states, committed, typed

    def rows(self) -> list[Row]:
        """Return all rows in the order of the expansion, each with its cell, stage and axes."""
        return [row for cell in self.states.cells.values() for row in self._rows_of(cell)]

    def outcomes(self) -> Iterator[Row]:
        """Yield the outcomes of all rows, once for each row id; those of committed rows have no texts."""
        committed: dict[str, list[Row]] = {}
        if any(self._is_committed(cell) for cell in self.states.cells.values()):
            for line in self.committed.outcomes():
                committed.setdefault(line["row"], []).append(line)
        seen: set[str] = set()
        for cell in self.states.cells.values():
            fresh = {row["id"] for row in self._rows_of(cell)} - seen
            seen |= fresh
            if self.states.done(cell):
                lines = map(json.loads, lines_of(cell.folder / "outcomes.jsonl"))
            else:
                lines = iter([line for id in sorted(fresh) for line in committed.get(id, ())])
            yield from (line for line in lines if line["row"] in fresh)

    def write_rows(self) -> None:
        """Write the rows of what is done."""
        write_atomic(self.folder / "rows.jsonl", "".join(map(_line, self.rows())))

    def write_outcomes(self) -> None:
        """Write the outcomes of what is done; they are many, so this is for the end."""
        write_atomic(self.folder / "outcomes.jsonl", "".join(map(_line, self.outcomes())))

    def commit(self) -> None:
        """Write what can be committed."""
        self.committed.write(self.rows(), self.outcomes())

    def _is_committed(self, cell: Cell) -> bool:
        return cell.verb.name == "evaluate" and not self.states.done(cell) and cell.id in self.committed.rows

    def _rows_of(self, cell: Cell) -> list[Row]:
        facts = {"cell": cell.id, "stage": cell.stage, "axes": dict(cell.axes)}
        if self._is_committed(cell):  # another recipe's name for the same cell may have written it
            return [{**row, **facts} for row in self.committed.rows[cell.id]]
        if cell.verb.name != "evaluate" or not self.states.done(cell):
            return []
        result = result_of(cell)
        root = result["folder"].removesuffix(cell.place).rstrip("/")
        attacks = [None, *(cell.settings.get("attack") or ())]  # rows may have been added one by one
        rows = sorted(result["rows"], key=lambda row: attacks.index(row["attack"]))
        recipe = json.loads((cell.folder / "recipe.json").read_text(encoding="utf-8"))
        program = {**recipe["versions"], "commit": recipe["commit"]}
        more = {"spent": self._spent(cell), "program": program}
        portable = [self._portable(row, root) for row in rows]
        return [{**facts, **row, "measured": {**row["measured"], **more}} for row in portable]

    def _spent(self, cell: Cell) -> list[Row]:
        """Return what making the cell's model took: the stages before it, each once, with passes and seconds.

        A pass is one forward and backward of a batch. Looks at validation are not in the seconds.
        """
        found: dict[str, Row] = {}
        for place in cell.needs:
            before = self.states.cells[place]
            found |= {one["place"]: one for one in self._spent(before)}
            result = result_of(before)
            facts = {"place": place, "stage": before.stage, "verb": before.verb.name}
            found[place] = {**facts, "passes": result.get("passes", 0), "seconds": result["seconds"]}
        return list(found.values())

    def _portable(self, value: Json, root: str) -> Json:
        """Return a row whose paths are relative to the study, or as they were typed: no machine's."""
        if isinstance(value, dict):
            return {name: self._portable(inner, root) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._portable(inner, root) for inner in value]
        if not isinstance(value, str):
            return value
        for known, shown in ((f"{root}/", ""), *((name, self.typed[name]) for name in self.typed)):
            if value == known or value.startswith(known if known.endswith("/") else f"{known}/"):
                return shown + value.removeprefix(known)
        return value


def _line(value: Row) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
