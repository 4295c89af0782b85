"""Plain conversion of a classifier to ONNX, checked against the model that it came from."""

import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.exports.narrowing import narrow_
from hardtack.modes import evaluation_mode

OPSET = 20
"""Version of ONNX's operators; fixed, so that a newer exporter writes files that the same programs read."""

TOLERANCE = 1e-4
"""Largest difference of two logits that counts as rounding; in proportion more where logits are over 1."""

LARGEST = 2**31 - 2**26
"""Bytes of weights that fit into the file itself: a protobuf ends at 2 GiB, and the graph needs some."""

_NEEDS = ("onnx", "onnxscript", "onnxruntime")


def to_onnx(model: nn.Module, file: Path, *, inputs: Mapping[str, Tensor]) -> float:
    """Write a classifier as an ONNX file with logits as its only output, for batches and texts of any size.

    The file's inputs are named as the forward's arguments; `logits` are float32 [batch, classes]. The model
    is converted as it stands: zeros of a ticket stay zeros, layers keep their sizes; only what is computed
    for tokens that nobody reads is left out. It is run in evaluation mode and gets its own modes back.
    Weights stand inside the file; where they are more than 2 GiB, in FILE.data beside it. Nothing appears
    under FILE before all is done and checked.

    The conversion follows the model through a part of `inputs`. The file's logits are then compared, in
    onnxruntime, with the model's own for two sizes that it has not seen: all of `inputs`, and one row with a
    token less.

    Args:
        model: a classifier on the CPU, called as model(**inputs), that returns `.logits`.
        file: what is written; an older file is replaced.
        inputs: an example of what it will be asked: several rows, some of them padded; texts of 5 tokens or
            more, for at fewer no size is left that the conversion has not seen.

    Returns:
        The largest difference of two logits that was found.

    Raises:
        InputError: where the extra `onnx` is not installed, the exporter cannot follow the model, or the
            logits differ.
    """
    check_onnx()
    whole = {name: _at_least(value, rows=3) for name, value in inputs.items()}
    seen = {name: _cut(value, rows=2, tokens=max(3, _tokens(value) // 2)) for name, value in whole.items()}
    unseen = (
        whole,
        {name: _cut(value, rows=1, tokens=max(1, _tokens(value) - 1)) for name, value in whole.items()},
    )
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        with evaluation_mode(model), torch.no_grad():  # the exporter cannot follow inference mode
            _convert(model, part / file.name, seen)
            found = _difference(model, part / file.name, unseen)
        for written in sorted(part.iterdir(), reverse=True):  # FILE.data first: FILE says that all is there
            with open(written, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(written, file.with_name(written.name))
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def check_onnx() -> None:
    """Refuse to write ONNX files where the packages that this needs are not installed."""
    absent = [name for name in _NEEDS if find_spec(name) is None]
    if absent:
        raise InputError(f"{', '.join(absent)} not installed; ONNX needs it: pip install 'hardtack[onnx]'")


class _Logits(nn.Module):
    """Gives the exporter a forward with one argument and one result."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model(**inputs).logits


def _convert(model: nn.Module, file: Path, inputs: dict[str, Tensor]) -> None:
    free = {
        name: dict.fromkeys(range(2 if value.dim() == 2 else 1), torch.export.Dim.DYNAMIC)
        for name, value in inputs.items()
    }
    try:
        with _quiet():
            program = torch.onnx.export(
                _Logits(model).eval(),
                kwargs={"inputs": inputs},
                dynamic_shapes={"inputs": free},
                input_names=list(inputs),
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            narrow_(program.model.graph)
            _name_axes(program.model.graph)
            size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
            program.save(file, external_data=size > LARGEST)
    except Exception as error:  # whatever the exporter raises, it could not follow this model
        reason = str(error.__cause__ or error).strip().splitlines()[0][:200]
        raise InputError(f"{type(model).__name__} cannot be converted to ONNX: {reason}") from error


def _name_axes(graph: Any) -> None:
    """Name the free axes in words, the same for all inputs: the exporter numbers them one by one."""
    for value in graph.inputs:
        for axis, name in enumerate(("batch", "length")[: 2 if len(value.shape) == 2 else 1]):
            value.shape[axis] = name
    for value in graph.outputs:
        value.shape[0] = "batch"


def _difference(model: nn.Module, file: Path, unseen: tuple[dict[str, Tensor], ...]) -> float:
    """Return the largest difference of two logits between file and model; refuse one that is not rounding."""
    from onnxruntime import InferenceSession, SessionOptions  # type: ignore[attr-defined]

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for inputs in unseen:
        shape = "x".join(map(str, next(iter(inputs.values())).shape))
        own = model(**inputs).logits
        try:
            answer: Any = session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})
        except Exception as error:  # a size that was fixed in the conversion
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"the ONNX file does not take inputs of {shape}: {reason}") from error
        output = torch.from_numpy(answer[0])
        if output.shape != own.shape:
            given, meant = tuple(output.shape), tuple(own.shape)
            raise InputError(f"the ONNX file gives logits {given} for inputs of {shape}; the model {meant}")
        difference = float((output - own).abs().max())
        allowed = TOLERANCE * max(1.0, float(own.abs().max()))
        if not difference <= allowed:  # nor NaN
            raise InputError(
                f"the ONNX file's logits differ from the model's by {difference:.2g} for inputs of {shape}; "
                f"allowed: {allowed:.2g}"
            )
        worst = max(worst, difference)
    return worst


def _tokens(value: Tensor) -> int:
    return value.shape[1] if value.dim() == 2 else 0


def _at_least(value: Tensor, *, rows: int) -> Tensor:
    """Repeat rows until there are enough to tell a free axis from a fixed one."""
    return torch.cat([value] * math.ceil(rows / len(value))).cpu().contiguous()


def _cut(value: Tensor, *, rows: int, tokens: int) -> Tensor:
    return (value[:rows, :tokens] if value.dim() == 2 else value[:rows]).contiguous()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself (what is deprecated in it, what it skips) from users."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
