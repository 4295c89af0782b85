"""Rows and outcomes: complete, replaced and never doubled, and doubted where they deserve it."""

import json

import pytest
import torch
from tests.stages.saved import saved_task
from tests.toys import saved_toy, toy_task
from transformers import AutoTokenizer, BertForSequenceClassification

from hardtack.errors import InputError
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.methods.random import Random
from hardtack.select import Sparsity
from hardtack.stages import Common, evaluate, retrain, search, train

CPU = Common(device="cpu", batch_size=8)
ROW = (  # the names that scripts rely on
    "id model ticket method task split seed attack examples clean_accuracy accuracy_under_attack "
    "attack_success_rate mean_queries attack_settings shifted_from objective epochs epoch_rule granularity "
    "sparsity prunable parameters flops disk_bytes data_fingerprint flags measured"
).split()


@pytest.fixture
def made(tmp_path):
    """A toy model trained for a moment, and a ticket of it."""
    saved_toy(tmp_path / "tiny")
    BertForSequenceClassification.from_pretrained(tmp_path / "tiny").bert.save_pretrained(tmp_path / "tiny")
    task, tiny = saved_task(tmp_path / "task"), str(tmp_path / "tiny")
    dense = train(tiny, task=task, out=tmp_path / "dense", epochs=0.5, lr=1e-3, common=CPU)
    method = Random(sparsities=(Sparsity.parse(0.3),))
    found = search(method, tiny, task=task, out=tmp_path / "search", common=CPU)
    return {"task": task, "dense": dense["folder"], "ticket": found["tickets"][0], "place": tmp_path}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_have_every_field_and_outcomes_add_up(made):
    out = made["place"] / "rows"
    attack = DeepWordBug(query_limit=20)
    result = evaluate(made["dense"], task=made["task"], out=out, attacks=[attack], examples=8, common=CPU)
    clean, attacked = lines(out / "rows.jsonl")
    assert result["rows"] == [clean, attacked]
    assert set(ROW) <= clean.keys()
    assert (clean["attack"], clean["examples"], clean["method"], clean["objective"]) == (
        None,
        24,
        "dense",
        "clean",
    )
    assert (clean["epochs"], clean["epoch_rule"], clean["split"]) == (0.5, "last", "test")
    assert clean["parameters"] > 0 < clean["flops"]
    assert attacked["attack_settings"]["query_limit"] == 20
    outcomes = lines(out / "outcomes.jsonl")
    assert {outcome["row"] for outcome in outcomes} == {attacked["id"]}
    held = sum(outcome["status"] == "held" for outcome in outcomes)
    missed = sum(outcome["status"] == "missed" for outcome in outcomes)
    assert attacked["accuracy_under_attack"] == held / 8
    assert attacked["clean_accuracy"] == 1 - missed / 8
    assert "few-examples" in attacked["flags"]


def test_the_same_command_repeats_nothing_and_another_attack_adds_a_row(made):
    out = made["place"] / "rows"
    evaluate(made["dense"], task=made["task"], out=out, common=CPU)
    first = (out / "rows.jsonl").read_bytes()
    evaluate(made["dense"], task=made["task"], out=out, common=CPU)
    assert (out / "rows.jsonl").read_bytes() == first
    for limit in (5, 6):
        attack = DeepWordBug(query_limit=limit)
        evaluate(made["dense"], task=made["task"], out=out, attacks=[attack], examples=8, common=CPU)
    rows = lines(out / "rows.jsonl")
    assert [row["attack"] for row in rows] == [None, "deepwordbug", "deepwordbug"]
    assert len({row["id"] for row in rows}) == 3
    # The test split was read with one limit and then with another: the second row says so.
    assert ["test-read-again" in row["flags"] for row in rows] == [False, False, True]


def test_a_ticket_on_its_raw_base_is_doubted_and_a_retrained_one_is_not(made):
    raw = evaluate(made["ticket"], task=made["task"], out=made["place"] / "raw", common=CPU)["rows"][0]
    assert "untrained-head" in raw["flags"]
    assert raw["sparsity"] == pytest.approx(0.3, abs=0.001)
    folder = retrain(
        made["ticket"], task=made["task"], out=made["place"] / "again", epochs=0.5, lr=1e-3, common=CPU
    )["folder"]
    row = evaluate(folder, task=made["task"], out=made["place"] / "rows", common=CPU)["rows"][0]
    assert "untrained-head" not in row["flags"]
    assert (row["method"], row["granularity"]) == ("random", ["weight"])
    assert row["parameters"] < raw["parameters"] + 100


def test_shifted_data_is_a_row_of_its_own_and_needs_the_same_labels(made):
    other = saved_task(made["place"] / "other")
    result = evaluate(
        made["dense"], task=made["task"], out=made["place"] / "rows", shifted=[other], common=CPU
    )
    assert [(row["task"], row["shifted_from"]) for row in result["rows"]] == [
        ("task", None),
        ("other", "task"),
    ]
    names = saved_task(made["place"] / "names", ("cold", "warm"))
    with pytest.raises(InputError, match="no label map from the classes"):
        evaluate(made["dense"], task=made["task"], out=made["place"] / "x", shifted=[names], common=CPU)


def test_another_target_is_refused_in_the_same_folder(made):
    out = made["place"] / "rows"
    evaluate(made["dense"], task=made["task"], out=out, common=CPU)
    with pytest.raises(InputError, match="holds another run"):
        evaluate(made["ticket"], task=made["task"], out=out, common=CPU)


def test_a_model_evaluated_at_another_length_or_seed_says_so(made):
    longer = Common(device="cpu", batch_size=8, max_length=9, seed=3)
    row = evaluate(made["dense"], task=made["task"], out=made["place"] / "rows", common=longer)["rows"][0]
    assert "other-length" in row["flags"]
    assert (row["seed"], row["trained_seed"], row["max_length"]) == (3, 0, 9)
    assert (
        evaluate(made["dense"], task=made["task"], out=made["place"] / "same", common=CPU)["rows"][0]["flags"]
        == []
    )


def test_a_model_that_breaks_under_attack_costs_no_row_that_is_there(made):
    broken = made["place"] / "broken"
    model = BertForSequenceClassification.from_pretrained(f"{made['dense']}/model")
    known = {word for (text,) in toy_task().table("test").texts for word in text.split()}
    tokenizer = AutoTokenizer.from_pretrained(f"{made['dense']}/model")
    shown = {*tokenizer(" ".join(known))["input_ids"], *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    unseen = [token for token in range(len(tokenizer)) if token not in shown]
    with torch.no_grad():  # what no clean text has, and an attack's misspellings do
        model.get_input_embeddings().weight[unseen] = torch.nan
    model.save_pretrained(broken)
    tokenizer.save_pretrained(broken)
    out = made["place"] / "rows"
    with pytest.raises(InputError, match=r"NaN logits for \d+ of \d+ texts"):
        evaluate(str(broken), task=made["task"], out=out, attacks=[DeepWordBug()], examples=8, common=CPU)
    (row,) = lines(out / "rows.jsonl")
    assert row["attack"] is None
    again = evaluate(str(broken), task=made["task"], out=out, common=CPU)["rows"]
    assert again == [row]


def test_an_attack_on_a_column_that_is_not_there_is_refused_in_one_line(made):
    attack = DeepWordBug(columns="second")
    with pytest.raises(InputError, match="column"):
        evaluate(made["dense"], task=made["task"], out=made["place"] / "x", attacks=[attack], common=CPU)


def test_attacks_that_are_worth_it_are_answered_by_a_faster_program_with_the_same_verdicts(made, monkeypatch):
    attack = {"attacks": [DeepWordBug()], "examples": 8, "common": CPU, "task": made["task"]}
    plain = evaluate(made["dense"], out=made["place"] / "plain", runtime="torch", **attack)["rows"][1]
    assert plain["answered_by"].startswith("torch ")
    monkeypatch.setattr("hardtack.evaluation.runtimes.WORTH", 0)  # a toy's work never is
    out = made["place"] / "fast"
    clean, fast = evaluate(made["dense"], out=out, **attack)["rows"]
    assert clean["answered_by"] is None
    assert fast["answered_by"].split()[0] in ("openvino", "onnxruntime")
    (said,) = [line for line in lines(out / "log.jsonl") if line.get("event") == "runtime"]
    assert (said["name"], said["why"]) == (fast["answered_by"], "answers 8 texts as the model does")
    assert {**fast, "answered_by": None, "measured": None} == {**plain, "answered_by": None, "measured": None}
    told = [
        {
            line["id"]: (line["status"], line["queries"])
            for line in lines(made["place"] / name / "outcomes.jsonl")
        }
        for name in ("plain", "fast")
    ]
    assert told[0] == told[1]


def test_a_head_with_the_tasks_classes_in_another_order_is_refused(made, tmp_path):
    names = BertForSequenceClassification.from_pretrained(made["place"] / "dense" / "model").config.id2label
    folder = tmp_path / "turned"
    folder.mkdir()
    (folder / "info.json").write_text(json.dumps({"label_names": [names[1].upper(), names[0]]}))
    for split in ("train", "validation", "test"):
        text = (made["place"] / "task" / f"{split}.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        lines = [{**line, "label": {"0": names[1].upper(), "1": names[0]}[line["label"]]} for line in lines]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"has the classes .*; allowed: the same ones in the same order"):
        evaluate(made["dense"], task=str(folder), out=tmp_path / "rows", common=CPU)
