"""`study`: runs the cells of a recipe in order, here or in local processes, and gathers their rows."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import torch

from hardtack.errors import InputError
from hardtack.runs import Json, Watch
from hardtack.stages.common import one_process
from hardtack.storage import write_atomic
from hardtack.studies.calls import words
from hardtack.studies.cells import Cell
from hardtack.studies.contents import Contents
from hardtack.studies.grid import expand
from hardtack.studies.planning import plan
from hardtack.studies.reading import read
from hardtack.studies.recipe import Recipe
from hardtack.studies.results import Committed, Results, hardware_name
from hardtack.studies.states import States
from hardtack.studies.verbs import common_of
from hardtack.studies.workers import Ended, opened

FORMAT = 1
"""Version of study.json."""
RECORD = "study.json"


def study(
    path: str | Path,
    *,
    out: str | Path | None = None,
    processes: int = 1,
    threads: int | None = None,
    keep_weights: bool = False,
    write_results: bool = False,
    watch: Watch | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run a recipe; the same command again continues where it stopped, and skips what is done.

    A cell that fails does not stop the others; those that need it are left out, and both are in the result.

    Args:
        path: the recipe, a TOML file; its paths are relative to the working directory.
        out: the study's folder; by default runs/NAME.
        processes: how many cells run at a time: 1 in this process, more in local processes (a script that
            asks for them needs `if __name__ == "__main__":`).
        threads: of all processes together; by default torch's own in this process, else one a core.
        keep_weights: also keep the weights that no later stage needs.
        write_results: write rows, and outcomes without texts, to the recipe's folder of results.
        watch: receives progress.
        dry_run: return a plan instead: stages, seconds, bytes and the commands that do the same.
    """
    one_process("study")
    if processes < 1 or (threads is not None and threads < 1):
        raise InputError(f"processes {processes}, threads {threads}; allowed: 1 or more")
    recipe = read(path)
    folder = Path(out or Path("runs") / recipe.name)
    cells = expand(recipe, folder, Contents())
    each = _threads_each(processes, threads)
    committed = Committed(Path(recipe.results) / recipe.name / hardware_name(_device(cells), each))
    states = States(cells, committed.rows, keep_weights=keep_weights)
    record, states.stale = _record(recipe, cells, folder)
    if dry_run:
        return plan(cells, states, processes=processes)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(f"--out {folder} is in use by another process; wait or choose another") from None
    try:
        began = time.perf_counter()
        for path in folder.glob(".*.part"):  # of a study that was killed while it wrote
            path.unlink()
        states.reopen()  # before the record says that these are their cells
        write_atomic(folder / "study.toml", recipe.text)
        write_atomic(folder / RECORD, json.dumps(record, indent=1) + "\n")
        results = Results(folder, states, committed, recipe.variables)
        work = Work(cells, states, results, recipe.name, watch)
        try:
            work.run(processes, each, folder / "workers.log")
        finally:  # also where somebody pressed Ctrl-C
            results.write_outcomes()
        if write_results:
            results.commit()
        return {
            "kind": "study",
            "name": recipe.name,
            "folder": str(folder),
            "cells": len(cells),
            "ran": work.ran,
            "failed": list(work.failed.values()),
            "not_run": work.not_run,
            "rows": len(results.rows()),
            "results": str(committed.folder) if write_results else None,
            "seconds": round(time.perf_counter() - began, 3),
        }
    finally:
        lock.release()


class Work:
    """Starts cells as soon as what they need is there, and keeps what happened."""

    def __init__(self, cells: list[Cell], states: States, results: Results, name: str, watch: Watch | None):
        self.cells, self.states, self.results, self.name = cells, states, results, name
        self.watch = watch or (lambda label, done, total: None)
        self.bars: dict[tuple[str, str], int] = {}  # of running cells: (place, label) -> total
        self.ran: list[str] = []
        self.failed: dict[str, dict[str, Json]] = {}
        self.not_run: list[str] = []

    def run(self, processes: int, threads: int, log: Path) -> None:
        """Run everything that has to run."""
        self.settle()
        queue = self.states.to_run()
        self.total = len(queue)
        running: dict[str, Cell] = {}
        with opened(processes, threads, log, self.tick) as slots:
            while queue or running:
                self.watch(f"{self.name}: cells", self.total - len(queue) - len(running), self.total)
                while slots.free() and (cell := self.ready(queue)) is not None:
                    queue.remove(cell)
                    self.states.prepare(cell)
                    running[cell.place] = cell
                    slots.start(cell)
                if not running:  # what is left needs something that failed
                    self.not_run = [cell.place for cell in queue]
                    break
                for ended in slots.ended():
                    self.end(running.pop(ended.place), ended)
        self.watch(f"{self.name}: cells", self.total - len(self.not_run), self.total)

    def ready(self, queue: list[Cell]) -> Cell | None:
        """Return the first cell whose needs are met."""
        return next((cell for cell in queue if not self.states.missing(cell)), None)

    def end(self, cell: Cell, ended: Ended) -> None:
        """Note how a cell ended, and write what that changes."""
        for place, label in [known for known in self.bars if known[0] == cell.place]:
            total = self.bars.pop((place, label))
            self.watch(f"{place}: {label}", total, total)
        if ended.line is None:
            self.ran.append(cell.place)
        else:
            facts = {"place": cell.place, "stage": cell.stage, "line": ended.line, "ours": ended.ours}
            self.failed[cell.place] = facts
            if ended.trace and ended.ours:
                with open(self.results.folder / "failures.log", "a") as stream:
                    stream.write(f"{cell.place}\n{ended.trace}\n")
            self.watch(f"{self.name}: failed", len(self.failed), self.total + 1)
        self.settle()

    def settle(self) -> None:
        """Write rows and failures, then remove the weights that are not needed any more."""
        write_atomic(self.results.folder / "failed.json", json.dumps(list(self.failed.values())) + "\n")
        self.results.write_rows()
        self.states.remove_idle()

    def tick(self, place: str, label: str, done: int, total: int) -> None:
        """Pass the progress of one cell on, under its name."""
        self.bars[place, label] = total
        if done >= total:
            del self.bars[place, label]
        self.watch(f"{place}: {label}", done, total)


def _threads_each(processes: int, threads: int | None) -> int:
    """Return the threads of one process."""
    if threads is None:
        if processes == 1:
            return torch.get_num_threads()
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, threads // processes)


def _device(cells: list[Cell]) -> str:
    """Return the device that the evaluations run on."""
    last = next((cell for cell in reversed(cells) if cell.verb.name == "evaluate"), cells[-1])
    return common_of(last.settings).place()


def _record(recipe: Recipe, cells: list[Cell], folder: Path) -> tuple[dict[str, Json], set[str]]:
    """Return the resolved recipe, as study.json, and the places of evaluations that want other rows now.

    Raises:
        InputError: when the folder holds another study or other files, or a cell's folder holds a run of
            other settings.
    """
    record = folder / RECORD
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; a study needs a folder of its own")
    old: Mapping[str, Any] = {}
    if record.is_file():
        try:
            old = json.loads(record.read_text(encoding="utf-8"))
            name = old["name"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{record} cannot be read; choose another --out or remove that file") from None
        if name != recipe.name:
            raise InputError(f"--out {folder} holds another study ({name!r}); choose another folder")
    elif folder.exists() and any(path.name != ".lock" for path in folder.iterdir()):
        raise InputError(f"--out {folder} holds files that are not a study's; allowed: a new or empty folder")
    known = {**old.get("earlier", {}), **{cell["place"]: cell["id"] for cell in old.get("cells", [])}}
    stale: set[str] = set()
    for cell in cells:
        if known.get(cell.place, cell.id) == cell.id or not (cell.folder / "recipe.json").is_file():
            continue
        if cell.verb.name == "evaluate":  # rows of one target may come from several commands
            stale.add(cell.place)
        else:
            recipe.wrong(
                f"{cell.folder} holds the run of other settings (cell {known[cell.place]}, this one is "
                f"{cell.id}): the recipe or its data have changed; remove that folder or choose another --out"
            )
    now = {cell.place for cell in cells}
    gone = {place: id for place, id in known.items() if place not in now and (folder / place).exists()}
    return {
        "format": FORMAT,
        "name": recipe.name,
        "file": str(recipe.file),
        "cells": [
            {
                "id": cell.id,
                "stage": cell.stage,
                "verb": cell.verb.name,
                "axes": dict(cell.axes),
                "place": cell.place,
                "settings": dict(cell.settings),
                "needs": list(cell.needs),
                "command": words(cell.verb, cell.settings, out=cell.folder),
            }
            for cell in cells
        ],
        "earlier": gone,
    }, stale
