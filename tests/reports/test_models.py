"""Which rows are one model, what it is called, and its rates over seeds."""

import pytest
from tests.reports.made import DENSE, ROBUST, row

from hardtack.reports.compare import Entry
from hardtack.reports.models import groups_of, models_of
from hardtack.stats import proportion


def entries(*rows):
    return [Entry("runs", {"measured": {}, **one}, {}) for one in rows]


def modelled(*rows):
    notes = []
    return models_of(entries(*rows), notes), notes


def test_repeats_over_seeds_are_one_model():
    rows = [
        row("robust", ROBUST, id=f"r{seed}", trained_seed=seed, model=f"runs/robust-s{seed}/model")
        for seed in (0, 1)
    ]
    (model,), notes = modelled(*rows)
    assert (model.label, model.seeds, notes) == ("robust", [0, 1], [])


def test_models_that_say_the_same_but_are_not_stay_apart():
    rows = [row("robust", ROBUST, id=name, model=f"runs/{name}") for name in ("kind", "harsh")]
    models, notes = modelled(*rows)
    assert [(model.number, model.label) for model in models] == [(1, "kind"), (2, "harsh")]
    assert notes == []


def test_one_model_measured_twice_shows_once_with_a_line():
    rows = [row("dense", DENSE, id=name) for name in ("a", "b")]
    (model,), (note,) = modelled(*rows)
    assert len(model.entries) == 1
    assert note.startswith("rows a and b measure the same model, seed and attack on other examples")


@pytest.mark.parametrize(
    ("facts", "label"),
    [
        ({"model": "runs/demo/robust-ticket/model"}, "robust-ticket"),
        ({"model": "runs/robust/seed-3"}, "robust"),
        ({"model": "org/small-bert", "method": None}, "org/small-bert"),
        ({"model": "org/base", "ticket": "runs/search/tickets/sparsity-0.5000"}, "search/sparsity-0.5000"),
        ({"model": "runs/a", "ticket": "runs/a/model/ticket"}, "a"),
        ({"model": None}, "model"),
    ],
)
def test_models_are_called_as_people_called_them(facts, label):
    (model,), _ = modelled(row("robust", ROBUST, **facts))
    assert model.label == label


def test_equal_names_are_told_apart():
    rows = [
        row("robust", ROBUST, id=str(sparsity), model=f"{sparsity}/ticket-x/model", sparsity=sparsity)
        for sparsity in (0.3, 0.5)
    ]
    labels = [model.label for model in modelled(*rows)[0]]
    assert labels == [
        "ticket-x, hard_concrete 0.30 trained clean",
        "ticket-x, hard_concrete 0.50 trained clean",
    ]


def test_a_rate_over_seeds_is_wider_than_its_examples_alone():
    letters = ["H" * 80 + "F" * 20, "H" * 40 + "F" * 60]
    rows = [row("robust", some, id=str(seed), trained_seed=seed) for seed, some in enumerate(letters)]
    (model,), _ = modelled(*rows)
    (group,) = groups_of([model])
    rate = model.rate(group, "accuracy_under_attack", seed=0)
    assert (rate.mean, rate.seeds, rate.examples) == (pytest.approx(0.6), 2, 100)
    pooled = proportion(120, 200)
    assert rate.low < 0.45 < pooled.low  # one draw in four takes the bad seed twice: 0.4
    assert rate.high > 0.75 > pooled.high


def test_one_seed_has_wilsons_interval():
    (model,), _ = modelled(row("dense", DENSE))
    (group,) = groups_of([model])
    assert model.rate(group, "accuracy_under_attack", seed=0)[:3] == tuple(proportion(30, 100))


def test_other_settings_are_another_group_with_a_name_of_its_own():
    names = [
        {"id": "a"},
        {"id": "b", "attack_settings": {"name": "deepwordbug", "query_limit": 50}},
        {"id": "c", "task": "other"},
    ]
    models, _ = modelled(*(row("dense", DENSE, **more) for more in names))
    groups = groups_of(models)
    assert len({group.name for group in groups}) == 3
    assert [len(group.entries) for group in groups] == [1, 1, 1]


def test_a_cell_of_a_study_is_called_by_its_stage_and_axes():
    names = ("dense/seed=0,objective=clean", "dense/seed=1,objective=clean", "subnets/seed=0,ticket=random")
    rows = [row("dense", DENSE, id=names[seed], model=names[seed], trained_seed=seed) for seed in (0, 1)]
    rows.append(row("random", ROBUST, id="random", model=f"runs/study/{names[2]}/model"))
    models, _ = modelled(*rows)
    assert [model.label for model in models] == ["dense objective=clean", "subnets ticket=random"]


def test_evaluations_of_one_ticket_in_several_stages_are_one_model():
    """Seeds 0 and 1 come from a stage with several targets, seed 2 from one with this target alone."""

    def cell(start, seed, sparsity, **more):
        place = f"pruned/model={start},seed={seed},method=obs/tickets/{sparsity}"
        axes = {"model": f"@{start}", "seed": seed, "method": "obs", "sparsity": sparsity, **more}
        return row(
            "x", ROBUST, id=f"{place}{more}", model=f"{start}/seed=0", ticket=place, trained_seed=seed,
            method="obs", axes=axes, attack=None,
        )  # fmt: skip

    rows = [
        cell(start, seed, sparsity, **({"target": "@pruned"} if seed < 2 else {}))
        for start in ("plain", "soup")
        for seed in (0, 1, 2)
        for sparsity in ("sparsity-0.5000", "banks-2of4")
    ]
    models, notes = modelled(*rows)
    assert [model.label for model in models] == [
        f"pruned model={start},method=obs {sparsity}"
        for start in ("plain", "soup")
        for sparsity in ("sparsity-0.5000", "banks-2of4")
    ]
    assert [model.seeds for model in models] == [[0, 1, 2]] * 4
    assert notes == []
