"""BAE: replaces important words by what a masked language model would put there."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError
from hardtack.evaluation.attacks.greedy import (
    Alike,
    change_in_order,
    in_case_of,
    is_one_word,
    opened,
    place_of,
)
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
from hardtack.evaluation.attacks.sources import encoder, filler, model_digest, settings_of, thesaurus
from hardtack.evaluation.attacks.words import changeable_words, is_stop_word, rewrite, without
from hardtack.evaluation.constraints import Thesaurus, same_part_of_speech
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class BAE:
    """Replaces important words by what a masked language model would put there.

    Garg, Ramakrishnan: BAE: BERT-based Adversarial Examples for Text Classification, EMNLP 2020, arXiv
    2004.01970, in its mode R (replace; nothing is inserted):

    1. every word is deleted in turn; the words are ordered by how much that lowers the odds of the true
       class. Function words stay;
    2. a word is masked in the text as it is by then; candidates are the 50 whole words that the language
       model finds likeliest there and that can be the same part of speech (nouns and verbs may stand for each
       other);
    3. of those, the ones whose change keeps 15 words around the word similar enough to the original (texts of
       fewer words are not compared) are asked. Where some change the prediction, the most similar one is the
       answer; else the best is kept if it lowers the odds.

    The name says `minilm` because the sentence encoder is a local MiniLM (or the one named) and not the
    Universal Sentence Encoder: numbers are no BAE numbers of a paper. The threshold is that of TextAttack
    0.3.11, cosine 0.9363: the paper's 0.8 corrected for an angle that its code does not divide by pi.

    Differs from the paper: similarity is measured against the original instead of the text before the change
    (the authors' own advice, followed by TextAttack); parts of speech are those that WordNet knows for both
    words instead of a tagger's in context. Differs from TextAttack: our own list of function words; the
    masked language model is named by the user, and reads the column that holds the word alone.
    """

    name: ClassVar[str] = "bae-minilm"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes

    masked_lm: Path | Filler = field(metadata={"help": "folder of a masked language model, such as BERT"})
    wordnet: Path | Thesaurus | None = field(
        default=None, metadata={"help": "folder of WordNet's data files; by default that of the resources"}
    )
    encoder: Path | Encoder | None = field(
        default=None, metadata={"help": "folder of a sentence encoder; by default the packaged MiniLM"}
    )
    max_candidates: int = field(default=50, metadata={"help": "likeliest words looked at per word"})
    min_similarity: float = field(
        default=0.9363, metadata={"help": "smallest cosine of sentence embeddings; 0 = not compared"}
    )
    window: int = field(default=15, metadata={"help": "words compared around a change; 0 = the whole text"})
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
        if self.window < 0 or self.query_limit < 0:
            raise InputError(f"window = {self.window}, query_limit = {self.query_limit}; allowed: 0 and more")
        _ = self.kinds  # a resource that is missing is missed here, not at the first example

    @cached_property
    def kinds(self) -> Thesaurus:
        """WordNet, opened once."""
        return thesaurus(self.wordnet)

    def judges(self) -> Judges:
        """Return what answers which words fit a place and how similar two texts are."""
        return Judges(encoder(self.encoder) if self.min_similarity else None, filler(self.masked_lm))

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: resources by content, not by place."""
        return settings_of(
            self,
            masked_lm=model_digest(self.masked_lm),
            wordnet=self.kinds.digest,
            encoder=model_digest(self.encoder),
        )

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts and questions, receive answers, return what happened."""
        words = changeable_words(example.text, self.columns)
        open_words = [i for i, word in enumerate(words) if not is_stop_word(word.text)]

        hidden = {i: without(example.text, words[i]) for i in open_words}
        ledger = Ledger(self.query_limit)
        begun = yield from opened(example, hidden, ledger)
        if begun is None:
            return ledger.outcome(example, "missed")
        odds, order = begun

        alike = Alike(example, words, self.min_similarity, self.window)

        def propose(i: int, changes: Mapping[int, str]) -> Generator[Ask, Any, Mapping[str, float]]:
            now = rewrite(example.text, words, changes)
            filled: Filled = yield Fill(now, *place_of(words, changes, i), top=self.max_candidates)
            options = in_case_of(words[i].text, (word for word, _ in filled if is_one_word(word)))
            same = same_part_of_speech(self.kinds)([words[i].text], 0, options)
            kept = [option for option, fits in zip(options, same, strict=True) if fits]
            return (yield from alike.filter(i, kept, changes, before={}))

        return (yield from change_in_order(example, words, order, propose, ledger, odds=odds))
