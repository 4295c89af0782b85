"""What a method tells a newcomer of itself is there, fits a table, and is true as far as can be checked."""

from itertools import pairwise

import pytest
from tests.contracts.matrix import FRACTIONS, HOME
from tests.contracts.test_methods import set_up, trace

from hardtack.methods import METHODS
from hardtack.runs import Run


@pytest.mark.parametrize("method", METHODS)
def test_gives_and_advice_are_one_short_line(method):
    for text in (METHODS[method].gives, METHODS[method].advice):
        assert 20 <= len(text) <= 120
        assert text == " ".join(text.split())
        assert text[0].islower() or text[0] == "`"  # it goes on from "Take it when" and "Gives"
        assert text[-1] not in ".,;:"


def test_no_two_methods_give_the_same_advice():
    assert len({method.advice for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("method", [name for name, cls in METHODS.items() if "nested" in cls.gives])
def test_nested_is_true(method):
    tickets = sorted(trace(method, "bert", HOME[method]).tickets, key=lambda ticket: ticket.sparsity())
    assert len(tickets) == len(FRACTIONS)
    for less, more in pairwise(tickets):
        for name, mask in more.masks.items():
            assert bool((less.masks[name] | ~mask).all())


@pytest.mark.parametrize(
    ("method", "kind"),
    [(name, kind) for name in METHODS for kind in METHODS[name].removes if kind != "channel"],
)
def test_every_method_takes_what_it_says(method, kind):
    """What it does not take is refused, and the contracts list the line."""
    [ticket] = set_up(method, "bert", (kind,), ("0.2",)).search(Run.nowhere())
    assert ticket.granularity == (kind,)
