"""What a walk through blocks deals in: matrices, those that share inputs, stages, and calibration samples."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.tasks.task import Batch


class Matrix(NamedTuple):
    """A linear map of a stage.

    Attributes:
        name: its weight, relative to the base model; of a task head, relative to the model.
        module: its module within the stage.
        transposed: True where the weight is stored [in, out].
        pruned: False for one behind the blocks that is only re-fitted: a classifier, a pooler kept whole.
    """

    name: str
    module: str
    transposed: bool
    pruned: bool

    def weight(self, stored: Tensor) -> Tensor:
        """Return a stored weight as float64 [out, in]."""
        return (stored.T if self.transposed else stored).detach().double()

    def stored(self, weight: Tensor, like: Tensor) -> Tensor:
        """Return a weight [out, in] as it is stored."""
        return (weight.T if self.transposed else weight).to(like.dtype).contiguous()


class Group(NamedTuple):
    """Matrices that read the same inputs, and how often a pass of their stage calls them."""

    matrices: tuple[Matrix, ...]
    calls: int


class Stage(NamedTuple):
    """A block, or what follows the last one: its matrices, grouped in the order in which they are called.

    `block` is its number; None for what follows.
    """

    name: str
    root: nn.Module
    block: int | None
    groups: tuple[Group, ...]

    def matrices(self) -> Iterator[Matrix]:
        """Yield every matrix."""
        for group in self.groups:
            yield from group.matrices

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of all matrices as they are, by their names in the stage."""
        names = [f"{matrix.module}.weight" for matrix in self.matrices()]
        return {name: self.root.get_parameter(name) for name in names}


class Sample(NamedTuple):
    """A batch of calibration data.

    Attributes:
        batch: the examples.
        kind: "clean", "attacked" (sentences that an attack has changed) or "perturbed" (in embedding space).
        counts: whether it enters the sums; else only what pruning does to its states is measured.
        delta: what is added to its word embeddings, [N, L, D].
    """

    batch: Batch
    kind: str = "clean"
    counts: bool = True
    delta: Callable[[Batch], Tensor | None] | None = None


def refuse_empty(samples: Sequence[Sample]) -> None:
    """Refuse examples of which nothing is left but padding: there is nothing to add up, or to compare."""
    for ids, inputs in ((sample.batch.ids, sample.batch.inputs) for sample in samples):
        if "input_ids" not in inputs:
            continue
        there = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool().any(1)
        if not there.all():
            empty = int(ids[int((~there).nonzero()[0])])
            raise InputError(f"calibration example {empty} has no tokens; allowed: texts of 1 token or more")
