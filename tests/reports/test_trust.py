"""Each reason to be careful is given exactly where it holds."""

import pytest
from tests.reports.made import DENSE, ROBUST, record, row, study, write

from hardtack.reports.gather import gather
from hardtack.reports.models import groups_of, models_of
from hardtack.reports.trust import checks
from hardtack.reports.verdicts import compare_all, yardstick_of


def said(folder):
    found = gather([folder])
    models = models_of(found.entries, [])
    groups = groups_of(models)
    compared = compare_all(models, groups, yardstick_of(models, None), seed=0)
    return {check.what: check for check in checks(found, models, groups, compared)}


def test_a_sound_study_has_only_its_one_seed_against_it(tmp_path):
    found = said(study(tmp_path))
    assert [what for what, check in found.items() if not check.good] == ["Seeds"]
    assert found["Seeds"].text.startswith("1 seed: a look, no claim")
    assert next(iter(found)) == "Seeds"  # the doubts come first
    assert found["Examples"].text == "100 attacked examples: a rate near one half is sure to about 10 points."


def test_five_seeds_carry_a_claim(tmp_path):
    for seed in range(5):
        write(tmp_path / str(seed), (row("dense", DENSE, id=str(seed), trained_seed=seed), DENSE))
    assert said(tmp_path)["Seeds"].good
    assert said(tmp_path)["Seeds"].text == "5 seeds."


@pytest.mark.parametrize(
    ("name", "letters", "change", "what", "text"),
    [
        ("dense", "", {}, "Attacks", "No row was measured under attack: nothing here is about robustness."),
        (
            "dense",
            "HF",
            {},
            "Examples",
            "2 attacked examples: a rate near one half is sure to about 71 points.",
        ),
        ("dense", DENSE, {"split": "validation"}, "Split", "Read on validation: only a test split"),
        ("dense", DENSE, {"flags": ["truncated"]}, "Flags", "Rows with doubts: truncated (1)."),
        (
            "robust",
            ROBUST,
            {},
            "Controls",
            "Missing: no dense model; no random ticket of the sparsity of robust;",
        ),
    ],
)
def test_each_doubt(tmp_path, name, letters, change, what, text):
    write(tmp_path, (row(name, letters, **change), letters))
    check = said(tmp_path)[what]
    assert not check.good
    assert check.text.startswith(text)


def test_a_dense_model_of_other_training_is_no_control(tmp_path):
    study(tmp_path)
    write(tmp_path / "evaluate-dense", (row("dense", DENSE, epochs=20.0), DENSE))
    text = said(tmp_path)["Controls"].text
    assert (
        text
        == "Missing: no dense model with the training of imp; no dense model with the training of robust."
    )


def test_missing_outcomes_unfinished_runs_and_other_machines(tmp_path):
    study(tmp_path)
    (tmp_path / "evaluate-imp" / "outcomes.jsonl").unlink()
    record(tmp_path / "late", kind="train", done=False)
    other = {"latency_ms": 9.0, "hardware": {"system": "Linux", "threads": 8}}
    write(tmp_path / "evaluate-random", (row("random", "", measured=other, flops_tokens=50), ""))
    found = said(tmp_path)
    assert found["Same examples"].text.startswith("1 attacked rows lack outcomes")
    assert found["Unfinished"].text.startswith("1 of 6 runs are unfinished: ")
    assert found["Machines"].text.startswith("Latencies come from 2 machines")
    assert not found["Lengths"].good


def test_a_cut_split_is_said(tmp_path):
    write(tmp_path, (row("dense", DENSE, cut=True), DENSE))
    assert said(tmp_path)["Cut split"].text.startswith("A split was cut from training data")
