"""What `show` says about a ticket, a model folder, a run folder and a task."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hardtack.errors import InputError
from hardtack.reports.show import Reading, show, show_text
from hardtack.ticket import Base, Ticket


@pytest.fixture
def ticket(tmp_path):
    masks = {"layer.0.heads": torch.tensor([True, False, True, True]), "layer.0.q": torch.arange(10) < 5}
    base = Base("tiny-base", "f" * 32, head_seed=3, fresh=("pooler.weight",))
    origin = {"method": "magnitude", "settings": {"scope": "global"}, "seed": 3}
    folder = tmp_path / "search" / "tickets" / "sparsity-0.4286"
    folder.parent.mkdir(parents=True)
    Ticket(base, masks, ("head", "weight"), {}, origin, ()).save(folder)
    return folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"1": "good", "0": "bad"}}))
    tensors = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_ticket_by_hand(ticket):
    found = show(str(ticket))
    assert found["kind"] == "ticket"
    assert found["sites"] == [
        {"name": "layer.0.heads", "kind": "head", "units": 4, "kept": 3, "sparsity": 0.25},
        {"name": "layer.0.q", "kind": "weight", "units": 10, "kept": 5, "sparsity": 0.5},
    ]
    assert (found["units"], found["kept"]) == (14, 8)
    assert found["sparsity"] == pytest.approx(6 / 14)
    assert found["base"]["id"] == "tiny-base"
    assert found["disk_bytes"] == sum(file.stat().st_size for file in ticket.iterdir())
    text = show_text(found)
    for part in (
        "| layer.0.heads | head   |     4 |    3 |   0.2500 |",
        "| all ",
        "tiny-base",
        "magnitude",
        "0.4286",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_model_from_its_headers(model):
    found = show(str(model))
    assert (found["kind"], found["type"], found["parameters"], found["tensors"]) == ("model", "bert", 17, 2)
    assert found["labels"] == ["bad", "good"]
    assert "BertForSequenceClassification" in show_text(found)
    (model / "model.safetensors").write_bytes(b"no tensors at all")
    with pytest.raises(InputError, match="is no safetensors file"):
        show(str(model))


def test_a_run_folder(ticket):
    folder = ticket.parent.parent
    (folder / "recipe.json").write_text(json.dumps({"id": "search-magnitude-0", "kind": "search", "seed": 3}))
    found = show(str(folder))
    assert (found["kind"], found["state"]) == ("run", "unfinished: the same command resumes it")
    assert found["tickets"] == [{"folder": str(ticket), "sparsity": pytest.approx(6 / 14)}]
    (folder / "DONE").write_text("{}\n")
    row = {
        "id": "r",
        "method": "magnitude",
        "attack": "deepwordbug",
        "examples": 4,
        "accuracy_under_attack": 0.5,
    }
    (folder / "rows.jsonl").write_text(
        json.dumps({**row, "clean_accuracy": 0.75, "flags": ["few examples"]}) + "\n"
    )
    found = show(str(folder))
    assert found["state"] == "done"
    assert found["rows"][0]["id"] == "r"
    text = show_text(found)
    for part in ("search-magnitude-0", "0.4286", "0.500 [0.150, 0.850]", "flag few examples"):
        assert part in text


def test_a_broken_recipe_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text("[1]")
    with pytest.raises(InputError, match="holds list; allowed: one JSON object"):
        show(str(tmp_path))
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(InputError, match="is no run folder"):
        show(str(tmp_path))


def test_a_task_of_ones_own(tmp_path):
    texts = ["one two three"] * 40 + ["a b c d e"] * 10
    lines = [{"text": text, "label": row % 2} for row, text in enumerate(texts)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = show(str(tmp_path))
    assert (found["kind"], found["cut"]) == ("task", ["validation", "test"])
    sizes = {split["split"]: split["examples"] for split in found["splits"]}
    assert sizes == {"train": 40, "validation": 5, "test": 5}
    train = found["splits"][0]
    assert sum(train["labels"].values()) == 40
    assert (train["words_median"], train["words_most"], train["from"]) == (3.0, 5, "given")
    assert found["splits"][1]["from"] == "cut from training"
    assert len({split["fingerprint"] for split in found["splits"]} | {found["fingerprint"]}) == 4
    text = show_text(found)
    assert "cut from training" in text
    assert max(map(len, text.splitlines())) <= 110
    fewer = show(str(tmp_path), Reading(train_examples=10, seed=1))
    assert [split["examples"] for split in fewer["splits"]] == [10, 5, 5]
    longer = show(str(tmp_path), Reading(min_words=4))
    assert sum(split["examples"] for split in longer["splits"]) == 10


def test_nothing_to_show(tmp_path):
    with pytest.raises(InputError, match="is a folder with nothing to show; allowed: a ticket"):
        show(str(tmp_path))
    with pytest.raises(InputError, match=r"'sst3'.*did you mean 'sst2'"):
        show("sst3")
