"""Statistics for comparisons: numbers in, numbers out; every interval says how far chance alone could move a
number.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from hardtack.errors import InputError

Numbers = Sequence[float] | Sequence[bool] | np.ndarray


class Interval(NamedTuple):
    """An estimate and the confidence interval around it."""

    mean: float
    low: float
    high: float


def proportion(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return a fraction with its Wilson interval, which stays inside [0, 1] and is honest for small n."""
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"{successes} of {n} is no proportion; allowed: 0 <= successes <= n, n at least 1")
    _check_confidence(confidence)
    low, high = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(low), float(high))


def paired_difference(
    a: Numbers, b: Numbers, *, seed: int, confidence: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Return mean(a) - mean(b) with a percentile bootstrap interval over the examples both were measured on.

    Examples are drawn together for both sides, so what they share (hard examples) does not widen the
    interval.

    Args:
        a: one number per example, e.g. 1 for held and 0 for not held.
        b: the same for the other model, in the same order.
        seed: of the resampling: the same numbers and seed give the same interval.
        confidence: the interval's level.
        resamples: how often the examples are drawn anew.
    """
    left, right = _paired(a, b)
    _check_confidence(confidence)
    if resamples < 1:
        raise InputError(f"resamples = {resamples}; allowed: 1 and more")
    difference = left - right
    if len(difference) < 2:
        raise InputError("a difference over 1 example has no interval; at least 2 are needed")
    result = stats.bootstrap(
        (difference,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 2**22 // len(difference)),  # at most 32 MiB at a time
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(float(difference.mean()), float(low), float(high))


def mcnemar(a: Sequence[bool] | np.ndarray, b: Sequence[bool] | np.ndarray) -> float:
    """Return the exact two-sided p value that two models are right equally often on the same examples.

    Only examples on which they disagree count: if the models are equally good, each is as likely to be the
    one that is right. Without any disagreement p is 1.
    """
    left, right = _paired(a, b)
    if not (np.isin(left, (0, 1)).all() and np.isin(right, (0, 1)).all()):
        raise InputError("mcnemar compares right and wrong; allowed values: 0 and 1")
    only_left, only_right = int((left > right).sum()), int((right > left).sum())
    if only_left + only_right == 0:
        return 1.0
    return float(stats.binomtest(only_left, only_left + only_right).pvalue)


def verdict(interval: Interval) -> Literal["higher", "lower", "no difference"]:
    """Return what an interval of a difference says; one that contains 0 says "no difference"."""
    if interval.low > 0:
        return "higher"
    return "lower" if interval.high < 0 else "no difference"


def _paired(a: Numbers, b: Numbers) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or not len(left):
        raise InputError(
            f"paired numbers of shapes {left.shape} and {right.shape}; two equal lengths, 1 and more"
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise InputError("paired numbers contain NaN or infinity; finite ones are needed")
    return left, right


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence}; allowed: between 0 and 1")
