"""Random pruning: the control that every ticket must beat."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from hardtack.methods.search import Data, record, sparsities_field
from hardtack.prunable import KINDS, Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity, check_drawable, draw
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Objective


@dataclass(frozen=True)
class Random:
    """Removes units drawn at random, each site from a stream of its own; tickets of one seed are nested."""

    name: ClassVar[str] = "random"
    needs: ClassVar[str] = "weights"
    starts: ClassVar[str] = "base"
    minimises: ClassVar[str] = "clean"
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[str, ...]] = KINDS
    gives: ClassVar[str] = "units drawn by chance; nested within one seed"
    advice: ClassVar[str] = "always, as the control: a ticket that does not beat it has found nothing"

    sparsities: tuple[Sparsity, ...] = sparsities_field(0.3)
    scope: str = field(
        default="global", metadata={"help": "draw over the whole model (global), each site or each row"}
    )

    def steps(self, epoch: int) -> int:
        """Return the training steps of the search, given those of one epoch."""
        return 0

    def check(self, view: Prunable) -> None:
        """Refuse sparsities that cannot be drawn from these units."""
        check_drawable(view, self.sparsities, self.scope)

    def search(
        self, start: nn.Module, base: Base, view: Prunable, data: Data, objective: Objective, run: Run
    ) -> Iterator[Ticket]:
        """Score by uniform noise once, then draw a ticket for each wanted sparsity."""
        scores = {
            site.name: torch.rand(site.units, generator=run.rng("random", example=site.name))
            for site in view.sites
        }
        for sparsity in self.sparsities:
            masks = draw(view, scores, sparsity, self.scope)
            yield Ticket.of(base, view, masks, **record(self, run, sparsity))
