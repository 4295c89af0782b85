"""Plain values against types: what fits is returned as the type wants it, the rest is one line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest

from hardtack.errors import InputError
from hardtack.studies.values import as_type, takes_a_list


@pytest.mark.parametrize(
    ("value", "annotation", "wanted"),
    [
        (3, float, 3.0),
        (3, int, 3),
        (False, bool, False),
        ("x", str | None, "x"),
        ("x", str | Path | Mapping[str, int], "x"),
        ("head", Sequence[str], ["head"]),
        (["head", "neuron"], tuple[str, ...], ["head", "neuron"]),
        ("first", Literal["all", "first"], "first"),
    ],
)
def test_what_fits(value, annotation, wanted):
    found = as_type(value, annotation)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("value", "annotation", "said"),
    [
        ("3", int, "'3' is not allowed; allowed: a whole number"),
        (3.5, int, "3.5 is not allowed; allowed: a whole number"),
        (True, int, "true is not allowed; allowed: a whole number"),
        (1, bool, "1 is not allowed; allowed: true or false"),
        (float("nan"), float, "nan is not allowed; allowed: a number"),
        ([1], Sequence[str], "[1] is not allowed; allowed: a text in quotes, or a list of them"),
        (
            "frist",
            Literal["all", "first"],
            "'frist' is not allowed; did you mean 'first'?; allowed: all, first",
        ),
    ],
)
def test_what_does_not_fit(value, annotation, said):
    with pytest.raises(InputError) as raised:
        as_type(value, annotation)
    assert str(raised.value) == said


def test_only_sequences_take_lists():
    assert takes_a_list(Sequence[str])
    assert not takes_a_list(str | None)
