"""The choice of `ship`: by hand, by property, and in words where nothing fits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.stages.limits import Limits

FACTS = [
    {"name": "big", "latency_ms": 9.0, "accuracy": 0.92, "accuracy_under_attack": 0.40},
    {"name": "middle", "latency_ms": 6.0, "accuracy": 0.90, "accuracy_under_attack": 0.40},
    {"name": "small", "latency_ms": 3.0, "accuracy": 0.85, "accuracy_under_attack": 0.50},
]


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ((None, None, None), "small"),  # the most accurate under attack
        ((None, 0.9, None), "big"),  # equal under attack: the more accurate one
        ((6.0, 0.9, 0.4), "middle"),  # each limit is met exactly
        ((6.0, None, None), "small"),
        ((None, 0.0, 0.0), "small"),
    ],
)
def test_the_rule_by_hand(limits, name):
    assert Limits(*limits).choose(FACTS)["name"] == name


def test_the_faster_of_two_equals_is_chosen_and_the_first_of_two_that_are_alike():
    twin = {**FACTS[0], "name": "twin", "latency_ms": 8.0}
    assert Limits().choose([FACTS[0], twin])["name"] == "twin"
    assert Limits().choose([FACTS[0], {**FACTS[0], "name": "twin"}])["name"] == "big"
    alone = [{**facts, "accuracy_under_attack": None} for facts in FACTS]
    assert Limits(min_accuracy=0.9).choose(alone)["name"] == "big"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((1.0, None, None), "no candidate meets --max-latency-ms 1 (nearest: 3 ms by small)"),
        ((None, 0.95, None), "no candidate meets --min-accuracy 0.95 (nearest: 0.9200 by big)"),
        (
            (2.0, 0.5, 0.6),
            "no candidate meets --max-latency-ms 2 (nearest: 3 ms by small); "
            "nor --min-accuracy-under-attack 0.6 (nearest: 0.5000 by small)",
        ),
        (  # each alone is met
            (5.0, 0.9, None),
            "no candidate meets all limits together; nearest: small misses --min-accuracy 0.9 with 0.8500",
        ),
    ],
)
def test_what_cannot_be_met_is_said_with_how_near_it_came(limits, words):
    with pytest.raises(InputError) as error:
        Limits(*limits).choose(FACTS)
    assert str(error.value) == words


shares = st.floats(0, 1)
candidates = st.lists(
    st.fixed_dictionaries(
        {"latency_ms": st.floats(0.1, 20), "accuracy": shares, "accuracy_under_attack": shares}
    ),
    min_size=1,
    max_size=6,
).map(lambda found: [{"name": str(number), **facts} for number, facts in enumerate(found)])


@given(candidates, st.floats(0.1, 20), shares, shares)
def test_what_is_chosen_meets_all_limits_and_none_that_does_is_better(found, most, least, under):
    def fits(one):
        return (
            one["latency_ms"] <= most and one["accuracy"] >= least and one["accuracy_under_attack"] >= under
        )

    limits = Limits(most, least, under)
    fitting = [one for one in found if fits(one)]
    assert [one for one in found if limits.met_by(one)] == fitting
    if not fitting:
        with pytest.raises(InputError, match="no candidate meets"):
            limits.choose(found)
        return
    best = limits.choose(found)
    assert fits(best)
    assert all(one["accuracy_under_attack"] <= best["accuracy_under_attack"] for one in fitting)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((0.0, None, None), "--max-latency-ms 0 cannot be met; allowed: above 0, finite"),
        ((-3.0, None, None), "--max-latency-ms -3 cannot be met; allowed: above 0, finite"),
        ((math.nan, None, None), "--max-latency-ms nan cannot be met; allowed: above 0, finite"),
        ((None, 1.01, None), "--min-accuracy 1.01 cannot be met; allowed: 0 to 1"),
        ((None, None, -0.1), "--min-accuracy-under-attack -0.1 cannot be met; allowed: 0 to 1"),
        ((None, math.nan, None), "--min-accuracy nan cannot be met; allowed: 0 to 1"),
    ],
)
def test_impossible_limits_are_refused(limits, words):
    with pytest.raises(InputError) as error:
        Limits(*limits)
    assert str(error.value) == words
