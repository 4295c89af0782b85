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
        cross: X^T T [in, k], T what `targets` recorded of the dense path; None where not asked for.
        direct: whether T are the outputs of the one matrix, not the inputs of all.
    """

    what: str
    ridge: float
    banks: bool
    rows: int = 0
    gram: Tensor = field(default_factory=lambda: torch.zeros(()))
    cross: Tensor | None = None
    direct: bool = False
    _factor: Factor | None = None

    def add_(self, x: Tensor, target: Tensor | None, diagonal: bool) -> None:
        """Add a batch: inputs [rows, in], targets [rows, k]."""
        self.rows += len(x)
        self.gram = self.gram + (x.double().square().sum(0) if diagonal else gram(x))
        if target is not None:
            product = (x.T @ target).double()
            self.cross = product if self.cross is None else self.cross.add_(product)

    def outputs(self, W: Tensor) -> Tensor:
        """Return X^T Y, [in, out], Y the dense outputs of a matrix W [out, in] without bias."""
        assert self.cross is not None
        return self.cross if self.direct else self.cross @ W.T

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


def narrows(group: Group, stage: Stage) -> bool:
    """Say whether a group is one matrix with fewer outputs than inputs: its outputs are then the target."""
    shapes = [stage.root.get_parameter(f"{matrix.module}.weight").shape for matrix in group.matrices]
    outputs, inputs = shapes[0][::-1] if group.matrices[0].transposed else shapes[0]
    return len(shapes) == 1 and outputs < inputs


def targets(
    blocks: Blocks, stage: Stage, groups: Sequence[Group], dense: Sequence[Tensor]
) -> list[list[Tensor]]:
    """Return for each batch what adaptive weights are fitted to: [rows, k] for each group.

    That is the dense path's inputs, which serve all matrices that read them, or its outputs without bias
    where those are fewer: sums with them are smaller, and so is what waits for the stage's later groups.
    """
    found = []
    for batch, state in enumerate(dense):
        inputs = blocks.inputs(stage, groups, batch, state, {})
        for number, group in enumerate(groups):
            if narrows(group, stage):
                matrix = group.matrices[0]
                stored = stage.root.get_parameter(f"{matrix.module}.weight")
                inputs[number] = inputs[number] @ (stored if matrix.transposed else stored.T)
        found.append(inputs)
    return found


def gather(
    rule: Rule,
    blocks: Blocks,
    stage: Stage,
    groups: Sequence[Group],
    states: Sequence[Tensor],
    weights: Weights,
    *,
    banks: bool,
    wanted: Sequence[Sequence[Tensor]] = (),
) -> list[Sums]:
    """Add up the inputs of groups over all batches; the Gram matrices of a group once (K10).

    Args:
        rule: how the method prunes.
        blocks: the model's.
        stage: where the groups are.
        groups: what reads.
        states: the stage's input on the path that is read, a batch each.
        weights: what of the stage is pruned already on that path.
        banks: whether sweeps must walk the inputs in their order.
        wanted: what `targets` found for these groups.
    """
    sums = [Sums(g.matrices[0].name, rule.ridge, banks, direct=narrows(g, stage)) for g in groups]
    for batch, state in enumerate(states):
        xs = blocks.inputs(stage, groups, batch, state, weights)
        for number, total in enumerate(sums):
            total.add_(xs[number], wanted[batch][number] if wanted else None, not rule.compensates)
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
    if stage.block is None and not error:  # nothing to see, and a language model's logits are large
        return list(dense), list(sparse), {}, {}
    energy = dict(error)
    for batch, tokens in enumerate(blocks.tokens):
        y, outputs = blocks.outputs(stage, batch, dense[batch], {})
        y_, outputs_ = blocks.outputs(stage, batch, sparse[batch], weights)
        for name, calls in outputs.items():
            for out, out_ in zip(calls, outputs_[name], strict=True):
                error[name] += float(torch.linalg.vector_norm(out_ - out)) ** 2
                energy[name] += float(torch.linalg.vector_norm(out)) ** 2
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
