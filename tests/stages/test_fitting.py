"""What names a run of training."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.toys import saved_toy, toy_task

from hardtack.errors import InputError
from hardtack.methods.random import Random
from hardtack.select import Sparsity
from hardtack.stages import Common, fitting, retrain, search, train


def test_the_best_epoch_depends_on_validation_and_so_does_the_runs_name(tmp_path):
    saved_toy(tmp_path / "tiny")
    task = tmp_path / "task"
    task.mkdir()
    for split, data in toy_task().splits.items():
        rows = zip(data.texts, data.labels, strict=True)
        lines = [json.dumps({"text": text, "label": int(label)}) + "\n" for (text,), label in rows]
        (task / f"{split}.jsonl").write_text("".join(lines))

    def fit(rule):
        common = Common(device="cpu")
        return train(
            str(tmp_path / "tiny"),
            task=str(task),
            out=tmp_path / rule,
            epochs=0.1,
            epoch_rule=rule,
            common=common,
        )

    last = fit("last")
    assert fit("best")["id"] != last["id"]
    (task / "validation.jsonl").write_text("".join(lines))  # another validation split: test's
    assert fit("last") == last
    with pytest.raises(InputError, match="another run"):
        fit("best")


def test_a_ticket_of_whole_units_trains_to_the_same_weights_in_less(tmp_path, monkeypatch):
    """Without dropout, whose draws have other shapes, held masks and the smaller model are one training."""
    saved_toy(tmp_path / "tiny")
    file = tmp_path / "tiny" / "config.json"
    config = json.loads(file.read_text()) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    file.write_text(json.dumps(config))
    common, units = Common(device="cpu", batch_size=16, train_examples=64), ("head", "neuron")
    method = Random((Sparsity.parse("0.5"),))
    search(method, str(tmp_path / "tiny"), task="made", out=tmp_path / "s", granularity=units, common=common)
    trained = []
    keep = fitting.fit_epochs

    def fit(model, *rest):
        trained.append(sum(tensor.numel() for tensor in model.parameters()))
        return keep(model, *rest)

    monkeypatch.setattr(fitting, "fit_epochs", fit)
    small = retrain(tmp_path / "s", task="made", out=tmp_path / "small", epochs=2, lr=1e-3, common=common)
    monkeypatch.setattr(fitting, "_smaller", lambda model, ticket: None)
    held = retrain(tmp_path / "s", task="made", out=tmp_path / "held", epochs=2, lr=1e-3, common=common)
    assert trained[0] < trained[1]
    mine, theirs = (load_file(f"{one['model']}/model.safetensors") for one in (small, held))
    start = load_file(tmp_path / "tiny" / "model.safetensors")
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        if not name.endswith("key.bias"):  # no softmax feels it: its gradient is rounding, scaled up by AdamW
            assert torch.allclose(tensor, theirs[name], atol=2e-5), name
    assert any(not torch.allclose(tensor, start[name], atol=1e-3) for name, tensor in mine.items())
    looks = [json.loads(line) for line in (tmp_path / "small" / "log.jsonl").read_text().splitlines()]
    assert sum(one.get("event") == "validation" and one["seconds"] > 0 for one in looks) == 2
