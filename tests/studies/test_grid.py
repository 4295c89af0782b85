"""What a recipe expands to: which cells, in which order, in which folders, under which ids."""

from pathlib import Path

import pytest
from tests.studies.toy import RECIPE

from hardtack.errors import InputError
from hardtack.studies.contents import Contents
from hardtack.studies.grid import expand
from hardtack.studies.reading import read

FULL = """
[common]
task = "made"
[grid]
seed = [0, 1]
[[stage]]
name = "dense"
verb = "train"
model = "base"
objective = "freelb"
freelb = {steps = 2}
[[stage]]
name = "tickets"
verb = "search"
model = "base"
from = "@dense"
hard_concrete = {epochs = 4}
grid = {method = ["hard_concrete", "random"], sparsity = [0.3, 0.5], hard_concrete.price = [50, 100]}
[[stage]]
name = "subnets"
verb = "retrain"
ticket = "@tickets"
[[stage]]
name = "attacked"
verb = "evaluate"
target = ["@dense", "@subnets", "@tickets"]
attack = ["deepwordbug"]
"""


class Fixed(Contents):
    """Data and models whose fingerprints are their names."""

    def data(self, verb, settings):
        return [f"{verb} reads {settings['task']}"]

    def model(self, name):
        return f"content of {name.rpartition('/')[2]}"


def cells_of(tmp_path, text, contents=None, out="out"):
    (tmp_path / "r.toml").write_text(text)
    return expand(read(tmp_path / "r.toml"), Path(out), contents or Fixed())


def places(cells, stage):
    return [cell.place.removeprefix(f"{stage}/") for cell in cells if cell.stage == stage]


def test_one_search_draws_all_sparsities_and_each_ticket_is_retrained(tmp_path):
    cells = cells_of(tmp_path, FULL)
    assert places(cells, "dense") == ["seed=0", "seed=1"]
    assert places(cells, "tickets") == [
        "seed=0,method=hard_concrete,hard_concrete.price=50.0",
        "seed=0,method=hard_concrete,hard_concrete.price=100.0",
        "seed=0,method=random",
        "seed=1,method=hard_concrete,hard_concrete.price=50.0",
        "seed=1,method=hard_concrete,hard_concrete.price=100.0",
        "seed=1,method=random",
    ]
    assert len(places(cells, "subnets")) == 12
    assert places(cells, "subnets")[:6] == [
        "seed=0,method=hard_concrete,hard_concrete.price=50.0,sparsity=0.3",
        "seed=0,method=hard_concrete,hard_concrete.price=50.0,sparsity=0.5",
        "seed=0,method=hard_concrete,hard_concrete.price=100.0,sparsity=0.3",
        "seed=0,method=hard_concrete,hard_concrete.price=100.0,sparsity=0.5",
        "seed=0,method=random,sparsity=0.3",
        "seed=0,method=random,sparsity=0.5",
    ]
    assert len(places(cells, "attacked")) == 2 * (1 + 6 + 6)
    assert places(cells, "attacked")[:2] == [
        "seed=0,target=dense",
        "seed=0,target=subnets,method=hard_concrete,hard_concrete.price=50.0,sparsity=0.3",
    ]


def test_references_become_paths_of_cells_with_the_same_values(tmp_path):
    cells = {cell.place: cell for cell in cells_of(tmp_path, FULL)}
    search = cells["tickets/seed=1,method=random"]
    assert search.settings["from"] == "out/dense/seed=1"
    assert search.settings["sparsity"] == [0.3, 0.5]
    assert "hard_concrete.epochs" not in search.settings  # not chosen here
    assert search.weights == search.needs == ("dense/seed=1",)
    subnet = cells["subnets/seed=1,method=random,sparsity=0.5"]
    assert subnet.settings["ticket"] == "out/tickets/seed=1,method=random/tickets/sparsity-0.5000"
    assert (subnet.needs, subnet.weights) == (("tickets/seed=1,method=random",), ())
    attacked = cells["attacked/seed=1,target=subnets,method=random,sparsity=0.5"]
    assert attacked.settings["target"] == "out/subnets/seed=1,method=random,sparsity=0.5"
    assert attacked.axes == {"seed": 1, "target": "@subnets", "method": "random", "sparsity": 0.5}
    assert {cell.root for cell in cells.values()} == {"base"}


def test_golden_ids(tmp_path):
    cells = {cell.place: cell.id for cell in cells_of(tmp_path, FULL)}
    assert {place: cells[place] for place in GOLDEN} == GOLDEN


GOLDEN = {
    "dense/seed=0": "5bcdcb18cc73",
    "dense/seed=1": "970bff24f666",
    "tickets/seed=0,method=random": "3a195042daaf",
    "tickets/seed=0,method=hard_concrete,hard_concrete.price=50.0": "6cc0e6f424ae",
    "subnets/seed=0,method=random,sparsity=0.3": "a3fb30ae0035",
    "attacked/seed=0,target=dense": "d34ec01299c8",
    "attacked/seed=0,target=subnets,method=random,sparsity=0.3": "04b93323dac0",
    "attacked/seed=1,target=tickets,method=random,sparsity=0.5": "4a25ce193353",
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[grid]", 'device = "cuda"\nsave_seconds = 5\n[grid]'),  # cannot change results
        ('model = "base"', 'model = "elsewhere/base"'),  # content, not place
        ("[[stage]]", "[[stage]]\nkeep = true"),
        ("freelb = {steps = 2}", "freelb = {steps = 2, radius = 0.0}\nepochs = 3"),  # defaults
        ("seed = [0, 1]", "seed = [1, 0, 2]"),
    ],
)
def test_what_does_not_change_ids(tmp_path, old, new):
    before = {cell.place: cell.id for cell in cells_of(tmp_path, FULL)}
    after = {cell.place: cell.id for cell in cells_of(tmp_path, FULL.replace(old, new), out="other/place")}
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('task = "made"', 'task = "other"', {"dense", "tickets", "subnets", "attacked"}),
        ('model = "base"\nobj', 'model = "big"\nobj', {"dense", "tickets", "subnets", "attacked"}),
        ('ticket = "@tickets"', 'ticket = "@tickets"\nlr = 1e-4', {"subnets", "attacked"}),
        ('attack = ["deepwordbug"]', 'attack = ["deepwordbug"]\ndeepwordbug.query_limit = 9', {"attacked"}),
        # Each ticket is what it was, so nothing after the search changes.
        ("sparsity = [0.3, 0.5]", "sparsity = [0.3, 0.5, 0.7]", {"tickets"}),
    ],
)
def test_what_changes_ids(tmp_path, old, new, changed):
    before = {cell.place: cell for cell in cells_of(tmp_path, FULL)}
    after = {cell.place: cell for cell in cells_of(tmp_path, FULL.replace(old, new))}
    differ = {
        before[place].stage for place in before.keys() & after.keys() if before[place].id != after[place].id
    }
    assert before.keys() <= after.keys()
    assert differ == changed


def test_axes_of_one_name_are_told_apart(tmp_path):
    text = FULL.replace("freelb = {steps = 2}", "grid = {epochs = [1, 2]}").replace(
        'ticket = "@tickets"', 'ticket = "@tickets"\ngrid = {epochs = [3, 4]}'
    )
    cells = cells_of(tmp_path, text.replace('objective = "freelb"\n', ""))
    assert "seed=0,dense.epochs=1.0,method=random,sparsity=0.3,subnets.epochs=3.0" in places(cells, "subnets")


def test_two_references_meet_where_their_shared_axes_are_equal(tmp_path):
    text = RECIPE.replace('verb = "retrain"', 'verb = "retrain"\nbase = "@dense"')
    subnets = [cell for cell in cells_of(tmp_path, text) if cell.stage == "subnets"]
    assert [(cell.axes["seed"], cell.settings["base"]) for cell in subnets] == [
        (0, "out/dense/seed=0"), (0, "out/dense/seed=0"), (1, "out/dense/seed=1"), (1, "out/dense/seed=1")
    ]  # fmt: skip
    assert subnets[0].weights == ("dense/seed=0",)


def test_tickets_of_a_base_inside_the_study_need_its_weights(tmp_path):
    text = RECIPE.replace('model = "tiny"\nfrom = "@dense"', 'model = "@dense"')
    cells = {cell.place: cell for cell in cells_of(tmp_path, text)}
    subnet = cells["subnets/seed=0,sparsity=0.3"]
    assert subnet.weights == ("dense/seed=0",)
    assert subnet.settings["base"] == "out/dense/seed=0"


def test_folders_are_short_and_different(tmp_path):
    paths = ["a/tiny", "b/tiny", "x" * 300]
    text = f'[[stage]]\nverb = "evaluate"\ntask = "made"\ntarget = {paths}'
    first, second, long = places(cells_of(tmp_path, text), "evaluate")
    assert (first, second) == ("seed=0,target=tiny", "seed=0,target=tiny~2")
    assert len(long) < 150


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'method = "random"',
            'method = "random"\nhard_concrete.price = 3',
            "stage 'tickets': 'hard_concrete.price' is a setting of 'hard_concrete', which no cell of this "
            "stage chooses; chosen: clean, random",
        ),
        ("epochs = 1\n", "epochs = 0\n", "stage 'dense': epochs 0.0, lr 0.001"),
        (
            'method = "random"',
            'method = "iterative"\niterative.share = 2',
            "stage 'tickets': share 2.0 is not allowed; allowed: 0 < share < 1 (at seed = 0)",
        ),
        (
            "sparsity = [0.3, 0.5]",
            'granularity = ["heads"]',
            "granularity 'heads' does not exist; did you mean 'head'?",
        ),
        (
            "sparsity = [0.3, 0.5]",
            'sparsity = [0.3, "0.3"]',
            "two sparsities share the folder sparsity-0.3000",
        ),
        ("examples = 6", "examples = 0", "stage 'attacked': examples = 0; allowed: 1 or more"),
        ('["deepwordbug"]', '["deepwordbug", "word_swap"]', "word_swap needs word_swap.neighbours"),
        ("seed = [0, 1]", "seed = [-1]", "seed -1 is not allowed"),
        ("query_limit = 20", "query_limit = -1", "query_limit = -1; allowed: 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(tmp_path, old, new, said):
    assert old in RECIPE
    with pytest.raises(InputError) as raised:
        cells_of(tmp_path, RECIPE.replace(old, new))
    assert said in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "r.toml"))


def test_a_stage_may_want_some_of_its_combinations_only(tmp_path):
    """An axis of its own, a shared one, and one of what it refers to."""
    cells = cells_of(tmp_path, FULL + 'only = {seed = [1], sparsity = [0.5], method = ["random"]}\n')
    assert places(cells, "attacked") == [
        "seed=1,target=dense",
        "seed=1,target=subnets,method=random,sparsity=0.5",
        "seed=1,target=tickets,method=random,sparsity=0.5",
    ]
    assert len(places(cells, "subnets")) == 2 * 3 * 2


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("{lr = [1]}", "only names 'lr'; axes here: .*seed"),
        ("{seed = [0, 7]}", "only wants seed = 7; its values here: 0, 1"),
        ("{seed = 0}", "only is {'seed': 0}; allowed: a table"),
        ("{seed = []}", "only is {'seed': \\[\\]}; allowed: a table"),
    ],
)
def test_a_choice_of_what_is_not_there_is_refused(tmp_path, only, said):
    with pytest.raises(InputError, match=said):
        cells_of(tmp_path, FULL + f"only = {only}\n")


def test_a_stage_may_be_taught_by_another(tmp_path):
    taught = FULL + '[[stage]]\nname = "small"\nverb = "train"\nmodel = "tiny"\ndistil_from = "@dense"\n'
    cells = [cell for cell in cells_of(tmp_path, taught) if cell.stage == "small"]
    assert [cell.settings["distil_from"] for cell in cells] == ["out/dense/seed=0", "out/dense/seed=1"]
    assert [cell.root for cell in cells] == ["tiny", "tiny"]  # a teacher begins nothing
    assert [cell.weights for cell in cells] == [("dense/seed=0",), ("dense/seed=1",)]
    other = taught.replace("freelb = {steps = 2}", "freelb = {steps = 3}")
    assert all(
        one.id != two.id
        for one, two in zip(cells, (c for c in cells_of(tmp_path, other) if c.stage == "small"), strict=True)
    )
    with pytest.raises(InputError, match=r"distil_weight 0\.5 needs a teacher"):
        cells_of(tmp_path, taught.replace('distil_from = "@dense"', "distil_weight = 0.5"))


SOUP = """
[common]
task = "made"
[grid]
seed = [0, 1]
[[stage]]
name = "dense"
verb = "train"
model = "base"
grid = {lr = [1e-5, 2e-5, 3e-5]}
[[stage]]
name = "mixed"
verb = "soup"
models = ["@dense", "other"]
attack = ["deepwordbug"]
[[stage]]
name = "tickets"
verb = "search"
method = "retention"
model = "@mixed"
[[stage]]
name = "measured"
verb = "evaluate"
target = ["@mixed", "@tickets"]
"""


def test_a_soup_gathers_the_cells_of_a_stage_on_its_shared_axes(tmp_path):
    cells = cells_of(tmp_path, SOUP)
    assert places(cells, "mixed") == ["seed=0", "seed=1"]
    first, second = (cell for cell in cells if cell.stage == "mixed")
    assert first.settings["models"] == [
        *(f"out/dense/seed=0,lr={lr}" for lr in ("1e-05", "2e-05", "3e-05")),
        "other",
    ]
    assert (
        first.needs
        == first.weights
        == tuple(one.removeprefix("out/") for one in first.settings["models"][:3])
    )
    assert second.needs == tuple(place.replace("seed=0", "seed=1") for place in first.needs)
    assert first.root == "base"
    assert first.id != second.id
    (ticket,) = [cell for cell in cells if cell.place == "tickets/seed=0"]
    assert (ticket.settings["model"], ticket.root) == ("out/mixed/seed=0", "base")
    assert len(places(cells, "measured")) == 4
    fewer = cells_of(tmp_path, SOUP.replace(", 3e-5]", "]"))
    assert first.id not in {cell.id for cell in fewer}
    one = cells_of(tmp_path, SOUP.replace('["@dense", "other"]', '"@dense"'))
    assert [len(cell.settings["models"]) for cell in one if cell.stage == "mixed"] == [3, 3]
    with pytest.raises(InputError, match=r"models = '@dens' names no stage; did you mean '@dense'"):
        cells_of(tmp_path, SOUP.replace('"@dense", "other"', '"@dens"'))
    with pytest.raises(InputError, match="it has no 'models'; a soup stage needs one"):
        cells_of(tmp_path, SOUP.replace('models = ["@dense", "other"]\n', ""))


@pytest.mark.parametrize(("method", "same"), [("early_bird", False), ("magnitude", True)])
def test_other_sparsities_count_where_they_decide_when_a_search_stops(tmp_path, method, same):
    text = f"""
[common]
task = "made"
[[stage]]
name = "tickets"
verb = "search"
model = "base"
method = "{method}"
granularity = ["head"]
grid = {{sparsity = [WANTED]}}
[[stage]]
name = "subnets"
verb = "retrain"
ticket = "@tickets"
"""
    alone, more = (cells_of(tmp_path, text.replace("WANTED", wanted)) for wanted in ("0.5", "0.5, 0.25"))
    assert (alone[1].id == more[1].id) is same
    assert alone[1].place == more[1].place
