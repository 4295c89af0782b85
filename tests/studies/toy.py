"""A working folder for studies: a toy model, a task as CSV files, and a recipe that takes seconds."""

import json
from pathlib import Path

from tests.toys import saved_toy, toy_task

RECIPE = """
[common]
task = "task"
device = "cpu"
batch_size = 16

[grid]
seed = [0, 1]

[[stage]]
name = "dense"
verb = "train"
model = "tiny"
epochs = 1
lr = 1e-3

[[stage]]
name = "tickets"
verb = "search"
method = "random"
model = "tiny"
from = "@dense"
grid = {sparsity = [0.3, 0.5]}

[[stage]]
name = "subnets"
verb = "retrain"
ticket = "@tickets"
epochs = 1
lr = 1e-3

[[stage]]
name = "attacked"
verb = "evaluate"
target = ["@dense", "@subnets"]
attack = ["deepwordbug"]
deepwordbug = {query_limit = 20}
examples = 6
"""
CELLS = 14
"""2 seeds x (dense, search, 2 retrainings, 3 evaluations)"""


def make_place(folder: Path) -> Path:
    """Fill a folder with what the recipe needs."""
    saved_toy(folder / "tiny")
    (folder / "task").mkdir()
    for split, data in toy_task().splits.items():
        lines = [f"{text},{label}\n" for (text,), label in zip(data.texts, data.labels, strict=True)]
        (folder / "task" / f"{split}.csv").write_text("text,label\n" + "".join(lines))
    (folder / "toy.toml").write_text(RECIPE)
    return folder


def rows_of(folder: Path) -> list[dict]:
    """Return a study's rows but for what is measured."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "measured"} for row in rows]


def weights(folder: Path) -> list[str]:
    """Return where weights lie, relative to a folder; a ticket's masks are none."""
    found = (path.relative_to(folder) for path in folder.rglob("model/*.safetensors"))
    return sorted(str(path.parent.parent) for path in found)
