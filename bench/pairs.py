"""Interleaved pairs: two things timed in turn in one process, their ratio pair by pair, median with
quartiles.
"""

import statistics
import time
from collections.abc import Callable


def interleaved(a: Callable[[], object], b: Callable[[], object], pairs: int) -> dict[str, float]:
    """Time a and b in turn (a b, b a, a b ...) after one warm-up of each; returns seconds and the ratio a /
    b.
    """
    a(), b()
    first, second = [], []
    for number in range(pairs):
        order = ((a, first), (b, second)) if number % 2 == 0 else ((b, second), (a, first))
        for thing, times in order:
            began = time.perf_counter()
            thing()
            times.append(time.perf_counter() - began)
    ratios = [x / y for x, y in zip(first, second, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "a_seconds": statistics.median(first),
        "b_seconds": statistics.median(second),
        "ratio": middle,
        "ratio_quartile_1": low,
        "ratio_quartile_3": high,
        "pairs": pairs,
    }


def report(what: str, result: dict[str, float], limit: float) -> bool:
    """Print one line and return whether the median ratio is within the limit."""
    kept = result["ratio"] <= limit
    print(
        f"{what}: {result['a_seconds']:.3f} s against {result['b_seconds']:.3f} s, "
        f"ratio {result['ratio']:.3f} [{result['ratio_quartile_1']:.3f}, {result['ratio_quartile_3']:.3f}] "
        f"over {result['pairs']:.0f} pairs, "
        f"limit {limit}: {'holds' if kept else 'FAILS'}"
    )
    return kept
