"""Is the early stop real? The mask at the stop beside the mask of the whole epoch, and what chance gives.

    python bench/early_stop.py MODEL TASK [--seeds 3] [--train-examples 2000] [--runs runs/early_stop]
        [--out docs/results/early_stop]

The settings are those of `recipes/early_bird_sst2_small.toml`: FreeLB with five passes, half of the heads and
neurons, the default stop rule. For each seed there are five searches: until the rule stops and over the whole
epoch, with the labels as they are and with those of the drawn training examples shuffled among them; and one
over three epochs. An overlap is the share of the units that one mask keeps which the other keeps, too. Chance
is the overlap of random masks of the same counts; the shuffled labels say how much of a mask comes from the
texts alone. A search's learning rate falls to 0 at its planned end, so that a mask shortly before it is the
last one nearly by construction: the search over three epochs, whose rate is another one at every step, is the
harder comparison. Searches lie in `--runs` and go on where they were; written are `overlaps.csv` and
`overlaps.md`.
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
import torch
from torch import Tensor
from transformers.utils import logging

from hardtack.cost import hardware
from hardtack.loading import load
from hardtack.methods.early_bird import EarlyBird
from hardtack.runs import commit
from hardtack.select import Sparsity, draw
from hardtack.stages import Common, search
from hardtack.tasks.text import load_task
from hardtack.ticket import Ticket
from hardtack.training.adversarial import FreeLB

KINDS = ("head", "neuron")
HALF = Sparsity.parse("0.5")
CHANCES = 200
"""Random masks that chance is the mean of."""
SEARCHES = (
    ("true", "early"),
    ("true", "full"),
    ("true", "long"),
    ("shuffled", "early"),
    ("shuffled", "full"),
)
PAIRS = (
    ("at the stop, whole epoch", ("true", "early"), ("true", "full")),
    ("random, whole epoch", None, ("true", "full")),
    ("at the stop, three epochs", ("true", "early"), ("true", "long")),
    ("whole epoch, three epochs", ("true", "full"), ("true", "long")),
    ("random, three epochs", None, ("true", "long")),
    ("at the stop with shuffled labels, whole epoch", ("shuffled", "early"), ("true", "full")),
    ("whole epoch with shuffled labels, whole epoch", ("shuffled", "full"), ("true", "full")),
)


class Overlap(NamedTuple):
    """How much of one mask stands in another, for one seed and kind of unit."""

    pair: str
    seed: int
    kind: str
    share: float


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-examples", type=int, default=2000)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--runs", type=Path, default=Path("runs/early_stop"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/early_stop"))
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    loaded, found, epochs = load(args.model), list[Overlap](), list[str]()
    for seed in range(args.seeds):
        masks: dict[tuple[str, str], dict[str, Tensor]] = {}
        for labels, stop in SEARCHES:
            ticket = ticket_of(args, labels, stop, seed)
            masks[labels, stop] = dict(ticket.masks)
            if (labels, stop) == ("true", "early"):
                never = "" if ticket.origin["converged"] else " (never: the last mask)"
                epochs.append(f"{float(str(ticket.origin['epochs'])):.2f}{never}")
        view = ticket.view(loaded.model)
        kinds = {site.name: site.kind for site in view.sites}
        rng = torch.Generator().manual_seed(seed)
        for name, one, other in PAIRS:
            drawn = [masks[one]] if one else [chance(view, rng) for _ in range(CHANCES)]
            for kind in KINDS:
                shares = [overlap(mask, masks[other], kinds, kind) for mask in drawn]
                found.append(Overlap(name, seed, kind, statistics.mean(shares)))
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "overlaps.csv", "w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([Overlap._fields, *found])
    text = described(found, epochs, args)
    (args.out / "overlaps.md").write_text(text)
    print(text)
    return 0


def shuffled(args: argparse.Namespace, seed: int) -> str:
    """Write the drawn training examples with their labels shuffled; the other splits are as they were."""
    folder = args.runs / f"shuffled-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    task = load_task(args.task).limited(train_examples=args.train_examples, seed=seed)
    for split, table in task.splits.items():
        labels = table.labels
        if split == "train":
            labels = np.random.default_rng(seed).permutation(labels)
        columns: dict[str, Any] = {"text": list(table.columns[0]), "label": labels}
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{split}.parquet")
    return str(folder)


def ticket_of(args: argparse.Namespace, labels: str, stop: str, seed: int) -> Ticket:
    """Search, or find the search done, and return its only ticket."""
    task = args.task if labels == "true" else shuffled(args, seed)
    common = Common(seed=seed, train_examples=args.train_examples, max_length=args.max_length)
    threshold, epochs = 0.1 if stop == "early" else 0.0, 3.0 if stop == "long" else 1.0
    method, name = EarlyBird((HALF,), threshold=threshold, epochs=epochs), f"{labels}-{stop}-{seed}"
    found = search(
        method, args.model, task=task, out=args.runs / name, objective=FreeLB(steps=5), granularity=KINDS,
        common=common,
    )  # fmt: skip
    print(f"{name}: {found['passes']} passes, {found['seconds']:.0f} s", flush=True)
    return Ticket.load(found["tickets"][0])


def chance(view: Any, rng: torch.Generator) -> dict[str, Tensor]:
    """Return random masks of the same counts."""
    return draw(view, {site.name: torch.rand(site.units, generator=rng) for site in view.sites}, HALF)


def overlap(one: dict[str, Tensor], other: dict[str, Tensor], kinds: dict[str, str], kind: str) -> float:
    """Return the share of the units of a kind kept by `one` that `other` keeps, too."""
    mine, theirs = (
        torch.cat([m[name].bool() for name in kinds if kinds[name] == kind]) for m in (one, other)
    )
    return float((mine & theirs).sum() / mine.sum())


def described(found: list[Overlap], epochs: list[str], args: argparse.Namespace) -> str:
    """Return a table: the mean over seeds, and each seed's value."""
    lines = [
        f"The rule stopped after {', '.join(epochs)} epochs (seeds 0 to {args.seeds - 1}; "
        f"{args.train_examples} training examples of `{Path(args.task).name}`, half of the heads and "
        "neurons). "
        f"Hardware: {hardware()}. Commit {commit()}.",
        "",
        "| overlap of the mask, with the mask | kind | mean | each seed |",
        "| --- | --- | --- | --- |",
    ]
    for name, _, _ in PAIRS:
        for kind in KINDS:
            shares = [one.share for one in found if (one.pair, one.kind) == (name, kind)]
            each = ", ".join(f"{share:.3f}" for share in shares)
            lines.append(f"| {name} | {kind} | {statistics.mean(shares):.3f} | {each} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
