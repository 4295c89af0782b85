"""PWWS: replaces words by WordNet synonyms, in the order of saliency times what the best synonym achieves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from hardtack.errors import InputError
from hardtack.evaluation.attacks.greedy import change_in_order, fixed, in_case_of
from hardtack.evaluation.attacks.protocol import Columns, Ledger, Queries, Texts, log_odds, predicted
from hardtack.evaluation.attacks.sources import settings_of, thesaurus
from hardtack.evaluation.attacks.words import changeable_words, is_stop_word, rewrite
from hardtack.evaluation.constraints import Thesaurus
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class PWWS:
    """Replaces words by WordNet synonyms, in the order of saliency times what the best synonym achieves.

    Ren, Deng, He, Che: Generating Natural Language Adversarial Examples through Probability Weighted Word
    Saliency, ACL 2019, P19-1103. With p the probability of the true class:

    1. saliency of a word = fall of p when an unknown token stands in its place; a softmax over all words (eq.
       6 and 8);
    2. every synonym of every word is asked alone; a word's effect is the largest fall of p among them (eq.
       4);
    3. words in the order of softmax saliency times effect (eq. 7); for each all synonyms are asked again in
       the text as it is by then, and the best is kept if it lowers the odds of the true class;
    4. the attack ends when the prediction changes.

    Differs from the paper: step 3 asks again where the paper keeps the synonym chosen in step 2; synonyms of
    any part of speech are taken; named entities are not swapped (that needs the training data). All three
    are as in TextAttack 0.3.11, with which later papers compare. Differs from TextAttack: our own list of
    function words instead of NLTK's; its effect is 1 - p after the change instead of the fall of p (the same
    order where p starts near 1); a synonym takes the case of the word it replaces.
    """

    name: ClassVar[str] = "pwws"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes

    wordnet: Path | Thesaurus | None = field(
        default=None, metadata={"help": "folder of WordNet's data files; by default that of the resources"}
    )
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example; 0 = no limit"}
    )
    columns: Columns = field(
        default="all", metadata={"help": "which column of a pair may change: all, first or second"}
    )
    unknown: str = field(
        default="[UNK]",
        metadata={"help": "the unknown token that stands for a word when its saliency is measured"},
    )

    def __post_init__(self):
        if self.query_limit < 0:
            raise InputError(f"query_limit = {self.query_limit}; allowed: 0 (no limit) and more")
        _ = self.synonyms  # a resource that is missing is missed here, not at the first example

    @cached_property
    def synonyms(self) -> Thesaurus:
        """WordNet, opened once."""
        return thesaurus(self.wordnet)

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: WordNet by content, not by place."""
        return settings_of(self, wordnet=self.synonyms.digest)

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts, receive their logits, return what happened."""
        words = changeable_words(example.text, self.columns)
        open_words = [i for i, word in enumerate(words) if not is_stop_word(word.text)]
        swaps = {i: self.swaps(words[i].text) for i in open_words}

        ledger = Ledger(self.query_limit)
        logits = yield ledger.afford([example.text])
        if predicted(logits[0]) != example.label:
            return ledger.outcome(example, "missed")
        odds = float(log_odds(logits, example.label)[0])
        before = float(true_probability(logits, example.label)[0])

        # Words without synonyms are hidden too: they take their share of the softmax.
        hidden = {i: rewrite(example.text, words, {i: self.unknown}) for i in open_words}
        single = {i: [rewrite(example.text, words, {i: swap}) for swap in swaps[i]] for i in open_words}
        asked = ledger.afford(
            [*hidden.values(), *(text for texts in single.values() for text in texts)] if single else []
        )
        if not asked:
            return ledger.outcome(example, "held")
        logits = yield asked
        falls = before - true_probability(logits, example.label)
        fall: Mapping[Texts, float] = dict(zip(asked, falls.tolist(), strict=True))
        saliency = [fall.get(hidden[i], 0.0) for i in open_words]
        weights = torch.tensor(saliency, dtype=torch.float64).softmax(dim=0).tolist()
        effect = {i: max((fall.get(text, 0.0) for text in single[i]), default=0.0) for i in open_words}
        score = {i: round(weight * effect[i], 8) for i, weight in zip(open_words, weights, strict=True)}
        order = sorted((i for i in open_words if swaps[i]), key=lambda i: -score[i])
        return (yield from change_in_order(example, words, order, fixed(swaps), ledger, odds=odds))

    def swaps(self, word: str) -> list[str]:
        """Return the synonyms that may stand in a word's place: single words, in the word's case."""
        return in_case_of(word, self.synonyms.synonyms(word))


def true_probability(logits: Tensor, label: int) -> Tensor:
    """Return the true class's probability for each row of [n, C]."""
    return logits.softmax(dim=1)[:, label]
