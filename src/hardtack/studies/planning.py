"""What a study would take: one plan for each shape of cell, on the model that its chain begins with."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hardtack.runs import Json
from hardtack.studies.calls import call, words
from hardtack.studies.cells import Cell
from hardtack.studies.states import States
from hardtack.studies.verbs import VERBS

STATES = ("done", "committed")
SAME_SHAPE = ("seed",)  # keys that change neither time nor disk


def plan(cells: Sequence[Cell], states: States, *, processes: int) -> dict[str, Any]:
    """Say what is done, what would run, how long that takes and how much disk, and the commands that do it.

    A stage whose input is not there yet is planned as if it began with the base: weights and masks change
    neither the time of a step nor the size of a file by much.

    Returns:
        `stages` (one entry each, with counts of cells), `seconds` (of all processes together, then divided),
        `bytes` (were nothing removed), and `commands`.
    """
    running = states.to_run()
    known: dict[str, Mapping[str, Json]] = {}
    stages = []
    for name in dict.fromkeys(cell.stage for cell in cells):
        mine = [cell for cell in cells if cell.stage == name]
        todo = [cell for cell in mine if cell in running]
        plans = [_plan(cell, known) for cell in todo]
        counts = {what: sum(states.of(cell).startswith(what) for cell in mine) for what in STATES}
        counts |= {"cells": len(mine), "to_run": len(todo)}
        said = [f"{count} {what}" for what, count in counts.items() if count and what in STATES]
        more = f" ({', '.join(said)})" if said else ""
        stages.append({
            "name": f"{name}: {len(todo)} of {len(mine)} cells to run{more}",
            "stage": name,
            **counts,
            "seconds": round(sum(one["seconds"] for one in plans), 1),
            "bytes": sum(one["bytes"] for one in plans),
        })  # fmt: skip
    return {
        "stages": stages,
        "cells": [{"place": c.place, "id": c.id, "state": states.of(c), "runs": c in running} for c in cells],
        "seconds": round(sum(stage["seconds"] for stage in stages) / processes, 1),
        "bytes": sum(stage["bytes"] for stage in stages),
        "commands": [shlex.join(words(c.verb, c.settings, out=c.folder)) for c in running],
    }


def _plan(cell: Cell, known: dict[str, Mapping[str, Json]]) -> Mapping[str, Json]:
    """Return the plan of a cell's shape, made by the stage itself."""
    # A teacher that is not there yet cannot be asked; its one pass is a small part of a training.
    left_out = ("base", "from", *(key for key in cell.settings if key.startswith("distil_")))
    settings = {key: value for key, value in cell.settings.items() if key not in left_out}
    verb = cell.verb
    times = 1
    if verb.name == "retrain":  # the dense model takes the same steps
        verb = VERBS["train"]
    if verb.name == "soup":  # each score takes what an evaluation on validation takes
        times = 1 if settings.get("uniform") else 2 * len(settings[verb.subject]) - 1
        verb = VERBS["evaluate"]
        settings = {key: value for key, value in settings.items() if key in verb.takes}
        settings["split"] = "validation"
    if "from" in cell.settings:
        settings["from"] = cell.root  # there is a model to start from, so no warm-up
    settings = {
        **{key: v for key, v in settings.items() if key != cell.verb.subject},
        verb.subject: cell.root,
    }
    shape = json.dumps(
        [verb.name, {k: v for k, v in settings.items() if k not in SAME_SHAPE}], sort_keys=True
    )
    if shape not in known:
        known[shape] = call(verb, settings, out=cell.folder, dry_run=True)
    return {**known[shape], "seconds": known[shape]["seconds"] * times}
