"""Faster programs that compute a victim's logits on a CPU, and when they may stand in for the model."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.evaluation.sheaves import padded
from hardtack.evaluation.victim import Runtime, Victim, device_of, runtime_of
from hardtack.sessions import Foreign, OnnxRuntime, OpenVino
from hardtack.tasks.task import Encode

WORTH = 10**13
"""Floating-point operations below which nothing is converted. A conversion takes about ten seconds; a core
that does 80 billion operations a second makes them good on two minutes of work."""

CLOSE = 1e-4
"""Largest difference of a runtime's logits from the model's own: the step to which attacks see them round."""

SAMPLE = 64
"""Texts on which a runtime is compared with the model."""


class Convert(Protocol):
    """Writes a model to an ONNX file and checks it; `exports.onnx.to_onnx` is one."""

    def __call__(self, model: nn.Module, file: Path, *, inputs: Mapping[str, Tensor]) -> float:
        """Write `file` after the example `inputs`; return the largest difference of two logits."""
        ...


RUNTIMES = {"openvino": OpenVino, "onnxruntime": OnnxRuntime}
"""Package -> runtime, the fastest first. The order is fixed: a killed run finds the same one again."""


class Chosen(NamedTuple):
    """What computes a victim's logits, and why: one line for a log."""

    runtime: Runtime
    why: str


def fastest_runtime(
    model: nn.Module,
    encoder: Encode,
    texts: Sequence[tuple[str, ...]],
    *,
    convert: Convert,
    work_flops: float,
    scratch: Path | None = None,
) -> Chosen:
    """Return the fastest runtime for a victim on this machine whose answers are the model's.

    That is the model itself where it stands on another device than the CPU, where less than WORTH is to be
    computed, where no other runtime is installed, where the model cannot be converted, or where none of them
    gives the model's own predictions on the first SAMPLE texts, with logits that differ by CLOSE at most.

    Args:
        model: what is attacked.
        encoder: rows of texts -> one dict of token lists per row.
        texts: what will be attacked.
        convert: writes the model to an ONNX file.
        work_flops: what attacks are expected to compute: texts they ask, times operations for one.
        scratch: where the file lies for a moment; by default where temporary files do.
    """
    eager = runtime_of(model)
    if isinstance(model, Foreign):
        return Chosen(eager, "the model is an export for this program")
    if (device := device_of(model)).type != "cpu":
        return Chosen(eager, f"the model is on {device}")
    if work_flops < WORTH:
        return Chosen(eager, f"about {work_flops:.1g} operations; a conversion pays from {WORTH:.0e} on")
    found = [make for package, make in RUNTIMES.items() if find_spec(package) is not None]
    if not found:
        return Chosen(eager, f"none of {', '.join(RUNTIMES)} is installed")
    plain, sample = Victim(model, encoder), texts[:SAMPLE]
    sheaf = plain.plan(plain.encode(sample))[0]
    inputs = padded(sheaf, int(getattr(encoder, "pad_id", 0)), torch.device("cpu"))
    reasons = []
    # A run clears away such names in its scratch, should this process be killed here.
    with TemporaryDirectory(prefix=".victim-", suffix=".part", dir=scratch) as folder:
        file = Path(folder) / "victim.onnx"
        try:
            vocabulary = _vocabulary(model)
            convert(model, file, inputs=inputs)
        except InputError as error:
            return Chosen(eager, str(error))
        for make in found:
            try:
                runtime = make(file, vocabulary=vocabulary)
                answers = Victim(model, encoder, runtime=runtime).logits(sample)
            except Exception as error:  # whatever another program raises, the model itself remains
                reasons.append(f"{make.__name__} fails: {(str(error).splitlines() or [''])[0][:200]}")
                continue
            if (reason := _unlike(answers, plain.logits(sample))) is None:
                return Chosen(runtime, f"answers {len(sample)} texts as the model does")
            reasons.append(f"{runtime.name} {reason}")
    return Chosen(eager, "; ".join(reasons))


def _vocabulary(model: nn.Module) -> int:
    find = getattr(model, "get_input_embeddings", None)
    if find is None:
        raise InputError(f"{type(model).__name__} has no get_input_embeddings")
    return find().weight.shape[0]


def _unlike(logits: Tensor, own: Tensor) -> str | None:
    """Say how logits [n, C] differ from the model's own by more than rounding; None where they do not."""
    changed = int((logits.argmax(dim=1) != own.argmax(dim=1)).sum())
    apart = float((logits - own).abs().max())
    if not changed and apart <= CLOSE:
        return None
    return f"predicts {changed} of {len(own)} texts differently, logits differ by up to {apart:.2g}"
