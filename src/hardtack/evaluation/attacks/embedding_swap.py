"""Embedding swap: replaces important words by neighbours in a space of word vectors, hardly checking the
meaning.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError
from hardtack.evaluation.attacks.greedy import Alike, change_in_order, in_case_of, opened
from hardtack.evaluation.attacks.protocol import (
    Ask,
    Columns,
    Encoder,
    Judges,
    Ledger,
    Queries,
)
from hardtack.evaluation.attacks.sources import encoder, model_digest, settings_of, space, thesaurus
from hardtack.evaluation.attacks.words import changeable_words, is_stop_word, without
from hardtack.evaluation.constraints import Space, Thesaurus, same_part_of_speech
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class EmbeddingSwap:
    """Replaces important words by neighbours in a space of word vectors, hardly checking the meaning.

    What Zheng et al. (Robust Lottery Tickets for Pre-trained Language Models, ACL 2022) and Xi et al.
    (Efficient Adversarial Training with Robust Early-Bird Tickets, EMNLP 2022) list as BERT-Attack: the code
    of both takes TextAttack's BAE recipe, puts neighbours of counter-fitted vectors in the place of BERT's
    proposals and a weak limit on sentence similarity in the place of BAE's. No BERT proposes a word, hence
    the name here:

    1. every word with candidates is deleted in turn; the words are ordered by how much that lowers the odds
       of the true class. Function words stay;
    2. candidates of a word: its 50 nearest neighbours, however far, that can be the same part of speech
       (nouns and verbs may stand for each other);
    3. of those, the ones that keep the whole text similar to the original (cosine 0.2) are asked. Where some
       change the prediction, the most similar one is the answer; else the best is kept if it lowers the odds.

    Differs from the two papers' code: the sentence encoder is a local MiniLM (or the one named), not the
    Universal Sentence Encoder; parts of speech are those that WordNet knows for both words instead of a
    tagger's in context; our own list of function words; words without candidates are not asked about.
    """

    name: ClassVar[str] = "embedding_swap"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes

    vectors: Path | Space | None = field(
        default=None, metadata={"help": "file of word vectors; by default that of the resources"}
    )
    wordnet: Path | Thesaurus | None = field(
        default=None, metadata={"help": "folder of WordNet's data files; by default that of the resources"}
    )
    encoder: Path | Encoder | None = field(
        default=None, metadata={"help": "folder of a sentence encoder; by default the packaged MiniLM"}
    )
    max_candidates: int = field(default=50, metadata={"help": "nearest neighbours looked at per word"})
    min_similarity: float = field(
        default=0.2, metadata={"help": "smallest cosine of sentence embeddings; 0 = not compared"}
    )
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example; 0 = no limit"}
    )
    columns: Columns = field(
        default="all", metadata={"help": "which column of a pair may change: all, first or second"}
    )

    def __post_init__(self):
        if self.max_candidates < 1:
            raise InputError(f"max_candidates = {self.max_candidates}; allowed: 1 and more")
        if not 0 <= self.min_similarity <= 1:
            raise InputError(f"min_similarity = {self.min_similarity}; allowed: 0 to 1")
        if self.query_limit < 0:
            raise InputError(f"query_limit = {self.query_limit}; allowed: 0 (no limit) and more")
        _ = self.space, self.kinds  # a resource that is missing is missed here, not at the first example

    @cached_property
    def space(self) -> Space:
        """The word vectors, opened once."""
        return space(self.vectors)

    @cached_property
    def kinds(self) -> Thesaurus:
        """WordNet, opened once."""
        return thesaurus(self.wordnet)

    def judges(self) -> Judges:
        """Return what answers how similar two texts are."""
        return Judges(encoder=encoder(self.encoder) if self.min_similarity else None)

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: resources by content, not by place."""
        return settings_of(
            self,
            vectors=self.space.digest,
            wordnet=self.kinds.digest,
            encoder=model_digest(self.encoder),
        )

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts and questions, receive answers, return what happened."""
        words = changeable_words(example.text, self.columns)
        swaps = {i: self.swaps(word.text) for i, word in enumerate(words) if not is_stop_word(word.text)}
        open_words = [i for i, options in swaps.items() if options]

        hidden = {i: without(example.text, words[i]) for i in open_words}
        ledger = Ledger(self.query_limit)
        begun = yield from opened(example, hidden, ledger)
        if begun is None:
            return ledger.outcome(example, "missed")
        odds, order = begun

        alike = Alike(example, words, self.min_similarity, 0)

        def propose(i: int, changes: Mapping[int, str]) -> Generator[Ask, Any, Mapping[str, float]]:
            return alike.filter(i, swaps[i], changes, before={})

        return (yield from change_in_order(example, words, order, propose, ledger, odds=odds))

    def swaps(self, word: str) -> list[str]:
        """Return the neighbours that may stand in a word's place, nearest first, in the word's case."""
        near = self.space.nearest(word.lower(), self.max_candidates)
        options = in_case_of(word, (other for other, _ in near))
        same = same_part_of_speech(self.kinds)([word], 0, options)
        return [option for option, kept in zip(options, same, strict=True) if kept]
