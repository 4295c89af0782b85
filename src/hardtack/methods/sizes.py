"""What pruning block by block takes: memory and disk, said before the work, and seconds for a plan."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hardtack import cost
from hardtack.errors import InputError
from hardtack.methods.blocks import Blocks
from hardtack.methods.calibrated import Calibrated
from hardtack.methods.calibration import samples
from hardtack.methods.known import Paths
from hardtack.methods.parts import Group, Stage
from hardtack.methods.search import Data
from hardtack.methods.solve import Budget
from hardtack.methods.sums import Lost, Rule, advance, gather, narrows, targets
from hardtack.modes import evaluation_mode
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.training.adversarial import Objective

ROWS = 256
"""Rows of a matrix that a plan solves."""


class Room(NamedTuple):
    """Bytes that are held at once, beside the model; `known` only where there is room for it."""

    states: int
    hessians: int
    weights: int
    disk: int
    known: int

    @property
    def memory(self) -> int:
        """Return what memory must hold."""
        return self.states + self.hessians + self.weights


def room(method: Calibrated, blocks: Blocks, stages: Sequence[Stage], view: Prunable) -> Room:
    """Work out the largest sizes from shapes alone; a plan's and a check's numbers, within some tenths.

    States are two paths' running states and the first ones, which all sparsities begin with, and what
    adaptive weights are fitted to; Hessians the sums that are gathered at once, a factor, and a Hessian in
    float32; weights the results so far, and one matrix's solve in float64; known what the
    matrices of a block give on both paths.
    """
    rule, streamed = method.rule(), blocks.weights is not None
    width = blocks.first.shape[-1]
    each = [s.batch.inputs["input_ids"].numel() if "input_ids" in s.batch.inputs
            else len(s.batch.ids) * blocks.first.shape[1] for s in blocks.samples]  # fmt: skip
    summed = sum(each[number] for number in blocks.summed)
    state = 4 * width * sum(each)
    fitted = hessians = activations = solve = known = 0
    for stage in stages:
        groups = [g for g in stage.groups if rule.adapts or any(matrix.pruned for matrix in g.matrices)]
        sizes = [_sums(rule, stage, group) for group in groups] or [0]
        inputs = [_widths(stage, group)[0] for group in groups] or [0]
        if rule.adapts:
            fitted = max(fitted, sum(4 * summed * _fitted(stage, group) for group in groups))
        factor = 12 * max(inputs) ** 2 if rule.compensates else 0
        hessians = max(hessians, factor + (sum(sizes) if rule.each == "block" else max(sizes)))
        if rule.each == "matrix" and not streamed:
            known = max(known, 2 * 4 * summed * sum(_outputs(stage, group) for group in groups))
        tall = [sum(_widths(stage, group)) for group in groups]
        activations = max(activations, 2 * 4 * max(each) * sum(tall))
        shapes = [_widths(stage, group) for group in groups]
        solve = max([solve, *(6 * 8 * inner * outer for inner, outer in shapes)])
    kept = view.units * (5 if rule.compensates else 1)  # float32 and a byte of mask
    states = activations + (0 if streamed else fitted + 3 * state)
    disk = (
        kept
        + (fitted + 5 * state if streamed else 4 * state)
        + len(method.sparsities) * (ticket_bytes(method, view))
    )
    return Room(states, hessians, solve + (0 if streamed else kept), disk, known)


def ticket_bytes(method: Calibrated, view: Prunable) -> int:
    """Return the size of a ticket."""
    return view.units // 8 + 4096 + (4 * view.units if method.rule().compensates else 0)


def check_room(method: Calibrated, blocks: Blocks, stages: Sequence[Stage], view: Prunable, run: Run) -> bool:
    """Log what is needed and what is there, and refuse a search for which memory or disk is too small.

    Returns:
        Whether there is room for what finished matrices give, so that they need not be multiplied again.

    Raises:
        InputError: one line with both numbers.
    """
    needed = room(method, blocks, stages, view)
    device = str(blocks.first.device)
    memory = cost.free_memory_bytes(device)
    disk = None
    if run.folder is not None:  # what a run that was stopped has written is its own
        disk = shutil.disk_usage(run.folder).free + cost.disk_bytes(run.folder)
    if not run.logged(event="room"):
        there = {"memory_bytes": memory, "disk_bytes": disk}
        run.log(event="room", memory_bytes=needed.memory, disk_bytes=needed.disk, measured=there)
    if memory is not None and needed.memory > memory:
        parts = ", ".join(
            f"{name} {_gb(getattr(needed, name))}" for name in ("states", "hessians", "weights")
        )
        less = "" if blocks.weights is not None or device != "cpu" else ", or stream (--stream)"
        raise InputError(
            f"{method.name} needs {_gb(needed.memory)} of memory beside the model ({parts}), {_gb(memory)} "
            f"are there; allowed: a smaller calibration than {method.calibration}{less}"
        )
    if disk is not None and needed.disk > disk:
        raise InputError(
            f"{method.name} needs {_gb(needed.disk)} of disk in {run.folder}, {_gb(disk)} are there; "
            f"allowed: another --out, or a smaller calibration than {method.calibration}"
        )
    return needed.known > 0 and (memory is None or needed.memory + needed.known <= memory)


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _widths(stage: Stage, group: Group) -> tuple[int, int]:
    """Return a group's inputs, and the most outputs that one of its matrices has."""
    shapes = [stage.root.get_parameter(f"{matrix.module}.weight").shape for matrix in group.matrices]
    pairs = [
        shape if matrix.transposed else shape[::-1]
        for shape, matrix in zip(shapes, group.matrices, strict=True)
    ]
    return pairs[0][0], max(outputs for _, outputs in pairs)


def _outputs(stage: Stage, group: Group) -> int:
    """Return how many outputs a group's matrices have together."""
    inputs = _widths(stage, group)[0]
    return sum(stage.root.get_parameter(f"{m.module}.weight").numel() for m in group.matrices) // inputs


def _fitted(stage: Stage, group: Group) -> int:
    inputs, outputs = _widths(stage, group)
    return outputs if narrows(group, stage) else inputs


def _sums(rule: Rule, stage: Stage, group: Group) -> int:
    inputs = _widths(stage, group)[0]
    if not rule.compensates:
        return 8 * inputs
    return 8 * inputs * (inputs + (_fitted(stage, group) if rule.adapts else 0))


class Part(NamedTuple):
    """A part of a plan."""

    name: str
    seconds: float
    bytes: int


@torch.no_grad()
def plan(
    method: Calibrated, start: nn.Module, view: Prunable, data: Data, objective: Objective
) -> Iterator[Part]:
    """Yield what a search would take, for all its sparsities together.

    One batch is sent through the first block as the method does it, timed and multiplied by tokens, blocks
    and sparsities; solves are timed on a few rows of a matrix, and multiplied by rows and by inputs.
    """
    with evaluation_mode(start):
        began = time.perf_counter()
        parts = samples(method, start, data, objective, Run.nowhere())
        blocks = Blocks.of(start, parts, data.weights)
        stages = list(blocks.stages(view))
        first = time.perf_counter() - began
        needed = room(method, blocks, stages, view)
        share = sum(sample.batch.inputs[_main(blocks)].numel() for sample in blocks.samples)
        share /= blocks.samples[0].batch.inputs[_main(blocks)].numel()
        rule, stage, count = method.rule(), stages[0], len(method.sparsities)
        one = Blocks(start, blocks.names, blocks.samples[:1], blocks.weights, blocks.first, [blocks.first],
                     blocks.tokens, blocks.calls, blocks.like)  # fmt: skip
        with one.present(stage.block):
            passes = _passes(rule, one, stage, method.scope == "global")
            solving = _solving(method, one, stage, stages)
        began = time.perf_counter()
        one.record(0)
        opening = first + (time.perf_counter() - began) * share
    yield Part(f"{method.name}: first pass over the calibration data", opening, 0)
    much = f"{len(blocks.names)} blocks, {count} sparsit{'y' if count == 1 else 'ies'}"
    yield Part(f"{method.name}: passes, {much}", passes * share * len(blocks.names) * count, needed.disk)
    yield Part(f"{method.name}: solves", solving * count, 0)


def _main(blocks: Blocks) -> str:
    inputs = blocks.samples[0].batch.inputs
    return "input_ids" if "input_ids" in inputs else next(iter(inputs))


def _passes(rule: Rule, blocks: Blocks, stage: Stage, scored: bool) -> float:
    """Return the seconds that one batch takes in a stage, without solves."""
    groups = [g for g in stage.groups if rule.adapts or any(matrix.pruned for matrix in g.matrices)]
    seconds = []
    for _ in range(2):  # the first warms up
        began = time.perf_counter()
        known = None if blocks.weights is not None or rule.each == "block" else Paths.new()
        on_dense, on_sparse = known or (None, None)
        wanted = dict(targets(blocks, stage, groups, blocks.start, on_dense)) if rule.adapts else None
        done: dict[str, Tensor] = {}
        for together in [groups] if rule.each == "block" else [[group] for group in groups]:
            gather(
                rule, blocks, stage, together, blocks.start, done, banks=False, wanted=wanted, known=on_sparse
            )
            done |= stage._replace(groups=tuple(together)).weights()
        for _ in advance(blocks, stage, done, blocks.start, blocks.start, Lost(), known):
            pass
        if scored:
            gather(rule, blocks, stage, groups, blocks.start, {}, banks=False)
            blocks.run(stage, 0, blocks.start[0], {})
        seconds.append(time.perf_counter() - began)
    return seconds[-1]


def _solving(method: Calibrated, blocks: Blocks, timed: Stage, stages: Sequence[Stage]) -> float:
    """Return the seconds of all factors and solves, timed on rows of a matrix of each width in one block.

    Exact removal takes minutes for a wide matrix: one row of the narrowest is timed, and multiplied by the
    cubes of the inputs.
    """
    rule, exact = method.rule(), getattr(method, "solver", "blocked") == "exact"
    groups = [group for group in timed.groups if any(matrix.pruned for matrix in group.matrices)]
    groups = sorted(groups, key=lambda group: _widths(timed, group)[0])[: 1 if exact else None]
    known: dict[int, tuple[float, float]] = {}  # inputs -> seconds of a factor, of a row
    for group in groups:
        if (inputs := _widths(timed, group)[0]) in known:
            continue
        matrix = group.matrices[0]
        W = matrix.weight(timed.root.get_parameter(f"{matrix.module}.weight"))[: 1 if exact else ROWS]
        (sums,) = gather(rule, blocks, timed, [group], blocks.start, {}, banks=False)
        began = time.perf_counter()
        if rule.compensates:
            sums.factor()
        ended = time.perf_counter()
        rule.solve(W, sums, Budget(inputs // 2))
        known[inputs] = ended - began, (time.perf_counter() - ended) / len(W)
    total, power = 0.0, 3 if exact else 2
    for stage in stages if known else ():
        for group in stage.groups:
            inputs = _widths(stage, group)[0]
            near = min(known, key=lambda width: abs(math.log(width / inputs)))
            sizes = [
                stage.root.get_parameter(f"{m.module}.weight").numel() for m in group.matrices if m.pruned
            ]
            factor, row = known[near]
            total += factor * (inputs / near) ** 3 if sizes else 0.0
            total += row * sum(sizes) / inputs * (inputs / near) ** power
    return total
