"""A victim answers attacks: raw strings go in, logits come out, and everything that was asked is counted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.tasks.task import Encode


@dataclass
class Forwards:
    """What a victim's model has computed so far: texts, batches, and tokens without and with padding."""

    texts: int = 0
    batches: int = 0
    tokens: int = 0
    padded_tokens: int = 0


class Sheaf(NamedTuple):
    """Texts of similar length that go through the model together."""

    positions: np.ndarray  # [b] in the list that was planned
    rows: list[Mapping[str, Sequence[int]]]  # token lists, longest first
    width: int  # length of the longest


class Victim:
    """A victim turns raw strings into logits with one model, exactly as a user of that model would.

    Texts are encoded by one call of the tokenizer, sorted by length, and cut into batches of at most
    batch_size * 32 tokens, padding included (a text that is longer goes alone). The model runs in evaluation
    mode without gradients and gets its own mode back afterwards. Logits are float32 on the CPU, one row per
    text.

    Args:
        model: takes the encoder's keys as keywords; returns logits [n, C] or an object that has them as
            `.logits`.
        encoder: rows of texts -> one dict of token lists per row; its `pad_id` fills short rows.
        batch_size: texts of 32 tokens in a batch; shorter texts make larger batches.
        classes: the width the logits must have; by default what the model's config says, else that of the
            first batch.
    """

    def __init__(
        self, model: nn.Module, encoder: Encode, batch_size: int = 32, *, classes: int | None = None
    ):
        if batch_size < 1:
            raise InputError(f"batch size {batch_size}; allowed: 1 or more")
        self.model, self.encoder, self.batch_size = model, encoder, batch_size
        labels = getattr(getattr(model, "config", None), "num_labels", None)
        self.classes: int | None = classes if classes is not None else labels
        self.forwards = Forwards()
        self.met_in_training_mode = model.training  # a doubt for the report: see flags.py
        self.rows_seen = self.rows_like_probabilities = 0
        self._pad = int(getattr(encoder, "pad_id", 0))

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return the logits of the texts, float32 [n, C], in their order."""
        out = torch.zeros(len(texts), self.classes or 0)
        for sheaf in self.plan(texts):
            answer = self.answer(sheaf)
            if out.shape[1] != answer.shape[1]:
                out = torch.zeros(len(texts), answer.shape[1])
            out[torch.from_numpy(sheaf.positions)] = answer
        return out

    def plan(self, texts: Sequence[tuple[str, ...]]) -> list[Sheaf]:
        """Cut texts into batches, longest first: a function of the texts alone, so a resumed run finds the
        same.
        """
        if not texts:
            return []
        encoded = self.encoder(texts)
        lengths = np.array([len(row["input_ids"]) for row in encoded])
        order = np.argsort(-lengths, kind="stable")
        sheaves, start = [], 0
        while start < len(order):
            width = max(1, int(lengths[order[start]]))
            positions = order[start : start + max(1, self.batch_size * 32 // width)]
            # Few texts of many lengths: a batch ends where more than an eighth of it would be padding.
            rows = np.arange(1, len(positions) + 1)
            fits = np.cumsum(lengths[positions]) * 8 >= rows * width * 7
            positions = positions[: max(1, int(rows[fits].max(initial=1)))]
            sheaves.append(Sheaf(positions, [encoded[i] for i in positions], width))
            start += len(positions)
        return sheaves

    def answer(self, sheaf: Sheaf) -> Tensor:
        """Run the model on one planned batch and return its logits, float32 [b, C]."""
        inputs = self._padded(sheaf)
        with evaluating(self.model):
            logits = logits_of(self.model(**inputs))
        if logits.dim() != 2 or logits.shape[0] != len(sheaf.rows):
            raise InputError(
                f"the model's logits have the shape {tuple(logits.shape)}; allowed: (texts, classes)"
            )
        if self.classes is None:
            self.classes = logits.shape[1]
        if logits.shape[1] != self.classes:
            raise InputError(f"the model gives {logits.shape[1]} classes; {self.classes} are expected")
        logits = logits.float().cpu()
        check_finite(logits, "the attacked model")
        self.forwards.texts += len(sheaf.rows)
        self.forwards.batches += 1
        self.forwards.tokens += sum(len(row["input_ids"]) for row in sheaf.rows)
        self.forwards.padded_tokens += len(sheaf.rows) * sheaf.width
        self.observe(logits)
        return logits

    def observe(self, logits: Tensor) -> None:
        """Note what the flags ask about logits, whether they were computed now or read back from a file."""
        inside = ((logits >= 0) & (logits <= 1)).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-3)
        self.rows_seen += len(logits)
        self.rows_like_probabilities += int(inside.sum())

    def _padded(self, sheaf: Sheaf) -> dict[str, Tensor]:
        device = device_of(self.model)
        inputs = {}
        for key in sheaf.rows[0]:
            pad = self._pad if key == "input_ids" else 0
            if len(sheaf.rows[-1][key]) == sheaf.width:  # sorted by length: the last is the shortest
                padded = np.array([row[key] for row in sheaf.rows], dtype=np.int64)
            else:
                padded = np.full((len(sheaf.rows), sheaf.width), pad, dtype=np.int64)
                for target, row in zip(padded, sheaf.rows, strict=True):
                    target[: len(row[key])] = row[key]
            inputs[key] = torch.from_numpy(padded).to(device)
        return inputs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode without gradients for a while; give each its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def logits_of(output: Any) -> Tensor:
    """Return the logits of whatever a model's forward returned."""
    return output if isinstance(output, Tensor) else output.logits


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's inputs belong: its first parameter's device, or the CPU for one without any."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def check_finite(logits: Tensor, who: str) -> None:
    """Refuse logits that are not numbers: every rate computed from them would be an accident."""
    broken = int((~logits.isfinite().all(dim=1)).sum())
    if broken:
        kind = "NaN" if bool(logits.isnan().any()) else "infinite"
        raise InputError(
            f"{who} gives {kind} logits for {broken} of {len(logits)} texts; finite ones are needed"
        )
