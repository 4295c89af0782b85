"""Trains a model for some epochs, looking at validation after each; which epoch is kept is a rule."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hardtack.errors import InputError, nearest
from hardtack.evaluation.clean import predict
from hardtack.runs import Run
from hardtack.schedule import WarmupDecay
from hardtack.stages.common import Common
from hardtack.tasks.task import Metric
from hardtack.ticket import Ticket
from hardtack.training.adversarial import Objective
from hardtack.training.loop import decayed, fit_steps
from hardtack.training.losses import Distillation

EPOCH_RULES = ("last", "best")


@dataclass(frozen=True)
class Fit:
    """How weights are trained; the fields that `train` and `retrain` share."""

    epochs: float = 3.0
    lr: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    epoch_rule: str = "last"
    distil_from: str | None = None
    distil_weight: float | None = None
    distil_temperature: float | None = None

    def __post_init__(self) -> None:
        if self.epoch_rule not in EPOCH_RULES:
            raise InputError(
                f"epoch rule {self.epoch_rule!r} does not exist{nearest(self.epoch_rule, EPOCH_RULES)}"
            )
        if not self.epochs > 0 or not self.lr > 0 or not 0 <= self.warmup <= 1 or self.weight_decay < 0:
            raise InputError(
                f"epochs {self.epochs}, lr {self.lr}, warmup {self.warmup}, weight decay "
                f"{self.weight_decay}; "
                "allowed: epochs and lr above 0, warmup 0 to 1, weight decay 0 or more"
            )
        for name in ("distil_weight", "distil_temperature"):
            if self.distil_from is None and getattr(self, name) is not None:
                raise InputError(f"{name} {getattr(self, name)} needs a teacher; distil_from names it")
        self.soft()

    def soft(self) -> Distillation | None:
        """Return the loss of a distillation; None without a teacher."""
        if self.distil_from is None:
            return None
        weight, temperature = self.distil_weight, self.distil_temperature
        return Distillation(
            Distillation.weight if weight is None else weight,
            Distillation.temperature if temperature is None else temperature,
        )


def fit_epochs(
    model: nn.Module,
    batches: Any,
    validation: Any,
    metric: Metric,
    objective: Objective,
    fit: Fit,
    ticket: Ticket | None,
    total: int,
    run: Run,
    common: Common,
) -> float:
    """Train, look at validation at each epoch's end, and leave the model at the epoch that the rule picks."""
    optimizer = torch.optim.AdamW(decayed(model, fit.weight_decay), lr=fit.lr, fused=True)
    best = math.nan
    for step in fit_steps(
        model,
        batches,
        objective,
        optimizer,
        total=total,
        lr=WarmupDecay(fit.lr, fit.warmup),
        run=run,
        hold=ticket,
        precision=common.precision,
    ):
        run.log(step=step.index, loss=step.loss, grad_norm=step.grad_norm)
        last = step.index + 1 == total
        if last or (step.index + 1) % len(batches) == 0:
            began = time.perf_counter()
            try:
                score = metric(*predict(model, validation, run=run, row=f"validation-{step.index}"))
            except InputError as error:
                raise InputError(
                    f"training: {error}, after step {step.index} of {total}; the last good state is kept; "
                    f"try a lower learning rate than {fit.lr}"
                ) from None
            took = time.perf_counter() - began
            run.log(event="validation", step=step.index, **{metric.name: score}, seconds=took)
            if fit.epoch_rule == "best" and _is_best(run, step.index, score, metric):
                run.keep("best", dict(model.named_parameters()), score=score, step=step.index)
            best = score
    kept = run.kept("best")
    if kept is not None:
        tensors, facts = kept
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in tensors.items():
                parameters[name].copy_(value)
        return float(facts["score"])
    return best


def _is_best(run: Run, step: int, score: float, metric: Metric) -> bool:
    """Compare with the epoch kept so far; one that a killed process kept later does not count."""
    kept = run.kept("best")
    return kept is None or kept[1]["step"] >= step or metric.better(score, float(kept[1]["score"]))


def seconds_looking(run: Run) -> float:
    """Return the seconds that training's looks at validation took."""
    return sum(float(line["seconds"]) for line in run.lines(event="validation"))
