"""Per-example losses: logits [N, C] and a batch in, [N] out; objectives average them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hardtack.errors import InputError
from hardtack.tasks.task import Batch

Loss = Callable[[Tensor, Batch], Tensor]


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return -log p of each example's label in nats, [N], in float32 whatever the logits' precision.

    For a language model's logits, [N, L, V], that is the mean over the text's tokens, each after those before
    it: a short text weighs as much as a long one.
    """
    if logits.dim() == 3:
        surprise = token_surprise(logits, batch.inputs)
        return surprise[:, 0] / surprise[:, 1].clamp(min=1)
    return functional.cross_entropy(logits.float(), batch.labels, reduction="none")


def token_surprise(logits: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the nats of each text's tokens, and how many tokens that are: [N, 2] in float32.

    The first token, which follows nothing, and padding do not count.

    Args:
        logits: [N, L, V] of a language model.
        inputs: what it read: `input_ids` and, where there is padding, `attention_mask`, both [N, L].
    """
    targets = inputs["input_ids"][:, 1:]  # [N, L - 1]
    read = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))[:, 1:]
    scores = logits[:, :-1].float().transpose(1, 2)  # [N, V, L - 1]
    nats = functional.cross_entropy(scores, targets, reduction="none") * read
    return torch.stack([nats.sum(dim=1), read.sum(dim=1).float()], dim=1)


@dataclass(frozen=True)
class Distillation:
    """Part of the loss asks the model for what a teacher answers, not only for the label.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2. With the model's
    logits z, the teacher's t and the temperature T: (1 - weight) * hard(z, label)
    + weight * T^2 * KL(softmax(t / T) || softmax(z / T)). T^2 keeps the size of the soft part's gradient
    whatever T is. The teacher's logits are `batch.extra["teacher"]`, [N, C]; no gradient goes there.

    Differs from the paper: the divergence stands for the cross-entropy to the teacher's answers: the same
    gradient, and 0 where both agree.

    Args:
        weight: share of the soft part, above 0; 1 leaves the labels out.
        temperature: T, above 0; higher ones let the teacher's small probabilities count.
        hard: the loss that labels belong to.
    """

    weight: float = 0.5
    temperature: float = 2.0
    hard: Loss = cross_entropy

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1 or not 0 < self.temperature < math.inf:
            raise InputError(
                f"distil weight {self.weight}, distil temperature {self.temperature}; "
                "allowed: weight above 0 to 1, temperature above 0, finite"
            )

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mixed loss of each example in nats, [N], in float32."""
        student, teacher = (
            (answers.float() / self.temperature).log_softmax(dim=1)
            for answers in (logits, batch.extra["teacher"].detach())
        )
        apart = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
        hard = (1 - self.weight) * self.hard(logits, batch) if self.weight < 1 else 0.0
        return hard + self.weight * self.temperature**2 * apart
