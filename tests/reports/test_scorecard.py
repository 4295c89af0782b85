"""The scorecard's cells by hand."""

import pytest
from tests.reports.made import DENSE, ROBUST, row

from hardtack.reports.blocks import Cell
from hardtack.reports.compare import Entry
from hardtack.reports.models import groups_of, models_of
from hardtack.reports.scorecard import counted, scorecard, shifts


def tables(*rows, of=scorecard):
    models = models_of([Entry("runs", one, {}) for one in rows], [])
    return of(models, groups_of(models), seed=0)


def test_costs_and_accuracies():
    costs, accuracies = tables(row("dense"), row("dense", DENSE), row("robust", ROBUST, flags=["one-class"]))
    assert costs.head == ("model", "sparsity", "parameters kept", "FLOPs", "on disk", "latency", "seeds")
    assert costs.rows[1] == (
        Cell("robust", "hard_concrete, trained clean for 3 epochs, last epoch"),
        Cell("0.50", "of 800 weights"), Cell("600"),
        Cell("2 M", "9 tokens"), Cell("4.0 kB"), Cell("5.0 ms"), Cell("0"),
    )  # fmt: skip
    assert accuracies.head == (
        "model",
        "clean, whole split",
        "under deepwordbug, n = 100",
        "queries",
        "flags",
    )
    assert accuracies.rows[0] == (
        Cell("dense"), Cell("0.900", "0.867 to 0.926"), Cell("0.300", "0.219 to 0.396"), Cell("12.5"),
        Cell("none"),
    )  # fmt: skip
    assert accuracies.rows[1][1] == Cell("-")
    assert accuracies.rows[1][4] == Cell("", links=("one-class",))


def test_two_ways_to_attack_have_two_columns():
    small = row("dense", DENSE[::2], id="small")
    (_, accuracies) = tables(row("dense", DENSE), small)
    assert accuracies.head[1:4:2] == ("under deepwordbug, n = 100", "under deepwordbug, n = 50")


def test_seeds_are_counted_in_the_cell():
    rows = [row("dense", DENSE, id=str(seed), trained_seed=seed) for seed in range(3)]
    costs, accuracies = tables(*rows)
    assert costs.rows[0][6] == Cell("0, 1, 2")
    assert accuracies.rows[0][1].text == "0.300"
    assert accuracies.rows[0][1].note.endswith(", 3 seeds")


def test_shift_shows_the_change():
    away = row(
        "dense", id="s", task="books", shifted_from="toy", clean_accuracy=0.75, examples=100, brier_score=0.4
    )
    (table,) = tables(row("dense"), away, of=shifts)
    assert table.head == ("model", "on books", "on toy", "change", "brier score")
    assert [cell.text for cell in table.rows[0]] == ["dense", "0.750", "0.900", "-0.150", "0.400"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0"), (999, "999"), (22713983, "22.7 M"), (1.06e9, "1.06 G"), (5e12, "5 T")],
)
def test_large_counts(count, text):
    assert counted(count) == text
