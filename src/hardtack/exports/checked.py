"""What every export of a folder does: write it, load it as everybody will, and compare the answers."""

from pathlib import Path

import torch
from torch import Tensor, nn

from hardtack import shrunk
from hardtack.errors import InputError
from hardtack.loading import Loaded, load
from hardtack.runs import generator

TOLERANCE = 1e-5
"""Largest difference of a logit, of the largest logit where that is above 1: sums in another order."""
ROWS, TOKENS = 4, 16

ORDINARY = """\
from transformers import pipeline

classify = pipeline("text-classification", model="{name}")"""
"""How an ordinary folder is opened, for its card."""

OURS = """\
import hardtack

loaded = hardtack.load("{name}")  # loaded.model, loaded.tokenizer"""
"""How a folder is opened that only hardtack opens."""


def sample(model: nn.Module) -> dict[str, Tensor]:
    """Draw random token ids for a model, rows of different lengths, the same at every call."""
    words = int(model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    pad = int(model.config.pad_token_id or 0)  # type: ignore[union-attr, arg-type]
    ids = torch.randint(words, (ROWS, TOKENS), generator=generator(0, "export"))
    ids = torch.where(ids == pad, (pad + 1) % words, ids)
    tokens = torch.arange(TOKENS) < torch.linspace(2, TOKENS, ROWS).long()[:, None]
    return {"input_ids": torch.where(tokens, ids, pad), "attention_mask": tokens.long()}


@torch.inference_mode()
def answers(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the logits of a model in evaluation mode, on the CPU."""
    parameter = next(model.parameters(), None)  # an exported file has none
    device = "cpu" if parameter is None else parameter.device
    output = model(**{name: value.to(device) for name, value in inputs.items()})
    return (output if isinstance(output, Tensor) else output.logits).cpu()


def write(loaded: Loaded, folder: Path, expected: Tensor) -> float:
    """Write model and tokenizer, load the folder again and return the largest difference of any logit.

    A head that was never trained is not written: whoever loads the folder draws one from a seed of his own,
    and is told that it is untrained.

    Args:
        loaded: the model as it is to be written.
        folder: an empty folder.
        expected: `answers` to `sample` of the model that it was made from.

    Raises:
        InputError: when the answers differ by more than rounding.
    """
    shrunk.save(loaded.model, folder, head=not loaded.fresh_head or loaded.head is not None)
    loaded.tokenizer.save_pretrained(folder)
    again = load(str(folder), seed=loaded.base.head_seed or 0).model
    found = answers(again, sample(again))
    return difference(expected, found, TOLERANCE)


def difference(expected: Tensor, found: Tensor, tolerance: float) -> float:
    """Return the largest difference of two logits; refuse one that is not rounding.

    Args:
        expected: what the ticket's model answers.
        found: what the export answers.
        tolerance: what is allowed, in proportion to the largest logit where that is above 1.
    """
    largest = float((expected - found).abs().max())
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    if not largest <= allowed:  # also where it is no number
        raise InputError(
            f"the exported model does not answer as the ticket's: logits differ by {largest:.3g}; "
            f"allowed: {allowed:.3g}"
        )
    return largest
