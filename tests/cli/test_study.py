"""`hardtack study`: its flags, its exit statuses, its plan, and that its commands mean what its cells do."""

import dataclasses
import functools
import inspect
import json
import shlex

import pytest
from tests.studies.toy import RECIPE, make_place

from hardtack import stages
from hardtack.cli import main
from hardtack.studies.calls import arguments
from hardtack.studies.contents import Contents
from hardtack.studies.grid import expand
from hardtack.studies.reading import read
from hardtack.training.adversarial import OBJECTIVES

EVERYTHING = """
[common]
task = "task"
device = "cpu"
[grid]
seed = [0, 1]
[[stage]]
name = "dense"
verb = "train"
model = "tiny"
epoch_rule = "best"
max_length = 32
freelb.steps = 2
freelb.radius = 0.5
pgd = {radius = 0.2, start = 0.0}
grid = {objective = ["clean", "freelb", "pgd"]}
[[stage]]
name = "tickets"
verb = "search"
model = "tiny"
from = "@dense"
freelb.steps = 4
hard_concrete = {price = 100, mean_of = "gates"}
random.scope = "site"
keep_whole = ["pooler*", "classifier"]
warm_epochs = 1
[stage.grid]
method = ["hard_concrete", "magnitude", "random"]
granularity = ["weight", ["head", "neuron"]]
sparsity = [0.3, "2:4"]
hard_concrete.epochs = [1, 2]
[[stage]]
name = "subnets"
verb = "retrain"
ticket = "@tickets"
base = "tiny"
lr = 3e-4
[[stage]]
name = "attacked"
verb = "evaluate"
target = ["@subnets", "@tickets", "tiny"]
split = "validation"
attack = ["deepwordbug", "word_swap"]
word_swap = {neighbours = "near.jsonl", columns = "first", max_neighbours = 3}
shifted = ["task"]
examples = 7
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(make_place(tmp_path))
    (tmp_path / "near.jsonl").write_text(json.dumps({"word": "good", "neighbors": ["fine"]}) + "\n")
    return tmp_path


@pytest.fixture
def called(monkeypatch):
    """Replace every stage by one that records its arguments."""
    found = []

    def replace(name, original):
        @functools.wraps(original)
        def stage(*values, **named):
            found.append((name, *meaning(original, values, named)))
            return {"stages": [], "seconds": 0.0, "bytes": 0, "rows": []}

        monkeypatch.setattr(stages, name, stage)

    for name in ("train", "search", "retrain", "evaluate"):
        replace(name, getattr(stages, name))
    return found


def meaning(function, values, named):
    """Return all arguments of a call, defaults filled in; an objective by default is that objective."""
    bound = inspect.signature(function).bind(*values, **named)
    bound.apply_defaults()
    known = {name: value for name, value in bound.arguments.items() if name != "watch"}
    if known.get("objective", "none") is None:
        method = known.get("method")
        known["objective"] = OBJECTIVES[method.minimises if method else "clean"]()
    return list(known.items())


def test_the_commands_of_a_plan_mean_what_the_cells_do(place, called, capfd):
    (place / "r.toml").write_text(EVERYTHING)
    originals = {
        name: inspect.unwrap(getattr(stages, name)) for name in ("train", "search", "retrain", "evaluate")
    }
    assert main(["study", "r.toml", "--out", "runs/a folder", "--dry-run", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    cells = expand(read("r.toml"), place.relative_to(place) / "runs" / "a folder", Contents())
    assert len(plan["commands"]) == len(cells) == len(plan["cells"])
    assert len(cells) > 100
    called.clear()
    for cell, command in zip(cells, plan["commands"], strict=True):
        assert main(shlex.split(command)[1:]) == 0, command
        values, named = arguments(cell.verb, cell.settings)
        named |= {"out": str(cell.folder), "dry_run": False}
        assert called.pop() == (cell.verb.name, *meaning(originals[cell.verb.name], values, named))
    capfd.readouterr()


def test_every_setting_of_a_stage_can_be_typed_in_a_recipe():
    from hardtack.evaluation.attacks import ATTACKS
    from hardtack.methods import METHODS
    from hardtack.studies.verbs import VERBS

    for verb, tables in (("train", [OBJECTIVES]), ("search", [METHODS, OBJECTIVES]), ("evaluate", [ATTACKS])):
        keys = VERBS[verb].takes
        for table in tables:
            for name, cls in table.items():
                for field in dataclasses.fields(cls):
                    assert f"{name}.{field.name}" in keys or not field.metadata.get("flag", True)


def test_a_study_from_the_command_line(place, capfd):
    assert main(["study", "toy.toml", "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert "dense: 2 of 2 cells to run" in shown
    assert "\nhardtack train tiny --task task" in shown
    small = RECIPE.replace("seed = [0, 1]", "seed = [0]").replace("[0.3, 0.5]", "[0.3]")
    (place / "toy.toml").write_text(small)
    assert main(["study", "toy.toml", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["kind"], len(result["ran"]), result["rows"]) == ("study", 5, 4)
    assert main(["study", "toy.toml", "--dry-run"]) == 0
    assert "all cells are done" in capfd.readouterr().out
    assert main(["show", "runs/toy"]) == 0
    shown = capfd.readouterr().out
    states = {
        cells[1].strip(): cells[2].strip()
        for cells in (line.split("|") for line in shown.splitlines())
        if len(cells) == 4
    }
    assert states["dense/seed=0"] == "done, weights removed"
    assert states["attacked/seed=0,target=dense"] == "done"
    assert "deepwordbug" in shown
    assert main(["show", "runs/toy", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [cell["state"] for cell in found["cells"]].count("done") == 3
    assert main(["compare", "runs/toy"]) == 0
    assert "attack deepwordbug, 6 examples" in capfd.readouterr().out


def test_failed_cells_are_said_in_a_line_each_and_the_status_is_2(place, capfd):
    text = RECIPE.replace("seed = [0, 1]", "seed = [0]").replace("[0.3, 0.5]", "[0.3]")
    (place / "toy.toml").write_text(text.replace("lr = 1e-3", "lr = 1e30", 1))
    assert main(["study", "toy.toml"]) == 2
    shown = capfd.readouterr()
    failed, left = shown.err.splitlines()
    assert failed.startswith("hardtack: dense/seed=0 failed: ")
    assert left == (
        "hardtack: not run, because they need what failed: tickets/seed=0, subnets/seed=0,sparsity=0.3, "
        "attacked/seed=0,target=dense, attacked/seed=0,target=subnets,sparsity=0.3"
    )
    assert "| failed  | 1 " in shown.out
    assert main(["show", "runs/toy"]) == 0
    assert "dense/seed=0 failed: " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.toml",), "none.toml cannot be read: No such file or directory"),
        (("toy.toml", "--processes", "0"), "processes 0, threads None; allowed: 1 or more"),
        (("toy.toml", "--procesess", "2"), "did you mean '--processes'?"),
        (("toy.toml", "--out", "tiny"), "--out tiny holds files that are not a study's"),
    ],
)
def test_mistakes_are_one_line(place, words, said, capfd):
    capfd.readouterr()
    assert main(["study", *words]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert said in shown.err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('model = "tiny"', 'model = "tiy"', "toy.toml: stage 'dense': tiy is no model that can be reached"),
        ('task = "task"', 'task = "tsk"', "toy.toml: stage 'dense': no task, folder or file 'tsk'"),
        ('target = ["@dense", "@subnets"]', 'target = "@dense"\nsplit = "tset"', "has no split 'tset'"),
    ],
)
def test_data_and_models_are_looked_at_before_anything_runs(place, old, new, said, capfd):
    (place / "toy.toml").write_text(RECIPE.replace(old, new))
    capfd.readouterr()
    assert main(["study", "toy.toml"]) == 2
    shown = capfd.readouterr()
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert not (place / "runs").exists()
