"""Rows and the demo's card as tables."""

import pytest

from hardtack.reports.table import card, card_text, rows_text, sparsity_text, wilson

BASE = {"model": "tiny", "ticket": None, "objective": "freelb", "task": "made", "split": "test", "seed": 0}


def rows():
    found = []
    for method, sparsity, clean, held in (("dense", 0.0, 0.9, 10), ("hard_concrete", 0.3, 0.88, 60)):
        line = {
            **BASE,
            "method": method,
            "sparsity": sparsity,
            "disk_bytes": 90_900_000,
            "flags": ["one seed"],
        }
        found.append(
            {**line, "attack": None, "examples": 400, "clean_accuracy": clean, "accuracy_under_attack": None}
        )
        attacked = {"attack": "deepwordbug", "examples": 200, "clean_accuracy": 0.91, "mean_queries": 21.25}
        found.append({**line, **attacked, "accuracy_under_attack": held / 200})
    return found


def test_wilson_of_a_row():
    interval = wilson({"examples": 200, "accuracy_under_attack": 0.3}, "accuracy_under_attack")
    # by hand: (0.3 + 1.9208/200 -+ 1.96 * sqrt(0.3 * 0.7 / 200 + 0.9604 / 200^2)) / (1 + 3.8416 / 200)
    assert (interval.low, interval.high) == (pytest.approx(0.2407, abs=1e-4), pytest.approx(0.3668, abs=1e-4))
    assert wilson({"examples": 200, "accuracy_under_attack": None}, "accuracy_under_attack") is None


def test_rows_are_shown_with_intervals_and_flags_once():
    text = rows_text(rows())
    assert "0.300 [0.241, 0.367]" in text
    assert "| clean " in text
    assert text.count("flag one seed") == 1
    assert max(map(len, text.splitlines())) <= 100


def demo():
    lines = []
    for i, (name, sparsity, ticket) in enumerate([("dense", None, None), ("robust-ticket", 0.3, 2_700_000)]):
        seconds = {"search_seconds": 20.0 if ticket else None, "train_seconds": 10.0, "attack_seconds": 5.4}
        line = {"name": name, "sparsity": sparsity, "ticket_bytes": ticket, **seconds}
        lines.append({**line, "rows": rows()[2 * i : 2 * i + 2]})
    return {
        "lines": lines,
        "note": "1 seed: a demonstration, no claim",
        "seconds": 250.0,
        "folder": "runs/demo",
    }


def test_the_card_has_one_line_a_model():
    found = card(demo())
    dense, robust = found["lines"]
    assert (dense["sparsity"], dense["bytes"], dense["clean"], dense["seconds"]) == (
        0.0,
        90_900_000,
        0.9,
        15.4,
    )
    assert (robust["sparsity"], robust["bytes"], robust["clean"], robust["seconds"]) == (
        0.3,
        2_700_000,
        0.88,
        35.4,
    )
    assert robust["under_attack"]["deepwordbug"] == pytest.approx([0.3, 0.2407, 0.3668], abs=1e-4)
    assert found["examples"] == [200]


def test_the_card_as_text():
    lines = card_text(demo()).splitlines()
    assert lines[3] == "| robust-ticket |     0.30 |  2.7 MB | 0.880 | 0.30 [0.24, 0.37] |      35 |"
    assert lines[-1] == "1 seed: a demonstration, no claim; 4 min 10 s in all; everything is in runs/demo"
    assert max(map(len, lines)) <= 100


def test_sparsity_is_a_fraction_or_as_it_is():
    assert [sparsity_text(s) for s in (0.3, 0, "2:4", None)] == ["0.30", "0.00", "2:4", "-"]
