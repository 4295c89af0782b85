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


def over_seeds(
    a: Sequence[Numbers],
    b: Sequence[Numbers],
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """Return mean(a) - mean(b) over repeats with a hierarchical bootstrap interval, over seeds and examples.

    Every resample draws seeds anew and, within each drawn seed, examples anew; so the interval says how far
    both another training run and other examples could move the difference. Repeats are paired by seed.

    Args:
        a: per seed, one number per example (e.g. 1 for held), in the order of the examples.
        b: the same for the other model, seed by seed.
        seed: of the resampling.
        confidence: the interval's level.
        resamples: how often seeds and examples are drawn anew.

    Raises:
        InputError: for fewer than 2 seeds, or repeats that do not pair.

    Source: Efron and Tibshirani 1993, chapter 8 (resampling at the level at which data were drawn); rule 5 of
    the evaluation protocol.
    """
    if len(a) != len(b) or len(a) < 2:
        raise InputError(f"{len(a)} and {len(b)} repeats; allowed: the same number, at least 2")
    _check_confidence(confidence)
    if resamples < 1:
        raise InputError(f"resamples = {resamples}; allowed: 1 and more")
    differences = [left - right for left, right in (_paired(x, y) for x, y in zip(a, b, strict=True))]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(differences), size=(resamples, len(differences)))  # seeds of each resample
    totals = np.zeros(resamples)
    for number, values in enumerate(differences):
        times = (drawn == number).sum(1)  # how often each resample drew this seed
        who = np.repeat(np.arange(resamples), times)
        step = max(1, 2**22 // len(values))  # at most 32 MiB at a time
        for start in range(0, len(who), step):
            part = who[start : start + step]
            means = values[rng.integers(len(values), size=(len(part), len(values)))].mean(1)
            np.add.at(totals, part, means)
    means = totals / len(differences)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(np.mean([values.mean() for values in differences])), float(low), float(high))


def proportion_over_seeds(
    successes: Sequence[int], n: int, *, seed: int, confidence: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Return the mean fraction over repeats with a hierarchical bootstrap interval, over seeds and examples.

    The examples of a repeat drawn anew are a binomial draw, so that their order is not needed.

    Args:
        successes: per seed, how many of the examples counted as good.
        n: examples of each seed.
        seed: of the resampling.
        confidence: the interval's level.
        resamples: how often seeds and examples are drawn anew.
    """
    counts = np.asarray(successes, dtype=np.int64)
    if len(counts) < 2 or n < 1 or counts.min() < 0 or counts.max() > n:
        raise InputError(
            f"{list(successes)} of {n}; allowed: at least 2 seeds, 0 <= successes <= n, n at least 1"
        )
    _check_confidence(confidence)
    rng = np.random.default_rng(seed)
    rates = counts[rng.integers(len(counts), size=(resamples, len(counts)))] / n
    means = (rng.binomial(n, rates) / n).mean(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(counts.mean() / n), float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number, in the same order (Holm's step-down, 1979).

    Each may be read by itself afterwards: the chance that any true "no difference" in the table falls below
    the level is at most the level, whatever the tests depend on.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"p values {list(p_values)}; allowed: numbers from 0 to 1")
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def matching(ticket: Numbers, dense: Numbers, *, tolerance: float = 1.0) -> bool:
    """Say whether a ticket matches the dense model over seeds: its mean is at most `tolerance` dense standard
    deviations below the dense mean.

    Args:
        ticket: one score per seed (accuracy, or accuracy under attack).
        dense: the dense model's scores, one per seed; at least 2, for their standard deviation.
        tolerance: in dense standard deviations (ddof 1); 0 asks for the dense mean itself.
    """
    left, right = np.asarray(ticket, dtype=np.float64), np.asarray(dense, dtype=np.float64)
    if len(right) < 2 or len(left) < 1 or not tolerance >= 0:
        raise InputError(
            f"matching of {len(left)} against {len(right)} seeds, tolerance {tolerance}; allowed: at least 1 "
            "against 2, tolerance 0 or more"
        )
    return bool(left.mean() >= right.mean() - tolerance * right.std(ddof=1))


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
