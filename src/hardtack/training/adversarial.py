"""Objectives: what a training step minimises, as generators of scalar losses over a per-example loss.

The loop calls `backward()` on each loss it receives and then resumes the generator. That is the shape FreeLB
needs: after the loop's backward, `delta.grad` is already there, from the same pass that accumulated the
weights' gradients, and only one graph is alive at a time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.perturb import added_to_embeddings, ascend, project, random_start
from hardtack.tasks.task import Batch
from hardtack.training.losses import Loss, cross_entropy

Stream = Callable[..., torch.Generator]
"""rng(label, example=None): the keyed stream of this step."""


class Objective(Protocol):
    """A frozen dataclass whose fields are the settings; calling it yields the losses of one step.

    `passes` is the number of forward-and-backward pairs of one step, the unit in which costs are compared.
    `version` is raised when a fix changes what is minimised.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @property
    def loss(self) -> Loss:
        """The per-example loss, a field, so that `dataclasses.replace` puts another one in."""
        ...

    @property
    def passes(self) -> int:
        """Forward-and-backward pairs of one step."""
        ...

    def __call__(self, model: nn.Module, batch: Batch, progress: float, rng: Stream) -> Iterator[Tensor]:
        """Yield the losses of one step, each to be sent backward before the next is asked for."""
        ...

    def perturbation(self, model: nn.Module, batch: Batch, rng: Stream) -> Tensor | None:
        """Return what the last loss of a step adds to the word embeddings, [N, L, D]; None for nothing.

        The model is left as it is: no gradient of a weight is taken. A model without word embeddings is
        refused (InputError).
        """
        ...


_LOSS = {"help": "per-example loss", "flag": False}


@dataclass(frozen=True)
class Clean:
    """The mean loss of the batch as it is: ordinary training."""

    name: ClassVar[str] = "clean"
    version: ClassVar[int] = 1
    loss: Loss = field(default=cross_entropy, metadata=_LOSS)

    @property
    def passes(self) -> int:
        """One pass."""
        return 1

    def __call__(self, model: nn.Module, batch: Batch, progress: float, rng: Stream) -> Iterator[Tensor]:
        """Yield the batch's mean loss."""
        yield self.loss(model(**batch.inputs).logits, batch).mean()

    def perturbation(self, model: nn.Module, batch: Batch, rng: Stream) -> None:
        """Return None: nothing is added."""


@dataclass(frozen=True)
class FreeLB:
    """Adversarial training in embedding space whose ascent steps also train the weights.

    Source: Zhu et al. 2020, Alg. 1. For k = 0..K-1: loss/K at delta_k, whose backward adds to the weights'
    gradients and fills delta's; then delta moves by `step_size` along its normalised gradient, except after
    the last. Per sentence; token types, padding and position ids are untouched because the perturbation is
    added at the word-embedding lookup.

    Defaults are those of the robust-ticket search on SST-2 (Zheng et al. 2022, Table 6) but for K, which is 5
    there.

    Differs from the paper: no projection unless `radius` is set (neither has the robust-ticket code); starts
    are drawn per example, so they depend on neither the batch nor its padding; dropout masks differ between
    the K passes, as in the code.
    """

    name: ClassVar[str] = "freelb"
    version: ClassVar[int] = 1
    steps: int = field(default=3, metadata={"help": "K, forward-backward passes a step; 1 is noise only"})
    step_size: float = field(
        default=0.03, metadata={"help": "eta, length of an ascent step (Frobenius norm a sentence)"}
    )
    start: float = field(default=0.05, metadata={"help": "eps0, size of the random start; 0 starts clean"})
    radius: float = field(default=0.0, metadata={"help": "bound on delta's norm a sentence; 0 is no bound"})
    loss: Loss = field(default=cross_entropy, metadata=_LOSS)

    def __post_init__(self) -> None:
        _check_steps(self.name, self.steps, self.step_size, self.start, self.radius)

    @property
    def passes(self) -> int:
        """K passes."""
        return self.steps

    def __call__(self, model: nn.Module, batch: Batch, progress: float, rng: Stream) -> Iterator[Tensor]:
        """Yield K losses; between them delta moves along the gradient that the last backward left."""
        delta = _start(model, batch, self.start, rng)
        for k in range(self.steps):
            delta = project(delta, self.radius).detach().requires_grad_()
            with added_to_embeddings(model, delta):
                logits = model(**batch.inputs).logits
            yield self.loss(logits, batch).mean() / self.steps
            if k < self.steps - 1:
                assert delta.grad is not None  # filled by the loop's backward
                delta = ascend(delta.detach(), delta.grad, self.step_size)

    def perturbation(self, model: nn.Module, batch: Batch, rng: Stream) -> Tensor:
        """Return delta_(K-1), after K - 1 ascent steps."""
        return _ascended(model, batch, self, self.steps - 1, rng)


@dataclass(frozen=True)
class PGD:
    """Adversarial training at the end of a projected ascent in embedding space.

    Source: Madry et al. 2018, for text as in Zheng et al. 2022, eq. 6-8. `steps` inner passes move delta
    only; the last pass, at delta_K, trains the weights: K + 1 passes a step.

    Differs from the paper: the radius is a bound per sentence in Frobenius norm; 0 turns the projection off.
    """

    name: ClassVar[str] = "pgd"
    version: ClassVar[int] = 1
    steps: int = field(default=3, metadata={"help": "K, ascent steps before the training pass"})
    step_size: float = field(
        default=0.03, metadata={"help": "eta, length of an ascent step (Frobenius norm a sentence)"}
    )
    start: float = field(default=0.05, metadata={"help": "eps0, size of the random start; 0 starts clean"})
    radius: float = field(default=0.1, metadata={"help": "bound on delta's norm a sentence; 0 is no bound"})
    loss: Loss = field(default=cross_entropy, metadata=_LOSS)

    def __post_init__(self) -> None:
        _check_steps(self.name, self.steps, self.step_size, self.start, self.radius)

    @property
    def passes(self) -> int:
        """K inner passes and the one that trains."""
        return self.steps + 1

    def __call__(self, model: nn.Module, batch: Batch, progress: float, rng: Stream) -> Iterator[Tensor]:
        """Yield the batch's mean loss at the end of the ascent."""
        with added_to_embeddings(model, self.perturbation(model, batch, rng)):
            logits = model(**batch.inputs).logits
        yield self.loss(logits, batch).mean()

    def perturbation(self, model: nn.Module, batch: Batch, rng: Stream) -> Tensor:
        """Return delta_K, after K ascent steps."""
        return _ascended(model, batch, self, self.steps, rng)


OBJECTIVES: dict[str, type[Clean] | type[FreeLB] | type[PGD]] = {"clean": Clean, "freelb": FreeLB, "pgd": PGD}


def _start(model: nn.Module, batch: Batch, size: float, rng: Stream) -> Tensor:
    find = getattr(model, "get_input_embeddings", None)
    if find is None or "input_ids" not in batch.inputs:
        raise InputError(
            f"{type(model).__name__} has no word embeddings to perturb; allowed objective: clean"
        )
    width = find().weight.shape[1]
    tokens = batch.inputs.get("attention_mask", torch.ones_like(batch.inputs["input_ids"])).bool()
    return random_start(tokens, width, size, lambda example: rng("delta", example=example), batch.ids)


def _ascended(model: nn.Module, batch: Batch, objective: FreeLB | PGD, steps: int, rng: Stream) -> Tensor:
    """Return where so many ascent steps on the loss lead; only delta has a gradient."""
    delta = _start(model, batch, objective.start, rng)
    for _ in range(steps):
        delta = project(delta, objective.radius).detach().requires_grad_()
        with torch.enable_grad(), added_to_embeddings(model, delta):
            inner = objective.loss(model(**batch.inputs).logits, batch).sum()
            (gradient,) = torch.autograd.grad(inner, delta)
        delta = ascend(delta.detach(), gradient, objective.step_size)
    return project(delta, objective.radius).detach()


def _check_steps(name: str, steps: int, step_size: float, start: float, radius: float) -> None:
    if steps < 1:
        raise InputError(f"{name} steps {steps} is not allowed; allowed: 1 or more")
    for what, value in (("step_size", step_size), ("start", start), ("radius", radius)):
        if not 0 <= value < math.inf:
            raise InputError(f"{name} {what} {value} is not allowed; allowed: 0 or more, finite")
