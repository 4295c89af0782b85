"""HotFlip: exchanges the words for which the victim's own gradient promises most."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError
from hardtack.evaluation.attacks.greedy import in_case_of, place_of
from hardtack.evaluation.attacks.protocol import Columns, Flips, Ledger, Queries, log_odds, predicted
from hardtack.evaluation.attacks.sources import settings_of, space, thesaurus
from hardtack.evaluation.attacks.words import changeable_words, is_stop_word, rewrite
from hardtack.evaluation.constraints import Space, Thesaurus, same_part_of_speech
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class HotFlip:
    """Exchanges the words for which the victim's own gradient promises most (white box).

    Ebrahimi, Rao, Lowd, Dou: HotFlip: White-Box Adversarial Examples for Text Classification, ACL 2018, arXiv
    1712.06751, the attack on words (section 5), a beam search:

    1. for each text of the beam, one backward pass gives the gradient at every word's embedding; exchanging
       word a for word b is estimated to change the odds by gradient times (embedding of b - embedding of a)
       (the paper's eq. 1 for words);
    2. b comes from the words whose counter-fitted vector has cosine 0.8 and more with a's, and that can be
       the same part of speech. Function words stay, and no word changes twice;
    3. the 10 exchanges that promise most, over the whole beam, are asked and are the next beam;
    4. the attack ends when the prediction changes or two words have changed.

    Only words that are one token of the victim are exchanged, for words that are one token. Texts asked count
    as queries, backward passes do not. With `min_cosine` 0 any word of the vocabulary may come, whatever its
    part of speech: the strongest attack of its kind, and one that needs no resources.

    Differs from the paper: the ten are asked of the victim, not kept on the estimate alone; parts of speech
    are those that WordNet knows for both words instead of a tagger's in context; the odds of the true class
    take the place of the loss (the same direction, which does not vanish where the victim is sure). Differs
    from TextAttack 0.3.11: candidates are limited to the similar words first and ranked by gradient then,
    where it keeps the one best word of the whole vocabulary and drops it if it is not similar; our own list
    of function words.
    """

    name: ClassVar[str] = "hotflip"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes
    sees_gradients: ClassVar[bool] = True

    vectors: Path | Space | None = field(
        default=None, metadata={"help": "file of word vectors; by default that of the resources"}
    )
    wordnet: Path | Thesaurus | None = field(
        default=None, metadata={"help": "folder of WordNet's data files; by default that of the resources"}
    )
    min_cosine: float = field(
        default=0.8, metadata={"help": "smallest cosine of two words' vectors; 0 = any word may come"}
    )
    max_words: int = field(default=2, metadata={"help": "most words changed"})
    beam: int = field(default=10, metadata={"help": "texts kept, and exchanges asked, in each round"})
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example; 0 = no limit"}
    )
    columns: Columns = field(
        default="all", metadata={"help": "which column of a pair may change: all, first or second"}
    )

    def __post_init__(self):
        if not 0 <= self.min_cosine <= 1:
            raise InputError(f"min_cosine = {self.min_cosine}; allowed: 0 to 1")
        if self.max_words < 1 or self.beam < 1:
            raise InputError(f"max_words = {self.max_words}, beam = {self.beam}; allowed: 1 and more")
        if self.query_limit < 0:
            raise InputError(f"query_limit = {self.query_limit}; allowed: 0 (no limit) and more")
        _ = self.sources  # a resource that is missing is missed here, not at the first example

    @cached_property
    def sources(self) -> tuple[Space, Thesaurus] | None:
        """The word vectors and WordNet, opened once; None where any word may come."""
        return (space(self.vectors), thesaurus(self.wordnet)) if self.min_cosine else None

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: resources by content, not by place."""
        vectors, wordnet = self.sources or (None, None)
        return settings_of(self, vectors=vectors and vectors.digest, wordnet=wordnet and wordnet.digest)

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts and questions, receive answers, return what happened."""
        words = changeable_words(example.text, self.columns)
        near = {i: self.near(w.text) for i, w in enumerate(words) if not is_stop_word(w.text)}
        open_words = [i for i, options in near.items() if options or not self.sources]

        ledger = Ledger(self.query_limit)
        logits = yield ledger.afford([example.text])
        if predicted(logits[0]) != example.label:
            return ledger.outcome(example, "missed")

        beam: list[Mapping[int, str]] = [{}]
        for _ in range(self.max_words):
            promising: list[tuple[float, Mapping[int, str]]] = []
            for changes in beam:
                left = [i for i in open_words if i not in changes]
                if not left:
                    continue
                spans = tuple(place_of(words, changes, i) for i in left)
                text = rewrite(example.text, words, changes)
                found = yield Flips(text, example.label, spans, tuple(near[i] for i in left), self.beam)
                for i, options in zip(left, found, strict=True):
                    for option, fall in options:
                        changed = [{**changes, i: one} for one in in_case_of(words[i].text, [option])]
                        promising += [(fall, one) for one in changed]
            promising.sort(key=lambda pair: -pair[0])
            tried = {rewrite(example.text, words, changed): changed for _, changed in promising}
            candidates = ledger.afford(list(tried)[: self.beam])
            if not candidates:
                break
            logits = yield candidates
            levels = log_odds(logits, example.label).tolist()
            order = sorted(range(len(candidates)), key=levels.__getitem__)
            fooling = [k for k in order if predicted(logits[k]) != example.label]
            if fooling:
                return ledger.outcome(example, "fell", candidates[fooling[0]])
            beam = [tried[candidates[k]] for k in order]
        return ledger.outcome(example, "held")

    def near(self, word: str) -> tuple[str, ...]:
        """Return the words that may come for a word, nearest first; none where any word may."""
        if self.sources is None:
            return ()
        vectors, wordnet = self.sources
        options = [o for o, cosine in vectors.nearest(word.lower(), 50) if cosine >= self.min_cosine]
        same = same_part_of_speech(wordnet, swap_nouns_and_verbs=False)([word], 0, options)
        return tuple(option for option, kept in zip(options, same, strict=True) if kept)
