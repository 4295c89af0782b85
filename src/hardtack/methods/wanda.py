"""Wanda: a weight is worth its size times the norm of what flows through it.

Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024 (arXiv
2306.11695).

Claim: without changing a weight and without a Hessian, such masks come near to those of second-order methods.

In steps:

    1. read calibration examples block by block, each block's inputs from the model pruned so far
    2. score each weight by |w_ij| * |x_j|, the norm over all calibration tokens (eq. 1)
    3. cut the lowest of each output row, or all but n of each bank of m inputs (Sec. 3)

Differs from the paper: padding enters no norm; budgets per matrix and global are there as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from hardtack.methods.calibrated import attacked_field, calibration_field, check_settings, scope_field
from hardtack.methods.layerwise import check, tickets
from hardtack.methods.search import Data, sparsities_field
from hardtack.methods.solve import Budget
from hardtack.methods.sums import Rule, Sums
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Objective


@dataclass(frozen=True)
class Wanda:
    """Removes the weights whose size times the norm of their input is smallest, compared within each row."""

    name: ClassVar[str] = "wanda"
    needs: ClassVar[str] = "inputs"
    starts: ClassVar[str] = "base"
    minimises: ClassVar[str] = "clean"
    version: ClassVar[int] = 1
    removes: ClassVar[tuple[str, ...]] = ("weight",)
    gives: ClassVar[str] = "in each row the weights that carry most of its output; no weight is changed"
    advice: ClassVar[str] = "there are seconds and some sentences, and the ticket must stay a pure mask"

    sparsities: tuple[Sparsity, ...] = sparsities_field(0.5)
    calibration: int = calibration_field()
    attacked: float = attacked_field()
    scope: str = scope_field()

    def __post_init__(self) -> None:
        check_settings(calibration=self.calibration, attacked=self.attacked, scope=self.scope)

    def steps(self, epoch: int) -> int:
        """Return the training steps of the search, given those of one epoch."""
        return 0

    def check(self, view: Prunable) -> None:
        """Refuse units that are not weights, and sparsities that cannot be drawn from them."""
        check(self, view)

    def search(
        self, start: nn.Module, base: Base, view: Prunable, data: Data, objective: Objective, run: Run
    ) -> Iterator[Ticket]:
        """Mask block by block, once for each wanted sparsity."""
        yield from tickets(self, start, base, view, data, objective, run)

    def rule(self) -> Rule:
        """Return what this method does with a block."""
        return Rule("sparse", "block", False, False, 0.0, self._scores, self._solve)

    def _scores(self, W: Tensor, sums: Sums) -> Tensor:
        """Return the squared score, (|w| * norm)^2: what the weight adds to its output's energy."""
        return W.square() * sums.gram

    def _solve(self, W: Tensor, sums: Sums, budget: Budget) -> tuple[Tensor, Tensor]:
        """Cut the lowest scores."""
        mask = budget.mask(W.abs() * sums.gram.sqrt())
        return W * mask, mask
