"""Every mistake in a recipe is one line that names file, stage, value and what is allowed."""

import pytest
from tests.kills import ROOT
from tests.studies.toy import RECIPE

from hardtack.errors import InputError
from hardtack.studies.reading import flat, read

TRAIN = 'verb = "train"\nmodel = "tiny"\ntask = "made"\n'
STAGE = "[[stage]]\n" + TRAIN
EVALUATE = '[[stage]]\nname = "e"\nverb = "evaluate"\ntask = "made"\ntarget = "tiny"\n'


def refused(tmp_path, text):
    """Read a recipe that must be refused; return its line."""
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError) as raised:
        read(tmp_path / "r.toml")
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith(f"{tmp_path / 'r.toml'}")
    return line.removeprefix(f"{tmp_path / 'r.toml'}").removeprefix(": ")


def test_a_recipe_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HARDTACK_DATA", "/data")
    text = RECIPE.replace('task = "task"', 'task = "$HARDTACK_DATA/task"')
    (tmp_path / "toy.toml").write_text(text)
    recipe = read(tmp_path / "toy.toml")
    assert recipe.name == "toy"
    assert recipe.grid == {"seed": [0, 1]}
    assert [stage.name for stage in recipe.in_order()] == ["dense", "tickets", "subnets", "attacked"]
    dense, tickets, _, attacked = recipe.stages
    assert dense.fixed == {
        "task": "/data/task", "device": "cpu", "batch_size": 16, "model": "tiny", "epochs": 1.0, "lr": 1e-3
    }  # fmt: skip
    assert recipe.variables == {"/data/task": "$HARDTACK_DATA/task"}
    assert tickets.grid == {"sparsity": [0.3, 0.5]}
    assert attacked.fixed["deepwordbug.query_limit"] == 20
    assert attacked.grid == {"target": ["@dense", "@subnets"]}


def test_the_data_folder_has_a_default(tmp_path, monkeypatch):
    monkeypatch.delenv("HARDTACK_DATA", raising=False)
    (tmp_path / "r.toml").write_text(
        '[common]\ntask = "$HARDTACK_DATA/x"\n[[stage]]\nverb = "train"\nmodel = "m$$"'
    )
    (stage,) = read(tmp_path / "r.toml").stages
    assert (stage.name, stage.fixed["task"], stage.fixed["model"]) == ("train", "../shared/data/x", "m$")


def test_stages_may_stand_in_any_order(tmp_path):
    head, *stages = RECIPE.split("[[stage]]")
    (tmp_path / "r.toml").write_text("[[stage]]".join([head, *reversed(stages)]))
    assert [stage.name for stage in read(tmp_path / "r.toml").in_order()] == [
        "dense", "tickets", "subnets", "attacked"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("= 1", " is no TOML: "),
        ("", "it has no stages; needed: one [[stage]] table or more"),
        ("stage = [1]", "it has no stages"),
        ("names = 'x'", "unknown key 'names'; did you mean 'name'? allowed: common, explores, grid, name, "),
        ("name = 'a/b'", "name 'a/b' is not allowed; allowed: letters, digits, - _ . (it names a folder)"),
        ("results = 3\n[[stage]]\n" + TRAIN, "results 3, explores False; allowed: a folder, true or false"),
        ("common = 1", "common is 1; allowed: a table, [common]"),
        ("[common]\nsed = 1\n", "unknown key 'sed' in [common]; did you mean 'seed'?"),
        ("[common]\nepochs = 1\n", "unknown key 'epochs' in [common]"),
        ("[[stage]]\nname = 's t'\n", "stage 1 has the name 's t'; allowed: letters, digits, - _ ."),
        (
            "[[stage]]\nname = 's'\n",
            "stage 's': it has no verb; allowed: train, search, retrain, soup, evaluate",
        ),
        ("[[stage]]\nverb = 'trian'\n", "stage 'trian': verb 'trian' does not exist; did you mean 'train'?"),
        (
            "[[stage]]\nverb = 'train'\ntask = 'made'",
            "stage 'train': it has no 'model'; a train stage needs one",
        ),
        (
            "[[stage]]\nverb = 'train'\nmodel = 'x'",
            "it has no 'task'; a train stage needs one (or in [common])",
        ),
        (
            "[[stage]]\nverb = 'search'\nmodel = 'x'\ntask = 'made'",
            "it has no 'method'; a search stage needs one",
        ),
        (STAGE + "epoch = 3", "stage 'train': unknown key 'epoch'; did you mean 'epochs'?"),
        (
            STAGE + "freelb.step = 3",
            "unknown key 'freelb.step'; did you mean 'freelb.steps'? "
            "allowed: freelb.radius, freelb.start, freelb.step_size, freelb.steps",
        ),
        (STAGE + "grid = {epoch = [3]}", "unknown key 'epoch' in grid; did you mean 'epochs'?"),
        (STAGE + "grid = [3]", "grid is [3]; allowed: a table, {key = [value, value]}"),
        (STAGE + "grid = {epochs = []}", "the axis 'epochs' of the grid is []; allowed: a list"),
        (STAGE + "grid = {epochs = 3}", "the axis 'epochs' of the grid is 3; allowed: a list"),
        (STAGE + "grid = {epochs = [3, 3.0]}", "the axis 'epochs' of the grid holds 3.0 twice"),
        (STAGE + "epochs = 1\ngrid = {epochs = [3]}", "'epochs' stands in the stage and in its grid"),
        (STAGE + "epochs = [1, 3]", "'epochs' takes one value; several go into grid = {epochs = ["),
        (STAGE + "epochs = 'three'", "stage 'train': epochs = 'three' is not allowed; allowed: a number"),
        (STAGE + "epochs = {a = 1}", "unknown key 'epochs.a'"),
        (STAGE + "objective = 'freelib'", "objective 'freelib' does not exist; did you mean 'freelb'?"),
        (STAGE + "keep = 1", "keep is 1; allowed: true or false"),
        (STAGE + STAGE, "two stages are called 'train'; allowed: different names"),
        (
            "[grid]\nseed = 1\n[[stage]]\n" + TRAIN,
            "the axis 'seed' of the grid is 1; allowed: a list of values",
        ),
        ("[grid]\nsplit = ['test']\n[[stage]]\n" + TRAIN, "unknown key 'split' in [grid]"),
        ("[grid]\nseed = [1]\n[[stage]]\nseed = 2\n" + TRAIN, "no stage takes the axis 'seed' of [grid]"),
        (
            "[common]\nseed = 1\n[grid]\nseed = [1]\n[[stage]]\n" + TRAIN,
            "'seed' stands in [common] and in [grid]",
        ),
        (STAGE.replace("made", "$NO_SUCH/x"), "variable $NO_SUCH in '$NO_SUCH/x' is not set"),
        (STAGE.replace("made", "a$"), "'a$' holds a $ without a name; allowed: $NAME, ${NAME}, $$"),
        (
            EVALUATE.replace("tiny", "@dens") + "[[stage]]\nname = 'dense'\n" + TRAIN,
            "stage 'e': target = '@dens' names no stage; did you mean '@dense'? allowed: @dense, @e",
        ),
        (
            "[[stage]]\nname = 'r'\nverb = 'retrain'\ntask = 'made'\nticket = '@d'\n[[stage]]\nname = 'd'\n"
            + TRAIN,
            "stage 'r': ticket = '@d' is a stage of the verb train; allowed: search",
        ),
        (
            "[[stage]]\nname = 'a'\n"
            + TRAIN.replace("tiny", "@b")
            + "[[stage]]\nname = 'b'\n"
            + TRAIN.replace("tiny", "@a"),
            "stages refer to each other in a circle: @a -> @b -> @a; allowed",
        ),
        ("[[stage]]\nname = 'a'\n" + TRAIN.replace("tiny", "@a"), "in a circle: @a -> @a"),
        ("explores = true\n" + EVALUATE, "stage 'e': seed 0 in a study that explores; allowed: 100 or more"),
        (
            "explores = true\n" + EVALUATE + "seed = 100",
            "split = 'test' in a study that explores; allowed: 'val",
        ),
        (
            "explores = true\n[grid]\nseed = [100, 7]\n" + EVALUATE,
            "stage 'e': seed 7 in a study that explores",
        ),
        (EVALUATE + "grid = {sparsity = [0.3]}", "unknown key 'sparsity' in grid"),
        (
            "[[stage]]\nverb = 'search'\nmethod = 'random'\nmodel = 'x'\ntask = 'made'\nsparsity = 1.5",
            "stage 'search': sparsity '1.5': '1.5' is not a fraction",
        ),
    ],
)
def test_mistakes(tmp_path, text, said):
    line = refused(tmp_path, text)
    assert said in line, line


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file or directory; allowed: a recipe"):
        read(tmp_path / "none.toml")


def test_an_exploring_study_reads_validation(tmp_path):
    (tmp_path / "r.toml").write_text("explores = true\n" + EVALUATE + "seed = 100\nsplit = 'validation'")
    assert read(tmp_path / "r.toml").explores


@pytest.mark.parametrize("name", sorted(file.name for file in (ROOT / "recipes").glob("*.toml")))
def test_the_recipes_of_this_project_can_be_read(name, monkeypatch):
    monkeypatch.setenv("HARDTACK_SMALL_GPT2", "runs/small_gpt2")  # what recipes/small_gpt2.py writes
    assert read(ROOT / "recipes" / name).in_order()


def test_flat():
    assert flat({"a": 1, "b": {"c": 2, "d": [3]}}) == {"a": 1, "b.c": 2, "b.d": [3]}
