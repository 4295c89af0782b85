"""Who is best, by how much, and how firm that is; every number by hand."""

import pytest
from tests.reports.made import DENSE, ROBUST, row, study, write

from hardtack.errors import InputError
from hardtack.reports.gather import gather
from hardtack.reports.models import groups_of, models_of
from hardtack.reports.verdicts import compare_all, difference_tables, findings, yardstick_of

UNDER = "accuracy_under_attack"


def looked(folder, name=None):
    found = gather([folder])
    models = models_of(found.entries, [])
    groups = groups_of(models)
    yardstick = yardstick_of(models, name)
    compared = compare_all(models, groups, yardstick, seed=0)
    best = findings(models, groups, compared, yardstick, seed=0)
    return models, compared, {finding.question: finding for finding in best}, yardstick


def test_differences_and_findings_of_a_study(tmp_path):
    models, (one,), best, yardstick = looked(study(tmp_path))
    by_name = {model.label: model for model in models}
    assert yardstick.label == "dense"
    difference = one.of(by_name["robust"], UNDER)
    assert difference.mean == pytest.approx(0.4)
    assert (difference.verdict, difference.firm, difference.matching) == ("higher", "higher", None)
    assert one.of(by_name["imp"], UNDER).verdict == "no difference"
    assert one.of(by_name["random"], UNDER).verdict == "lower"
    robust = best["Most robust under deepwordbug (toy, test)"]
    assert robust.answer == "robust keeps 0.700 [0.604 to 0.781] of 100 examples"
    assert "dense, the yardstick, keeps 0.300. Difference +0.400" in robust.detail
    assert "the second" not in robust.detail  # it is the yardstick, which was just named
    assert best["Most accurate, no attack (toy, test)"].answer.startswith("no clear winner; dense is highest")
    assert best["Fastest"].answer == "no model is clearly faster"


def test_the_yardstick_can_be_named(tmp_path):
    models, (one,), best, _ = looked(study(tmp_path), "robust")
    assert one.of(next(m for m in models if m.label == "dense"), UNDER).mean == pytest.approx(-0.4)
    assert (
        "No model holds up better than the yardstick. "
        in best["Most robust under deepwordbug (toy, test)"].detail
    )
    with pytest.raises(InputError, match="no model is called 'robbust'; did you mean 'robust'"):
        looked(tmp_path, "robbust")


def test_a_small_lead_is_no_lead(tmp_path):
    close = "M" * 10 + "H" * 69 + "F" * 21
    write(tmp_path / "a", (row("dense", DENSE), DENSE))
    write(tmp_path / "b", (row("robust", ROBUST), ROBUST), (row("imp", close), close))
    _, _, best, _ = looked(tmp_path)
    said = best["Most robust under deepwordbug (toy, test)"]
    assert said.answer.startswith("no clear winner; robust is highest with 0.700")
    assert "imp, the second, keeps 0.690. Difference +0.010" in said.detail
    assert said.detail.endswith(": no difference.")


def test_holms_doubt_is_said(tmp_path):
    better = "M" * 10 + "H" * 36 + "F" * 54  # six more hold, none less: p = 2 * 0.5^6 = 0.03, times 4 or more
    write(tmp_path / "a", (row("dense", DENSE), DENSE))
    write(tmp_path / "b", (row("robust", better), better), (row("imp", DENSE), DENSE))
    models, (one,), best, yardstick = looked(tmp_path)
    assert one.of(models[1], UNDER).firm == "higher, but not after Holm's correction"
    assert (
        "higher, but not after Holm's correction" in best["Most robust under deepwordbug (toy, test)"].detail
    )
    (table,) = difference_tables(models, [one], yardstick)
    assert any(cell.note == "but not after Holm's correction" for cells in table.rows for cell in cells)


def test_several_seeds_give_one_difference_over_them(tmp_path):
    for seed in range(3):
        for name, letters in (("dense", DENSE), ("robust", ROBUST)):
            one = row(name, letters, id=f"{name}{seed}", trained_seed=seed, model=f"runs/{name}-s{seed}")
            write(tmp_path / f"{name}{seed}", (one, letters))
    models, (one,), _, yardstick = looked(tmp_path)
    assert [model.label for model in models] == ["dense", "robust"]
    difference = one.of(models[1], UNDER)
    assert (difference.seeds, difference.matching, difference.holm_p) == (3, True, None)
    (table,) = difference_tables(models, [one], yardstick)
    assert [row[0].text for row in table.rows] == ["robust", "robust"]
    assert table.rows[0][1].note == "standard deviation 0.000"
    assert table.rows[0][2] == ("higher", "matching: a double win", ())


def test_missing_outcomes_cost_only_their_difference(tmp_path):
    study(tmp_path)
    (tmp_path / "evaluate-robust" / "outcomes.jsonl").unlink()
    models, (one,), best, _ = looked(tmp_path)
    assert one.notes == (
        "robust has no outcomes under deepwordbug (row robust-attack): its differences are not known",
    )
    assert one.of(next(m for m in models if m.label == "random"), UNDER) is not None
    said = best["Most robust under deepwordbug (toy, test)"].detail
    assert said.endswith("keeps 0.300. Without paired outcomes the difference cannot be judged.")


def test_other_examples_cost_only_the_differences(tmp_path):
    study(tmp_path)
    file = tmp_path / "evaluate-robust" / "outcomes.jsonl"
    file.write_text(file.read_text().replace('"test-0"', '"test-777"'))
    _, (one,), _, _ = looked(tmp_path)
    assert one.differences == ()
    assert "attacked different examples at seed 0" in one.notes[-1]


def test_another_seed_has_no_partner(tmp_path):
    write(tmp_path / "a", (row("dense", DENSE), DENSE))
    write(tmp_path / "b", (row("robust", ROBUST, trained_seed=7), ROBUST))
    _, (one,), _, _ = looked(tmp_path)
    assert one.notes == ("robust has no seed in common with dense under deepwordbug",)


def test_a_faster_and_smaller_model_is_named(tmp_path):
    write(tmp_path / "a", (row("dense", DENSE), DENSE))
    fast = row("robust", ROBUST, parameters=300, flops=1e6, measured={"latency_ms": 2.0})
    write(tmp_path / "b", (fast, ROBUST))
    _, _, best, _ = looked(tmp_path)
    assert best["Fastest"].answer == "robust: 2.0 ms a text"
    assert best["Fewest parameters kept"].answer == "robust: 300"


def test_a_busy_machine_makes_no_model_faster(tmp_path):
    write(tmp_path / "a", (row("dense", DENSE), DENSE))
    write(tmp_path / "b", (row("robust", ROBUST, measured={"latency_ms": 2.0}), ROBUST))
    _, _, best, _ = looked(tmp_path)
    assert best["Fastest"].answer == "latencies scatter: no model computes less"
