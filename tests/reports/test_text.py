"""Plain tables: 100 columns, no colours, nothing lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.reports.text import byte_text, facts_text, second_text, table


def test_a_table_as_it_is():
    shown = table(("name", "n"), [("a [red]b", "10"), ("c", None)], right=(1,))
    assert shown == "\n".join(
        ["| name     |  n |", "|----------|----|", "| a [red]b | 10 |", "| c        |  - |"]
    )


@given(
    st.lists(
        st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=300),
        min_size=1,
        max_size=6,
    )
)
def test_long_cells_are_folded_never_cut(cells):
    shown = table(tuple("abcdef"[: len(cells)]), [cells])
    assert all(len(line) <= 100 for line in shown.splitlines())
    body = "".join(shown.splitlines()[2:])
    letters = sorted("".join(cells).replace("|", ""))
    assert sorted(body.replace("|", "").replace(" ", "")) == letters or any(
        cell in ("", "-") for cell in cells
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (123456, "123 kB"),
        (90_900_000, "90.9 MB"),
        (10**13, "10.0 TB"),
    ],
)
def test_bytes(count, shown):
    assert byte_text(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.99, "1 min 00 s"), (250, "4 min 10 s"), (7500, "2 h 05 min")],
)
def test_seconds(seconds, shown):
    assert second_text(seconds) == shown


def test_facts_have_units():
    shown = facts_text(
        {
            "disk_bytes": 2_000_000,
            "train_seconds": 90,
            "seed": 1234,
            "steps": 1234,
            "x": None,
            "d": {"a": 1, "b": {}},
            "e": [{"c": 2}],
            "f": ["g", "h"],
        }
    )
    for line in (
        "disk_bytes    | 2.0 MB",
        "train_seconds | 1 min 30 s",
        "seed          | 1234",
        "steps         | 1,234",
    ):
        assert line in shown
    for line in (
        "d.a           | 1",
        "d.b           | -",
        '[{"c": 2}]',
        "| f             | g",
        "|               | h",
    ):
        assert line in shown
