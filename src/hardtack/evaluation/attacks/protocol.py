"""What every text attack looks like: a generator that asks victim and judges and returns an Outcome."""

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from hardtack.tasks.task import Example

Texts = tuple[str, ...]  # one example: one string per column
Columns = Literal["all", "first", "second"]  # which column of a pair an attack may change


class Similar(NamedTuple):
    """Asks the sentence encoder how close the candidates are to the original in meaning.

    The answer is the cosine of each candidate's embedding with the original's, float64 [n], rounded to 1e-4.
    The columns of a pair are read as one text.
    """

    original: Texts
    candidates: tuple[Texts, ...]


class Fill(NamedTuple):
    """Asks the masked language model for words that fit in the place of text[column][start:end].

    The answer is a list of (word, log probability rounded to 1e-4), best first, at most `top` long: whole
    words of the model's vocabulary with a letter or digit in them; the word that stands there may be one.

    Attributes:
        text: the one or two columns.
        column: which of them holds the word.
        start: its first character there.
        end: the character after its last.
        top: how many words at most.
        pair: the model reads both columns; by default only the word's own.
        masked: a mask stands in the word's place (BAE); False leaves the word standing and asks at its place
            (BERT-Attack), piece by piece for a word of several pieces.
    """

    text: Texts
    column: int
    start: int
    end: int
    top: int
    pair: bool = False
    masked: bool = True


class Flips(NamedTuple):
    """Asks the victim's gradient for words that would lower the odds of a class (white box).

    The answer is one list for each span, (word, estimated fall of the log odds), best first, at most `top`
    long: the gradient at the place times the change of the embedding, rounded to 1e-4. Only words that are
    one token of the victim are offered, and nothing where a span is not exactly one token.

    Attributes:
        text: the one or two columns.
        label: the class whose odds are to fall.
        spans: (column, start, end) of each place.
        among: for each span the words to choose from; none = the whole vocabulary.
        top: how many words at most at each place.
    """

    text: Texts
    label: int
    spans: tuple[tuple[int, int, int], ...]
    among: tuple[tuple[str, ...], ...]
    top: int


class Ascent(NamedTuple):
    """Asks for the logits along a projected gradient ascent in the space of word embeddings (white box).

    The answer is float64 [steps + 1, C], rounded to 1e-4: at a random start (drawn from `seed`) inside the
    ball of Frobenius norm `radius` around the text's embeddings, and after each step of length `step`.
    """

    text: Texts
    label: int
    radius: float
    steps: int
    step: float
    seed: int


Filled = list[tuple[str, float]]
Ask = list[Texts] | Similar | Fill | Flips | Ascent
Queries = Generator[Ask, Any, "Outcome"]
"""A list of texts is sent logits, float64 [n, C]; any other ask its answer. Only texts count as queries."""


class Encoder(Protocol):
    """What answers Similar: all pending asks of a round at once."""

    def similar(self, asks: Sequence[Similar]) -> list[Tensor]:
        """Return the cosines of each ask, float64 [n], rounded to 1e-4."""
        ...


class Filler(Protocol):
    """What answers Fill: all pending asks of a round at once."""

    def fill(self, asks: Sequence[Fill]) -> list[Filled]:
        """Return the words for each ask, best first, with log probabilities rounded to 1e-4."""
        ...


class Judges(NamedTuple):
    """What answers an attack's questions beside the victim; None where it asks none of that kind."""

    encoder: Encoder | None = None
    filler: Filler | None = None


class Outcome(NamedTuple):
    """What an attack did to one example.

    `status` is "missed" (wrong before the attack), "held" (right before and after) or "fell" (right before,
    wrong after); `queries` counts the distinct texts that were asked; `adversarial` is None unless the
    example fell, and also where it fell to a change of embeddings, for which there is no text. `by` names the
    attack that felled it where several were run in a row.
    """

    id: str
    status: Literal["missed", "held", "fell"]
    queries: int
    original: Texts
    adversarial: Texts | None
    by: str | None = None


class TextAttack(Protocol):
    """An attack: a frozen dataclass whose fields are its settings.

    `attack` handles ONE example. It yields lists of candidate texts, the first list being the original text
    alone, and is sent their logits, float64 [n, C], rounded to 1e-4, so that its choices hardly depend on
    batch size. It may also yield another ask. All its randomness comes from `rng`.

    An attack that yields Similar or Fill has one method more, `judges() -> Judges`, which the driver calls
    once; Flips and Ascent are answered from the victim itself (gradients.WhiteBox), and an attack that yields
    them says `sees_gradients = True`.
    """

    name: ClassVar[str]

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield asks, receive their answers, return what happened."""
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


def by_importance(hidden: Mapping[int, Texts], label: int, ledger: Ledger) -> Generator[Ask, Any, list[int]]:
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
