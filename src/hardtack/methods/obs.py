"""Optimal brain surgeon: remove the weight that costs least, let the others of its row make up for it.

Sources: Hassibi & Stork 1992; one layer at a time, as in Frantar & Alistarh, "Optimal Brain Compression",
NeurIPS 2022 (arXiv 2208.11580); the sweep on a shared factor, as in Frantar & Alistarh, "SparseGPT", ICML
2023 (arXiv 2301.00774).

Claim: with the other weights of a row re-fitted after each removal, a layer keeps its outputs at sparsities
at which magnitude pruning loses them.

In steps:

    1. add up H = sum of x x^T over the inputs of each matrix, in the dense model
    2. go through the columns; of each stretch remove from each row what costs least, w^2 / U_jj^2, with
       U^T U = H^-1, and subtract (w / U_jj) U_j from what lies to the right (SparseGPT, Alg. 1)
    3. fit each row's kept weights to its finished mask

Differs from the papers: the Hessian is static (`retention` follows the pruned model); columns are walked in
a fixed mixed order, so that each stretch has some of every head; step 3 is ours; padding enters no sum; exact
row-wise removal (OBC) is the option `solver`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from hardtack.methods.calibrated import (
    attacked_field,
    calibration_field,
    check_settings,
    refit_field,
    ridge_field,
    scope_field,
    solver_field,
)
from hardtack.methods.layerwise import check, tickets
from hardtack.methods.search import Data, sparsities_field
from hardtack.methods.solve import Budget, pruned, saliency
from hardtack.methods.sums import Rule, Sums
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Objective


@dataclass(frozen=True)
class Obs:
    """Removes what costs a matrix's outputs least, and lets the weights that stay make up for it."""

    name: ClassVar[str] = "obs"
    needs: ClassVar[str] = "inputs"
    starts: ClassVar[str] = "base"
    minimises: ClassVar[str] = "clean"
    version: ClassVar[int] = 2
    removes: ClassVar[tuple[str, ...]] = ("weight",)
    gives: ClassVar[str] = "masks and re-fitted weights, each matrix solved on the dense model's inputs"
    advice: ClassVar[str] = (
        "a fine-tuned model is pruned without training, and `retention` needs its plainest rival"
    )

    sparsities: tuple[Sparsity, ...] = sparsities_field(0.5)
    calibration: int = calibration_field()
    attacked: float = attacked_field()
    scope: str = scope_field()
    ridge: float = ridge_field()
    solver: str = solver_field()
    refit: int = refit_field()

    def __post_init__(self) -> None:
        check_settings(
            calibration=self.calibration, attacked=self.attacked, scope=self.scope, ridge=self.ridge,
            solver=self.solver, refit=self.refit,
        )  # fmt: skip

    def steps(self, epoch: int) -> int:
        """Return the training steps of the search, given those of one epoch."""
        return 0

    def check(self, view: Prunable) -> None:
        """Refuse units that are not weights, and sparsities that cannot be drawn from them."""
        check(self, view)

    def search(
        self, start: nn.Module, base: Base, view: Prunable, data: Data, objective: Objective, run: Run
    ) -> Iterator[Ticket]:
        """Prune block by block, once for each wanted sparsity."""
        yield from tickets(self, start, base, view, data, objective, run)

    def rule(self) -> Rule:
        """Return what this method does with a block."""
        return Rule("dense", "block", False, True, self.ridge, self._scores, self._solve)

    def _scores(self, W: Tensor, sums: Sums) -> Tensor:
        """Return the rise of the squared error if a weight goes alone and the others make up for it."""
        return saliency(W, sums.factor())

    def _solve(self, W: Tensor, sums: Sums, budget: Budget) -> tuple[Tensor, Tensor]:
        """Remove, compensate, re-fit."""
        return pruned(W, sums.factor(), budget, self.solver, self.refit)
