"""Small real commands of every verb that works long, to be killed, starved and run twice.

`made` lays out what they read: a toy model, its task as files and a neighbour table. `whole` is the
uninterrupted run of one of them. To have another verb killed and starved too, add a line to COMMANDS.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from tests.forked import forked
from tests.kills import run_killed
from tests.toys import saved_toy, toy_task

Words = list[str | Path]
STUDY = """
[common]
task = "{place}/task"
device = "cpu"
save_seconds = 0.3
batch_size = 8
[[stage]]
name = "dense"
verb = "train"
model = "{place}/tiny"
epochs = 6
lr = 1e-3
[[stage]]
name = "tickets"
verb = "search"
model = "{place}/tiny"
from = "@dense"
grid = {{method = ["hard_concrete", "random"], sparsity = [0.3]}}
hard_concrete.epochs = 4
[[stage]]
name = "subnets"
verb = "retrain"
ticket = "@tickets"
epochs = 3
[[stage]]
name = "attacked"
verb = "evaluate"
target = ["@dense", "@subnets"]
attack = ["deepwordbug"]
examples = 8
"""
COMMON = ("--device", "cpu", "--save-seconds", "0.3", "--batch-size", "8")


def _trained(place: Path, out: Path) -> Words:
    fit = ("--epochs", "20", "--lr", "1e-3", "--epoch-rule", "best")
    return ["train", place / "tiny", *_data(place, out), *fit]


def _searched(place: Path, out: Path) -> Words:
    length = ("--epochs", "12", "--warm-epochs", "4", "--objective", "freelb", "--freelb.steps", "2")
    wanted = ("--sparsity", "0.3", "--sparsity", "0.5")
    return ["search", "hard_concrete", place / "tiny", *_data(place, out), *length, *wanted]


def _early(place: Path, out: Path) -> Words:
    """It stops by itself, long after its first saved states and long before its cap."""
    rule = ("--epochs", "40", "--lr", "1e-3", "--grid", "0.5", "--window", "4", "--threshold", "0.07")
    wanted = ("--sparsity", "0.3", "--sparsity", "head=0.5,neuron=0.4", "--freelb.steps", "2")
    return [
        "search",
        "early_bird",
        place / "tiny",
        *_data(place, out),
        *rule,
        "--objective",
        "freelb",
        *wanted,
    ]


def _rewound(place: Path, out: Path) -> Words:
    wanted = ("--epochs", "5", "--sparsity", "0.3", "--sparsity", "0.5")
    return ["search", "iterative", place / "tiny", *_data(place, out), *wanted]


def _retrained(place: Path, out: Path) -> Words:
    ticket = whole(place, "iterative") / "tickets" / "sparsity-0.3000"
    return ["retrain", ticket, *_data(place, out), "--epochs", "30", "--lr", "1e-3", "--epoch-rule", "best"]


def _evaluated(place: Path, out: Path) -> Words:
    attacks = ("--attack", "deepwordbug", "--attack", "word_swap", "--neighbours", place / "near.jsonl")
    return ["evaluate", whole(place, "train"), *_data(place, out), *attacks, "--examples", "24"]


def _studied(place: Path, out: Path) -> Words:
    recipe = place / "study.toml"
    if not recipe.exists():
        recipe.write_text(STUDY.format(place=place))
    return ["study", recipe, "--out", out]


def _pruned(place: Path, out: Path) -> Words:
    wanted = ("--calibration", "24", "--sparsity", "0.5", "--sparsity", "2:4", "--stream")
    return ["search", "retention", place / "tiny", *_data(place, out), *wanted]


COMMANDS: Mapping[str, Callable[[Path, Path], Words]] = MappingProxyType({
    "train": _trained,
    "search": _searched,
    "early_bird": _early,
    "iterative": _rewound,
    "retention": _pruned,
    "retrain": _retrained,
    "evaluate": _evaluated,
    "study": _studied,
})  # fmt: skip
"""Name -> the command that writes to a folder; one may read the `whole` run of another."""


def made(place: Path) -> Path:
    """Lay out what the commands read."""
    saved_toy(place / "tiny")
    (place / "task").mkdir()
    words = set()
    for split, data in toy_task().splits.items():
        pairs = zip(data.texts, data.labels, strict=True)
        rows = [{"text": text, "label": int(label)} for (text,), label in pairs]
        words |= {word for row in rows for word in row["text"].split()}
        (place / "task" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = [{"word": word, "neighbors": sorted(words - {word})[:6]} for word in sorted(words)]
    (place / "near.jsonl").write_text("".join(json.dumps(line) + "\n" for line in table))
    return place


def whole(place: Path, name: str) -> Path:
    """Return the folder of a command's uninterrupted run, which is made when it is first asked for."""
    out = place / name / "whole"
    if not out.exists():
        out.parent.mkdir(exist_ok=True)
        run_killed(COMMANDS[name](place, out), (), start=forked)
    return out


def _data(place: Path, out: Path) -> Words:
    return ["--task", place / "task", "--out", out, *COMMON]
