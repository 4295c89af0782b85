"""Post-training pruning, block by block: what Wanda, OBS and knowledge retention have in common.

Each block is pruned on calibration data, then both hidden states move through it. A method's rule says which
inputs it reads and what becomes of one matrix.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.methods.blocks import Blocks, Matrix, Stage
from hardtack.methods.search import Data, Search, check_kinds, record
from hardtack.methods.solve import Budget
from hardtack.methods.sums import Rule, Sums, advance, gather, targets
from hardtack.modes import evaluation_mode
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity, check_drawable, draw, round_half_up
from hardtack.ticket import Base, Ticket, fingerprint


class Calibrated(Search, Protocol):
    """A method of this kind; its rule says what it does with a matrix."""

    @property
    def calibration(self) -> int:
        """How many training examples are read."""
        ...

    @property
    def scope(self) -> str:
        """What a sparsity is a share of: "row", "site" or "global"."""
        ...

    def rule(self) -> Rule:
        """Return how it prunes."""
        ...


def check(method: Calibrated, view: Prunable) -> None:
    """Refuse units that are not single weights, and sparsities that cannot be drawn from them."""
    check_kinds(method, view)
    check_drawable(view, method.sparsities, method.scope)


def tickets(
    method: Calibrated, start: nn.Module, base: Base, view: Prunable, data: Data, run: Run
) -> Iterator[Ticket]:
    """Prune once for each wanted sparsity and yield its ticket; a killed run goes on at its block."""
    check(method, view)
    rule = method.rule()
    if rule.compensates and fingerprint(start, base.fresh) != base.fingerprint:
        raise InputError(
            f"{method.name} changes the weights of the model that it reads, so its tickets fit no other "
            "base; allowed: the fine-tuned model itself as the base, without another start"
        )
    rows = data.train.drawn(method.calibration, run.key("calibration"))
    if len(rows) == 0:
        raise InputError(f"{method.name} found no calibration examples; at least 1 is needed")
    batches = list(data.train.in_order(only=rows))
    with evaluation_mode(start):
        blocks = Blocks.of(start, batches)
        stages = list(blocks.stages(view))
    for sparsity in method.sparsities:
        part = run.part(str(sparsity))
        if part.kept("handed-over") is not None:
            continue
        with evaluation_mode(start):
            pruned = _pruned(method, blocks, stages, view, sparsity, part)
        facts: dict[str, Any] = {
            "calibration": {"examples": len(rows), "tokens": sum(int(mask.sum()) for mask in blocks.tokens)},
            "reconstruction_error": pruned.errors,
            "distance": pruned.distances,
        }
        if pruned.short:
            facts["note"] = (
                f"calibration rows are fewer than the inputs of {', '.join(pruned.short)}: there the ridge "
                f"of {rule.ridge} decides where the data do not"
            )
        origin = record(method, run, sparsity, **facts)
        masks = {site.name: pruned.masks[site.name] for site in view.sites}
        weights = pruned.weights if rule.compensates else {}
        yield Ticket(base, masks, view.granularity, weights, origin, view.keep_whole)
        part.discard()
        part.keep("handed-over", {"done": torch.ones(1)})


class _Pruned(NamedTuple):
    """What pruning has come to so far: masks, weights as they are stored, and what it cost."""

    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    errors: dict[str, float]
    distances: dict[str, dict[str, float]]
    short: list[str]


@torch.no_grad()
def _pruned(
    method: Calibrated, blocks: Blocks, stages: Sequence[Stage], view: Prunable, sparsity: Sparsity, run: Run
) -> _Pruned:
    rule, dense, sparse = method.rule(), list(blocks.start), list(blocks.start)
    found = _Pruned({}, {}, {}, {}, [])
    first = 0
    if (kept := run.kept("states")) is not None:
        tensors, facts = kept
        first, device = facts["done"], blocks.start[0].device
        dense = [tensors[f"dense {number}"].to(device) for number in range(len(dense))]
        sparse = [tensors[f"sparse {number}"].to(device) for number in range(len(sparse))]
        for number in range(first):
            _restore_(found, run, number)
        run.clock.catch_up(facts["seconds"])
        run.log(event="resumed", block=first)
    budgets = _budgets(method, blocks, stages, view, sparsity, run)
    for number, stage in enumerate(stages[first:], first):
        weights, masks = _stage(rule, blocks, stage, budgets, dense, sparse, found.short)
        dense, sparse, errors, distance = advance(blocks, stage, weights, dense, sparse)
        new = {
            matrix.name: weights[f"{matrix.module}.weight"].cpu()
            for matrix in stage.matrices()
            if f"{matrix.module}.weight" in weights
        }
        gone = {name: mask.cpu() for name, mask in masks.items()}
        tensors = {
            **{f"weight {name}": weight for name, weight in new.items()},
            **{f"mask {name}": mask for name, mask in gone.items()},
        }
        distances = {stage.name: distance} if distance else {}
        run.keep(f"block-{number}", tensors, errors=errors, distances=distances, short=found.short)
        states = {f"dense {batch}": state for batch, state in enumerate(dense)}
        states |= {f"sparse {batch}": state for batch, state in enumerate(sparse)}
        run.keep("states", states, done=number + 1)
        _extend_(found, new, gone, errors, distances)
        middle = sum(errors.values()) / len(errors) if errors else 0.0
        run.log(block=stage.name, reconstruction_error=round(middle, 8), **distance)
        run.tick(f"{method.name} {sparsity}", number + 1, len(stages))
    return found


def _restore_(found: _Pruned, run: Run, number: int) -> None:
    kept = run.kept(f"block-{number}")
    assert kept is not None, number
    tensors, facts = kept
    weights = {name.removeprefix("weight "): t for name, t in tensors.items() if name.startswith("weight ")}
    masks = {name.removeprefix("mask "): t for name, t in tensors.items() if name.startswith("mask ")}
    found.short[:] = facts["short"]
    _extend_(found, weights, masks, facts["errors"], facts["distances"])


def _extend_(found: _Pruned, weights: Any, masks: Any, errors: Any, distances: Any) -> None:
    found.weights.update(weights)
    found.masks.update(masks)
    found.errors.update(errors)
    found.distances.update(distances)


def _budgets(
    method: Calibrated, blocks: Blocks, stages: Sequence[Stage], view: Prunable, sparsity: Sparsity, run: Run
) -> dict[str, Budget]:
    """Return what goes of each matrix; for a global budget the dense model is read through once before."""
    if method.scope == "global" and not sparsity.banks:
        if (kept := run.kept("counts")) is None:
            scores = _global_scores(method.rule(), blocks, stages)
            masks = draw(view, scores, sparsity)
            counts = {name: int((~mask).sum()) for name, mask in masks.items()}
            run.keep("counts", {"done": torch.ones(1)}, counts=counts)
        else:
            counts = kept[1]["counts"]
        return {name: Budget(count, "site") for name, count in counts.items()}
    budgets = {}
    for site in view.sites:
        inputs = view.shapes[site.name][site.exit.dim]
        of = inputs if method.scope == "row" else site.units
        budgets[site.name] = Budget(round_half_up(sparsity.of("weight") * of), method.scope, sparsity.banks)
    return budgets


def _global_scores(rule: Rule, blocks: Blocks, stages: Sequence[Stage]) -> dict[str, Tensor]:
    """Return each weight's score as a share of its matrix's output, in the dense model."""
    scores, dense = {}, list(blocks.start)
    for stage in stages:
        groups = [group for group in stage.groups if any(matrix.pruned for matrix in group.matrices)]
        for group, sums in zip(
            groups, gather(rule, blocks, stage, groups, dense, {}, banks=False), strict=True
        ):
            for matrix in group.matrices:
                stored = stage.root.get_parameter(f"{matrix.module}.weight")
                W = matrix.weight(stored)
                energy = (W.square() * sums.gram if sums.gram.dim() == 1 else (W @ sums.gram) * W).sum()
                score = rule.scores(W, sums) / energy
                scores[matrix.name] = matrix.stored(score, score).flatten().cpu()
        if stage.block is not None:
            dense = [blocks.run(stage, batch, state, {}) for batch, state in enumerate(dense)]
    return scores


def _stage(
    rule: Rule,
    blocks: Blocks,
    stage: Stage,
    budgets: dict[str, Budget],
    dense: Sequence[Tensor],
    sparse: Sequence[Tensor],
    short: list[str],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Prune the matrices of a stage; return its changed parameters, by their names there, and the masks."""
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    groups = [g for g in stage.groups if rule.adapts or any(matrix.pruned for matrix in g.matrices)]
    banks = any(budget.banks for budget in budgets.values())
    goals = targets(blocks, stage, groups, dense) if rule.adapts else []
    for numbers in [range(len(groups))] if rule.each == "block" else [[n] for n in range(len(groups))]:
        together = [groups[number] for number in numbers]
        wanted = [[batch[number] for number in numbers] for batch in goals]
        states, pruned = (dense, {}) if rule.path == "dense" else (sparse, weights)
        gathered = gather(rule, blocks, stage, together, states, pruned, banks=banks, wanted=wanted)
        for group, sums in zip(together, gathered, strict=True):
            for matrix in group.matrices:
                _solve_(rule, stage, matrix, sums, budgets, weights, masks)
                if rule.compensates and sums.rows < len(sums.gram):
                    short.append(matrix.name)
    return weights, masks


def _solve_(
    rule: Rule,
    stage: Stage,
    matrix: Matrix,
    sums: Sums,
    budgets: dict[str, Budget],
    weights: dict[str, Tensor],
    masks: dict[str, Tensor],
) -> None:
    stored = stage.root.get_parameter(f"{matrix.module}.weight")
    budget = budgets[matrix.name] if matrix.pruned else Budget(0)
    if not matrix.pruned and not rule.adapts:
        return
    W, mask = rule.solve(matrix.weight(stored), sums, budget)
    if not torch.isfinite(W).all():
        raise InputError(f"{matrix.name} became NaN or infinite at ridge {rule.ridge}; choose a larger ridge")
    weights[f"{matrix.module}.weight"] = matrix.stored(W, stored)
    if matrix.pruned:
        masks[matrix.name] = matrix.stored(mask, mask).flatten()
