"""Real studies on a toy model: what runs, what is skipped, what fails, what stays on disk."""

import functools
import json
import shutil

import filelock
import pytest
import torch
from tests.studies.toy import CELLS, RECIPE, make_place, rows_of, weights

from hardtack import stages
from hardtack.errors import InputError
from hardtack.studies import study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A working folder in which the toy study has run once, in runs/whole."""
    place = make_place(tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        result = study("toy.toml", out="runs/whole")
    return place, result


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of that folder, and in it."""
    shutil.copytree(made[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def open_lines(file):
    return file.read_text().splitlines()


def edited(place, *pairs):
    """Change the recipe."""
    text = RECIPE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    (place / "toy.toml").write_text(text)


def test_a_study_runs_its_cells_and_gathers_their_rows(made):
    place, result = made
    assert (result["cells"], len(result["ran"]), result["failed"], result["not_run"]) == (
        CELLS,
        CELLS,
        [],
        [],
    )
    rows = rows_of(place / "runs" / "whole")
    wanted = [
        {"seed": seed, **axes}
        for seed in (0, 1)
        for axes in (
            {"target": "@dense"},
            {"target": "@subnets", "sparsity": 0.3},
            {"target": "@subnets", "sparsity": 0.5},
        )
    ]
    assert [(row["axes"], row["attack"]) for row in rows] == [
        (axes, attack) for axes in wanted for attack in (None, "deepwordbug")
    ]
    assert {row["stage"] for row in rows} == {"attacked"}
    assert rows[2]["model"] == "subnets/seed=0,sparsity=0.3"  # no machine's path
    assert str(place) not in (place / "runs" / "whole" / "rows.jsonl").read_text()
    lines = (place / "runs" / "whole" / "outcomes.jsonl").read_text().splitlines()
    outcomes = [json.loads(line) for line in lines]
    assert {line["row"] for line in outcomes} == {row["id"] for row in rows if row["attack"]}


def test_weights_of_steps_are_removed_and_tickets_stay(made):
    whole = made[0] / "runs" / "whole"
    assert weights(whole) == []
    assert len(list(whole.glob("tickets/*/tickets/*/masks.safetensors"))) == 4
    assert (whole / "dense" / "seed=0" / "model" / "hardtack.json").is_file()


def test_done_cells_are_skipped_and_rows_stay_as_they_are(place):
    before = (place / "runs/whole/rows.jsonl").read_bytes()
    assert study("toy.toml", out="runs/whole")["ran"] == []
    assert (place / "runs/whole/rows.jsonl").read_bytes() == before


def test_a_removed_cell_that_is_needed_again_is_made_again(place):
    before = rows_of(place / "runs/whole")
    shutil.rmtree(place / "runs/whole/attacked/seed=0,target=subnets,sparsity=0.3")
    result = study("toy.toml", out="runs/whole")
    assert result["ran"] == [  # the search's ticket is still there
        "subnets/seed=0,sparsity=0.3",
        "attacked/seed=0,target=subnets,sparsity=0.3",
    ]
    assert rows_of(place / "runs/whole") == before
    assert weights(place / "runs/whole") == []


def test_weights_can_be_kept(place):
    edited(place, ('name = "dense"\n', 'name = "dense"\nkeep = true\n'), ("seed = [0, 1]", "seed = [0]"))
    result = study("toy.toml", out="runs/whole")
    assert result["ran"] == ["dense/seed=0"]  # a result now, so its weights are made again
    assert weights(place / "runs/whole") == ["dense/seed=0"]
    all_of_them = study("toy.toml", out="runs/kept", keep_weights=True)
    assert len(all_of_them["ran"]) == CELLS // 2
    assert weights(place / "runs/kept") == [
        "dense/seed=0", "subnets/seed=0,sparsity=0.3", "subnets/seed=0,sparsity=0.5"
    ]  # fmt: skip


def test_a_failed_cell_stops_only_what_needs_it(place):
    tickets = '\n\n[[stage]]\nname = "tickets"'
    edited(
        place,
        (f"lr = 1e-3{tickets}", f"grid = {{lr = [1e-3, 1e30]}}{tickets}"),
        ("seed = [0, 1]", "seed = [0]"),
    )
    result = study("toy.toml", out="runs/failing")
    (failed,) = result["failed"]
    assert failed["place"] == "dense/seed=0,lr=1e-30"
    assert not failed["ours"]
    assert "\n" not in failed["line"]
    assert len(result["not_run"]) == 6
    assert all("lr=1e-30" in place for place in result["not_run"])
    assert len(result["ran"]) == 7
    assert len(rows_of(place / "runs/failing")) == 6
    assert study("toy.toml", out="runs/failing")["ran"] == []  # it is tried again, and fails again


def test_a_failure_of_ours_is_told_apart_and_leaves_a_trace(place, monkeypatch):
    @functools.wraps(stages.evaluate)
    def broken(*values, **named):
        raise RuntimeError("a bug\nof two lines")

    monkeypatch.setattr(stages, "evaluate", broken)
    edited(place, ("seed = [0, 1]", "seed = [0, 1]\nexamples = [6, 7]"), ("examples = 6\n", ""))
    result = study("toy.toml", out="runs/broken")
    assert {(one["ours"], one["line"]) for one in result["failed"]} == {
        (True, "RuntimeError: a bug of two lines")
    }
    assert "of two lines" in (place / "runs/broken/failures.log").read_text()


def test_committed_rows_count_as_done(place, monkeypatch):
    shutil.rmtree(place / "docs", ignore_errors=True)
    result = study("toy.toml", out="runs/whole", write_results=True)
    committed = place / result["results"]
    assert committed.parent == place / "docs" / "results" / "toy"
    content = {path.name: path.read_bytes() for path in committed.iterdir()}
    assert set(content) == {"rows.jsonl", "outcomes-000.jsonl.gz"}
    assert content["rows.jsonl"] == (place / "runs/whole/rows.jsonl").read_bytes()

    again = study("toy.toml", out="runs/elsewhere", write_results=True)
    assert again["ran"] == []
    assert (place / "runs/elsewhere/rows.jsonl").read_bytes() == content["rows.jsonl"]
    assert {path.name: path.read_bytes() for path in committed.iterdir()} == content

    edited(place, ('target = ["@dense", "@subnets"]', 'target = ["@dense", "@subnets", "@tickets"]'))
    more = study("toy.toml", out="runs/more")
    # Only what the new cells need runs: the dense models, because the searches start there.
    assert {name.partition("/")[0] for name in more["ran"]} == {"dense", "tickets", "attacked"}
    assert len(more["ran"]) == 2 + 2 + 4
    monkeypatch.setattr("hardtack.cost.hardware", lambda device: {"system": "Other", "threads": 1})
    assert len(study("toy.toml", out="runs/other", dry_run=True)["commands"]) == CELLS + 4


def test_a_dry_run_says_what_would_run_and_writes_nothing(place):
    shutil.rmtree(place / "runs/whole/attacked/seed=1,target=dense")
    plan = study("toy.toml", out="runs/whole", dry_run=True)
    assert [(stage["stage"], stage["cells"], stage["to_run"]) for stage in plan["stages"]] == [
        ("dense", 2, 1), ("tickets", 2, 0), ("subnets", 4, 0), ("attacked", 6, 1)
    ]  # fmt: skip
    assert plan["seconds"] > 0
    assert plan["stages"][0]["bytes"] > 4 * 9000
    assert len(plan["commands"]) == 2
    assert not (place / "runs/whole/attacked/seed=1,target=dense").exists()
    study("toy.toml", out="runs/new", dry_run=True)
    assert not (place / "runs/new").exists()


def test_folders_of_something_else_are_refused(place):
    (place / "other.toml").write_text(RECIPE)
    (place / "mine").mkdir()
    (place / "mine" / "notes.txt").write_text("mine")
    edited(place, ("lr = 1e-3", "lr = 2e-3"))
    for recipe, out, said in (
        ("other.toml", "runs/whole", "--out runs/whole holds another study ('toy'); choose another folder"),
        ("toy.toml", "mine", "--out mine holds files that are not a study's; allowed: a new or empty folder"),
        ("toy.toml", "toy.toml", "--out toy.toml is a file; a study needs a folder of its own"),
        ("toy.toml", "runs/whole", "toy.toml: runs/whole/dense/seed=0 holds the run of other settings"),
    ):
        with pytest.raises(InputError) as raised:
            study(recipe, out=out)
        assert str(raised.value).startswith(said)
    with filelock.FileLock(place / "runs" / "new" / ".lock"), pytest.raises(InputError, match="is in use by"):
        study("toy.toml", out="runs/new")
    with pytest.raises(InputError, match="processes 0, threads None; allowed: 1 or more"):
        study("toy.toml", processes=0)


def test_an_extended_recipe_runs_only_what_is_new(place):
    edited(place, ("seed = [0, 1]", "seed = [0, 1, 2]"))
    result = study("toy.toml", out="runs/whole")
    assert len(result["ran"]) == CELLS // 2
    assert all("seed=2" in name for name in result["ran"])
    assert len(rows_of(place / "runs/whole")) == 18


def test_further_attacks_add_rows_to_evaluations(place):
    before = {row["id"]: row for row in map(json.loads, open_lines(place / "runs/whole/rows.jsonl"))}
    near = "".join(json.dumps({"word": w, "neighbors": ["x"]}) + "\n" for w in ("a", "b"))
    (place / "near.jsonl").write_text(near)
    attack = 'attack = ["word_swap", "deepwordbug"]\nword_swap.neighbours = "near.jsonl"'
    edited(place, ('attack = ["deepwordbug"]', attack), ("seed = [0, 1]", "seed = [0]"))
    plan = study("toy.toml", out="runs/whole", dry_run=True)
    result = study("toy.toml", out="runs/whole")
    assert len(result["ran"]) == len(plan["commands"]) == 1 + 2 + 3  # the models' weights were removed
    rows = list(map(json.loads, open_lines(place / "runs/whole/rows.jsonl")))
    assert [row["attack"] for row in rows] == [None, "word_swap", "deepwordbug"] * 3
    kept = [row for row in rows if row["id"] in before]
    assert len(kept) == 6
    for row in kept:  # not measured again, but for what making the models anew took
        spent, was = row["measured"].pop("spent"), before[row["id"]]["measured"].pop("spent")
        assert row["measured"] == before[row["id"]]["measured"]
        assert [one["passes"] for one in spent] == [one["passes"] for one in was]
    fresh = study("toy.toml", out="runs/fresh")
    assert len(fresh["ran"]) == CELLS // 2
    assert rows_of(place / "runs/fresh") == rows_of(place / "runs/whole")


def test_a_row_says_what_making_its_model_took(place):
    rows = list(map(json.loads, open_lines(place / "runs/whole/rows.jsonl")))
    for row in rows:
        spent = {one["stage"]: one for one in row["measured"]["spent"]}
        assert list(spent) == ["dense", "tickets", "subnets"][: 1 if row["axes"]["target"] == "@dense" else 3]
        assert spent.get("tickets", {"passes": 0})["passes"] == 0  # random: nothing is trained
        assert row["measured"]["program"]["torch"] == torch.__version__
        last = list(spent.values())[-1]
        assert last["passes"] > 0
        assert last["seconds"] > 0


def test_two_processes_give_the_rows_of_one(place):
    seen = []
    study("toy.toml", out="runs/two", processes=2, threads=2, watch=lambda *tick: seen.append(tick))
    assert rows_of(place / "runs/two") == rows_of(place / "runs/whole")
    assert (place / "runs/two/outcomes.jsonl").read_bytes() == (
        place / "runs/whole/outcomes.jsonl"
    ).read_bytes()
    labels = {label for label, _, _ in seen}
    assert "toy: cells" in labels
    assert any(label.startswith("dense/seed=0: ") for label in labels)  # ticks of the workers
    assert seen[-1] == ("toy: cells", CELLS, CELLS)


def test_a_soup_of_a_stages_cells_is_cooked_and_measured(place):
    (place / "soup.toml").write_text(
        """
[common]
task = "task"
device = "cpu"
batch_size = 16
[[stage]]
name = "dense"
verb = "train"
model = "tiny"
epochs = 1
grid = {lr = [1e-3, 3e-3]}
[[stage]]
name = "mixed"
verb = "soup"
models = ["@dense"]
[[stage]]
name = "measured"
verb = "evaluate"
target = "@mixed"
"""
    )
    planned = study("soup.toml", out=place / "soup", dry_run=True)
    assert [stage["to_run"] for stage in planned["stages"]] == [2, 1, 1]
    assert "hardtack soup" in planned["commands"][2]
    study("soup.toml", out=place / "soup")
    (row,) = rows_of(place / "soup")
    assert row["method"] == "soup"
    again = study("soup.toml", out=place / "soup")
    assert again["ran"] == []
