"""Programs other than PyTorch that run a classifier from a file, and such a file as a model."""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hardtack.errors import InputError


class OpenVino:
    """OpenVINO in full float32 precision, with as many threads as torch has.

    Args:
        file: an ONNX or OpenVINO file whose inputs are named as the encoder's keys and whose output is the
            logits.
        vocabulary: how many tokens the model knows. OpenVINO reads zeros for a token beyond them.
    """

    def __init__(self, file: Path, *, vocabulary: int):
        from openvino import Core

        self.name, self.vocabulary = f"openvino {metadata.version('openvino')}", vocabulary
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same first core
            "ENABLE_MMAP": False,  # the file goes once it is loaded
        }
        compiled = Core().compile_model(str(file), "CPU", settings)
        self.names = {value.get_any_name() for value in compiled.inputs}
        self._ask = compiled.create_infer_request()

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits [n, C] of inputs [n, width]."""
        if int(inputs["input_ids"].max()) >= self.vocabulary:
            raise IndexError("index out of range in the vocabulary")
        answer = self._ask.infer({key: value.numpy() for key, value in inputs.items()}, share_inputs=True)
        return torch.from_numpy(answer[0].copy())


class OnnxRuntime:
    """ONNX Runtime with as many threads as torch has, none of which spins while it waits.

    Args:
        file: an ONNX file whose inputs are named as the encoder's keys and whose output is the logits.
        vocabulary: not needed here: ONNX Runtime refuses a token that the model does not know.
    """

    def __init__(self, file: Path, *, vocabulary: int):
        from onnxruntime import InferenceSession, SessionOptions  # type: ignore[attr-defined]

        self.name = f"onnxruntime {metadata.version('onnxruntime')}"
        options = SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.names = {value.name for value in self._session.get_inputs()}

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits [n, C] of inputs [n, width]."""
        (logits,) = self._session.run(["logits"], {key: value.numpy() for key, value in inputs.items()})
        return torch.from_numpy(logits)


FILES = {
    "model.onnx": (OnnxRuntime, "onnxruntime", "onnx"),
    "openvino_model.xml": (OpenVino, "openvino", "openvino"),
}
"""File of an exported folder -> what runs it, the package that this needs, and the extra that brings it."""


class Foreign(nn.Module):
    """A classifier that another program runs: it answers like any model and has no weights of its own.

    Args:
        file: one of FILES.
        config: the transformers config of the model that it was made from.
    """

    def __init__(self, file: Path, config: Any):
        super().__init__()
        make, package, extra = FILES[file.name]
        if find_spec(package) is None:
            raise InputError(f"{file} needs the extra {extra!r}: pip install 'hardtack[{extra}]'")
        self.config = config
        try:
            self.session = make(file, vocabulary=config.vocab_size)
        except Exception as error:  # whatever the program raises at a damaged file, the file is the cause
            raise InputError(f"{file} cannot be read: {' '.join(str(error).split())[:160]}") from None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return the logits [n, C] of inputs [n, width] on the CPU."""
        if token_type_ids is None:  # one text, as transformers takes it
            token_type_ids = torch.zeros_like(input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return self.session({name: value for name, value in inputs.items() if name in self.session.names})


def file_of(folder: str) -> Path | None:
    """Return the file that makes a local folder one for another program; None where there is none."""
    found = [Path(folder) / name for name in FILES if (Path(folder) / name).is_file()]
    return found[0] if found else None
