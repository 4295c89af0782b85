"""What a command would take: a few real steps, timed and multiplied. Nothing is written."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hardtack.evaluation.victim import device_of, evaluating
from hardtack.runs import Run
from hardtack.schedule import Constant
from hardtack.tasks.task import Batches
from hardtack.training.adversarial import Objective
from hardtack.training.loop import fit_steps

Work = tuple[str, nn.Module, Batches, Objective, int, int]
"""name, model, batches, objective, steps, bytes"""


def plan(work: Sequence[Work]) -> dict[str, Any]:
    """Estimate stages of training: one warm-up step and two timed ones each, at a learning rate of 0."""
    stages = []
    for name, model, batches, objective, steps, size in work:
        stages.append(
            {
                "name": name,
                "seconds": round(_step_seconds(model, batches, objective) * steps, 3),
                "bytes": size,
            }
        )
    return total(stages)


def forwards(name: str, model: nn.Module, batches: Batches) -> dict[str, Any]:
    """Estimate a stage that asks a model about every row once: one warm-up batch and one timed."""
    first = next(batches.in_order())  # the longest rows: rather too much than too little
    inputs = {key: value.to(device_of(model)) for key, value in first.inputs.items()}
    with evaluating(model):
        model(**inputs)
        started = time.perf_counter()
        model(**inputs)
    seconds = (time.perf_counter() - started) * batches.examples / len(first.ids)
    return {"name": name, "seconds": round(seconds, 3), "bytes": 4 * batches.examples}


def total(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a plan: the stages with their sums."""
    return {
        "stages": stages,
        "seconds": round(sum(stage["seconds"] for stage in stages), 3),
        "bytes": sum(stage["bytes"] for stage in stages),
    }


def _step_seconds(model: nn.Module, batches: Batches, objective: Objective) -> float:
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.0
    )
    steps = fit_steps(model, batches, objective, optimizer, total=3, lr=Constant(0.0), run=Run.nowhere())
    next(steps)
    started = time.perf_counter()
    for _ in steps:
        pass
    return (time.perf_counter() - started) / 2
