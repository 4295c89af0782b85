"""DeepWordBug: fools a classifier with one typing mistake in each of the most important words."""

import string
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError
from hardtack.evaluation.attacks.greedy import change_in_order, opened
from hardtack.evaluation.attacks.protocol import (
    Ask,
    Columns,
    Ledger,
    Queries,
)
from hardtack.evaluation.attacks.words import changeable_words, edit_distance, is_stop_word, rewrite
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class DeepWordBug:
    """Fools a classifier with one typing mistake in each of the most important words.

    Gao, Lanchantin, Soffa, Qi: Black-box Generation of Adversarial Text Sequences to Evade Deep Learning
    Classifiers, 2018, arXiv 1801.04354. It follows the recipe of TextAttack 0.3.11, with which later papers
    compare:

    1. every word that may be changed is replaced by an unknown token in turn; the words are ordered by how
       much that lowers the odds of the true class;
    2. each word in that order gets four candidates, one random edit of each kind: swap two neighbouring
       characters, substitute, delete, insert one character; the best candidate is kept if it lowers the odds;
    3. the attack ends when the prediction changes.

    Function words and words already changed are left alone, and the text stays within a Levenshtein distance
    of 30 of the original: the distances of the changed words add up to no more.

    Differs from the paper: the paper's scores read the text from its start and its end (temporal scores), and
    it applies one kind of edit to the top words without asking between; as in TextAttack, importance is that
    of replacing the word and each edit is kept only if it helps. Differs from TextAttack: our own list of
    function words instead of NLTK's; words are runs of letters and digits; the random edits are drawn for all
    words before the first query, so that two models compared on one example and seed meet the same
    candidates; distances are added up word by word, which is never less than the distance of the texts.
    """

    name: ClassVar[str] = "deepwordbug"
    version: ClassVar[int] = 2  # raised when a fix changes outcomes

    max_distance: int = field(
        default=30, metadata={"help": "largest Levenshtein distance between original and changed text"}
    )
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example; 0 = no limit"}
    )
    columns: Columns = field(
        default="all", metadata={"help": "which column of a pair may change: all, first or second"}
    )
    unknown: str = field(
        default="[UNK]",
        metadata={"help": "the unknown token that stands for a word when its importance is measured"},
    )

    def __post_init__(self):
        if self.max_distance < 1:
            raise InputError(f"max_distance = {self.max_distance}; allowed: 1 and more")
        if self.query_limit < 0:
            raise InputError(f"query_limit = {self.query_limit}; allowed: 0 (no limit) and more")

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row."""
        return {"name": self.name, "version": self.version, **asdict(self)}

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts, receive their logits, return what happened."""
        words = changeable_words(example.text, self.columns)
        # Drawn for every word, in reading order, whatever the model answers later.
        edits = {i: one_edit_each(w.text, rng) for i, w in enumerate(words) if not is_stop_word(w.text)}
        open_words = [i for i, candidates in edits.items() if candidates]

        hidden = {i: rewrite(example.text, words, {i: self.unknown}) for i in open_words}
        ledger = Ledger(self.query_limit)
        begun = yield from opened(example, hidden, ledger)
        if begun is None:
            return ledger.outcome(example, "missed")
        odds, order = begun

        def propose(i: int, changes: Mapping[int, str]) -> Generator[Ask, Any, Mapping[str, float]]:
            yield from ()
            left = self.max_distance - sum(distance(words[j].text, edit) for j, edit in changes.items())
            return {edit: 0.0 for edit in edits[i] if distance(words[i].text, edit) <= left}

        return (yield from change_in_order(example, words, order, propose, ledger, odds=odds))


def distance(word: str, edit: str) -> int:
    """Return the Levenshtein distance of a word and one edit of it: 1, or 2 for most swaps."""
    return edit_distance(word, edit, 2)


def one_edit_each(word: str, rng: torch.Generator) -> list[str]:
    """Return one random edit of each kind: swap, substitution, deletion, insertion.

    Words of one character have none. An edit that gives the word itself (two equal neighbours swapped) is
    left out, so there may be fewer than four; equal edits stand once.
    """
    n = len(word)
    if n < 2:
        return []

    def draw(choices: int) -> int:
        return int(torch.randint(choices, (), generator=rng))

    def letter() -> str:
        return string.ascii_letters[draw(len(string.ascii_letters))]

    i = draw(n - 1)
    swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    i = draw(n)
    substituted = word[:i] + letter() + word[i + 1 :]
    i = draw(n)
    deleted = word[:i] + word[i + 1 :]
    i = draw(n)
    inserted = word[:i] + letter() + word[i:]
    return [edit for edit in dict.fromkeys((swapped, substituted, deleted, inserted)) if edit != word]
