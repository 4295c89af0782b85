"""`export` from end to end on toys: what it writes opens, answers the same, and goes on to be trained."""

import json
import shutil
import warnings

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tests.stages.saved import saved_task
from tests.toys import logits_of, saved_toy, toy_inputs
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import hardtack
from hardtack.errors import InputError
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.exports import EXPORTS, checked
from hardtack.loading import load
from hardtack.methods.early_bird import EarlyBird
from hardtack.methods.magnitude import Magnitude
from hardtack.select import Sparsity
from hardtack.stages import Common, evaluate, export, exporting, retrain, search, train
from hardtack.ticket import Ticket
from hardtack.training.adversarial import FreeLB

CPU = Common(device="cpu", batch_size=8)
KINDS = ("head", "neuron")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base without a head, its task, a ticket of heads and neurons, and the model retrained from it."""
    place = tmp_path_factory.mktemp("exporting")
    saved_toy(place / "tiny")
    whole = AutoModelForSequenceClassification.from_pretrained(place / "tiny")
    whole.bert.save_pretrained(place / "base")
    AutoTokenizer.from_pretrained(place / "tiny").save_pretrained(place / "base")
    task = saved_task(place / "task", ("bad", "good"))
    method = EarlyBird((Sparsity.parse("0.5"),), epochs=1.0, lr=1e-3)
    search(method, str(place / "base"), task=task, out=place / "search", common=CPU)
    retrain(place / "search", task=task, out=place / "retrained", epochs=1.0, lr=1e-3, common=CPU)
    found = search(Magnitude(), str(place / "base"), task=task, out=place / "weights", common=CPU)
    assert len(found["tickets"]) == 1
    return place


def row_of(result):
    (row,) = result["rows"]
    return row


FOREIGN = ("onnx", "onnx-int8", "openvino")


@pytest.mark.parametrize("to", [name for name in EXPORTS if name not in FOREIGN])
def test_an_exported_model_answers_every_test_example_as_the_retrained_one(place, tmp_path, to):
    made = export(place / "retrained", to=to, out=tmp_path / "out")
    assert made["difference"] <= 1e-4
    assert made["notes"] == []
    first, second = (
        row_of(evaluate(str(each), task=str(place / "task"), out=tmp_path / f"row-{n}", common=CPU))
        for n, each in enumerate((place / "retrained", tmp_path / "out"))
    )
    shared = (
        "clean_accuracy",
        "method",
        "objective",
        "sparsity",
        "prunable",
        "granularity",
        "flags",
        "epochs",
    )
    assert {name: first[name] for name in shared} == {name: second[name] for name in shared}
    assert first["method"] == "early_bird"
    assert (first["exported"], second["exported"]) == (None, to)
    inputs = toy_inputs(load(str(tmp_path / "out")).model, count=24)
    mine, theirs = (logits_of(load(str(p)).model, inputs) for p in (tmp_path / "out", place / "retrained"))
    assert torch.allclose(mine, theirs, atol=1e-5)
    if to == "shrink":
        assert second["flops"] == first["flops"]  # a ticket's units are taken out before it is measured
        assert second["parameters"] == made["parameters"] < made["parameters_before"]
        # The counts of the ticket: 3 of 6 heads of 8 columns, 40 of 80 neurons, with biases.
        gone = 3 * (4 * 24 * 8 + 3 * 8) + 40 * (2 * 24 + 1)
        assert made["parameters_before"] - made["parameters"] == gone
    else:
        assert second["flops"] > first["flops"]
        assert second["parameters"] == first["parameters"]


def test_a_retrained_model_whose_removed_units_are_not_zero_is_evaluated_as_it_is(place, tmp_path):
    shutil.copytree(place / "retrained", tmp_path / "edited")
    weights = tmp_path / "edited" / "model" / "model.safetensors"
    rows = [
        row_of(evaluate(str(place / "retrained"), task=str(place / "task"), out=tmp_path / "a", common=CPU))
    ]
    save_file({name: value + 0.01 for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    rows.append(
        row_of(evaluate(str(tmp_path / "edited"), task=str(place / "task"), out=tmp_path / "b", common=CPU))
    )
    assert rows[0]["flops"] < rows[1]["flops"]
    assert rows[0]["parameters"] < rows[1]["parameters"]


def test_a_dense_export_is_an_ordinary_folder_with_zeros(place, tmp_path):
    export(place / "retrained", to="dense", out=tmp_path / "out")
    ticket = Ticket.load(place / "retrained" / "model" / "ticket")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    tensors = dict(model.bert.named_parameters())
    for name, mask in ticket.view(model).spread(ticket.masks).items():
        assert not tensors[name][~mask].any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (answer,) = pipeline("text-classification", model=str(tmp_path / "out"), device="cpu")("good film")
    assert answer["label"] in ("bad", "good")  # label names came along


def test_a_ticket_that_was_not_retrained_is_exported_without_a_head(place, tmp_path):
    made = export(place / "search", to="shrink", out=tmp_path / "out", seed=3)
    assert made["notes"] == ["its head was never trained and is not written: train it first"]
    names = load_file(tmp_path / "out" / "model.safetensors")
    assert not any(name.startswith("classifier") for name in names)
    loaded = load(str(tmp_path / "out"), ("a", "b", "c"), seed=5)
    assert loaded.fresh_head
    assert loaded.base.head_seed == 5
    ticket = Ticket.load(next((place / "search" / "tickets").iterdir()))
    base = load(str(place / "base"))
    ticket.apply_(base.model)
    inputs = toy_inputs(base.model)
    with torch.no_grad():
        mine, theirs = (m.bert(**inputs).pooler_output for m in (loaded.model, base.model))
    assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("stage", [train, retrain], ids=["train", "retrain"])
def test_a_shrunk_model_is_trained_with_any_objective_and_stays_shrunk(place, tmp_path, stage):
    export(place / "search", to="shrink", out=tmp_path / "small")
    settings = {"task": str(place / "task"), "epochs": 1.0, "lr": 1e-3, "common": CPU}
    done = stage(str(tmp_path / "small"), out=tmp_path / "run", objective=FreeLB(steps=2), **settings)
    assert done["sparsity"] == pytest.approx(0.5)
    small, trained = load(str(tmp_path / "small")), load(str(tmp_path / "run"))
    assert trained.model.config.shrunk_units == small.model.config.shrunk_units
    assert not trained.fresh_head
    row = row_of(evaluate(str(tmp_path / "run"), task=settings["task"], out=tmp_path / "e", common=CPU))
    assert (row["method"], row["objective"], row["epochs"]) == ("early_bird", "freelb", 1.0)
    again = stage(str(tmp_path / "run"), out=tmp_path / "more", **settings)  # and once more from there
    assert again["sparsity"] == pytest.approx(0.5)


def test_a_shrunk_model_is_retrained_as_its_ticket_is(place, tmp_path):
    """Without dropout the subnetwork learns the same, held at zero or really smaller."""
    config = place / "base" / "config.json"
    settings = json.loads(config.read_text())
    calm = tmp_path / "calm"
    calm.mkdir()
    for file in (place / "base").iterdir():
        (calm / file.name).write_bytes(file.read_bytes())
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (calm / "config.json").write_text(json.dumps(settings | off))
    ticket = next((place / "search" / "tickets").iterdir())
    fit = {"task": str(place / "task"), "epochs": 1.0, "lr": 1e-3, "common": CPU}
    retrain(ticket, base=str(calm), out=tmp_path / "held", **fit)
    export(ticket, base=str(calm), to="shrink", out=tmp_path / "small")
    retrain(tmp_path / "small", out=tmp_path / "smaller", **fit)
    inputs = toy_inputs(load(str(calm)).model)
    held, small = (logits_of(load(str(tmp_path / name)).model, inputs) for name in ("held", "smaller"))
    assert torch.allclose(held, small, atol=1e-4)
    assert not torch.allclose(held, logits_of(load(str(tmp_path / "small")).model, inputs), atol=1e-2)


def test_what_was_written_is_checked_before_it_stands_there(place, tmp_path, monkeypatch):
    monkeypatch.setattr(checked.shrunk, "save", lambda model, folder, head: _spoiled(model, folder))
    with pytest.raises(InputError, match="does not answer as the ticket's: logits differ by"):
        export(place / "retrained", to="dense", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def _spoiled(model, folder):
    with torch.no_grad():
        model.classifier.bias.add_(0.01)
    model.save_pretrained(folder)


def test_bad_input_is_refused_in_one_line(place, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    retrained, out = place / "retrained", tmp_path / "out"
    for arguments, words in (
        (
            (retrained, "shrink", full),
            f"--out {full} exists and is not empty; allowed: a new or empty folder",
        ),
        (
            (retrained, "shrnk", out),
            "--to 'shrnk' does not exist; did you mean 'shrink'? allowed: dense, onnx, onnx-int8, openvino, "
            "shrink",
        ),
        (
            (place / "weights", "shrink", out),
            "a ticket of single weights leaves no smaller model; allowed: tickets of heads, neurons or "
            "channels, or --to dense",
        ),
        (
            (place / "tiny", "dense", out),
            f"{place / 'tiny'} is a model without a ticket; allowed: a ticket, or a model made by retrain",
        ),
        ((place / "task", "dense", out), f"{place / 'task'} is no ticket: it has no ticket.json"),
    ):
        target, to, folder = arguments
        with pytest.raises(InputError) as error:
            export(target, to=to, out=folder)
        assert str(error.value) == words
    for more, words in (
        ({"base": "other/base"}, "base other/base is not allowed: "),
        ({"merge_adapter": True}, "merge_adapter True is not allowed: "),
    ):
        with pytest.raises(InputError) as error:
            export(retrained, to="shrink", out=out, **more)
        assert str(error.value) == f"{words}{retrained} is a whole model, no ticket"
    assert (full / "mine.txt").read_text() == "mine"
    assert not out.exists()
    nothing = Magnitude((Sparsity.parse("0.0"),))
    task = str(place / "task")
    search(nothing, str(place / "base"), task=task, out=tmp_path / "n", granularity=KINDS, common=CPU)
    with pytest.raises(InputError, match="this ticket removes no unit"):
        export(tmp_path / "n", to="shrink", out=out)
    export(place / "search", to="shrink", out=tmp_path / "small")
    with pytest.raises(InputError, match="is a whole model, no ticket"):
        retrain(tmp_path / "small", base="x", task=task, out=tmp_path / "r", common=CPU)


@pytest.mark.parametrize("here", [".", ".."])
def test_a_folder_that_has_no_name_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, here):
    inner = tmp_path / "inner"
    (inner if here == "." else inner / "most").mkdir(parents=True)
    monkeypatch.chdir(inner if here == "." else inner / "most")
    monkeypatch.setattr(exporting, "_masked", None)
    with pytest.raises(InputError, match=r"^--out [.]+ ") as error:
        export("nothing", to="shrink", out=here)
    assert "\n" not in str(error.value)


def test_the_path_of_a_base_that_has_moved_is_not_on_the_card(place, tmp_path):
    """It looks like a hub id; the ticket says that it is none."""
    folder = shutil.copytree(place / "retrained" / "model", tmp_path / "moved")
    record = folder / "ticket" / "ticket.json"
    ticket = json.loads(record.read_text())
    assert ticket["base"]["revision"] is None
    for base, shown in (
        ({"id": "private/tiny"}, "tiny"),
        ({"id": "org/tiny", "revision": "a" * 40}, "org/tiny"),
    ):
        record.write_text(json.dumps({**ticket, "base": {**ticket["base"], **base}}))
        export(folder, to="dense", out=tmp_path / shown)
        card = ModelCard.load(tmp_path / shown / "README.md")
        assert card.data.base_model == shown
        assert f"{shown} with 50% of" in card.text
        assert "private" not in (tmp_path / shown / "README.md").read_text()


def test_a_dry_run_writes_nothing(place, tmp_path):
    plan = export(place / "search", to="shrink", out=tmp_path / "out", dry_run=True)
    assert plan["bytes"] > 0
    assert not list(tmp_path.iterdir())


def test_the_default_kinds_of_a_search_are_what_its_method_removes(place):
    recipe = json.loads((place / "search" / "recipe.json").read_text())
    assert recipe["granularity"] == ["head", "neuron"]
    assert json.loads((place / "weights" / "recipe.json").read_text())["granularity"] == ["weight"]
    assert hardtack.export is export


@pytest.mark.parametrize(
    "to", [pytest.param(to, marks=pytest.mark.slow) if to != "onnx" else to for to in FOREIGN]
)
def test_an_export_for_another_program_is_evaluated_like_any_model_and_not_trained(place, tmp_path, to):
    made = export(place / "retrained", to=to, out=tmp_path / "out")
    assert "difference" in made
    task = str(place / "task")
    ask = {
        "task": task,
        "common": CPU,
        "attacks": [DeepWordBug(query_limit=20)],
        "examples": 8,
    }
    first = evaluate(str(place / "retrained"), out=tmp_path / "row-0", **ask)["rows"]
    second = evaluate(str(tmp_path / "out"), out=tmp_path / "row-1", **ask)["rows"]
    program = "openvino" if to == "openvino" else "onnxruntime"
    assert [row["runtime"].split()[0] for row in (*first, *second)] == ["torch"] * 2 + [program] * 2
    assert second[1]["answered_by"] == second[1]["runtime"]
    assert second[0]["parameters"] == made["parameters"]
    assert (second[0]["method"], second[0]["sparsity"]) == ("early_bird", first[0]["sparsity"])
    assert [row["exported"] for row in (*first, *second)] == [None, None, to, to]
    export(place / "retrained", to=to, out=tmp_path / "told", rows=[tmp_path / "row-1"])
    assert len(ModelCard.load(tmp_path / "told" / "README.md").data.eval_results) == 2
    if to == "onnx-int8":
        with pytest.raises(InputError, match="allowed for --to onnx-int8: rows of an int8 export"):
            export(place / "retrained", to=to, out=tmp_path / "no", rows=[tmp_path / "row-0"])
    loaded = load(str(tmp_path / "out"), foreign=True)
    inputs = toy_inputs(load(str(place / "retrained")).model, count=24)
    with torch.inference_mode():
        mine = loaded.model(**inputs)
    theirs = logits_of(load(str(place / "retrained")).model, inputs)
    if to == "onnx-int8":  # a model of its own: near, not equal
        assert 0 < made["difference"] < 1
        assert (mine.argmax(1) == theirs.argmax(1)).double().mean() > 0.7
    else:
        assert torch.allclose(mine, theirs, atol=1e-4)
        for name in ("clean_accuracy", "accuracy_under_attack", "mean_queries", "flags"):
            assert [row[name] for row in second] == [row[name] for row in first]
    with pytest.raises(InputError, match="made for another program"):
        load(str(tmp_path / "out"))
    with pytest.raises(InputError, match="made for another program"):
        train(str(tmp_path / "out"), task=task, out=tmp_path / "no")


def test_damaged_and_foreign_files_are_refused_in_one_line(place, tmp_path):
    export(place / "retrained", to="onnx", out=tmp_path / "out")
    with pytest.raises(InputError, match="has 2 classes, the task 3"):
        load(str(tmp_path / "out"), ("a", "b", "c"), foreign=True)
    (tmp_path / "out" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="cannot be read"):
        load(str(tmp_path / "out"), foreign=True)
    with pytest.raises(InputError, match="never trained"):
        export(place / "search", to="onnx", out=tmp_path / "untrained")
    assert not (tmp_path / "untrained").exists()


def test_an_export_has_a_card_and_a_pipeline_opens_it(place, tmp_path):
    task, out = str(place / "task"), tmp_path / "rows"
    row = row_of(evaluate(str(place / "retrained"), task=task, out=out, common=CPU))
    export(place / "retrained", to="dense", out=tmp_path / "small", rows=[tmp_path / "rows"])
    card = ModelCard.load(tmp_path / "small" / "README.md")
    assert [one.metric_value for one in card.data.eval_results] == [round(row["clean_accuracy"], 4)]
    assert 'pipeline("text-classification", model="small")' in card.text
    assert str(tmp_path) not in card.text
    assert pipeline("text-classification", model=str(tmp_path / "small"))("a b")[0]["label"] in (
        "bad",
        "good",
    )


def test_a_dense_export_and_its_model_have_rows_of_their_own(place, tmp_path):
    export(place / "retrained", to="dense", out=tmp_path / "dense")
    rows = [
        row_of(evaluate(str(each), task=str(place / "task"), out=tmp_path / f"{n}", common=CPU))
        for n, each in enumerate((place / "retrained", tmp_path / "dense"))
    ]
    assert rows[0]["id"] != rows[1]["id"]
    assert rows[0]["flops"] < rows[1]["flops"]


def test_rows_that_an_older_version_measured_at_another_size_are_measured_anew(place, tmp_path):
    settings = {"task": str(place / "task"), "out": tmp_path / "rows", "common": CPU}
    first = row_of(evaluate(str(place / "retrained"), **settings))
    file = tmp_path / "rows" / "rows.jsonl"
    file.write_text(json.dumps({**first, "flops": 2 * first["flops"]}) + "\n")
    again = row_of(evaluate(str(place / "retrained"), **settings))
    assert (again["id"], again["flops"]) == (first["id"], first["flops"])
    assert [json.loads(line)["flops"] for line in file.read_text().splitlines()] == [first["flops"]]
