"""What of a study is done, what has to run for the rest, and which weights nobody needs any more."""

import json
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from hardtack.studies.cells import Cell
from hardtack.studies.verbs import TRAINED


class States:
    """The state of every cell, read from the folders each time it is asked for.

    Args:
        cells: all of them.
        committed: ids of evaluations whose rows are committed for this hardware.
        keep_weights: nothing is ever removed.
    """

    def __init__(self, cells: Iterable[Cell], committed: Collection[str], *, keep_weights: bool = False):
        self.cells = {cell.place: cell for cell in cells}
        self.committed, self.keep_weights = committed, keep_weights
        self.stale: set[str] = set()  # places of evaluations of which a changed recipe wants other rows
        self.readers = {  # who reads its results, and who needs its weights
            place: [other for other in self.cells.values() if place in {*other.needs, *other.weights}]
            for place in self.cells
        }

    def done(self, cell: Cell) -> bool:
        """Say whether the cell's results are there."""
        return cell.place not in self.stale and (cell.folder / "DONE").is_file()

    def weighs(self, cell: Cell) -> bool:
        """Say whether the cell's weights are there (a search's tickets are never removed)."""
        return self.done(cell) and (cell.verb.name not in TRAINED or bool(_weights(cell)))

    def finished(self, cell: Cell) -> bool:
        """Say whether nothing is left to do for the cell's own sake."""
        if cell.verb.name == "evaluate":
            return cell.id in self.committed or self.done(cell)
        if self.wanted(cell):
            return self.weighs(cell)
        return self.done(cell)

    def wanted(self, cell: Cell) -> bool:
        """Say whether the cell is a result of the study, not only a step towards one."""
        return cell.keep or not self.readers[cell.place]

    def reopen(self) -> None:
        """Let the evaluations that want other rows be run again; rows that are there stay."""
        for place in self.stale:
            (self.cells[place].folder / "DONE").unlink(missing_ok=True)
        self.stale = set()

    def to_run(self) -> list[Cell]:
        """Return the cells that have to run, in order: unfinished results, and what these need."""
        stack = [cell for cell in self.cells.values() if self.wanted(cell) and not self.finished(cell)]
        found: set[str] = set()
        while stack:
            cell = stack.pop()
            found.add(cell.place)
            stack += [other for other in self.missing(cell) if other.place not in found]
        return [cell for place, cell in self.cells.items() if place in found]

    def missing(self, cell: Cell) -> list[Cell]:
        """Return the cells that have to run before this one can."""
        results = [self.cells[place] for place in cell.needs]
        weights = [self.cells[place] for place in cell.weights]
        lost = [one for one in weights if not self.weighs(one)]
        return [*lost, *(one for one in results if not self.done(one) and one not in lost)]

    def prepare(self, cell: Cell) -> None:
        """Make room for a cell whose weights were removed: it is run anew and makes the same ones."""
        if self.done(cell) and not self.weighs(cell):
            shutil.rmtree(cell.folder)

    def remove_idle(self) -> None:
        """Remove the weights that no unfinished cell needs: those of steps, and of warm-ups."""
        if self.keep_weights:
            return
        needed = {place for cell in self.to_run() for place in cell.weights}
        for cell in self.cells.values():
            if cell.keep or not self.done(cell):
                continue
            if cell.verb.name == "search":
                _remove(cell.folder / "warm" / "model")
            elif cell.place not in needed and not self.wanted(cell):
                _remove(cell.folder / "model")

    def of(self, cell: Cell) -> str:
        """Return a cell's state in words."""
        if cell.verb.name == "evaluate" and not self.done(cell) and cell.id in self.committed:
            return "committed"
        if not self.done(cell):
            return "unfinished" if (cell.folder / "recipe.json").is_file() else "not started"
        return "done" if self.weighs(cell) else "done, weights removed"


def result_of(cell: Cell) -> dict:
    """Return what a finished cell said in its DONE file."""
    return json.loads((cell.folder / "DONE").read_text(encoding="utf-8"))


def _weights(cell: Cell) -> list[Path]:
    return list((cell.folder / "model").glob("*.safetensors"))


def _remove(model: Path) -> None:
    """Remove a model's weights; config, tokenizer, record and ticket stay."""
    for file in model.glob("*.safetensors"):
        file.unlink()
