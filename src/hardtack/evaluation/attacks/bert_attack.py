"""BERT-Attack: replaces important words by what BERT would read in their place, piece by piece."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError
from hardtack.evaluation.attacks.greedy import Alike, change_in_order, in_case_of, is_one_word, opened
from hardtack.evaluation.attacks.protocol import (
    Ask,
    Columns,
    Encoder,
    Fill,
    Filled,
    Filler,
    Judges,
    Ledger,
    Queries,
)
from hardtack.evaluation.attacks.sources import encoder, filler, model_digest, settings_of
from hardtack.evaluation.attacks.words import changeable_words, is_stop_word, rewrite
from hardtack.evaluation.constraints import most_words
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class BERTAttack:
    """Replaces important words by what BERT would read in their place, piece by piece.

    Li, Ma, Guo, Xue, Qiu: BERT-ATTACK: Adversarial Attack Against BERT Using BERT, EMNLP 2020, arXiv
    2004.09984:

    1. a mask stands in the place of each word in turn; the words are ordered by how much that lowers the odds
       of the true class;
    2. the original text, nothing masked, is read once by the masked language model. Candidates of a word that
       is one piece: the K likeliest whole words at its place; of a word of several pieces: the K best
       combinations of the K likeliest pieces at each place, by perplexity. Function words are no candidates
       and have none;
    3. in order, the candidates are asked; the best is kept if it lowers the odds, for at most 40% of the
       words;
    4. the attack ends when the prediction changes.

    Differs from the paper: antonyms are not filtered out by a dictionary. The paper measures sentence
    similarity after the attack; so does this attack unless `min_similarity` says otherwise. Differs from
    TextAttack 0.3.11: K is the paper's 48, not 8; combinations are sorted by perplexity before they are cut
    (it cuts the unsorted ones); the language model reads the original, not the text as it is by then; no
    limit on sentence similarity by default (it has 0.2); importance by a mask, not an unknown token.
    """

    name: ClassVar[str] = "bert_attack"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes

    masked_lm: Path | Filler = field(metadata={"help": "folder of a masked language model, such as BERT"})
    encoder: Path | Encoder | None = field(
        default=None, metadata={"help": "folder of a sentence encoder; by default the packaged MiniLM"}
    )
    k: int = field(default=48, metadata={"help": "the paper's K: substitutes asked of the language model"})
    max_share: float = field(default=0.4, metadata={"help": "largest share of the words that may change"})
    min_similarity: float = field(
        default=0.0, metadata={"help": "smallest cosine of sentence embeddings; 0 = not compared"}
    )
    mask: str = field(
        default="[MASK]",
        metadata={"help": "the token that stands for a word when its importance is measured"},
    )
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example; 0 = no limit"}
    )
    columns: Columns = field(
        default="all", metadata={"help": "which column of a pair may change: all, first or second"}
    )

    def __post_init__(self):
        if self.k < 1:
            raise InputError(f"k = {self.k}; allowed: 1 and more")
        if not 0 < self.max_share <= 1:
            raise InputError(f"max_share = {self.max_share}; allowed: above 0, up to 1")
        if not 0 <= self.min_similarity <= 1:
            raise InputError(f"min_similarity = {self.min_similarity}; allowed: 0 to 1")
        if self.query_limit < 0:
            raise InputError(f"query_limit = {self.query_limit}; allowed: 0 (no limit) and more")

    def judges(self) -> Judges:
        """Return what answers which words fit a place and, where that is limited, how similar texts are."""
        return Judges(encoder(self.encoder) if self.min_similarity else None, filler(self.masked_lm))

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: models by content, not by place."""
        compared = model_digest(self.encoder) if self.min_similarity else None
        return settings_of(self, masked_lm=model_digest(self.masked_lm), encoder=compared)

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts and questions, receive answers, return what happened."""
        words = changeable_words(example.text, self.columns)
        open_words = [i for i, word in enumerate(words) if not is_stop_word(word.text)]

        hidden = {i: rewrite(example.text, words, {i: self.mask}) for i in open_words}
        ledger = Ledger(self.query_limit)
        begun = yield from opened(example, hidden, ledger)
        if begun is None:
            return ledger.outcome(example, "missed")
        odds, order = begun
        alike = Alike(example, words, self.min_similarity, 0)

        def propose(i: int, changes: Mapping[int, str]) -> Generator[Ask, Any, Mapping[str, float]]:
            word = words[i]
            filled: Filled = yield Fill(
                example.text, word.column, word.start, word.end, top=self.k, masked=False
            )
            fit = [other for other, _ in filled if is_one_word(other) and not is_stop_word(other)]
            return (yield from alike.filter(i, in_case_of(word.text, fit), changes, before={}))

        most = most_words(self.max_share, len(words))
        return (yield from change_in_order(example, words, order, propose, ledger, odds=odds, most=most))
