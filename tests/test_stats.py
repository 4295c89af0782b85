import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.stats import (
    Interval,
    holm,
    matching,
    mcnemar,
    over_seeds,
    paired_difference,
    proportion,
    proportion_over_seeds,
    verdict,
)


def test_wilson_interval_by_hand():
    # Wilson: centre (k + z^2/2) / (n + z^2), half width z sqrt(k (n - k) / n + z^2 / 4) / (n + z^2)
    k, n, z = 8, 10, 1.959963984540054
    centre = (k + z**2 / 2) / (n + z**2)
    half = z * math.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    assert proportion(8, 10) == pytest.approx((0.8, centre - half, centre + half), abs=1e-12)
    assert proportion(8, 10).low == pytest.approx(0.4902, abs=1e-4)


def test_wilson_interval_at_the_ends_stays_inside():
    assert proportion(0, 20).low == 0.0
    assert 0 < proportion(0, 20).high < 0.2
    assert proportion(20, 20).high == 1.0


def test_mcnemar_by_hand():
    # 1 against 5 disagreements: p = 2 (C(6,0) + C(6,1)) / 2^6 = 14 / 64
    a = [1] * 10 + [1] + [0] * 5
    b = [1] * 10 + [0] + [1] * 5
    assert mcnemar(a, b) == pytest.approx(14 / 64)
    assert mcnemar(b, a) == pytest.approx(14 / 64)
    assert mcnemar([1, 0, 1], [1, 0, 1]) == 1.0


def test_paired_difference_of_two_examples_by_hand():
    # Differences 1 and 0: a resample's mean is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4.
    interval = paired_difference([1, 1], [0, 1], seed=0)
    assert interval == (0.5, 0.0, 1.0)
    assert verdict(interval) == "no difference"


def test_paired_difference_of_equal_differences_has_no_width():
    interval = paired_difference([3.0, 4.0, 5.0], [1.0, 2.0, 3.0], seed=1)
    assert interval == (2.0, 2.0, 2.0)
    assert verdict(interval) == "higher"


def test_paired_difference_is_near_the_normal_interval_of_many_examples():
    a = np.tile([1, 1, 1, 0], 250)
    b = np.tile([1, 0, 0, 1], 250)
    d = a - b
    half = 1.96 * d.std() / math.sqrt(len(d))
    interval = paired_difference(a, b, seed=3)
    assert interval == pytest.approx((0.25, 0.25 - half, 0.25 + half), abs=0.005)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30), st.integers(0, 99))
def test_paired_difference_is_a_function_of_numbers_and_seed_and_changes_sign_with_its_sides(pairs, seed):
    a, b = zip(*pairs, strict=True)
    there = paired_difference(a, b, seed=seed, resamples=200)
    assert there == paired_difference(a, b, seed=seed, resamples=200)
    back = paired_difference(b, a, seed=seed, resamples=200)
    assert there.low <= there.high
    assert there.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert back == pytest.approx((-there.mean, -there.high, -there.low))


def test_verdicts():
    assert verdict(Interval(0.1, 0.01, 0.2)) == "higher"
    assert verdict(Interval(-0.1, -0.2, -0.01)) == "lower"
    assert verdict(Interval(0.1, 0.0, 0.2)) == "no difference"


def test_hierarchical_bootstrap_of_constant_seeds_resamples_the_seeds_alone():
    # Differences 0 and 1 without scatter inside: a resample's mean is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4.
    interval = over_seeds([[1, 1, 1], [1, 1]], [[1, 1, 1], [0, 0]], seed=0)
    assert interval == (0.5, 0.0, 1.0)


def test_hierarchical_bootstrap_of_equal_seeds_is_the_bootstrap_of_their_examples():
    # Both seeds saw the same differences: variance of a mean over 2 seeds of n examples is var / (2 n).
    a = np.tile([1, 1, 1, 0], 250)
    b = np.tile([1, 0, 0, 1], 250)
    half = 1.96 * (a - b).std() / math.sqrt(2 * len(a))
    interval = over_seeds([a, a], [b, b], seed=3, resamples=4000)
    assert interval == pytest.approx((0.25, 0.25 - half, 0.25 + half), abs=0.006)


@given(
    st.lists(
        st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=9), min_size=2, max_size=5
    )
)
def test_hierarchical_bootstrap_is_a_function_of_numbers_and_seed(seeds):
    a = [[x for x, _ in rows] for rows in seeds]
    b = [[y for _, y in rows] for rows in seeds]
    there = over_seeds(a, b, seed=5, resamples=50)
    assert there == over_seeds(a, b, seed=5, resamples=50)
    assert there.mean == pytest.approx(np.mean([np.mean(x) - np.mean(y) for x, y in zip(a, b, strict=True)]))
    assert there.low <= there.high


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.5
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(values):
    adjusted = holm(values)
    assert all(p <= q <= min(1, p * len(values)) + 1e-12 for p, q in zip(values, adjusted, strict=True))
    pairs = sorted(zip(values, adjusted, strict=True))
    assert all(x[1] <= y[1] for x, y in pairwise(pairs))


def test_matching_by_hand():
    # Dense 0.80, 0.82, 0.84: mean 0.82, standard deviation 0.02.
    dense = [0.80, 0.82, 0.84]
    assert matching([0.801], dense)
    assert not matching([0.799], dense)
    assert not matching([0.801], dense, tolerance=0.5)
    assert matching([0.83, 0.82], dense, tolerance=0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: over_seeds([[1]], [[0]], seed=0),
        lambda: over_seeds([[1], [1]], [[0]], seed=0),
        lambda: over_seeds([[1], [1, 0]], [[0], [1]], seed=0),
        lambda: over_seeds([[1], [1]], [[0], [1]], seed=0, resamples=0),
        lambda: holm([0.1, 1.2]),
        lambda: holm([math.nan]),
        lambda: matching([0.8], [0.8]),
        lambda: matching([0.8], [0.8, 0.9], tolerance=-1),
        lambda: proportion(3, 2),
        lambda: proportion(0, 0),
        lambda: proportion(1, 2, confidence=1.0),
        lambda: paired_difference([1, 2], [1], seed=0),
        lambda: paired_difference([1], [1], seed=0),
        lambda: paired_difference([], [], seed=0),
        lambda: paired_difference([1, math.nan], [1, 1], seed=0),
        lambda: paired_difference([1, 0], [1, 1], seed=0, resamples=0),
        lambda: mcnemar([0, 2], [1, 1]),
    ],
)
def test_wrong_numbers_are_refused_in_one_line(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_proportion_over_seeds_covers_seeds_and_examples():
    interval = proportion_over_seeds([80, 40], 100, seed=0)
    assert interval.mean == 0.6
    # A quarter of the resamples draws the bad seed twice, and a tenth of those is the lowest fortieth: 1.2816
    # deviations of 200 examples below 0.4; and as far above 0.8.
    assert interval.low == pytest.approx(0.4 - 1.2816 * math.sqrt(0.24 / 200), abs=0.01)
    assert interval.high == pytest.approx(0.8 + 1.2816 * math.sqrt(0.16 / 200), abs=0.01)
    assert proportion_over_seeds([80, 40], 100, seed=0) == interval


def test_equal_seeds_leave_the_examples_scatter():
    interval = proportion_over_seeds([50] * 4, 100, seed=0)
    half = 1.96 * math.sqrt(0.25 / 400)  # four times a hundred examples
    assert (interval.low, interval.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.01)


def test_the_same_as_resampling_the_examples_themselves():
    counts = [70, 55, 62]
    drawn = [np.repeat([1.0, 0.0], [k, 100 - k]) for k in counts]
    slow = over_seeds(drawn, [np.zeros(100)] * 3, seed=1)
    assert proportion_over_seeds(counts, 100, seed=2) == pytest.approx(slow, abs=0.01)


@pytest.mark.parametrize(("successes", "n"), [([1], 2), ([1, 3], 2), ([-1, 1], 2), ([0, 0], 0)])
def test_no_proportion_over_seeds(successes, n):
    with pytest.raises(InputError, match="at least 2 seeds"):
        proportion_over_seeds(successes, n, seed=0)
