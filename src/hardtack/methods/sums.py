"""What calibration data add up to: the inputs of matrices, and what pruning did to outputs and states."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hardtack.methods.blocks import Blocks, Weights
from hardtack.methods.known import Known, Paths
from hardtack.methods.parts import Group, Stage
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
        if diagonal:
            self.gram = self.gram + x.double().square().sum(0)
        else:
            self.gram = gram(x, self.gram if self.gram.dim() else None)
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


def gram(x: Tensor, total: Tensor | None = None) -> Tensor:
    """Return x^T x in float64, multiplied in float32; added to `total`, in place, where there is one."""
    width = x.shape[1]
    if total is None:
        total = torch.zeros(width, width, dtype=torch.float64, device=x.device)
    panel = width if width < HALVES else -(-width // 6)
    for begin in range(0, width, panel):
        end = min(begin + panel, width)
        product = x[:, begin:end].T @ x[:, begin:]
        total[begin:end, begin:] += product
        total[end:, begin:end] += product[:, end - begin :].T
    return total


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
    blocks: Blocks,
    stage: Stage,
    groups: Sequence[Group],
    dense: Sequence[Tensor],
    known: Known | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield for each batch of the sums and each group what adaptive weights are fitted to: [rows, k].

    That is the dense path's inputs, which serve all matrices that read them, or its outputs without bias
    where those are fewer: sums with them are smaller, and so is what waits for the stage's later groups. Its
    name is `target_name`'s. What the dense matrices give becomes `known`.
    """
    weights = {} if known is None else stage.weights()
    for batch in blocks.summed:
        inputs = blocks.inputs(stage, groups, batch, dense[batch], weights, known)
        for number, group in enumerate(groups):
            if narrows(group, stage):
                matrix = group.matrices[0]
                stored = stage.root.get_parameter(f"{matrix.module}.weight")
                inputs[number] = inputs[number] @ (stored if matrix.transposed else stored.T)
            yield target_name(batch, group), inputs[number]


def target_name(batch: int, group: Group) -> str:
    """Return what the targets of a group are called."""
    return f"target {batch} {group.matrices[0].name}"


def gather(
    rule: Rule,
    blocks: Blocks,
    stage: Stage,
    groups: Sequence[Group],
    states: Sequence[Tensor],
    weights: Weights,
    *,
    banks: bool,
    wanted: Mapping[str, Tensor] | None = None,
    known: Known | None = None,
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
        wanted: what `targets` found, by its names.
        known: what the matrices of `weights` give on that path.
    """
    sums = [Sums(g.matrices[0].name, rule.ridge, banks, direct=narrows(g, stage)) for g in groups]
    for batch in blocks.summed:
        xs = blocks.inputs(stage, groups, batch, state := states[batch], weights, known)
        for number, total in enumerate(sums):
            target = wanted[target_name(batch, groups[number])].to(state.device) if wanted else None
            total.add_(xs[number], target, not rule.compensates)
    return sums


@dataclass
class Lost:
    """What pruning did to one stage: its matrices' outputs and its states.

    The error of a matrix is |Y' - Y|^2 / |Y|^2 over all tokens of the sums, Y the dense path's outputs
    without bias, Y' the pruned path's. A distance is 1 - cosine, of the first token's vectors and of the
    tokens' mean, averaged over the examples of a kind: clean, attacked, perturbed.
    """

    error: dict[str, float] = field(default_factory=dict)
    energy: dict[str, float] = field(default_factory=dict)
    apart: dict[str, list[Tensor]] = field(default_factory=dict)

    def outputs(self, dense: Mapping[str, Sequence[Tensor]], sparse: Mapping[str, Sequence[Tensor]]) -> None:
        """Add a batch's outputs of each matrix."""
        for name, calls in dense.items():
            for out, out_ in zip(calls, sparse[name], strict=True):
                square = float(torch.linalg.vector_norm(out_ - out)) ** 2
                self.error[name] = self.error.get(name, 0.0) + square
                self.energy[name] = self.energy.get(name, 0.0) + float(torch.linalg.vector_norm(out)) ** 2

    def states(self, kind: str, tokens: Tensor, y: Tensor, y_: Tensor) -> None:
        """Add a batch's states, dense and sparse."""
        share = tokens[:, :, None] / tokens.sum(1)[:, None, None]  # [rows, tokens, 1]
        means = functional.cosine_similarity((y * share).sum(1), (y_ * share).sum(1))
        firsts = functional.cosine_similarity(y[:, 0], y_[:, 0])
        self.apart.setdefault(kind, []).append(torch.stack([1 - firsts, 1 - means]))

    def errors(self) -> dict[str, float]:
        """Return each matrix's error."""
        return {name: round(error / max(self.energy[name], 1e-300), 8) for name, error in self.error.items()}

    def distances(self) -> dict[str, dict[str, float]]:
        """Return kind of input -> "first" and "mean" -> distance; empty behind the blocks."""
        found = {}
        for kind, parts in self.apart.items():
            first, mean = torch.cat(parts, 1).double().mean(1).tolist()
            found[kind] = {"first": round(first, 8), "mean": round(mean, 8)}
        return found


def advance(
    blocks: Blocks,
    stage: Stage,
    weights: Weights,
    dense: Sequence[Tensor],
    sparse: Sequence[Tensor],
    lost: Lost,
    known: Paths | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Move both states of each batch through a stage, yield them, and add up on the way what was lost.

    What is `known` is used up.
    """
    own = {} if known is None else stage.weights()
    on_dense, on_sparse = known or (None, None)
    for batch, sample in enumerate(blocks.samples):
        if sample.counts:
            y, outputs = blocks.outputs(stage, batch, dense[batch], own, on_dense)
            y_, outputs_ = blocks.outputs(stage, batch, sparse[batch], weights, on_sparse)
            lost.outputs(outputs, outputs_)
        else:
            y = blocks.run(stage, batch, dense[batch], {})
            y_ = blocks.run(stage, batch, sparse[batch], weights)
        for one in known or ():
            one.forget_(batch)
        if stage.block is not None:
            lost.states(sample.kind, blocks.tokens[batch], y, y_)
        yield y, y_
