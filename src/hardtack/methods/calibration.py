"""Which examples calibrate: clean ones, sentences that attacks have changed, or both, perturbed or not."""

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.methods.blocks import Blocks
from hardtack.methods.calibrated import Calibrated
from hardtack.methods.parts import Sample
from hardtack.methods.search import Data
from hardtack.runs import Run
from hardtack.select import round_half_up
from hardtack.tasks.task import Batch, Batches
from hardtack.training.adversarial import Clean, Objective

PROBES = 64
"""Examples of a kind that calibrates nothing, on which only the distance to the dense model is measured."""


def samples(method: Calibrated, start: nn.Module, data: Data, objective: Objective, run: Run) -> list[Sample]:
    """Draw the calibration batches, and probes of the other kinds of input that are at hand.

    Sums read the training split, or attacked sentences, or both (`attacked`), each where the objective's last
    loss would read it: an adversarial one perturbs their embeddings. Distances are measured on clean inputs
    always, and on attacked and perturbed ones where there are any.

    Raises:
        InputError: when attacked sentences are wanted and nobody named any, when there is no example at all,
            or when a streamed model would have to be perturbed.
    """
    wanted = round_half_up(method.attacked * method.calibration)
    if wanted and data.attacked is None:
        raise InputError(
            f"attacked {method.attacked} of the calibration examples, and no attacked sentences are there; "
            "allowed: 0, or a folder of `hardtack evaluate` (--attacked-from)"
        )
    perturbs = not isinstance(objective, Clean)
    if perturbs and data.weights is not None:
        raise InputError(
            f"objective {objective.name} needs the whole model in memory (stream); allowed: clean"
        )
    parts: list[tuple[Batches, str, np.ndarray]] = []
    if method.calibration > wanted:
        rows = data.train.drawn(method.calibration - wanted, run.key("calibration"))
        parts.append((data.train, "clean", rows))
    if wanted and data.attacked is not None:
        parts.append((data.attacked, "attacked", data.attacked.drawn(wanted, run.key("attacked"))))
    found = []
    for batches, kind, rows in parts:
        for batch in batches.in_order(only=rows):
            delta = partial(_delta, objective, start, run) if perturbs else None
            found.append(Sample(batch, "perturbed" if perturbs else kind, True, delta))
    if not found:
        raise InputError(f"{method.name} found no calibration examples; at least 1 is needed")
    others = {"clean": data.train, "attacked": data.attacked}
    for kind, batches in others.items():
        if batches is not None and kind not in {sample.kind for sample in found}:
            rows = batches.drawn(PROBES, run.key(f"probes/{kind}"))
            found += [Sample(batch, kind, False) for batch in batches.in_order(only=rows)]
    return found


def _delta(objective: Objective, model: nn.Module, run: Run, batch: Batch) -> Tensor | None:
    return objective.perturbation(model, batch, run.rng)


def described(blocks: Blocks) -> dict[str, Any]:
    """Return what a ticket's record says of its calibration data; of probes only how many there were."""
    summed = blocks.summed
    facts: dict[str, Any] = {
        "examples": sum(len(blocks.samples[number].batch.ids) for number in summed),
        "tokens": sum(int(blocks.tokens[number].sum()) for number in summed),
    }
    kinds = [sample.kind for sample in blocks.samples if sample.counts]
    for kind in ("attacked", "perturbed"):
        if kind in kinds:
            facts[kind] = sum(len(s.batch.ids) for s in blocks.samples if s.counts and s.kind == kind)
    return facts
