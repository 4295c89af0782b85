"""Training with a teacher: it is asked once, a stopped run goes on bit for bit, and misfits are refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.test_resuming import place, stopping_at  # noqa: F401
from tests.tickets import drawn
from tests.toys import saved_toy, toy_bert, toy_task, toy_tokenizer
from transformers import AutoModelForSequenceClassification

from hardtack.errors import InputError
from hardtack.evaluation import clean
from hardtack.reports.commands import command_words
from hardtack.stages import Common, evaluate, retrain, train
from hardtack.training.adversarial import PGD, FreeLB

CPU = Common(device="cpu", batch_size=8, save_seconds=0.0)


@pytest.fixture
def fit(place):  # noqa: F811
    """Return a function that trains the toy with a teacher."""
    saved_toy(place / "teacher", seed=1)

    def run(out, **settings):
        settings = {"distil_from": str(place / "teacher"), "epochs": 2, "lr": 1e-3, "common": CPU, **settings}
        return train(str(place / "tiny"), task=str(place / "task"), out=place / out, **settings)

    return run


def weights(done):
    return load_file(f"{done['model']}/model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("objective", [None, FreeLB(steps=2), PGD(steps=1)], ids=["clean", "freelb", "pgd"])
def test_the_teacher_is_asked_once_for_each_example_and_changes_the_result(fit, monkeypatch, objective):
    asked = []
    whole = clean.logits_of

    def counted(output):
        asked.append(len(whole(output)))
        return whole(output)

    monkeypatch.setattr(clean, "logits_of", counted)
    done = fit("taught", objective=objective)
    validation = 2 * 16  # two looks, one an epoch
    assert sum(asked) == 48 + validation
    assert done["teacher_texts"] == 48
    assert done["objective"] == f"{objective.name if objective else 'clean'} + distillation"
    plain = fit("plain", objective=objective, distil_from=None)
    assert "teacher_texts" not in plain
    assert plain["passes"] == done["passes"]
    assert not same(weights(plain), weights(done))


def test_the_limit_of_a_large_weight_is_the_teacher(fit, place):  # noqa: F811
    done = fit("close", distil_weight=1.0, epochs=30, lr=5e-3)
    student, teacher = (
        AutoModelForSequenceClassification.from_pretrained(name).eval()
        for name in (done["model"], place / "teacher")
    )
    texts = [text for (text,) in toy_task().splits["train"].texts]
    inputs = toy_tokenizer()(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        agree = (student(**inputs).logits.argmax(1) == teacher(**inputs).logits.argmax(1)).double().mean()
    assert agree > 0.9


@pytest.mark.parametrize(("part", "count"), [("clean", 16), ("training", 1), ("training", 9)])
def test_a_stopped_run_goes_on_bit_for_bit_and_asks_nothing_twice(fit, monkeypatch, part, count):
    whole = fit("whole", objective=FreeLB(steps=2))
    with pytest.raises(KeyboardInterrupt):
        fit("stopped", objective=FreeLB(steps=2), watch=stopping_at(part, count))
    asked = []
    monkeypatch.setattr(clean, "logits_of", lambda output: (asked.append(1), output.logits)[1])
    done = fit("stopped", objective=FreeLB(steps=2))
    assert same(weights(done), weights(whole))
    assert done["resumed"] == 1
    looks = {("clean", 16): 2, ("training", 1): 2, ("training", 9): 1}[part, count]  # 16 texts each
    teacher = {"clean": 4, "training": 0}[part]
    assert len(asked) == teacher + looks


def test_what_is_run_again_says_the_teacher(fit, place):  # noqa: F811
    done = fit("out", distil_weight=0.25)
    recipe = json.loads((place / "out" / "recipe.json").read_text())
    assert len(recipe["teacher"]) == 32
    (words,) = command_words(recipe, out="again")
    at = words.index("--distil-from")
    assert words[at + 1 : at + 4] == [str(place / "teacher"), "--distil-weight", "0.25"]
    assert "distil_from" in (place / "out" / "recipe.toml").read_text()
    row = evaluate(done["model"], task=str(place / "task"), out=place / "rows", common=CPU)["rows"][0]
    assert row["objective"] == "clean + distillation"


def test_a_runs_name_follows_teacher_weight_and_temperature(fit, place):  # noqa: F811
    shutil.copytree(place / "teacher", place / "moved")
    saved_toy(place / "another", seed=2)
    first = fit("a", epochs=0.1)["id"]
    assert fit("b", epochs=0.1, distil_from=str(place / "moved"))["id"] == first
    assert fit("c", epochs=0.1, distil_weight=0.5, distil_temperature=2.0)["id"] == first  # the defaults
    others = [{"distil_from": str(place / "another")}, {"distil_weight": 0.4}, {"distil_temperature": 1.0}]
    found = [fit(f"d{n}", epochs=0.1, **one)["id"] for n, one in enumerate([*others, {"distil_from": None}])]
    assert len({first, *found}) == 5


def test_a_ticket_is_retrained_with_its_dense_model_as_teacher(place):  # noqa: F811
    model = toy_bert()
    ticket = drawn(model, objective="clean", method="random")
    ticket.save(place / "ticket")
    done = retrain(
        place / "ticket", task=str(place / "task"), out=place / "out", base=str(place / "tiny"),
        distil_from=str(place / "tiny"), epochs=1, common=CPU,
    )  # fmt: skip
    kept = weights(done)
    for name, mask in ticket.masks.items():
        tensor = kept[next(key for key in kept if key.endswith((name, f"{name}.weight")))]
        assert (tensor.flatten()[~mask.flatten()] == 0).all()


def test_a_dry_run_plans_the_teachers_pass(fit, place):  # noqa: F811
    planned = fit("none", dry_run=True)
    assert [stage["name"].split()[0] for stage in planned["stages"]] == ["teacher", "train"]
    assert not (place / "none").exists()


def renamed(place, name, labels):  # noqa: F811
    file = place / name / "config.json"
    config = json.loads(file.read_text())
    config["id2label"] = {str(number): label for number, label in enumerate(labels)}
    config["label2id"] = {label: number for number, label in enumerate(labels)}
    file.write_text(json.dumps(config))


def test_teachers_that_do_not_fit_are_refused_in_one_line(fit, place):  # noqa: F811
    (place / "task" / "info.json").write_text('{"label_names": ["bad", "good"]}')
    renamed(place, "teacher", ["BAD", "Good"])
    fit("fits", epochs=0.1)
    renamed(place, "teacher", ["good", "bad"])
    said = "has the classes good, bad, the task bad, good; allowed: the same ones in the same order"
    with pytest.raises(InputError, match=said):
        fit("turned")
    saved_toy(place / "three", classes=3)
    with pytest.raises(InputError, match="three has 3 classes, the task 2; allowed: as many"):
        fit("three-classes", distil_from=str(place / "three"))
    shutil.copytree(place / "tiny", place / "words")
    tokenizer = json.loads((place / "words" / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["good"], words["bad"] = words["bad"], words["good"]
    (place / "words" / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="words has another tokenizer than the model that it teaches"):
        fit("other-words", distil_from=str(place / "words"))
    model = AutoModelForSequenceClassification.from_pretrained(place / "tiny")
    model.bert.save_pretrained(place / "bare")
    toy_tokenizer().save_pretrained(place / "bare")
    with pytest.raises(InputError, match="bare has no trained head"):
        fit("bare-head", distil_from=str(place / "bare"))
    saved_toy(place / "distil", name="distilbert")
    with pytest.raises(InputError, match=r"do not take the same inputs \(token_type_ids\)"):
        fit("other-inputs", distil_from=str(place / "distil"))
    assert not (place / "turned").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"distil_from": None, "distil_weight": 0.3},
            "distil_weight 0.3 needs a teacher; distil_from",
        ),
        ({"distil_weight": 2.0}, "distil weight 2.0, .*allowed: weight above 0 to 1"),
        ({"distil_temperature": -1.0}, "distil temperature -1.0; allowed"),
    ],
)
def test_settings_of_a_distillation_that_mean_nothing_are_refused(fit, wrong, said):
    with pytest.raises(InputError, match=said):
        fit("none", **wrong)
