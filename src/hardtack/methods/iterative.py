"""Iterative magnitude pruning (IMP): train, cut the smallest, rewind to the start, again.

Sources: Frankle & Carbin 2019; the geometric-global schedule with full rewinding of Wang et al. (double-win tickets, ICML
2022, Sec. 3); the linear-local schedule of Liu et al. (SRNets, NeurIPS 2022, Alg. 1, "imp-rw").

In both papers the first cut happens before any training, so round 1 trains what one-shot magnitude pruning left.

Differs from the papers: rewinding restores a true copy of the whole state (one released code kept references to the live
tensors, so nothing was rewound); the training objective is the one that is asked for (there the debiasing loss was ignored);
a wanted sparsity between two rounds is drawn from the scores of the round that passes it, and the path itself goes on
undisturbed; the linear schedule stops at the last wanted sparsity instead of cutting 100% at its tenth event.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.methods.search import Data, record, sparsities_field
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.schedule import Constant
from hardtack.select import Sparsity, checked, cut, round_half_up
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Objective
from hardtack.training.loop import fit_steps
from hardtack.training.snapshot import Snapshot

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class Iterative:
    """Alternates training with cuts of the smallest weights, rewinding to the start after each round.

    The geometric schedule removes `share` of what is left over the whole model (round k leaves (1 - share)^k); the linear one
    removes `share` of the original count from each site at every round.
    """

    name: ClassVar[str] = "iterative"
    needs: ClassVar[str] = "labels"
    starts: ClassVar[str] = "base"
    minimises: ClassVar[str] = "clean"
    version: ClassVar[int] = 1

    sparsities: tuple[Sparsity, ...] = sparsities_field(0.3)
    schedule: str = field(
        default="geometric", metadata={"help": "geometric (global ranking) or linear (each site alike)"}
    )
    share: float = field(
        default=0.2, metadata={"help": "share cut a round: of what is left, or of all (linear; paper 0.1)"}
    )
    epochs: float = field(
        default=3.0, metadata={"help": "epochs of training a round (paper: 30 on ImageNet)"}
    )
    lr: float = field(default=2e-5, metadata={"help": "learning rate, constant within a round"})
    weight_decay: float = field(
        default=0.01, metadata={"help": "AdamW's weight decay; pruned weights feel none"}
    )
    clip: float = field(default=1.0, metadata={"help": "bound on the live gradients' norm; 0 is no clipping"})

    def __post_init__(self) -> None:
        if self.schedule not in ("geometric", "linear"):
            raise InputError(f"schedule {self.schedule!r} does not exist; allowed: geometric, linear")
        if not 0 < self.share < 1:
            raise InputError(f"share {self.share} is not allowed; allowed: 0 < share < 1")
        if any(wanted.fraction is None for wanted in self.sparsities):
            raise InputError(
                "iterative takes plain fractions as sparsities, e.g. 0.3; kinds, banks and learned are for others"
            )

    def steps(self, epoch: int) -> int:
        """Return the training steps of the search, given those of one epoch."""
        rounds, left = 0, 1.0
        while max(wanted.of("weight") for wanted in self.sparsities) > 1 - left + 1e-9:
            left = left * (1 - self.share) if self.schedule == "geometric" else left - self.share
            rounds += 1
        return max(0, rounds - 1) * max(1, round_half_up(self.epochs * epoch))

    def search(
        self, start: nn.Module, base: Base, view: Prunable, data: Data, objective: Objective, run: Run
    ) -> Iterator[Ticket]:
        origin = Snapshot(start)
        wanted = sorted(self.sparsities, key=lambda sparsity: sparsity.of("weight"))
        masks, done = self._resume(view, run)
        while wanted:
            part = run.part(f"round-{done}")
            if done:  # the first cut comes before any training
                try:
                    self._train(
                        start, Ticket.of(base, view, masks), data, objective, part, f"IMP round {done}"
                    )
                    scores = _magnitudes(view, start)
                finally:
                    origin.restore_(start)
            else:
                scores = _magnitudes(view, start)
            path = self._cut(view, masks, scores, self._counts(view, masks, done))
            while wanted and wanted[0].of("weight") <= _removed(path) + 0.5 / view.units:
                sparsity = wanted.pop(0)
                drawn = (
                    path
                    if _same(sparsity, path, done)
                    else self._cut(view, masks, scores, _exact(self, view, sparsity))
                )
                named = checked(drawn, f"sparsity {sparsity.fraction}")
                yield Ticket.of(base, view, named, **record(self, run, sparsity, round=done))
            masks, done = path, done + 1
            run.part("path").keep("masks", masks, rounds=done)
            part.discard()
            run.log(event="round", round=done, sparsity=_removed(masks))

    def _train(
        self, model: nn.Module, ticket: Ticket, data: Data, objective: Objective, run: Run, label: str
    ) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        total = max(1, round_half_up(self.epochs * len(data.train)))
        for step in fit_steps(
            model, data.train, objective, optimizer, total=total, lr=Constant(self.lr), run=run, clip=self.clip,
            hold=ticket, label=label,
        ):  # fmt: skip
            run.log(step=step.index, loss=step.loss)

    def _counts(self, view: Prunable, masks: Masks, done: int) -> dict[str, int]:
        """How many units are gone after the next cut: in all (key "") or for each site."""
        if self.schedule == "geometric":
            left = sum(int(mask.sum()) for mask in masks.values())
            return {"": view.units - left + round_half_up(self.share * left)}
        share = min(self.share * (done + 1), 1.0)
        return {site.name: round_half_up(share * site.units) for site in view.sites}

    def _cut(
        self, view: Prunable, masks: Masks, scores: Mapping[str, Tensor], gone: Mapping[str, int]
    ) -> Masks:
        """Remove the lowest until `gone` units are gone; what was gone before stays so."""
        ranked = {name: torch.where(masks[name], score, -1.0) for name, score in scores.items()}
        if "" not in gone:
            return {name: cut(ranked[name], gone[name]) for name in ranked}
        sizes = [score.numel() for score in ranked.values()]
        parts = cut(torch.cat(list(ranked.values())), gone[""]).split(sizes)
        return {name: part.clone() for name, part in zip(ranked, parts)}

    def _resume(self, view: Prunable, run: Run) -> tuple[Masks, int]:
        kept = run.part("path").kept("masks")
        if kept is None:
            return {site.name: torch.ones(site.units, dtype=torch.bool) for site in view.sites}, 0
        return kept[0], int(kept[1]["rounds"])


def _magnitudes(view: Prunable, model: nn.Module) -> dict[str, Tensor]:
    return view.pooled({name: weight.detach().square() for name, weight in view.tensors(model).items()})


def _removed(masks: Masks) -> float:
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total


def _same(sparsity: Sparsity, path: Masks, rounds: int) -> bool:
    """True where the wanted count is the path's own, but for the roundings of its cuts."""
    total = sum(mask.numel() for mask in path.values())
    return abs(round_half_up(sparsity.of("weight") * total) - round(_removed(path) * total)) <= rounds


def _exact(method: Iterative, view: Prunable, sparsity: Sparsity) -> dict[str, int]:
    fraction = sparsity.of("weight")
    if method.schedule == "geometric":
        return {"": round_half_up(fraction * view.units)}
    return {site.name: round_half_up(fraction * site.units) for site in view.sites}
