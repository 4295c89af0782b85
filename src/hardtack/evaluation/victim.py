"""A victim answers attacks: raw strings go in, logits come out, and everything that was asked is counted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.evaluation.packing import Packed
from hardtack.evaluation.sheaves import Halving, Row, Sheaf, out_of_memory, padded, plan
from hardtack.modes import evaluation_mode
from hardtack.sessions import Foreign
from hardtack.tasks.task import Encode

# What a batch's start costs, in tokens, and how many tokens of 32 a batch size counts for. On a CPU core a
# MiniLM pass took 12 ms and 0.35 ms a token, and batches over 1,024 tokens gained nothing. The figures for
# other devices are estimates: a pass is launches there until a batch is some thousands of tokens long.
_PRICE = {"cpu": 32}
_SCALE = {"cpu": 1}
_PRICE_ELSEWHERE, _SCALE_ELSEWHERE = 4096, 16


class Runtime(Protocol):
    """A runtime computes logits from padded inputs: the model itself, or a faster program that holds it."""

    name: str
    """The program and its version, as a row says it."""

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits [n, C] of inputs [n, width]."""
        ...


class Eager:
    """The model as it is: evaluation mode, no gradients, its own modes back afterwards.

    Args:
        model: called with the inputs as keywords; returns logits or an object that has them as `.logits`. Its
            weights stay the same from the first call on.
    """

    def __init__(self, model: nn.Module):
        self.model, self.name = model, f"torch {torch.__version__.split('+')[0]}"
        self._packed: Packed | None = None

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the model's logits [n, C]."""
        if (
            self._packed is None
        ):  # not before it is asked: most commands make a victim that another answers for
            self._packed = Packed(self.model)
        with evaluating(self.model), self._packed.using():
            return logits_of(self.model(**inputs))


def runtime_of(model: nn.Module) -> Runtime:
    """Return what runs a model: PyTorch, or for an export the program that it was made for."""
    return model.session if isinstance(model, Foreign) else Eager(model)


@dataclass
class Forwards:
    """What a victim's model has computed so far: texts, batches, and tokens without and with padding."""

    texts: int = 0
    batches: int = 0
    tokens: int = 0
    padded_tokens: int = 0


class Victim:
    """A victim turns raw strings into logits with one model, exactly as a user of that model would.

    Texts are encoded by one call of the tokenizer, sorted by length, and cut into batches of at most
    batch_size * 32 tokens (on a GPU sixteen times as many), padding included; a text that is longer goes
    alone. A batch for which there is no memory is halved. The model runs in evaluation mode without gradients
    and gets its own mode back afterwards. Logits are float32 on the CPU, one row per text.

    Args:
        model: takes the encoder's keys as keywords; returns logits [n, C] or an object that has them as
            `.logits`.
        encoder: rows of texts -> one dict of token lists per row; its `pad_id` fills short rows.
        batch_size: texts of 32 tokens in a batch; shorter texts make larger batches.
        classes: the width the logits must have; by default what the model's config says, else that of the
            first batch.
        runtime: what computes the logits; by default the model itself. Questions about gradients go to the
            model in any case.
    """

    def __init__(
        self,
        model: nn.Module,
        encoder: Encode,
        batch_size: int = 32,
        *,
        classes: int | None = None,
        runtime: Runtime | None = None,
    ):
        if batch_size < 1:
            raise InputError(f"batch size {batch_size}; allowed: 1 or more")
        self.model, self.encoder = model, encoder
        self.runtime: Runtime = runtime or runtime_of(model)
        self.device = device_of(model)
        kind = self.device.type
        self.budget = batch_size * 32 * _SCALE.get(kind, _SCALE_ELSEWHERE)
        self.price = _PRICE.get(kind, _PRICE_ELSEWHERE)
        labels = getattr(getattr(model, "config", None), "num_labels", None)
        self.classes: int | None = classes if classes is not None else labels
        self.forwards = Forwards()
        self.halving = Halving()
        self.met_in_training_mode = model.training  # a doubt for the report, as the next three: see flags.py
        self.met_without_tokens = False
        self.rows_seen = self.rows_like_probabilities = 0
        self._pad = int(getattr(encoder, "pad_id", 0))

    def logits(self, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Return the logits of the texts, float32 [n, C], in their order."""
        out = torch.zeros(len(texts), self.classes or 0)
        for sheaf in self.plan(self.encode(texts)):
            answer = self.answer(sheaf, texts)
            if out.shape[1] != answer.shape[1]:
                out = torch.zeros(len(texts), answer.shape[1])
            out[torch.from_numpy(sheaf.positions)] = answer
        return out

    def encode(self, texts: Sequence[tuple[str, ...]]) -> list[Row]:
        """Return the token lists of the texts, from one call of the tokenizer.

        A text without tokens (an empty one, where a tokenizer adds none of its own) becomes one padding token
        that the model looks at: no model can be asked about nothing.
        """
        try:
            rows: list[Row] = list(self.encoder(texts)) if texts else []
        except (TypeError, UnicodeError):
            halves = [text for text in texts if any("\ud800" <= c <= "\udfff" for c in "".join(text))]
            if not halves:
                raise
            raise InputError(
                f"the text {_shown(halves[0])} holds half a character (a lone surrogate); "
                "whole ones are needed"
            ) from None
        for i, row in enumerate(rows):
            if not len(row["input_ids"]):
                self.met_without_tokens = True
                stand_in = {"input_ids": self._pad, "attention_mask": 1}
                rows[i] = {key: [stand_in.get(key, 0)] for key in row}
        return rows

    def plan(self, rows: Sequence[Row]) -> list[Sheaf]:
        """Cut token lists into batches: a function of their lengths, so a resumed run finds the same."""
        return plan(rows, budget=self.budget, price=self.price)

    def answer(self, sheaf: Sheaf, texts: Sequence[tuple[str, ...]]) -> Tensor:
        """Run the model on one planned batch and return its logits, float32 [b, C].

        Args:
            sheaf: the batch.
            texts: what was planned; a message names the one at fault.
        """
        try:
            logits = torch.cat(self.halving(self._forward, sheaf))
        except Exception as error:
            if out_of_memory(error) or isinstance(error, InputError):
                raise
            raise InputError(self._blame(sheaf, texts, error)) from error
        if self.classes is None:
            self.classes = logits.shape[1]
        if logits.shape[1] != self.classes:
            raise InputError(f"the model gives {logits.shape[1]} classes; {self.classes} are expected")
        check_finite(logits, "the attacked model")
        self.observe(logits)
        return logits

    def _forward(self, sheaf: Sheaf) -> Tensor:
        logits = self.runtime(padded(sheaf, self._pad, self.device))
        if logits.dim() != 2 or logits.shape[0] != len(sheaf.rows):
            raise InputError(
                f"the model's logits have the shape {tuple(logits.shape)}; allowed: (texts, classes)"
            )
        self.forwards.texts += len(sheaf.rows)
        self.forwards.batches += 1
        self.forwards.tokens += sum(len(row["input_ids"]) for row in sheaf.rows)
        self.forwards.padded_tokens += len(sheaf.rows) * sheaf.width
        return logits.float().cpu()

    def _blame(self, sheaf: Sheaf, texts: Sequence[tuple[str, ...]], error: Exception) -> str:
        """Say in one line which text of a batch the model fails on: the first that also fails alone."""
        text = texts[sheaf.positions[0]]
        for position, row in zip(sheaf.positions, sheaf.rows, strict=True):
            try:
                self._forward(Sheaf(np.array([position]), [row], max(1, len(row["input_ids"]))))
            except Exception:
                text = texts[position]
                break
        reason = (str(error).splitlines() or [""])[0][:200]
        return f"the attacked model fails on the text {_shown(text)}: {type(error).__name__}: {reason}"

    def observe(self, logits: Tensor) -> None:
        """Note what the flags ask about logits, whether they were computed now or read back from a file."""
        inside = ((logits >= 0) & (logits <= 1)).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-3)
        self.rows_seen += len(logits)
        self.rows_like_probabilities += int(inside.sum())


def _shown(text: Sequence[str]) -> str:
    """Quote a text in at most 60 characters."""
    whole = " | ".join(text)
    return repr(whole if len(whole) <= 60 else f"{whole[:60]}...")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode without gradients for a while; give each its own mode back."""
    with evaluation_mode(model), torch.inference_mode():
        yield


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
