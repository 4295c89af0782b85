"""What training took: sums over stages, and ratios to the costliest model, seed by seed."""

from tests.reports.made import DENSE, ROBUST, row
from tests.reports.test_models import modelled

from hardtack.reports.spending import spending


def spent(*stages):
    names = ("place", "stage", "verb", "passes", "seconds")
    return [dict(zip(names, (f"{one[0]}/seed=0", one[0], "train", *one[1:]), strict=True)) for one in stages]


def made(name, seed, letters, *stages):
    return row(
        name, letters, id=f"{name}{seed}", model=f"runs/{name}-s{seed}/model", trained_seed=seed,
        measured={"spent": spent(*stages)},
    )  # fmt: skip


def test_models_are_set_beside_the_costliest_seed_by_seed():
    rows = [
        made("dense", 0, DENSE, ("freelb", 500, 100.0)),
        made("dense", 1, DENSE, ("freelb", 500, 120.0)),
        made("robust", 0, ROBUST, ("bird", 25, 5.0), ("tuned", 100, 15.0)),
        made("robust", 1, ROBUST, ("bird", 25, 5.0), ("tuned", 100, 10.0)),
    ]
    models, _ = modelled(*rows)
    (section,) = spending(models)
    found = section.blocks[-1]
    first, second = ([cell.text for cell in line] for line in found.rows)
    assert first == ["dense", "freelb", "500", "110", "1.0 [1.0, 1.0]", "1.0 [1.0, 1.0]"]
    # 500 / 125 in both seeds; 100 / 20 and 120 / 15, whose median is 6.5
    assert second == ["robust", "bird, tuned", "125", "18", "4.0 [4.0, 4.0]", "6.5 [5.0, 8.0]"]
    assert found.rows[1][1].note == "bird 25 passes, 5 s; tuned 100 passes, 12 s"


def test_seconds_are_set_beside_each_other_where_one_program_measured_both():
    rows = [made("dense", seed, DENSE, ("freelb", 500, 100.0)) for seed in (0, 1)]
    rows += [made("robust", seed, ROBUST, ("bird", 100, 20.0 + 5 * seed)) for seed in (0, 1)]
    for line, commit in zip(rows, ("older", "newer", "newer", "newer"), strict=True):
        line["measured"]["program"] = {"torch": "2.13.0", "commit": commit}
    models, _ = modelled(*rows)
    (section,) = spending(models)
    passes, seconds = section.blocks[-1].rows[1][-2:]
    assert (passes.text, passes.note) == ("5.0 [5.0, 5.0]", "")
    assert (seconds.text, seconds.note) == ("4.0", "1 of 2 seeds")


def test_rows_that_no_study_wrote_say_nothing_of_it():
    models, _ = modelled(row("dense", DENSE))
    assert spending(models) == []
