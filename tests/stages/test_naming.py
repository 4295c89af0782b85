"""What a run's name covers: all that changes its results, and nothing else."""

import json
import shutil

import pytest
import torch
from tests.toys import saved_toy, toy_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hardtack.errors import InputError
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.methods.magnitude import Magnitude
from hardtack.select import Sparsity
from hardtack.stages import Common, evaluate, retrain, search, train
from hardtack.stages.common import named, tokenizer_digest
from hardtack.tasks.text import Encoder, load_task
from hardtack.training.adversarial import Clean, FreeLB

CPU = Common(device="cpu", batch_size=8)
HALF = (Sparsity.parse(0.5),)


@pytest.fixture
def place(tmp_path):
    saved_toy(tmp_path / "tiny")
    for name, flip in (("task", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        for split, data in toy_task().splits.items():
            pairs = zip(data.texts, data.labels, strict=True)
            rows = [{"text": text, "label": int(label) ^ flip} for (text,), label in pairs]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / name / f"{split}.jsonl").write_text(lines)
    return tmp_path


@pytest.fixture
def name_of(place):
    """Return a function that runs a stage in a new folder and returns the run's id without the seed."""
    count = iter(range(100))

    def run(stage, *values, task="task", common=CPU, **settings):
        out = place / f"out-{next(count)}"
        done = stage(*values, task=str(place / task), out=out, common=common, **settings)
        return done["id"].rpartition("/")[0]

    return run


def changed_head(place, name="other-head"):
    """Save the toy again with another head on the same base."""
    model = AutoModelForSequenceClassification.from_pretrained(place / "tiny")
    with torch.no_grad():
        model.classifier.weight.add_(1.0)
    shutil.copytree(place / "tiny", place / name)
    model.save_pretrained(place / name)
    return str(place / name)


def changed_tokenizer(place, name="other-words"):
    """Save the toy again with two words of the vocabulary exchanged."""
    shutil.copytree(place / "tiny", place / name)
    file = place / name / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = sorted(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(content))
    return str(place / name)


def without_head(place, name="bare"):
    model = AutoModelForSequenceClassification.from_pretrained(place / "tiny")
    model.bert.save_pretrained(place / name)
    AutoTokenizer.from_pretrained(place / "tiny").save_pretrained(place / name)
    return str(place / name)


def test_a_tokenizers_digest_depends_on_how_it_cuts_and_not_on_where_it_lies_or_what_it_did(place):
    tokenizer = AutoTokenizer.from_pretrained(place / "tiny")
    first = tokenizer_digest(tokenizer)
    Encoder(tokenizer, 4, frozenset({"input_ids"}))([("one of the texts that are cut",)])
    assert tokenizer_digest(tokenizer) == first  # calls leave their truncation behind in it
    tokenizer.save_pretrained(place / "moved")
    assert tokenizer_digest(AutoTokenizer.from_pretrained(place / "moved")) == first
    assert tokenizer_digest(AutoTokenizer.from_pretrained(changed_tokenizer(place))) != first


def test_training_is_named_by_tokenizer_and_head_and_objective(place, name_of):
    tiny, short = str(place / "tiny"), {"epochs": 0.1}
    same = name_of(train, tiny, **short)
    shutil.copytree(place / "tiny", place / "copy")
    assert name_of(train, str(place / "copy"), **short) == same
    others = {name_of(train, model, **short) for model in (changed_tokenizer(place), changed_head(place))}
    others.add(name_of(train, tiny, task="other", **short))
    others.add(name_of(train, tiny, common=Common(device="cpu", batch_size=8, max_length=9), **short))
    assert len(others - {same}) == 4
    bare = without_head(place)  # its head is drawn from the seed, which is no part of the hash
    seeds = {name_of(train, bare, common=Common(device="cpu", batch_size=8, seed=s), **short) for s in (0, 1)}
    assert len(seeds) == 1


def test_an_objectives_version_is_part_of_its_name(monkeypatch):
    before = named(FreeLB(steps=2))
    assert before == ["freelb", 1, {"steps": 2}]
    monkeypatch.setattr(FreeLB, "version", 2)
    assert named(FreeLB(steps=2)) != before


def test_a_ticket_is_retrained_and_evaluated_under_the_names_of_its_bases_head_and_tokenizer(place, name_of):
    found = search(
        Magnitude(HALF), str(place / "tiny"), task=str(place / "task"), out=place / "s", common=CPU
    )
    ticket, others = found["tickets"][0], (None, changed_head(place), changed_tokenizer(place))
    assert len({name_of(retrain, ticket, base=base, epochs=0.1) for base in others}) == 3
    assert len({name_of(evaluate, ticket, base=base) for base in others}) == 3


def test_a_method_that_reads_weights_alone_is_named_by_them_alone(place, name_of):
    tiny = str(place / "tiny")
    same = name_of(search, Magnitude(HALF), tiny)
    longer = Common(device="cpu", batch_size=4, max_length=9, train_examples=10)
    assert name_of(search, Magnitude(HALF), tiny, task="other", common=longer, objective=FreeLB()) == same
    assert name_of(search, Magnitude(HALF), changed_tokenizer(place)) == same
    assert name_of(search, Magnitude(HALF), changed_head(place)) == same
    assert name_of(search, Magnitude(HALF, scope="site"), tiny) != same
    assert name_of(search, Magnitude(HALF), tiny, start=str(saved_toy(place / "else", seed=1))) != same
    origins = [json.loads(f.read_text())["origin"] for f in sorted(place.glob("out-*/tickets/*/ticket.json"))]
    assert not {"task", "objective", "max_length"} & origins[0].keys()


def test_a_method_that_trains_is_named_by_all_that_it_reads(place, name_of):
    tiny = str(place / "tiny")
    method = HardConcrete((Sparsity.parse(0.02),), epochs=0.1)
    same = name_of(search, method, tiny, warm_epochs=0.1)
    others = {
        name_of(search, method, tiny, warm_epochs=0.1, task="other"),
        name_of(search, method, tiny, warm_epochs=0.1, objective=Clean()),
        name_of(search, method, tiny, warm_epochs=0.2),
        name_of(search, method, changed_head(place), warm_epochs=0.1),
        name_of(search, method, changed_tokenizer(place), warm_epochs=0.1),
        name_of(search, method, tiny, start=tiny),
        name_of(search, method, tiny, start=str(place / "other-head")),
        name_of(search, method, tiny, start=str(place / "other-words")),
    }
    assert len(others - {same}) == 8


def test_an_evaluation_is_not_named_by_how_something_would_be_trained(place, name_of):
    tiny = str(place / "tiny")
    same = name_of(evaluate, tiny)
    training = Common(device="cpu", batch_size=8, precision="bf16", train_examples=10)
    assert name_of(evaluate, tiny, common=training) == same
    assert name_of(evaluate, tiny, common=Common(device="cpu", batch_size=8, max_length=9)) != same


def test_columns_are_refused_for_a_task_that_is_no_file():
    with pytest.raises(InputError, match="'made' has its own columns, not 'words'"):
        load_task("made", text_column="words")


# ------------------------------------------------------------------------------------- what stands in rows


def test_a_shifted_set_with_one_split_says_which_was_read(place):
    only = place / "only"
    only.mkdir()
    shutil.copy(place / "other" / "test.jsonl", only / "validation.jsonl")
    shutil.copy(place / "task" / "train.jsonl", only / "test.jsonl")
    (only / "test.jsonl").unlink()
    run = {"task": str(place / "task"), "shifted": [str(only)], "common": CPU}
    rows = evaluate(str(place / "tiny"), out=place / "rows", **run)["rows"]
    assert [(row["split"], "other-split" in row["flags"]) for row in rows] == [
        ("test", False),
        ("validation", True),
    ]
    shutil.copy(place / "task" / "test.jsonl", only / "test.jsonl")
    with pytest.raises(InputError, match=r"'only' has no training data; splits it has: validation, test"):
        evaluate(str(place / "tiny"), out=place / "more", split="train", **run)


def test_rows_count_the_texts_that_the_model_was_run_on(place):
    out, attack = place / "rows", DeepWordBug(query_limit=20)
    run = {"task": str(place / "task"), "attacks": [attack], "examples": 8, "common": CPU}
    clean, attacked = evaluate(str(place / "tiny"), out=out, **run)["rows"]
    assert clean["forward_texts"] == clean["examples"] == 24
    outcomes = [json.loads(line) for line in (out / "outcomes.jsonl").read_text().splitlines()]
    queries = sum(outcome["queries"] for outcome in outcomes)
    assert 8 <= attacked["forward_texts"] <= queries  # texts of equal tokens pass through the model once


# ------------------------------------------------------------------------------------- refused before work


def test_sparsities_that_cannot_be_drawn_are_refused_before_the_warm_up(place):
    for wanted, said in (("head=0.9", "names 'head'"), ("5:7", "do not divide"), ("0.9999", "empties")):
        method = HardConcrete((Sparsity.parse(wanted),))
        for dry_run in (False, True):
            with pytest.raises(InputError, match=said):
                search(
                    method, str(place / "tiny"), task=str(place / "task"), out=place / "out", common=CPU,
                    dry_run=dry_run,
                )  # fmt: skip
    assert not (place / "out").exists()
