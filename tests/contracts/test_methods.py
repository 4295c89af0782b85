"""What every pruning method must do, whatever it computes; over all methods, toy models and granularities."""

import contextlib
import dataclasses
import functools
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.contracts.matrix import (
    ALL,
    AT_HOME,
    BASES,
    CALIBRATED,
    CASES,
    FEW,
    FRACTIONS,
    GRANULARITIES,
    HOME,
    QUICK,
    REFUSED,
    SEEDED,
    SMALL,
)
from tests.contracts.plain import changes, facts_of, unusual_flags_
from tests.toys import is_text, toy_batches
from tests.zoo import TEXTS, ZOO

from hardtack.errors import InputError
from hardtack.methods.search import Data
from hardtack.prunable import Prunable, blocks_of
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import OBJECTIVES


class Setup(NamedTuple):
    """A fresh model and what a search of it takes."""

    method: Any
    model: torch.nn.Module
    base: Base
    view: Prunable
    data: Data
    objective: Any

    def search(self, run: Run):
        return self.method.search(self.model, self.base, self.view, self.data, self.objective, run)


def set_up(method: str, toy: str, kinds=None, fractions=FRACTIONS, **settings) -> Setup:
    kinds = kinds or HOME[method]
    model = unusual_flags_(ZOO[toy]())
    base = Base.of(model, toy)
    sparsities = tuple(Sparsity.parse(fraction) for fraction in fractions)
    data = Data(toy_batches(model, examples=8, size=4), toy_batches(model, "validation", examples=8))
    instance = ALL[method](
        sparsities=sparsities, **{**QUICK.get(method, {}), **SMALL.get(method, {}), **settings}
    )
    objective = OBJECTIVES[instance.minimises if is_text(model) else "clean"]()
    return Setup(instance, model, base, Prunable.of(model, kinds), data, objective)


class Trace(NamedTuple):
    """What one whole search did."""

    tickets: list[Ticket]
    view: Prunable
    left: list[str]
    steps: int
    planned: int


@functools.cache
def trace(method: str, toy: str, kinds: tuple[str, ...], seed: int = 0) -> Trace:
    setup = set_up(method, toy, kinds)
    before, random_before = facts_of(setup.model), torch.get_rng_state()
    tickets, left, ticks = [], [], []
    for ticket in setup.search(Run.nowhere(seed, watch=lambda label, done, total: ticks.append(label))):
        left += changes(setup.model, before)
        tickets.append(ticket)
    left += changes(setup.model, before)
    if not torch.equal(torch.get_rng_state(), random_before):
        left.append("torch's own random stream was used")
    return Trace(tickets, setup.view, left, len(ticks), setup.method.steps(len(setup.data.train)))


def rounded(fraction: Fraction) -> int:
    """Round half up, in whole numbers."""
    return (2 * fraction.numerator + fraction.denominator) // (2 * fraction.denominator)


def removed_of_a_kind(method: str, fraction: str, units: int) -> int:
    """The exact count: round half up, or the sum of the rounded cuts for a ticket on the path of IMP."""
    cuts = {"0.2": 1, "0.36": 2}.get(fraction, 0) if method == "iterative" else 0
    gone = 0
    for _ in range(cuts):
        gone += rounded(Fraction("0.2") * (units - gone))
    return gone if cuts else rounded(Fraction(fraction) * units)


def wanted_of(method: str, view: Prunable, kind: str, fraction: str) -> int:
    """How many units of a kind go in all; methods that walk through blocks take as many of each row."""
    if method not in CALIBRATED:
        return removed_of_a_kind(
            method, fraction, sum(site.units for site in view.sites if site.kind == kind)
        )
    inputs = [view.shapes[site.name][site.exit.dim] for site in view.sites]
    return sum(
        site.units // width * rounded(Fraction(fraction) * width)
        for site, width in zip(view.sites, inputs, strict=True)
    )


@pytest.mark.parametrize("method", ALL)
def test_a_method_says_what_it_is(method):
    made = ALL[method]
    assert made.name == method
    assert made.needs in ("weights", "inputs", "labels")
    assert made.starts in ("base", "finetuned")
    assert made.minimises in OBJECTIVES
    assert isinstance(made.version, int)
    assert made.version >= 1
    assert dataclasses.fields(made)[0].name == "sparsities"
    assert (made.__doc__ or "").splitlines()[0].endswith(".")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made().sparsities = ()
    for field in dataclasses.fields(made):
        words = field.metadata["help"]
        assert words == words.strip()
        assert words
        assert "\n" not in words
        assert field.default is not dataclasses.MISSING, f"{field.name} needs a default"


@pytest.mark.parametrize("method", ALL)
def test_refused_pairs_are_exactly_the_listed_ones(method):
    """All others are searched below."""
    found = {}
    for toy in ZOO:
        for kinds in GRANULARITIES:
            if (method, toy, kinds) in REFUSED:
                with pytest.raises(InputError) as error:
                    trace(method, toy, kinds)
                found[method, toy, kinds] = str(error.value)
    assert found == {case: line for case, line in REFUSED.items() if case[0] == method}
    assert BASES.keys() == ZOO.keys()


@pytest.mark.parametrize("method", ALL)
def test_refused_sparsities_are_exactly_the_listed_ones(method):
    other = "iterative takes plain fractions, e.g. 0.3; kinds, banks and costs are for others"
    learned = "sparsity 'learned' is for methods that close units themselves; allowed here: a fraction or n:m"
    banks = "banks 2:4 do not fit granularity 'head'; allowed: weight"
    structured = ("head", "neuron")
    expected = {
        "iterative": {"head=0.4,neuron=0.2": other, "2:4": other, "1:2": other, "learned": other},
        "hard_concrete": {"2:4": banks},
        "early_bird": dict.fromkeys(
            ("2:4", "1:2", "learned"),
            "early_bird takes fractions, e.g. 0.5 or head=0.17,neuron=0.4; no banks, not learned",
        ),
        **{
            name: dict.fromkeys(
                ("head=0.4,neuron=0.2", "2:4"), f"{name} removes no head units; allowed: weight"
            )
            | {"learned": learned}
            for name in CALIBRATED
        },
    }.get(method, {"2:4": banks, "learned": learned})
    found = {}
    for words, kinds in (
        ("head=0.4,neuron=0.2", structured),
        ("2:4", structured),
        ("1:2", ("weight",)),
        ("learned", ("weight",)),
    ):
        # At a high rate and price a few epochs close some gates and keep some in every site.
        closing = method == "hard_concrete" and words == "learned"
        settings = {"lr": 1.0, "price": 3.0, "epochs": 6.0} if closing else {}
        try:
            setup = set_up(method, "bert", kinds, (words,), **settings)
            (ticket,) = setup.search(Run.nowhere())
            assert ticket.origin["wanted"] == str(Sparsity.parse(words))
            if words == "learned":
                assert 0 < ticket.sparsity() < 1
            if words == "1:2":
                assert ticket.sparsity() == 0.5
                rows = setup.view.spread(ticket.masks)["pooler.dense.weight"].view(24, 12, 2)
                assert (rows.sum(2) == 1).all()
            if words.startswith("head"):
                masks = [ticket.masks[site.name] for site in setup.view.sites if site.kind == "head"]
                assert sum(int((~mask).sum()) for mask in masks) == 2  # of 6
        except InputError as error:
            found[words] = str(error)
    assert found == expected


@pytest.mark.parametrize(("method", "toy", "kinds"), CASES)
def test_removes_exact_counts_and_stays_plain_at_every_yield(method, toy, kinds):
    found = trace(method, toy, kinds)
    assert found.left == []
    if method in CALIBRATED:
        assert found.planned == 0  # it trains nothing; a tick is a block or what follows them
        assert found.steps == len(FRACTIONS) * (len(blocks_of(ZOO[toy]())) + 1)
    else:
        assert found.steps == found.planned
    assert [ticket.origin["wanted"] for ticket in found.tickets] == [
        f"sparsity-{float(f):.4f}" for f in FRACTIONS
    ]
    for ticket, fraction in zip(found.tickets, FRACTIONS, strict=True):
        for kind in kinds:
            masks = [ticket.masks[site.name] for site in found.view.sites if site.kind == kind]
            units = sum(mask.numel() for mask in masks)
            gone = sum(int((~mask).sum()) for mask in masks)
            assert gone == wanted_of(method, found.view, kind, fraction), (kind, fraction, units)
            assert all(mask.any() for mask in masks)
        assert all(mask.dtype == torch.bool and mask.device.type == "cpu" for mask in ticket.masks.values())
        assert list(ticket.masks) == [site.name for site in found.view.sites]
    for lower, higher in pairwise(() if method in CALIBRATED else found.tickets):
        assert all((lower.masks[name] | ~higher.masks[name]).all() for name in lower.masks), "not nested"


@pytest.mark.parametrize(
    ("method", "toy", "kinds"), [case for case in FEW if case[1] == "bert" or case[2] == HOME[case[0]]]
)
def test_same_seed_same_ticket(method, toy, kinds):
    first, again = trace(method, toy, kinds).tickets, list(set_up(method, toy, kinds).search(Run.nowhere(0)))
    assert [ticket.origin for ticket in first] == [ticket.origin for ticket in again]
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)


@pytest.mark.parametrize("method", ALL)
def test_another_seed_gives_another_ticket_where_a_seed_is_used(method):
    setups = [trace(method, "bert", HOME[method], seed).tickets[-1] for seed in (0, 1)]
    assert (setups[0].overlap(setups[1]) == 1) == (method not in SEEDED)
    assert [ticket.origin["seed"] for ticket in setups] == [0, 1]


@pytest.mark.parametrize(("method", "toy", "kinds"), FEW)
def test_saves_loads_and_applies(method, toy, kinds, tmp_path):
    found = trace(method, toy, kinds)
    ticket = found.tickets[-1]
    ticket.save(tmp_path / "ticket")
    loaded = Ticket.load(tmp_path / "ticket")
    assert loaded.base == ticket.base
    assert loaded.granularity == kinds
    assert loaded.origin == ticket.origin
    assert loaded.origin["method"] == method
    assert loaded.origin["settings"].keys() == {f.name for f in dataclasses.fields(ALL[method])} - {
        "sparsities"
    }
    assert all(torch.equal(loaded.masks[name], mask) for name, mask in ticket.masks.items())
    model = ZOO[toy]()
    loaded.apply_(model)
    tensors = found.view.tensors(model)
    for name, mask in found.view.spread(ticket.masks).items():
        assert torch.equal(tensors[name] != 0, mask), name  # no toy weight is zero by itself


@pytest.mark.parametrize(("method", "toy"), AT_HOME)
def test_plain_when_the_caller_stops_or_throws(method, toy):
    for stop in (lambda tickets: tickets.close(), lambda tickets: tickets.throw(KeyboardInterrupt)):
        setup = set_up(method, toy)
        before = facts_of(setup.model)
        tickets = setup.search(Run.nowhere())
        next(tickets)
        with contextlib.suppress(KeyboardInterrupt):
            stop(tickets)
        assert changes(setup.model, before) == []


class Broken:
    """Batches of which one cannot be read."""

    def __init__(self, batches, at: int):
        self.batches, self.broken = batches, at

    def __len__(self):
        return len(self.batches)

    def at(self, step: int):
        if step == self.broken:
            raise OSError("the disk is gone")
        return self.batches.at(step)


@pytest.mark.parametrize(("method", "toy"), [case for case in AT_HOME if case[0] in QUICK])
def test_plain_after_an_exception_while_it_trains(method, toy):
    setup = set_up(method, toy)
    setup = setup._replace(data=Data(Broken(setup.data.train, 1), setup.data.validation))
    before = facts_of(setup.model)
    with pytest.raises(OSError, match="the disk is gone"):
        list(setup.search(Run.nowhere()))
    assert changes(setup.model, before) == []


@pytest.mark.parametrize("toy", TEXTS)
def test_methods_that_need_only_weights_read_no_data(toy):
    for method in ALL:
        if ALL[method].needs == "weights":
            setup = set_up(method, toy)
            setup = setup._replace(data=Data(None, None), objective=None)
            assert len(list(setup.search(Run.nowhere()))) == len(FRACTIONS)
            assert setup.method.steps(7) == 0


class Stop(BaseException):
    """Ends a search as a kill does: whatever was not on disk is gone."""


def stopping(folder: Path, seconds: float, after: int | None) -> Run:
    """A run in a folder that ends at the given tick."""
    ticks = []

    def watch(label: str, done: int, total: int) -> None:
        ticks.append(label)
        if len(ticks) == after:
            raise Stop

    return Run("search", 3, folder, watch=watch, save_seconds=seconds)


def collect(setup: Setup, run: Run) -> dict[str, Ticket]:
    """Search and log as the stage does; what was found before a stop counts, as the caller saves at once."""
    found = {}
    try:
        for ticket in setup.search(run):
            found[ticket.origin["wanted"]] = ticket
            run.log(event="ticket", sparsity=ticket.sparsity())
    except Stop:
        pass
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log without times and without the events that say that it was resumed."""
    import json

    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "at"} for line in found if line.get("event") != "resumed"]


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["saved-each-step", "never-saved"])
@pytest.mark.parametrize("method", [name for name in ALL if name in QUICK])
def test_stopped_at_any_step_and_continued_equals_uninterrupted(method, seconds, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    setup = set_up(method, "bert", fractions=("0.1", *FRACTIONS, "0.4"))
    expected = collect(setup, stopping(whole, seconds, None))
    assert len(expected) == 5
    for moment in range(1, setup.method.steps(len(setup.data.train)) + 1):
        folder = tmp_path / f"stopped-{moment}"
        folder.mkdir()
        found = {}
        for after in (moment, 2, None):  # stopped twice, then left alone
            setup = set_up(method, "bert", fractions=("0.1", *FRACTIONS, "0.4"))
            found |= collect(setup, stopping(folder, seconds, after))
        assert found.keys() == expected.keys()
        for wanted, ticket in found.items():
            assert ticket.origin == expected[wanted].origin
            assert all(torch.equal(ticket.masks[name], mask) for name, mask in expected[wanted].masks.items())
        assert lines(folder) == lines(whole), moment


def test_a_search_stopped_between_tickets_continues(tmp_path):
    for method in ALL:
        whole, folder = tmp_path / method, tmp_path / f"{method}-stopped"
        whole.mkdir()
        folder.mkdir()
        expected = collect(set_up(method, "bert"), stopping(whole, 0.0, None))
        for count in (1, 2):
            tickets = set_up(method, "bert").search(stopping(folder, 0.0, None))
            for _ in range(count):
                next(tickets, None)
            tickets.close()
        found = collect(set_up(method, "bert"), stopping(folder, 0.0, None))
        missing = expected.keys() - found.keys()
        assert missing <= {"sparsity-0.2000"}, "only what was handed over and kept may be left out"
        for wanted, ticket in found.items():
            assert all(torch.equal(ticket.masks[name], mask) for name, mask in expected[wanted].masks.items())
