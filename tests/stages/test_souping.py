"""Averages of models: exact, greedy on validation, resumed, and refused where they would mean nothing."""

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.stages.test_resuming import place, stopping_at  # noqa: F401
from tests.toys import saved_toy
from transformers import AutoModelForSequenceClassification

from hardtack.errors import InputError
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.methods.random import Random
from hardtack.reports.commands import command_words
from hardtack.reports.text import soup_text
from hardtack.select import Sparsity
from hardtack.stages import Common, evaluate, retrain, search, soup, souping, train
from hardtack.stages.souping import added, mean_of

CPU = Common(device="cpu", batch_size=8, save_seconds=0.0)


@pytest.fixture
def models(place):  # noqa: F811
    """Four toys that were fine-tuned from one base with other seeds and rates."""
    found = []
    for seed, lr in enumerate((1e-3, 3e-3, 1e-2, 3e-4)):
        common = Common(device="cpu", batch_size=8, seed=seed)
        run = {"task": str(place / "task"), "out": place / f"dense-{seed}", "epochs": 1, "common": common}
        found.append(train(str(place / "tiny"), lr=lr, **run)["folder"])
    return found


@pytest.fixture
def cook(place):  # noqa: F811
    """Return a function that makes a soup."""

    def run(models, out="soup", **settings):
        settings = {"common": CPU, "task": str(place / "task"), **settings}
        return soup(models, out=place / out, **settings)

    return run


def tensors(folder):
    return load_file(f"{folder}/model/model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@given(st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_mean_is_the_mean_of_its_members_in_any_number(rows):
    states = [{"w": torch.tensor(row), "n": torch.tensor([7])} for row in rows]
    sums = {}
    for state in states:
        sums = added(sums, state)
    found = mean_of(sums, len(states), states[0])
    assert found["w"].dtype == torch.float32
    torch.testing.assert_close(found["w"], torch.tensor(rows, dtype=torch.float64).mean(0).float())
    assert found["n"].tolist() == [7]  # no floating-point number: as it is
    equal = added(added(added({}, states[0]), states[0]), states[0])
    assert torch.equal(mean_of(equal, 3, states[0])["w"], states[0]["w"])  # to the bit


def test_a_soup_of_one_model_is_that_model(cook, models):
    done = cook(models[:1])
    assert same(tensors(done["folder"]), tensors(models[0]))
    assert done["joined"] == 1


def test_a_uniform_soup_is_the_mean_of_all(cook, models):
    done = cook(models, uniform=True)
    parts = [tensors(one) for one in models]
    for name, value in tensors(done["folder"]).items():
        mean = torch.stack([part[name].double() for part in parts]).mean(0)
        torch.testing.assert_close(value, mean.float(), rtol=0, atol=1e-7, msg=name)
    assert done["joined"] == 4
    assert all(one["joined"] and one["score"] is None for one in done["ingredients"])


@pytest.mark.parametrize("attacks", [(), (DeepWordBug(query_limit=10),)], ids=["clean", "attacked"])
def test_the_greedy_rule_holds_and_scores_are_those_of_evaluate(cook, models, place, attacks):  # noqa: F811
    done = cook(models, attacks=attacks, examples=8)
    said = done["ingredients"]
    name = "accuracy_under_attack" if attacks else "clean_accuracy"
    assert done["scored_by"] == name
    assert sorted(one["model"] for one in said) == sorted(models)
    assert [one["score"] for one in said] == sorted((one["score"] for one in said), reverse=True)
    best = said[0]["score"]
    assert said[0]["joined"]
    for one in said[1:]:
        assert one["joined"] == (one["score_with_it"] >= best)
        best = one["score_with_it"] if one["joined"] else best
    assert done["score"] == best >= said[0]["score"]
    parts = [tensors(one["model"]) for one in said if one["joined"]]
    assert len(parts) == done["joined"]
    for key, value in tensors(done["folder"]).items():
        mean = torch.stack([part[key].double() for part in parts]).mean(0)
        torch.testing.assert_close(value, mean.float(), rtol=0, atol=1e-7, msg=key)
    rows = evaluate(
        done["folder"], task=str(place / "task"), out=place / "rows", split="validation",
        attacks=attacks, examples=8, common=CPU,
    )["rows"]  # fmt: skip
    assert rows[-1][name] == done["score"]
    assert {row["method"] for row in rows} == {"soup"}
    assert {row["objective"] for row in rows} == {"clean"}
    text = soup_text(done)
    assert f"{done['score']:.3f}" in text
    assert all(one in text.replace("\n", "") or len(one) > 40 for one in models)


def test_who_joins_follows_the_scores(cook, models, monkeypatch):
    # Alone: 0.5, 0.7, 0.7, 0.6. With: 1 and 2 equal (joins), then 3 falls (stays out), then 0 rises (joins).
    scores = iter([0.5, 0.7, 0.7, 0.6, 0.7, 0.65, 0.8])
    measured = []

    def fixed(self, name, run):
        measured.append(name)
        return {"score": next(scores), "texts": 1, "flags": []}

    monkeypatch.setattr(souping._Tasting, "_measured", fixed)
    done = cook(models)
    said = [(models.index(one["model"]), one["joined"], one["score_with_it"]) for one in done["ingredients"]]
    assert said == [(1, True, 0.7), (2, True, 0.7), (3, False, 0.65), (0, True, 0.8)]
    assert (done["score"], done["joined"], done["forward_texts"]) == (0.8, 3, 7)
    assert len(measured) == len(set(measured)) == 7
    parts = [tensors(models[number]) for number in (1, 2, 0)]
    for key, value in tensors(done["folder"]).items():
        mean = torch.stack([part[key].double() for part in parts]).mean(0)
        torch.testing.assert_close(value, mean.float(), rtol=0, atol=1e-7, msg=key)
    made = json.loads((souping.Path(done["model"]) / "hardtack.json").read_text())
    assert len(made["members"]) == 3
    log = [json.loads(line) for line in (souping.Path(done["folder"]) / "log.jsonl").read_text().splitlines()]
    assert len([line for line in log if line.get("event") == "score"]) == 7


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_stopped_soup_goes_on_and_measures_nothing_twice(cook, models, monkeypatch, count):
    whole = cook(models, out="whole")
    with pytest.raises(KeyboardInterrupt):
        cook(models, out="stopped", watch=stopping_at("soup", count))
    measured, real = [], souping._Tasting._measured

    def counted(self, name, run):
        measured.append(name)
        return real(self, name, run)

    monkeypatch.setattr(souping._Tasting, "_measured", counted)
    done = cook(models, out="stopped")
    assert len(measured) == 7 - count
    assert same(tensors(done["folder"]), tensors(whole["folder"]))
    assert [one["score_with_it"] for one in done["ingredients"]] == [
        one["score_with_it"] for one in whole["ingredients"]
    ]
    assert cook(models, out="stopped") == done


def test_the_soup_of_a_retrained_ticket_keeps_its_mask(cook, place):  # noqa: F811
    run = {"task": str(place / "task"), "common": CPU}
    method = Random(sparsities=(Sparsity.parse(0.3), Sparsity.parse(0.4)))
    tickets = search(method, str(place / "tiny"), out=place / "search", **run)["tickets"]
    folders = [
        retrain(ticket, out=place / f"r{n}", epochs=0.5, lr=lr, **run)["folder"]
        for n, (ticket, lr) in enumerate([(tickets[0], 1e-3), (tickets[0], 2e-3), (tickets[1], 1e-3)])
    ]
    done = cook(folders[:2], uniform=True)
    row = evaluate(done["folder"], out=place / "rows", **run)["rows"][0]
    assert row["sparsity"] == pytest.approx(0.3, abs=0.001)
    assert row["ticket"] is not None
    with pytest.raises(InputError, match="do not have the same ticket; allowed: dense models, or"):
        cook(folders, out="mixed")


def test_a_runs_name_follows_what_decides_the_result(cook, models):
    first = cook(models[:2], out="a")["id"]
    attack = DeepWordBug(query_limit=5)
    others = [
        cook(models[:3], out="b")["id"],
        cook(models[:2], out="c", uniform=True)["id"],
        cook(models[:2], out="d", attacks=[attack], examples=4)["id"],
        cook(models[:2], out="e", attacks=[attack], examples=5)["id"],
    ]
    assert len({first, *others}) == 5
    with pytest.raises(InputError, match="another run"):
        cook(models[:3], out="a")


def test_what_is_run_again_is_the_same_command(cook, models, place):  # noqa: F811
    cook(models[:2], attacks=[DeepWordBug(query_limit=5)], examples=4)
    (words,) = command_words(json.loads((place / "soup" / "recipe.json").read_text()), out="again")
    assert words[:4] == ["hardtack", "soup", *models[:2]]
    assert words[words.index("--attack") + 1] == "deepwordbug"
    assert words[words.index("--deepwordbug.query-limit") + 1] == "5"
    assert words[words.index("--examples") + 1] == "4"


def test_a_dry_run_plans_every_score_and_writes_nothing(cook, models, place):  # noqa: F811
    planned = cook(models, dry_run=True)
    assert planned["stages"][0]["name"] == "7 scores on validation"
    assert not (place / "soup").exists()


def test_models_that_cannot_be_averaged_are_refused_in_one_line(cook, models, place):  # noqa: F811
    def refused(other, said):
        with pytest.raises(InputError, match=said) as caught:
            cook([models[0], str(other)], out="refused")
        assert "\n" not in str(caught.value)
        assert not (place / "refused").exists()

    saved_toy(place / "roberta", name="roberta")
    refused(place / "roberta", "is a RobertaForSequenceClassification, .* a Bert")
    saved_toy(place / "three", classes=3)
    refused(place / "three", "three has 3 classes, the task 2; allowed: as many")
    shutil.copytree(place / "tiny", place / "heads")
    config = json.loads((place / "heads" / "config.json").read_text())
    (place / "heads" / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
    refused(place / "heads", "heads has num_attention_heads 4, .* 3; allowed: the same architecture")
    refused(models[0], "have the same weights; allowed: each model once")
    model = AutoModelForSequenceClassification.from_pretrained(place / "tiny")
    model.bert.save_pretrained(place / "bare")
    shutil.copy(place / "tiny" / "tokenizer.json", place / "bare")
    shutil.copy(place / "tiny" / "tokenizer_config.json", place / "bare")
    refused(place / "bare", "bare has no trained head")
    with pytest.raises(InputError, match="a soup of no models; needed: 1 or more"):
        cook([])


def test_a_model_whose_answers_are_no_numbers_is_refused(cook, models, place):  # noqa: F811
    shutil.copytree(models[1], place / "broken")
    file = place / "broken" / "model" / "model.safetensors"
    broken = {name: torch.full_like(value, torch.nan) for name, value in load_file(file).items()}
    save_file(broken, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"broken: .*NaN"):
        cook([models[0], str(place / "broken")])
