"""Magnitude pruning: what is small goes, in one shot and without training.

Source: Han et al. 2015; the one-shot baseline (OMP) of the lottery-ticket literature. Needs only weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from hardtack.methods.search import Data, record, sparsities_field
from hardtack.prunable import KINDS, Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity, check_drawable, draw
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Objective


@dataclass(frozen=True)
class Magnitude:
    """Removes the weights of smallest absolute value, or the heads and neurons of smallest squared norm.

    Differs from the paper: nothing is retrained here; `retrain` does that for every method alike.
    """

    name: ClassVar[str] = "magnitude"
    needs: ClassVar[str] = "weights"
    starts: ClassVar[str] = "base"
    minimises: ClassVar[str] = "clean"
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[str, ...]] = KINDS
    gives: ClassVar[str] = "the largest weights, or heads and neurons of largest norm; nested"
    advice: ClassVar[str] = "a ticket is wanted at once, or a learned one needs its plainest rival"

    sparsities: tuple[Sparsity, ...] = sparsities_field(0.3)
    scope: str = field(
        default="global", metadata={"help": "rank over the whole model (global), each site or each row"}
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
        """Rank once, then draw a ticket for each wanted sparsity."""
        scores = magnitudes(view, start)
        for sparsity in self.sparsities:
            masks = draw(view, scores, sparsity, self.scope)
            yield Ticket.of(base, view, masks, **record(self, run, sparsity))


def magnitudes(view: Prunable, model: nn.Module) -> dict[str, Tensor]:
    """Return |w| of each weight, the squared norm of each head or neuron: site -> float32 [units] on the CPU.

    Not the square of a weight: in float32 that is 0 below 1e-23 and the same for neighbours, which makes
    ties.
    """
    weights = {name: weight.detach().float().cpu() for name, weight in view.tensors(model).items()}
    norms = view.pooled({name: weight.square() for name, weight in weights.items()})
    return {
        site.name: weights[site.exit.param].abs().flatten() if site.exit.index is None else norms[site.name]
        for site in view.sites
    }
