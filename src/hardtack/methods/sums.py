"""What calibration data add up to: the inputs of matrices, and what pruning did to outputs and states."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hardtack.methods.blocks import Blocks, Group, Stage, Weights
from hardtack.methods.solve import Budget, Factor

HALVES = 1024
"""From so many inputs on, a Gram matrix is made of panels, of which symmetry spares nearly half."""


@dataclass
class Sums:
    """What the calibration data add up to for matrices that read the same inputs.

    Float32 products of one batch, added up in float64.

    Attributes:
        what: the first of those matrices, for errors.
        ridge: added to the diagonal of the Gram matrix, in units of its mean.
        banks: whether sweeps must walk the inputs in their order.
        rows: how many input vectors there were.
        gram: X^T X [in, in], or its diagonal [in].
        cross: X^T Z [in, in], X the sparse path's inputs and Z the dense path's; None where not asked for.
    """

    what: str
    ridge: float
    banks: bool
    rows: int = 0
    gram: Tensor = field(default_factory=lambda: torch.zeros(()))
    cross: Tensor | None = None
    _factor: Factor | None = None

    def add_(self, x: Tensor, z: Tensor | None, diagonal: bool) -> None:
        """Add the inputs of a batch, [rows, in] each."""
        self.rows += len(x)
        self.gram = self.gram + (x.double().square().sum(0) if diagonal else gram(x))
        if z is not None:
            product = (x.T @ z).double()
            self.cross = product if self.cross is None else self.cross.add_(product)

    def factor(self) -> Factor:
        """Return the factor of the Gram matrix, made once for all matrices that share it."""
        if self._factor is None:
            self._factor = Factor.of(self.gram, self.ridge, self.what, mixed=not self.banks)
        return self._factor


def gram(x: Tensor) -> Tensor:
    """Return x^T x in float64, multiplied in float32."""
    width = x.shape[1]
    if width < HALVES:
        return (x.T @ x).double()
    out = torch.empty(width, width, dtype=torch.float64, device=x.device)
    panel = -(-width // 6)
    for begin in range(0, width, panel):
        end = min(begin + panel, width)
        out[begin:end, begin:] = x[:, begin:end].T @ x[:, begin:]
        out[end:, begin:end] = out[begin:end, end:].T
    return out


class Rule(NamedTuple):
    """How a method prunes.

    Attributes:
        path: whose inputs are read: the "sparse" path's (the model pruned so far) or the "dense" one's.
        each: how often they are gathered anew: for each "block", or each "matrix" (those that share inputs).
        adapts: whether weights are first fitted to the dense outputs, also a head's, which is never pruned.
        compensates: whether weights change beside those that go; else only the norms of inputs are read.
        ridge: of Hessians, in units of their mean diagonal.
        scores: weight and sums -> what the removal of each weight alone would cost, [out, in].
        solve: weight, sums and budget -> new weight and mask, [out, in]; a budget of 0 only fits.
    """

    path: str
    each: str
    adapts: bool
    compensates: bool
    ridge: float
    scores: "Callable[[Tensor, Sums], Tensor]"
    solve: "Callable[[Tensor, Sums, Budget], tuple[Tensor, Tensor]]"


def gather(
    rule: Rule,
    blocks: Blocks,
    stage: Stage,
    groups: Sequence[Group],
    dense: Sequence[Tensor],
    sparse: Sequence[Tensor],
    weights: Weights,
    banks: bool,
) -> list[Sums]:
    """Add up the inputs of groups over all batches; the Gram matrices of a group once (Repaired K10)."""
    sums = [Sums(group.matrices[0].name, rule.ridge, banks) for group in groups]
    for batch in range(len(dense)):
        alike = not weights and sparse[batch] is dense[batch]
        before = rule.path == "dense" or rule.adapts
        zs = blocks.inputs(stage, groups, batch, dense[batch], {}) if before else []
        xs = (
            zs
            if rule.path == "dense" or (alike and zs)
            else blocks.inputs(stage, groups, batch, sparse[batch], weights)
        )
        for number, total in enumerate(sums):
            z = zs[number] if rule.adapts else None
            total.add_(xs[number], z, not rule.compensates)
    return sums


def advance(
    blocks: Blocks, stage: Stage, weights: Weights, dense: Sequence[Tensor], sparse: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], dict[str, float], dict[str, float]]:
    """Move both states through a stage; return them, each matrix's error and the states' distance.

    The error of a matrix is |Y' - Y|^2 / |Y|^2 over all tokens, Y the dense path's outputs without bias. The
    distance is 1 - cosine, of the first token's vectors and of the tokens' mean, averaged over examples.
    """
    new_dense, new_sparse, apart = [], [], []
    error = {matrix.name: 0.0 for matrix in stage.matrices()}
    energy = dict(error)
    for batch, tokens in enumerate(blocks.tokens):
        y, outputs = blocks.outputs(stage, batch, dense[batch], {})
        y_, outputs_ = blocks.outputs(stage, batch, sparse[batch], weights)
        for name, calls in outputs.items():
            for out, out_ in zip(calls, outputs_[name], strict=True):
                error[name] += float((out_ - out).double().square().sum())
                energy[name] += float(out.double().square().sum())
        new_dense.append(y)
        new_sparse.append(y_)
        if stage.block is not None:
            share = tokens[:, :, None] / tokens.sum(1)[:, None, None]  # [rows, tokens, 1]
            means = functional.cosine_similarity((y * share).sum(1), (y_ * share).sum(1))
            firsts = functional.cosine_similarity(y[:, 0], y_[:, 0])
            apart.append(torch.stack([1 - firsts, 1 - means]))
    errors = {name: round(error[name] / max(energy[name], 1e-300), 8) for name in error}
    if not apart:
        return new_dense, new_sparse, errors, {}
    first, mean = torch.cat(apart, 1).double().mean(1).tolist()
    return new_dense, new_sparse, errors, {"first": round(first, 8), "mean": round(mean, 8)}
