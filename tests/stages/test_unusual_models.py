"""Models that are no ordinary checkpoint of a listed family, through the stages."""

import csv
import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from tests.toys import saved_toy, toy_texts
from tests.zoo import ZOO

from hardtack.errors import InputError
from hardtack.methods.magnitude import Magnitude
from hardtack.runs import generator
from hardtack.select import Sparsity
from hardtack.stages import Common, evaluate, retrain, search, train
from hardtack.ticket import Ticket

METHOD = Magnitude(sparsities=(Sparsity.parse(0.3),))


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "texts.csv"
    texts, labels = toy_texts(60)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("text", "label"), *((text, label) for (text,), label in zip(texts, labels, strict=True))]
        )
    return str(path)


def test_a_search_of_a_family_that_the_table_lacks_says_so(tmp_path, task):
    said = {}
    for name in ("squeezebert", "modernbert"):
        model = str(saved_toy(tmp_path / name, name, makers=ZOO))
        said[name] = search(METHOD, model, task=task, out=tmp_path / f"{name} run")["notes"]
        again = search(METHOD, model, task=task, out=tmp_path / f"{name} run")
        assert again["notes"] == said[name]
    assert said == {
        "squeezebert": [
            "SqueezeBertModel is not in the table of families: each of its linear and convolution weights "
            "can go, its heads, neurons and channels are not known"
        ],
        "modernbert": [],
    }


@pytest.fixture
def adapter(tmp_path):
    base, folder = saved_toy(tmp_path / "base"), tmp_path / "adapter"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, at what peft calls
        wrapped = get_peft_model(
            ZOO["bert"](), LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["query"])
        )
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0, 0.3, generator=generator(0, "adapter"))
        wrapped.save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**settings, "base_model_name_or_path": str(base)})
    )
    return str(folder)


def test_an_adapter_goes_all_the_way_when_it_is_asked_for(tmp_path, task, adapter):
    merged = Common(merge_adapter=True)
    dense = train(adapter, task=task, out=tmp_path / "dense", epochs=0.5, common=merged)
    assert (Path(dense["model"]) / "model.safetensors").is_file()
    found = search(METHOD, adapter, task=task, out=tmp_path / "search", common=merged)
    (place,) = found["tickets"]
    assert Ticket.load(place).base.id == adapter
    kept = retrain(place, task=task, out=tmp_path / "retrained", epochs=0.5, common=merged)
    rows = {
        target: evaluate(target, task=task, out=tmp_path / f"rows {number}", common=common)["rows"]
        for number, (target, common) in enumerate(
            [(kept["model"], Common()), (place, merged), (adapter, merged)]
        )
    }
    assert all(len(each) == 1 for each in rows.values())
    for act in (
        lambda: train(adapter, task=task, out=tmp_path / "other"),
        lambda: search(METHOD, adapter, task=task, out=tmp_path / "other"),
        lambda: retrain(place, task=task, out=tmp_path / "other"),
        lambda: evaluate(place, task=task, out=tmp_path / "other"),
        lambda: evaluate(adapter, task=task, out=tmp_path / "other"),
    ):
        with pytest.raises(
            InputError, match=r"is an adapter of .*; merge_adapter \(--merge-adapter\) merges it$"
        ):
            act()
