"""Post-training pruning, block by block: what Wanda, OBS and knowledge retention have in common.

Each block is pruned on calibration data, then both hidden states move through it. A method's rule says which
inputs it reads and what becomes of one matrix.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.methods.blocks import Blocks
from hardtack.methods.calibrated import Calibrated
from hardtack.methods.calibration import described, samples
from hardtack.methods.known import Known, Paths
from hardtack.methods.parts import Group, Matrix, Stage
from hardtack.methods.search import Data, check_kinds, record
from hardtack.methods.sizes import check_room
from hardtack.methods.solve import Budget
from hardtack.methods.states import States, giving_back, record_
from hardtack.methods.sums import Lost, Rule, Sums, advance, gather, target_name, targets
from hardtack.modes import evaluation_mode
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity, check_drawable, draw, round_half_up
from hardtack.storage import Stored
from hardtack.ticket import Base, Ticket, fingerprint
from hardtack.training.adversarial import Objective


def check(method: Calibrated, view: Prunable) -> None:
    """Refuse units that are not single weights, and sparsities that cannot be drawn from them."""
    check_kinds(method, view)
    check_drawable(view, method.sparsities, method.scope)


def tickets(
    method: Calibrated,
    start: nn.Module,
    base: Base,
    view: Prunable,
    data: Data,
    objective: Objective,
    run: Run,
) -> Iterator[Ticket]:
    """Prune once for each wanted sparsity and yield its ticket; a killed run goes on at its block."""
    check(method, view)
    rule = method.rule()
    if data.weights is not None and method.scope == "global":
        raise InputError(
            "scope global compares the weights of the whole model, which is not in memory (stream); allowed: "
            "row, site"
        )
    if rule.compensates and data.weights is None and fingerprint(start, base.fresh) != base.fingerprint:
        raise InputError(
            f"{method.name} changes the weights of the model that it reads, so its tickets fit no other "
            "base; allowed: the fine-tuned model itself as the base, without another start"
        )
    frugal = nullcontext if data.weights is None else giving_back
    with evaluation_mode(start), frugal():
        blocks = Blocks.of(start, samples(method, start, data, objective, run), data.weights)
        stages = list(blocks.stages(view))
        remembers = check_room(method, blocks, stages, view, run)
        record_(blocks, run)
    for sparsity in method.sparsities:
        part = run.part(str(sparsity))
        if run.kept(f"handed-over-{sparsity}") is not None:
            continue
        with evaluation_mode(start), frugal():
            found = _pruned(method, blocks, stages, view, sparsity, part, remembers)
        facts: dict[str, Any] = {
            "calibration": described(blocks),
            "reconstruction_error": found.errors,
            "distance": found.distances,
        }
        if found.short:
            facts["note"] = (
                f"calibration rows are fewer than the inputs of {', '.join(found.short)}: there the ridge "
                f"of {rule.ridge} decides where the data do not"
            )
        origin = record(method, run, sparsity, **facts)
        masks = _in_order(found.masks, [site.name for site in view.sites])
        weights = found.weights if rule.compensates else {}
        yield Ticket(base, masks, view.granularity, weights, origin, view.keep_whole)
        run.keep(f"handed-over-{sparsity}", {"done": torch.ones(1)})
        part.discard()


@dataclass
class _Pruned:
    """What pruning has come to so far: masks, weights as they are stored, and what it cost.

    Of a streamed model the tensors lie in the run's scratch, a file for each block.
    """

    masks: dict[str, Tensor] | Stored = field(default_factory=dict)
    weights: dict[str, Tensor] | Stored = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    distances: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)
    blocks: int = 0

    def keep_(
        self, run: Run, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], lost: Lost
    ) -> dict[str, Any]:
        """Keep what one more stage came to, in scratch and here; return what it cost."""
        tensors = {f"weight {name}": weight for name, weight in weights.items()}
        tensors |= {f"mask {name}": mask for name, mask in masks.items()}
        facts = {"errors": lost.errors(), "distances": lost.distances(), "short": self.short}
        run.keep(f"block-{self.blocks}", tensors, **facts)
        self.extend_(run, tensors, facts)
        return facts

    def extend_(self, run: Run, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Add a stage as it was kept."""
        stored = run.stored(f"block-{self.blocks}", tensors).places if run.folder else {}
        for what, all_ in (("mask ", self.masks), ("weight ", self.weights)):
            names = [name for name in tensors if name.startswith(what)]
            if isinstance(all_, Stored):
                all_.places.update({name.removeprefix(what): stored[name] for name in names})
            else:
                all_.update({name.removeprefix(what): tensors[name] for name in names})
        self.errors.update(facts["errors"])
        for kind, apart in facts["distances"].items():
            for name, value in apart.items():
                self.distances.setdefault(kind, {}).setdefault(name, []).append(value)
        self.short[:] = facts["short"]
        self.blocks += 1


def _in_order(masks: dict[str, Tensor] | Stored, names: Sequence[str]) -> Mapping[str, Tensor]:
    if isinstance(masks, Stored):
        return Stored({name: masks.places[name] for name in names})
    return {name: masks[name] for name in names}


def _log(run: Run, stage: Stage, facts: Mapping[str, Any]) -> None:
    errors = facts["errors"].values()
    middle = sum(errors) / len(errors) if errors else 0.0
    apart = {
        f"{kind}_{name}": value for kind, two in facts["distances"].items() for name, value in two.items()
    }
    run.log(block=stage.name, reconstruction_error=round(middle, 8), **apart)


@torch.no_grad()
def _pruned(
    method: Calibrated,
    blocks: Blocks,
    stages: Sequence[Stage],
    view: Prunable,
    sparsity: Sparsity,
    run: Run,
    remembers: bool,
) -> _Pruned:
    rule, streamed = method.rule(), blocks.weights is not None
    found = _Pruned(Stored({}), Stored({})) if streamed else _Pruned()
    last: dict[str, Any] = {}
    while (kept := run.kept(f"block-{found.blocks}")) is not None:
        tensors, facts = kept
        found.extend_(run, tensors, facts)
        run.clock.catch_up(facts["seconds"])
        last = facts
    if found.blocks:
        stage = stages[found.blocks - 1]
        if not run.logged(block=stage.name, part=run.prefix):  # killed just after the block was kept
            _log(run, stage, last)
        run.log(event="resumed", block=found.blocks)
    states = None
    if found.blocks < len(stages):
        states = States.begun(blocks, run, found.blocks)
    budgets = _budgets(method, blocks, stages, view, sparsity, run)
    for number, stage in enumerate(stages):
        if number < found.blocks or states is None:
            continue
        lost, known = Lost(), Paths.new() if remembers else None
        with blocks.present(stage.block):
            weights, masks = _stage(
                rule, blocks, stage, budgets, states.dense, states.sparse, found.short, run, known
            )
            pairs = advance(blocks, stage, weights, states.dense, states.sparse, lost, known)
            if stage.block is None:  # nothing comes after it; a language model's logits are large
                for _ in pairs if stage.groups else ():
                    pass
            else:
                states.advance_(blocks, run, pairs)
            changed = {
                matrix.name: weights[f"{matrix.module}.weight"].cpu()
                for matrix in stage.matrices()
                if f"{matrix.module}.weight" in weights
            }
        _log(run, stage, found.keep_(run, changed, {name: mask.cpu() for name, mask in masks.items()}, lost))
        del weights, masks, changed  # else they wait for the next stage's
        states.settle_(run)
        run.tick(f"{method.name} {sparsity}", number + 1, len(stages))
    return found


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
    run: Run,
    known: Paths | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Prune the matrices of a stage; return its changed parameters, by their names there, and the masks."""
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    groups = [g for g in stage.groups if rule.adapts or any(matrix.pruned for matrix in g.matrices)]
    banks = any(budget.banks for budget in budgets.values())
    on_dense, on_sparse = known or (None, None)
    wanted = _wanted(blocks, stage, groups, dense, run, on_dense) if rule.adapts else None
    for together in [groups] if rule.each == "block" else [[group] for group in groups]:
        states, pruned = (dense, {}) if rule.path == "dense" else (sparse, weights)
        gathered = gather(
            rule, blocks, stage, together, states, pruned, banks=banks, wanted=wanted, known=on_sparse
        )
        for group, sums in zip(together, gathered, strict=True):
            for matrix in group.matrices:
                _solve_(rule, stage, matrix, sums, budgets, weights, masks)
                if rule.compensates and sums.rows < len(sums.gram):
                    short.append(matrix.name)
    if wanted is not None:
        run.drop("targets")
    return weights, masks


def _wanted(
    blocks: Blocks,
    stage: Stage,
    groups: Sequence[Group],
    dense: Sequence[Tensor],
    run: Run,
    known: Known | None,
) -> Mapping[str, Tensor]:
    """Return what adaptive weights are fitted to; of a streamed model it lies on disk."""
    found = targets(blocks, stage, groups, dense, known)
    if blocks.weights is None:
        return dict(found)
    names = [target_name(batch, group) for batch in blocks.summed for group in groups]
    return run.stream("targets", names, found)


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
    if not torch.isfinite(W.sum()):
        raise InputError(f"{matrix.name} became NaN or infinite at ridge {rule.ridge}; choose a larger ridge")
    weights[f"{matrix.module}.weight"] = matrix.stored(W, stored)
    if matrix.pruned:
        masks[matrix.name] = matrix.stored(mask, mask).flatten()
