"""What every text attack looks like: a generator that yields candidates, is sent logits and returns an
Outcome.
"""

import math
from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from hardtack.tasks.task import Example

Texts = tuple[str, ...]  # one example: one string per column
Columns = Literal["all", "first", "second"]  # which column of a pair an attack may change
Queries = Generator[list[Texts], Tensor, "Outcome"]


class Outcome(NamedTuple):
    """What an attack did to one example.

    `status` is "missed" (wrong before the attack), "held" (right before and after) or "fell" (right before,
    wrong after); `queries` counts the distinct texts that were asked; `adversarial` is None unless the
    example fell.
    """

    id: str
    status: Literal["missed", "held", "fell"]
    queries: int
    original: Texts
    adversarial: Texts | None


class TextAttack(Protocol):
    """An attack: a frozen dataclass whose fields are its settings.

    `attack` handles ONE example. It yields lists of candidate texts, the first list being the original text
    alone, and is sent their logits, float64 [n, C], rounded to 1e-4, so that its choices hardly depend on
    batch size. All its randomness comes from `rng`.
    """

    name: ClassVar[str]

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts, receive their logits, return what happened."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: fields, and digests of its resources."""
        ...


def predicted(logits: Tensor) -> int:
    """Return the class with the largest logit of [C]; the first of them when several are equal."""
    return int(logits.argmax())


def log_odds(logits: Tensor, label: int) -> Tensor:
    """Return log(p / (1 - p)) of the true class for each row of [n, C].

    It orders texts as the true class's probability p does, but stays exact where p is almost 0 or 1. The last
    rounding makes equal differences of rounded logits equal numbers, so that ties really are ties.
    """
    others = torch.cat((logits[:, :label], logits[:, label + 1 :]), dim=1)  # [n, C - 1]
    return (logits[:, label] - others.logsumexp(dim=1)).round(decimals=8)


def best_candidate(logits: Tensor, label: int) -> tuple[int, float]:
    """Return which row of [n, C] an attacker keeps, and the true class's log odds there.

    A row that changes the prediction comes before one that does not (with three classes and more it may have
    higher odds); among those the one with the lowest odds, the first of equals.
    """
    odds = log_odds(logits, label)
    fooling = logits.argmax(dim=1) != label
    best = int((torch.where(fooling, odds, torch.inf) if bool(fooling.any()) else odds).argmin())
    return best, float(odds[best])


class Ledger:
    """Counts the distinct texts one example has asked, and stops at the limit."""

    def __init__(self, limit: int):
        self.limit = limit
        self.asked: set[Texts] = set()

    def afford(self, candidates: list[Texts]) -> list[Texts]:
        """Return the distinct candidates, in order, up to the first beyond the limit (0 = no limit)."""
        paid: list[Texts] = []
        for text in dict.fromkeys(candidates):
            if self.limit and text not in self.asked and len(self.asked) >= self.limit:
                break
            self.asked.add(text)
            paid.append(text)
        return paid

    def outcome(
        self, example: Example, status: Literal["missed", "held", "fell"], text: Texts | None = None
    ) -> Outcome:
        """Return the example's Outcome with the number of texts asked so far."""
        return Outcome(example.id, status, len(self.asked), example.text, text)


def by_importance(
    hidden: Mapping[int, Texts], label: int, ledger: Ledger
) -> Generator[list[Texts], Tensor, list[int]]:
    """Return word numbers in the order of how far hiding the word lowers the odds of the true class.

    Args:
        hidden: word number -> the text with that word hidden (deleted, or an unknown token in its place).
        label: the true class.
        ledger: pays for the queries; words beyond its limit come last. Equals stay in reading order.
    """
    if len(hidden) < 2:
        return list(hidden)  # nothing to order: no query spent
    asked = ledger.afford(list(hidden.values()))
    if not asked:
        return list(hidden)
    logits = yield asked
    odds = dict(zip(asked, log_odds(logits, label).tolist(), strict=True))
    return sorted(hidden, key=lambda i: odds.get(hidden[i], math.inf))
