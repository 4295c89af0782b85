"""Random streams are functions of their keys, and names of what produces a run; both are frozen."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardtack.runs import (
    Run,
    generator,
    identify,
    key,
)

GOLDEN = Path(__file__).parent / "golden"


# ------------------------------------------------------------------------------------ streams


@pytest.mark.parametrize("case", json.loads((GOLDEN / "streams.json").read_text()))
def test_streams_are_frozen(case):
    """A changed stream changes every result of every seed: raise the methods' versions if you must."""
    assert key(*case["of"]) == case["key"]
    drawn = torch.randint(1000, (4,), generator=generator(*case["of"]))
    assert drawn.tolist() == case["randint"]


@given(st.integers(), st.text(max_size=9), st.integers(0), st.none() | st.integers(0))
def test_keys_are_63_bits_and_a_function_of_their_arguments(seed, label, step, example):
    assert key(seed, label, step, example) == key(seed, label, step, example)
    assert 0 <= key(seed, label, step, example) < 2**63


def test_every_argument_of_a_key_counts():
    variants = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 0, 0), (0, "a", 0, 1), (0, "a", 0, "x")]
    assert len({key(*variant) for variant in variants}) == len(variants)


def test_streams_do_not_touch_torchs_own():
    before = torch.random.get_rng_state()
    torch.rand(3, generator=generator(0, "a"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_part_has_streams_of_its_own():
    run = Run.nowhere(seed=3)
    part = run.part("round-1").part("fit")
    assert run.key("gates", 2) == key(3, "gates", 2)
    assert part.key("gates", 2) == key(3, "round-1/fit/gates", 2)
    drawn, expected = (
        torch.rand(3, generator=g) for g in (part.rng("gates", 2), generator(3, "round-1/fit/gates", 2))
    )
    assert torch.equal(drawn, expected)


# ------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "run_names.json").read_text()), ids=lambda case: case["id"]
)
def test_names_are_frozen(case):
    """A changed name means that finished work is done again."""
    wanted = case.pop("id")
    assert identify(case.pop("kind"), case.pop("method"), **case) == wanted


def test_a_name_ignores_the_order_of_settings_and_differs_by_each_of_its_parts():
    facts = {"version": 1, "settings": {"a": 1, "b": 2}, "parent": None, "seed": 0}
    name = identify("search", "magnitude", **facts)
    assert identify("search", "magnitude", **{**facts, "settings": {"b": 2, "a": 1}}) == name
    changes = [{"version": 2}, {"settings": {"a": 1}}, {"settings": {"a": 1, "b": 3}}, {"parent": "x"}]
    others = {identify("search", "magnitude", **{**facts, **change}) for change in changes}
    others |= {identify("train", "magnitude", **facts), identify("search", "random", **facts)}
    assert len(others - {name}) == 6


def test_repeats_stand_side_by_side():
    names = [identify("train", "clean", version=1, settings={}, parent=None, seed=seed) for seed in (0, 1)]
    assert {Path(name).parent for name in names} == {Path(names[0]).parent}
    assert [Path(name).name for name in names] == ["seed-0", "seed-1"]
