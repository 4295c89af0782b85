"""Exports for other programs: ONNX, ONNX with eight-bit weights, OpenVINO; removed units are really gone."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hardtack import shrunk
from hardtack.errors import InputError
from hardtack.exports.checked import answers, difference, sample
from hardtack.exports.onnx import check_onnx, to_onnx
from hardtack.loading import Loaded
from hardtack.sessions import Foreign
from hardtack.tasks.text import Encoder
from hardtack.ticket import Ticket

TOLERANCE = 1e-4
"""Largest difference of a logit, of the largest logit where that is above 1, of a file with full weights."""

OPENS = """\
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
session = onnxruntime.InferenceSession("{name}/model.onnx")
logits = session.run(["logits"], dict(tokenizer(["a text"], return_tensors="np")))[0]"""
OPENVINO_OPENS = """\
import openvino
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = openvino.compile_model("{name}/openvino_model.xml", "CPU")
logits = model(dict(tokenizer(["a text"], return_tensors="np")))[0]"""


def to_onnx_folder(loaded: Loaded, ticket: Ticket, folder: Path) -> dict[str, Any]:
    """Write `model.onnx`, float32, for batches and texts of any size, beside tokenizer and config.

    Args:
        loaded: the model, whose removed units are zero; units that can be taken out are, in place.
        ticket: what says which they are.
        folder: an empty folder.
    """
    expected, inputs = _write(loaded, ticket, folder)
    found = answers(Foreign(folder / "model.onnx", loaded.model.config), inputs)
    form = "an ONNX file with its tokenizer; onnxruntime and others run it"
    return {"form": form, "opens": OPENS, "difference": difference(expected, found, TOLERANCE)}


def to_onnx_int8(loaded: Loaded, ticket: Ticket, folder: Path) -> dict[str, Any]:
    """Write `model.onnx` with weights of eight bits: another model, whose answers are its own.

    Weights are rounded for each output apart; inputs of a product are rounded when it is computed, in a range
    that the whole batch shares, so that a text's logits depend a little on its company. Evaluate it in its
    own right.

    Args:
        loaded: as above.
        ticket: as above.
        folder: an empty folder.
    """
    expected, inputs = _write(loaded, ticket, folder)
    file = folder / "model.onnx"
    to_eight_bits(file, file)
    found = answers(Foreign(file, loaded.model.config), inputs)
    form = "an ONNX file with eight-bit weights: a model of its own, whose answers differ; measure it"
    return {"form": form, "opens": OPENS, "difference": float((expected - found).abs().max())}


def to_eight_bits(source: Path, target: Path) -> None:
    """Write an ONNX file again, with the weights of its products in eight bits."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source)
    graph.graph.ClearField("value_info")  # shapes noted before the narrowing, at which the quantiser stumbles
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # its advice to run a pre-processing that this graph has had
    try:
        quantize_dynamic(graph, str(target), weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(before)


def to_openvino(loaded: Loaded, ticket: Ticket, folder: Path) -> dict[str, Any]:
    """Write `openvino_model.xml` and its weights, float32, beside tokenizer and config.

    Args:
        loaded: as above.
        ticket: as above.
        folder: an empty folder.
    """
    check_installed("openvino")
    from openvino import convert_model, save_model

    expected, inputs = _write(loaded, ticket, folder)
    file = folder / "openvino_model.xml"
    save_model(convert_model(folder / "model.onnx"), file, compress_to_fp16=False)
    for part in folder.glob("model.onnx*"):
        part.unlink()
    found = answers(Foreign(file, loaded.model.config), inputs)
    form = "an OpenVINO model with its tokenizer"
    return {"form": form, "opens": OPENVINO_OPENS, "difference": difference(expected, found, TOLERANCE)}


def check_installed(to: str) -> None:
    """Refuse an export whose packages are not installed, before anything is done for it.

    Args:
        to: a name of EXPORTS.
    """
    if to in ("onnx", "onnx-int8", "openvino"):
        check_onnx()
    if to == "openvino" and find_spec("openvino") is None:
        raise InputError("OpenVINO needs the extra 'openvino': pip install 'hardtack[openvino]'")


def _write(loaded: Loaded, ticket: Ticket, folder: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """Write `model.onnx`, tokenizer and config; return the masked model's answers and what it was asked."""
    if loaded.fresh_head:
        raise InputError("the ticket's head was never trained; allowed for other programs: a retrained model")
    inputs = sample(loaded.model)
    keys = Encoder.of(loaded.tokenizer, loaded.model).keys & set(loaded.tokenizer.model_input_names)
    if "token_type_ids" in keys:  # a pair's second text is told by them
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    expected = answers(loaded.model, inputs)
    view = ticket.view(loaded.model)
    masks = {site.name: ticket.masks[site.name] for site in view.sites if site.kind != "weight"}
    if not all(bool(mask.all()) for mask in masks.values()):
        shrunk.shrink_(loaded.model, masks)
    to_onnx(loaded.model, folder / "model.onnx", inputs=inputs)
    loaded.model.config.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return expected, inputs
