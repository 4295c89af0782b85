"""Iterative magnitude pruning (IMP): train, cut the smallest, rewind to the start, again.

Sources: Frankle & Carbin 2019; the geometric-global schedule with full rewinding of Wang et al. (double-win
tickets, ICML 2022, Sec. 3); the linear-local schedule of Liu et al. (SRNets, NeurIPS 2022, Alg. 1, "imp-rw").

In both papers the first cut happens before any training, so round 1 trains what one-shot magnitude pruning
left.

Differs from the papers: rewinding restores a true copy of the whole state (one released code kept
references to the live tensors, so nothing was rewound); the training objective is the one that is asked for
(there the debiasing loss was ignored); a wanted sparsity between two rounds is drawn from the scores of the
round that passes it, and the path itself goes on undisturbed; the linear schedule stops at the last wanted
sparsity instead of cutting 100% at its tenth event.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.methods.magnitude import magnitudes
from hardtack.methods.search import Data, check_training, record, sparsities_field
from hardtack.prunable import KINDS, Prunable
from hardtack.runs import Run
from hardtack.schedule import Constant
from hardtack.select import Sparsity, check_drawable, draw, round_half_up
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Objective
from hardtack.training.loop import decayed, fit_steps
from hardtack.training.snapshot import Snapshot

Masks = dict[str, Tensor]
NEAR = 5e-5
"""A wanted sparsity this near to a round's is that round's own: sparsities are written with four decimals."""


@dataclass(frozen=True)
class Iterative:
    """Alternates training with cuts of the smallest weights, rewinding to the start after each round.

    The geometric schedule removes `share` of what is left over the whole model (round k leaves (1 -
    share)^k); the linear one removes `share` of the original count from each site at every round.
    """

    name: ClassVar[str] = "iterative"
    needs: ClassVar[str] = "labels"
    starts: ClassVar[str] = "base"
    minimises: ClassVar[str] = "clean"
    removes: ClassVar[tuple[str, ...]] = KINDS
    version: ClassVar[int] = 1
    gives: ClassVar[str] = "nested masks, each cut from weights that were trained under the one before"
    advice: ClassVar[str] = (
        "clean accuracy at high sparsity matters most, and a training run for each round is affordable"
    )

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
        default=0.01, metadata={"help": "AdamW's weight decay, on matrices; pruned weights feel none"}
    )
    clip: float = field(default=1.0, metadata={"help": "bound on the live gradients' norm; 0 is no clipping"})

    def __post_init__(self) -> None:
        if self.schedule not in ("geometric", "linear"):
            raise InputError(f"schedule {self.schedule!r} does not exist; allowed: geometric, linear")
        if not 0 < self.share < 1:
            raise InputError(f"share {self.share} is not allowed; allowed: 0 < share < 1")
        if any(wanted.fraction is None for wanted in self.sparsities):
            raise InputError(
                "iterative takes plain fractions, e.g. 0.3; kinds, banks and costs are for others"
            )
        check_training(epochs=self.epochs, lr=self.lr, weight_decay=self.weight_decay, clip=self.clip)

    def steps(self, epoch: int) -> int:
        """Return the training steps of the search, given those of one epoch."""
        rounds, last = 0, max(self.sparsities, key=_fraction)
        while not self._passed(_fraction(last), rounds):
            rounds += 1
        return rounds * self._round_steps(epoch)  # the first cut comes before any training

    def check(self, view: Prunable) -> None:
        """Refuse sparsities that cannot be drawn from these units."""
        check_drawable(view, self.sparsities, self._scope())

    def search(
        self, start: nn.Module, base: Base, view: Prunable, data: Data, objective: Objective, run: Run
    ) -> Iterator[Ticket]:
        """Walk the path of rounds, and draw each wanted sparsity in the round that reaches it."""
        origin = Snapshot(start)
        scope = self._scope()
        masks, done = _resume(view, run)
        wanted = sorted(self.sparsities, key=_fraction)
        if done:  # what earlier rounds reached was handed over before their masks were kept
            wanted = [each for each in wanted if not self._reached(each, _gone(view, masks), view, done - 1)]
        while wanted:
            part = run.part(f"round-{done}")
            try:
                if done:  # the first cut comes before any training
                    self._train(
                        start, Ticket.of(base, view, masks), data, objective, part, f"IMP round {done}"
                    )
                scores = magnitudes(view, start)
            finally:
                origin.restore_(start)
            ranked = {name: torch.where(masks[name], score, -1.0) for name, score in scores.items()}
            path = self._next(view, masks, done)
            while wanted and self._reached(wanted[0], path, view, done):
                sparsity = wanted.pop(0)
                # On the path, a ticket is the path's own: its count is the sum of the rounded cuts.
                own = abs(_fraction(sparsity) - self._removed(done)) < NEAR
                drawn = draw(view, ranked, path if own else sparsity, scope)
                yield Ticket.of(base, view, drawn, **record(self, run, sparsity, round=done))
            if wanted:
                masks, done = draw(view, ranked, path, scope), done + 1
                run.log(event="round", round=done, path=str(path))
                run.part("path").keep("masks", masks, rounds=done)
                part.discard()

    def _train(
        self, model: nn.Module, ticket: Ticket, data: Data, objective: Objective, run: Run, label: str
    ) -> None:
        optimizer = torch.optim.AdamW(decayed(model, self.weight_decay), lr=self.lr, fused=True)
        for step in fit_steps(
            model, data.train, objective, optimizer, total=self._round_steps(len(data.train)),
            lr=Constant(self.lr), run=run, clip=self.clip, hold=ticket, precision=data.precision, label=label,
        ):  # fmt: skip
            run.log(step=step.index, loss=step.loss)

    def _scope(self) -> str:
        return "global" if self.schedule == "geometric" else "site"

    def _round_steps(self, epoch: int) -> int:
        return max(1, round_half_up(self.epochs * epoch))

    def _removed(self, done: int) -> float:
        """Return the sparsity that the schedule names for the cut after `done` rounds."""
        if self.schedule == "geometric":
            return 1 - (1 - self.share) ** (done + 1)
        return min(self.share * (done + 1), 1.0)

    def _passed(self, fraction: float, done: int) -> bool:
        return fraction < self._removed(done) + NEAR

    def _next(self, view: Prunable, masks: Masks, done: int) -> Sparsity:
        """Return what will be gone after the next cut, in exact counts: the sum of the rounded cuts."""
        if self.schedule == "linear":
            return Sparsity(fraction=self._removed(done))
        before, after = _gone(view, masks), _gone(view, masks, self.share)
        last = max(map(_fraction, self.sparsities))
        for kind, count in _units(view).items():
            gone = round_half_up(after.of(kind) * count)
            if after.of(kind) == before.of(kind) and gone < round_half_up(last * count):
                raise InputError(
                    f"share {self.share} cuts none of the {count - gone} {kind} units left, so sparsity "
                    f"{last} is out of reach; choose a larger share"
                )
        return after

    def _reached(self, wanted: Sparsity, path: Sparsity, view: Prunable, done: int) -> bool:
        """Say whether the path's masks after this cut contain the wanted ones, which makes tickets nested."""
        fraction = _fraction(wanted)
        if self.schedule == "linear" or abs(fraction - self._removed(done)) < NEAR:
            return self._passed(fraction, done)
        return all(
            round_half_up(fraction * count) <= round_half_up(path.of(kind) * count)
            for kind, count in _units(view).items()
        )


def _fraction(sparsity: Sparsity) -> float:
    assert sparsity.fraction is not None  # checked when the method was made
    return sparsity.fraction


def _units(view: Prunable) -> dict[str, int]:
    return {kind: sum(site.units for site in view.sites if site.kind == kind) for kind in view.granularity}


def _gone(view: Prunable, masks: Masks, share: float = 0.0) -> Sparsity:
    """Return what of each kind is gone once `share` of what the masks leave is cut too, in exact counts."""
    pairs = []
    for kind, count in _units(view).items():
        left = sum(int(masks[site.name].sum()) for site in view.sites if site.kind == kind)
        pairs.append((kind, 1 - (left - round_half_up(share * left)) / count if count else 0.0))
    return Sparsity(per_kind=tuple(pairs))


def _resume(view: Prunable, run: Run) -> tuple[Masks, int]:
    """Return the path's masks and how many cuts made them, as far as an earlier process came."""
    path = run.part("path")
    kept = path.kept("masks")
    if kept is None:
        masks = {site.name: torch.ones(site.units, dtype=torch.bool) for site in view.sites}
        path.keep("masks", masks, rounds=0, log_bytes=run.log_size())
        return masks, 0
    masks, facts = kept
    run.clock.catch_up(facts["seconds"])
    if facts["rounds"] == 0:  # later, the round's own training cuts the log back
        run.cut_log(facts["log_bytes"])
    return masks, int(facts["rounds"])
