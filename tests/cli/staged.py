"""A command for the tests of several processes: train, search by every method and retrain, one after another.

    python tests/several.py 2 tests/cli/staged.py PLACE OUT PRECISION BATCH

PLACE holds the folders `tiny` (a model) and `task`; the results are printed as one JSON list.
"""

import json
import sys
from pathlib import Path

import torch

from hardtack.methods import METHODS
from hardtack.select import Sparsity
from hardtack.stages import Common, retrain, search, train
from hardtack.training.adversarial import FreeLB

MORE = {
    "early_bird": {"epochs": 2.0, "lr": 1e-3},
    "hard_concrete": {"epochs": 3.0, "price": 5.0},
    "iterative": {"epochs": 1.0, "lr": 1e-3},
}
"""Settings of methods that train, so that they train for a moment only."""


def everything(place: Path, out: Path, precision: str, batch_size: int) -> list[dict]:
    common = Common(device="cpu", batch_size=batch_size, precision=precision, save_seconds=0.0)
    task, tiny = str(place / "task"), str(place / "tiny")
    fit = {"task": task, "objective": FreeLB(steps=2), "epochs": 2.0, "lr": 1e-3, "common": common}
    results = [train(tiny, out=out / "dense", **fit)]
    for name, method in METHODS.items():
        wanted = (Sparsity(fraction=0.3),)
        start = results[0]["model"]
        if method.needs == "inputs":  # some of them change weights, so that their tickets fit no other base
            found = search(method(sparsities=wanted), start, task=task, out=out / name, common=common)
        else:
            found = search(
                method(sparsities=wanted, **MORE.get(name, {})), tiny, task=task, out=out / name,
                start=start, objective=FreeLB(steps=2), common=common,
            )  # fmt: skip
        results += [found, retrain(found["tickets"][0], out=out / f"{name}-retrained", **fit)]
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(everything(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
