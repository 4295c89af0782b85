import logging

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from tests.tickets import drawn
from tests.toys import logits_of, same_state, state_of, toy_bert, toy_inputs
from tests.zoo import IMAGES, ZOO

from hardtack.errors import InputError
from hardtack.exports import onnx as exporting
from hardtack.exports.onnx import OPSET, to_onnx


def asked(file, inputs):
    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(logits)


class Reads(torch.nn.Module):
    """A classifier over the mean of two numbers a token; `twist` says what the exporter meets in it."""

    def __init__(self, twist):
        super().__init__()
        self.table, self.twist = torch.nn.Embedding(50, 2), twist

    def forward(self, input_ids, attention_mask):
        logits = self.twist(self.table(input_ids).mean(dim=1), input_ids)
        return type("Output", (), {"logits": logits})()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A toy BERT with a ticket of 60% applied, converted in training mode, and what that printed."""
    model = toy_bert(classes=3)
    drawn(model, method="random", settings={"sparsities": [0.6]}).apply_(model)
    model.train()
    model.classifier.eval()
    before = state_of(model), [module.training for module in model.modules()]
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    difference = to_onnx(model, file, inputs=toy_inputs(model, count=5, length=11))
    assert same_state(model, before[0])
    assert [module.training for module in model.modules()] == before[1]
    return model.eval(), file, difference


@pytest.mark.parametrize(("count", "length"), [(1, 1), (1, 30), (17, 2), (8, 44)])
def test_logits_of_any_size_are_the_models_own(written, count, length):
    model, file, difference = written
    inputs = toy_inputs(model, count=count, length=max(2, length), seed=count)
    inputs = {name: value[:, :length] for name, value in inputs.items()}
    assert torch.allclose(asked(file, inputs), logits_of(model, inputs), atol=1e-4)
    assert 0 < difference < 1e-4


def test_the_file_is_one_with_named_free_axes_and_logits_alone(written):
    _model, file, _difference = written
    graph = onnx.load(file)
    assert [entry.name for entry in file.parent.iterdir()] == ["model.onnx"]
    assert {entry.version for entry in graph.opset_import if entry.domain == ""} == {OPSET}
    sizes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    both = ["batch", "length"]
    assert sizes == {"input_ids": both, "attention_mask": both, "logits": ["batch", 3]}


def test_the_zeros_of_a_ticket_are_zeros_in_the_file(written):
    model, file, _difference = written
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer]
    floats = [weight for weight in weights if weight.dtype == np.float32 and weight.ndim == 2]
    own = [value for value in model.state_dict().values() if value.dim() == 2 and value.is_floating_point()]
    zeros = sum(int((weight == 0).sum()) for weight in floats)
    assert zeros == sum(int((value == 0).sum()) for value in own)
    assert zeros > 1000


def test_behind_the_last_attention_one_token_is_computed(written):
    _model, file, _difference = written
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    taken = len(kinds) - kinds[::-1].index("Gather")
    assert kinds[taken:].count("MatMul") == 3  # the attention's output, two of the feed-forward
    assert "Softmax" not in kinds[taken:]


def test_nothing_is_said_on_the_way(tmp_path, capfd, caplog):
    model = Reads(lambda mean, ids: mean * 2)
    inputs = toy_inputs(toy_bert(), count=4, length=8)
    before = logging.root.manager.disable
    to_onnx(model, tmp_path / "model.onnx", inputs={name: value % 50 for name, value in inputs.items()})
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert logging.root.manager.disable == before


@pytest.mark.parametrize(
    ("twist", "said"),
    [
        (lambda mean, ids: mean + torch.randn_like(mean), "logits differ from the model's by"),
        (lambda mean, ids: mean * 2 if int(ids.sum()) > 100 else mean, "cannot be converted to ONNX"),
        (lambda mean, ids: mean * len(ids) if len(ids) < 3 else mean, "cannot be converted to ONNX"),
        (lambda mean, ids: torch.linalg.eigvals(mean.T @ mean).real, "Reads cannot be converted to ONNX"),
    ],
    ids=["noise", "a-branch-on-values", "a-branch-on-sizes", "no-operator-for-it"],
)
def test_a_model_that_the_exporter_cannot_follow_is_refused(tmp_path, twist, said):
    inputs = {"input_ids": torch.randint(1, 50, (5, 9)), "attention_mask": torch.ones(5, 9, dtype=torch.long)}
    (tmp_path / "model.onnx").write_text("an older one")
    with pytest.raises(InputError, match=said) as refused:
        to_onnx(Reads(twist), tmp_path / "model.onnx", inputs=inputs)
    assert "\n" not in str(refused.value)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [
        ("model.onnx", "an older one")
    ]


def test_weights_that_do_not_fit_into_the_file_stand_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGEST", 1000)
    model = toy_bert()
    to_onnx(model, tmp_path / "model.onnx", inputs=toy_inputs(model, count=5, length=11))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for entry in ("model.onnx", "model.onnx.data"):
        (tmp_path / entry).rename(moved / entry)
    inputs = toy_inputs(model, count=3, length=20, seed=1)
    assert torch.allclose(asked(moved / "model.onnx", inputs), logits_of(model, inputs), atol=1e-4)


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"onnxscript not installed.*hardtack\[onnx\]"):
        to_onnx(toy_bert(), tmp_path / "model.onnx", inputs={})


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ZOO)
def test_every_family_is_converted(tmp_path, name):
    model = ZOO[name](classes=3)
    shape = {"count": 5} if name in IMAGES else {"count": 5, "length": 11}
    to_onnx(model, tmp_path / "model.onnx", inputs=toy_inputs(model, **shape))
    inputs = toy_inputs(model, **{**shape, "count": 7, "seed": 1})
    assert torch.allclose(asked(tmp_path / "model.onnx", inputs), logits_of(model, inputs), atol=1e-4)
