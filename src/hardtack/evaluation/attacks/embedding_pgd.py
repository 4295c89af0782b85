"""Embedding PGD: pushes the embeddings of a text, within a radius, until the prediction changes."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import Ascent, Ledger, Queries, predicted
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class EmbeddingPGD:
    """Pushes the embeddings of a text, within a radius, until the prediction changes (white box).

    Projected gradient ascent (Madry et al. 2018, arXiv 1706.06083) in the space of word embeddings, with the
    norm of the robust-ticket paper (Zheng et al. 2022, eq. 6 to 8): the Frobenius norm over all tokens of one
    text. A start is drawn inside the ball; each step goes `step` times the radius along the gradient's
    direction and back into the ball. The example fell if the prediction is wrong anywhere on the way.

    No text comes out, so this is no attack on words: it is the cheap check beside them. Where a larger radius
    or more steps fell fewer examples, or no radius fells nearly all, gradients mislead, and so would the
    attack. A query is a text; the gradient steps are in the settings.

    Several radii are several attacks, one row each: `sweep()` takes them apart. All of them draw the same
    start for an example, up to its length.

    Differs from the paper: what is raised is minus the log odds of the true class, whose gradient has the
    direction of the cross-entropy's and does not vanish where the victim is sure.
    """

    name: ClassVar[str] = "embedding_pgd"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes
    sees_gradients: ClassVar[bool] = True

    radii: tuple[float, ...] = field(
        default=(0.25, 0.5, 1.0, 2.0, 4.0),
        metadata={"help": "Frobenius norm of the largest change of a text's embeddings; one row for each"},
    )
    steps: int = field(default=10, metadata={"help": "gradient steps"})
    step: float = field(default=0.25, metadata={"help": "length of one step, as a fraction of the radius"})

    def __post_init__(self):
        if not self.radii or min(self.radii) <= 0 or len(set(self.radii)) < len(self.radii):
            raise InputError(f"radii = {self.radii}; allowed: one and more, distinct, each above 0")
        if self.steps < 1:
            raise InputError(f"steps = {self.steps}; allowed: 1 and more")
        if self.step <= 0:
            raise InputError(f"step = {self.step}; allowed: above 0")

    def sweep(self) -> tuple["EmbeddingPGD", ...]:
        """Return one attack for each radius, each of which is one row."""
        return tuple(replace(self, radii=(radius,)) for radius in self.radii)

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row."""
        return {"name": self.name, "version": self.version, **asdict(self), "radii": list(self.radii)}

    def ascent(self, example: Example, rng: torch.Generator) -> Ascent:
        """Return the ascent that decides whether an example holds."""
        radius, seed = min(self.radii), int(torch.randint(2**62, (), generator=rng))
        return Ascent(example.text, example.label, radius, self.steps, self.step * radius, seed)

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield its text and one ascent, receive logits, return what happened."""
        if len(self.radii) > 1:
            raise InputError(f"{len(self.radii)} radii in one row; attack with each of sweep() instead")
        ask, ledger = self.ascent(example, rng), Ledger(0)
        logits = yield ledger.afford([example.text])
        if predicted(logits[0]) != example.label:
            return ledger.outcome(example, "missed")
        trail: Tensor = yield ask
        fell = any(predicted(point) != example.label for point in trail)
        return ledger.outcome(example, "fell" if fell else "held")
