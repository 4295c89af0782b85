"""Sparsities that are said as a cost: exact by hand, real after shrinking, found once."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stages.saved import saved_task
from tests.toys import STRUCTURED, TOYS, saved_toy, toy_inputs

from hardtack import cost
from hardtack.errors import InputError
from hardtack.loading import load
from hardtack.methods.early_bird import EarlyBird
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.methods.iterative import Iterative
from hardtack.methods.magnitude import Magnitude
from hardtack.methods.random import Random
from hardtack.prunable import Prunable
from hardtack.select import Sparsity, drawn_evenly
from hardtack.stages import Common, export, search, sizing
from hardtack.ticket import Ticket

CPU = Common(device="cpu", batch_size=8)
KINDS = ("head", "neuron")
HEAD, NEURON = 4 * 24 * 8 + 3 * 8, 2 * 24 + 1  # of the toy: 6 heads of 8 columns, 80 neurons, 24 wide
ALL = 6 * HEAD + 80 * NEURON


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("sizing")
    saved_toy(place / "tiny")
    saved_task(place / "task")
    return place


def found_for(text, name="bert", method=Magnitude):
    model = TOYS[name]()
    view = Prunable.of(model, KINDS)
    inputs = toy_inputs(model, count=1)
    (facts,) = sizing.find(method((Sparsity.parse(text),)), model, view, inputs).values()
    return facts, model, view, inputs


def test_parameters_by_hand():
    # Half of them is exactly 3 heads and 40 neurons; the smallest fraction that rounds to those is 39.5 / 80.
    facts, *_ = found_for("parameters=0.5")
    assert facts == {"fraction": 0.4938, "removed": 0.5, "tokens": 9, "measured": None}
    assert 3 * HEAD + 40 * NEURON == ALL / 2
    # 0.3 of 8672 is 2601.6: 2 heads and 21 neurons are 2613, one neuron fewer is too few; 20.5 / 80 is 21.
    facts, *_ = found_for("parameters=0.3")
    assert (facts["fraction"], facts["removed"]) == (0.2563, pytest.approx((2 * HEAD + 21 * NEURON) / ALL))


def removed(name, model, view, inputs, fraction):
    masks = drawn_evenly(view, Sparsity(fraction=fraction))
    before, after = sizing.MEASURES[name](model, view, masks, inputs)
    return (before - after) / before


@pytest.mark.parametrize("family", STRUCTURED)
@pytest.mark.parametrize("name", ["parameters", "flops"])
@settings(max_examples=3)
@given(share=st.integers(100, 5000))
def test_the_fraction_is_the_smallest_that_removes_the_share(family, name, share):
    text = f"{name}={share / 10000}"
    facts, model, view, inputs = found_for(text, family)
    assert facts["removed"] >= share / 10000 - 1e-9
    assert removed(name, model, view, inputs, facts["fraction"]) == facts["removed"]
    assert removed(name, model, view, inputs, facts["fraction"] - 1e-4) < share / 10000


def test_a_model_is_left_as_it_is():
    *_, model, view, _ = found_for("flops=0.4")
    assert model.config.intermediate_size == 40
    assert not hasattr(model.config, "shrunk_units")
    assert view.units == 86


@pytest.mark.parametrize("method", [Magnitude, Random, HardConcrete, EarlyBird])
def test_a_cost_is_no_fraction_until_it_is_found(method):
    asked = method((Sparsity.parse("flops=0.4"), Sparsity.parse(0.3)))
    view = Prunable.of(TOYS["bert"](), KINDS)
    with pytest.raises(InputError, match=r"flops-0\.4000 is a share of a cost; `search` finds the fraction"):
        asked.check(view)
    whole = sizing.settled(asked, {"flops-0.4000": {"fraction": 0.41}})
    whole.check(view)
    assert [one.fraction for one in whole.sparsities] == [0.41, 0.3]
    assert [str(one) for one in whole.sparsities] == ["flops-0.4000", "sparsity-0.3000"]


def test_a_search_keeps_what_it_found_and_the_export_is_that_much_smaller(place, tmp_path):
    wanted = tuple(map(Sparsity.parse, ("parameters=0.5", "flops=0.25", "0.2")))
    ask = {"task": str(place / "task"), "granularity": KINDS, "common": CPU, "out": tmp_path / "s"}
    result = search(Magnitude(wanted), str(place / "tiny"), **ask)
    names = ["flops-0.2500", "parameters-0.5000", "sparsity-0.2000"]
    assert [path.rpartition("/")[2] for path in result["tickets"]] == names
    sizes = json.loads((tmp_path / "s" / "sizes.json").read_text())
    tickets = {name: Ticket.load(tmp_path / "s" / "tickets" / name) for name in names}
    for name, facts in sizes.items():
        assert tickets[name].origin["size"] == facts
        assert tickets[name].origin["wanted"] == name
        assert any(
            note.startswith(f"{name}: {facts['fraction']:g} of each kind's") for note in result["notes"]
        )
    assert sizes.keys() == {"flops-0.2500", "parameters-0.5000"}
    made = export(tmp_path / "s" / "tickets" / "parameters-0.5000", to="shrink", out=tmp_path / "small")
    assert made["parameters_before"] - made["parameters"] == ALL / 2
    export(tmp_path / "s" / "tickets" / "flops-0.2500", to="shrink", out=tmp_path / "quick")
    text = toy_inputs(TOYS["bert"](), count=1, length=sizes["flops-0.2500"]["tokens"])
    before, after = (
        cost.forward_flops(load(str(each)).model, text) for each in (place / "tiny", tmp_path / "quick")
    )
    assert 1 - after / before == pytest.approx(sizes["flops-0.2500"]["removed"])


def test_a_latency_is_measured_once(place, tmp_path, monkeypatch):
    calls = []

    def fake(model, view, masks, inputs):
        calls.append(1)
        return 10.0, 1.0 + 9.0 * sizing.MEASURES["parameters"](model, view, masks, inputs)[1] / ALL

    monkeypatch.setitem(sizing.MEASURES, "latency", fake)
    method = Random((Sparsity.parse("latency=0.45"),))
    ask = {"task": str(place / "task"), "granularity": KINDS, "common": CPU, "out": tmp_path / "s"}
    search(method, str(place / "tiny"), **ask)
    facts = json.loads((tmp_path / "s" / "sizes.json").read_text())["latency-0.4500"]
    assert (facts["fraction"], facts["removed"]) == (0.5, pytest.approx(0.45))
    assert facts["measured"]["before_ms"] == 10.0
    assert facts["measured"]["after_ms"] == pytest.approx(5.5)
    assert 0 < len(calls) <= 9  # the dense one, and a bisection of hundredths
    (tmp_path / "s" / "DONE").unlink()  # killed before its end
    before = len(calls)
    ticket = tmp_path / "s" / "tickets" / "latency-0.4500" / "ticket.json"
    first = ticket.read_text()
    search(method, str(place / "tiny"), **ask)
    assert len(calls) == before
    assert ticket.read_text() == first


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        (
            "parameters=0.9",
            {"granularity": KINDS},
            "sparsity parameters=0.9 cannot be reached: with a unit left in every layer at most 0.",
        ),
        (
            "latency=0.5",
            {},
            "sparsity latency=0.5 needs units that can be taken out; allowed: --granularity head, neuron, "
            "channel; of single weights say a fraction",
        ),
    ],
)
def test_a_cost_that_no_ticket_saves_is_refused_and_the_folder_stays_free(place, tmp_path, text, more, words):
    ask = {"task": str(place / "task"), "common": CPU, "out": tmp_path / "s"}
    with pytest.raises(InputError) as error:
        search(Magnitude((Sparsity.parse(text),)), str(place / "tiny"), **ask, **more)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)
    search(Magnitude((Sparsity.parse(0.3),)), str(place / "tiny"), **ask, granularity=KINDS)


def test_iterative_refuses_a_cost():
    with pytest.raises(InputError, match="kinds, banks and costs are for others"):
        Iterative((Sparsity.parse("flops=0.5"),))
