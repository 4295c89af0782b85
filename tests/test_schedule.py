import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.schedule import Constant, Ramp, WarmupDecay

progress = st.floats(0, 1)
value = st.floats(-100, 100)


@given(value, progress)
def test_constant_is_constant(number, at):
    assert Constant(number)(at) == number


@pytest.mark.parametrize(
    ("at", "wanted"), [(0.0, 2.0), (0.1, 2.0), (0.2, 3.5), (0.25, 4.25), (0.3, 5.0), (1.0, 5.0)]
)
def test_ramp_by_hand(at, wanted):
    assert Ramp(2.0, 5.0, begin=0.1, finish=0.3)(at) == pytest.approx(wanted)


def test_ramp_of_no_length_is_a_step():
    step = Ramp(1.0, 4.0, begin=0.5, finish=0.5)
    assert [step(0.0), step(0.49), step(0.5), step(1.0)] == [1.0, 1.0, 4.0, 4.0]


@given(value, value, progress, progress, progress, progress)
def test_ramp_stays_between_its_ends_and_is_monotone(start, end, one, two, three, four):
    begin, finish = sorted((one, two))
    early, late = sorted((three, four))
    ramp = Ramp(start, end, begin, finish)
    low, high = sorted((start, end))
    slack = 1e-9 * (1 + abs(start) + abs(end))
    assert low - slack <= ramp(early) <= high + slack
    assert (ramp(late) - ramp(early)) * (end - start) >= -slack * slack - slack * abs(end - start)


@pytest.mark.parametrize(
    ("at", "wanted"), [(0.0, 0.0), (0.05, 1.0), (0.1, 2.0), (0.55, 1.0), (0.91, 0.2), (1.0, 0.0)]
)
def test_warmup_and_decay_by_hand(at, wanted):
    assert WarmupDecay(2.0, warmup=0.1)(at) == pytest.approx(wanted)


def test_no_warmup_starts_at_the_peak_and_full_warmup_never_falls():
    assert [WarmupDecay(3.0, warmup=0.0)(at) for at in (0.0, 0.5, 1.0)] == [3.0, 1.5, 0.0]
    assert [WarmupDecay(3.0, warmup=1.0)(at) for at in (0.0, 0.5, 1.0)] == [0.0, 1.5, 3.0]


@given(st.floats(0, 10), progress, progress)
def test_warmup_and_decay_is_between_zero_and_its_peak(peak, warmup, at):
    assert 0 <= WarmupDecay(peak, warmup)(at) <= peak * (1 + 1e-9)


@pytest.mark.parametrize("schedule", [Constant(1.0), Ramp(0.0, 1.0), WarmupDecay(1.0)])
def test_schedules_are_frozen(schedule):
    field = dataclasses.fields(schedule)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(schedule, field, 2.0)
