"""A pruning method made for the tests: the whole price of adding one is this file and one line in a table."""

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
class ByPosition:
    """Removes the units that stand first, or last, in the model."""

    name: ClassVar[str] = "by_position"
    needs: ClassVar[str] = "weights"
    starts: ClassVar[str] = "base"
    minimises: ClassVar[str] = "clean"
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[str, ...]] = KINDS
    gives: ClassVar[str] = "the last units of the model, or the first; nested"
    advice: ClassVar[str] = "a test needs a mask that can be worked out by hand"

    sparsities: tuple[Sparsity, ...] = sparsities_field(0.3)
    last: bool = field(default=False, metadata={"help": "remove from the end instead"})

    def steps(self, epoch: int) -> int:
        return 0

    def check(self, view: Prunable) -> None:
        check_drawable(view, self.sparsities)

    def search(
        self, start: nn.Module, base: Base, view: Prunable, data: Data, objective: Objective, run: Run
    ) -> Iterator[Ticket]:
        scores = {site.name: torch.linspace(0, 1, site.units) for site in view.sites}
        for sparsity in self.sparsities:
            masks = draw(view, {name: -s if self.last else s for name, s in scores.items()}, sparsity)
            yield Ticket.of(base, view, masks, **record(self, run, sparsity))
