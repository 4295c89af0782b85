"""The settings that Wanda, OBS and knowledge retention share."""

import math
from dataclasses import field
from typing import Any, Protocol, runtime_checkable

from hardtack.errors import InputError
from hardtack.methods.search import Search
from hardtack.methods.sums import Rule
from hardtack.select import SCOPES

SOLVERS = ("blocked", "exact")


@runtime_checkable
class Calibrated(Search, Protocol):
    """A method of this kind; its rule says what it does with a matrix."""

    @property
    def calibration(self) -> int:
        """How many examples are read."""
        ...

    @property
    def attacked(self) -> float:
        """What share of them are attacked sentences."""
        ...

    @property
    def scope(self) -> str:
        """What a sparsity is a share of: "row", "site" or "global"."""
        ...

    def rule(self) -> Rule:
        """Return how it prunes."""
        ...


def calibration_field() -> Any:
    """Return the field that says how much data is read."""
    words = "training examples that are read, stratified by label; fewer if there are not so many"
    return field(default=256, metadata={"help": words})


def attacked_field() -> Any:
    """Return the field that says how much of the data are attacked sentences."""
    words = "share of them that are attacked sentences (--attacked-from), fewer if there are not so many"
    return field(default=0.0, metadata={"help": words})


def scope_field() -> Any:
    """Return the field that says what a sparsity is a share of."""
    words = "cut the same share of each row, of each matrix (site) or of the whole model (global)"
    return field(default="row", metadata={"help": words})


def ridge_field() -> Any:
    """Return the field of the ridge."""
    words = "added to the diagonal of each Hessian, in units of its mean"
    return field(default=1e-4, metadata={"help": words})


def solver_field() -> Any:
    """Return the field that says how weights are removed."""
    words = "blocked: one sweep on a shared factor; exact: one weight at a time in each row, slowly"
    return field(default="blocked", metadata={"help": words})


def refit_field() -> Any:
    """Return the field that says how well the kept weights are fitted to the mask."""
    words = "conjugate-gradient steps that fit the kept weights to the finished mask; 0 is none"
    return field(default=10, metadata={"help": words})


def check_settings(
    *,
    calibration: int,
    attacked: float,
    scope: str,
    ridge: float = 1e-4,
    solver: str = "blocked",
    refit: int = 0,
) -> None:
    """Refuse settings that no layer can be pruned with."""
    if calibration < 1:
        raise InputError(f"calibration {calibration} is not allowed; allowed: 1 or more examples")
    if not 0 <= attacked <= 1:
        raise InputError(f"attacked {attacked} is not allowed; allowed: a share from 0 to 1")
    if scope not in SCOPES:
        raise InputError(f"scope {scope!r} does not exist; allowed: {', '.join(SCOPES)}")
    if not 0 <= ridge < math.inf:
        raise InputError(f"ridge {ridge} is not allowed; allowed: 0 or more, finite")
    if solver not in SOLVERS:
        raise InputError(f"solver {solver!r} does not exist; allowed: {', '.join(SOLVERS)}")
    if solver == "exact" and scope != "row":
        raise InputError(f"solver exact takes the same count from each row; scope {scope!r} needs blocked")
    if refit < 0:
        raise InputError(f"refit {refit} is not allowed; allowed: 0 or more steps")
