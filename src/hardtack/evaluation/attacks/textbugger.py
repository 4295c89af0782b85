"""TextBugger: changes important words by typing mistakes, look-alike letters and neighbours."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError
from hardtack.evaluation.attacks.greedy import Alike, change_in_order, in_case_of, opened
from hardtack.evaluation.attacks.neighbours import NeighbourTable, load_neighbours, neighbours_of
from hardtack.evaluation.attacks.protocol import (
    Ask,
    Columns,
    Encoder,
    Judges,
    Ledger,
    Queries,
)
from hardtack.evaluation.attacks.sources import encoder, model_digest, settings_of, space
from hardtack.evaluation.attacks.words import changeable_words, is_stop_word, without
from hardtack.evaluation.constraints import Space
from hardtack.tasks.task import Example

# Letters of other scripts, or digits, that look like the letter; a letter without one has no entry.
LOOK_ALIKES: Mapping[str, str] = {
    **dict(zip("aceijopsxy", "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443", strict=True)),
    **dict(zip("dghnquvw", "\u0501\u0261\u04bb\u0578\u051b\u057d\u0475\u051d", strict=True)),
    **dict(zip("ABCEHIJKMOPSTXY", "АВСЕНІЈКМОРЅТХУ", strict=True)),
    **dict(zip("lbfkmrtz", "16\u0192\u03ba\u043c\u0433\u03c42", strict=True)),
    **dict(zip("0135", "OlЗЅ", strict=True)),
}


@dataclass(frozen=True)
class TextBugger:
    """Changes important words by typing mistakes, look-alike letters and neighbours.

    Li, Ji, Du, Li, Wang: TextBugger: Generating Adversarial Text Against Real-world Applications, NDSS 2019,
    arXiv 1812.05271, the black-box attack:

    1. every word is deleted in turn; the words are ordered by how much that lowers the odds of the true
       class. Function words stay;
    2. a word's bugs: a space inserted, an inner letter deleted, two inner neighbours swapped (one place drawn
       for each), every letter in turn replaced by a look-alike, and its 5 nearest neighbours among word
       vectors;
    3. the bugs that keep the whole text similar to the original (cosine 0.8 of sentence embeddings) are
       asked. Where some change the prediction, the most similar one is the answer; else the best is kept if
       it lowers the odds.

    The name says `minilm` because the sentence encoder is a local MiniLM (or the one named) and not the
    Universal Sentence Encoder: numbers are no TextBugger numbers of a paper.

    Differs from the paper: sentences of a long text are not ranked first; spaces go into words of any length,
    and words of four letters are swapped too; look-alikes come from other scripts or are digits, and
    neighbours on the keyboard do not stand in for them (the first two as in TextAttack 0.3.11). Neighbours
    come from a table or from counter-fitted vectors, as in TextAttack, where the paper takes GloVe. Differs
    from TextAttack: our own list of function words and of look-alikes; the places are drawn for all words
    before the first query.
    """

    name: ClassVar[str] = "textbugger-minilm"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes

    neighbours: str | Path | Mapping[str, Sequence[str]] | None = field(
        default=None, metadata={"help": "jsonl file of {word, neighbors} lines, instead of word vectors"}
    )
    vectors: Path | Space | None = field(
        default=None, metadata={"help": "file of word vectors; by default that of the resources"}
    )
    encoder: Path | Encoder | None = field(
        default=None, metadata={"help": "folder of a sentence encoder; by default the packaged MiniLM"}
    )
    max_neighbours: int = field(default=5, metadata={"help": "neighbours tried per word; 0 = none at all"})
    min_similarity: float = field(
        default=0.8, metadata={"help": "smallest cosine of sentence embeddings; 0 = not compared"}
    )
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example; 0 = no limit"}
    )
    columns: Columns = field(
        default="all", metadata={"help": "which column of a pair may change: all, first or second"}
    )

    def __post_init__(self):
        if self.max_neighbours < 0 or self.query_limit < 0:
            raise InputError(
                "max_neighbours and query_limit: 0 and more are allowed, not "
                f"{self.max_neighbours} and {self.query_limit}"
            )
        if not 0 <= self.min_similarity <= 1:
            raise InputError(f"min_similarity = {self.min_similarity}; allowed: 0 to 1")
        if self.neighbours is not None and self.vectors is not None:
            raise InputError("neighbours and vectors are both given; allowed: one of them")
        _ = self.near  # a resource that is missing is missed here, not at the first example

    @cached_property
    def near(self) -> NeighbourTable | Space | None:
        """What neighbours come from, opened once; None where none are tried."""
        if self.max_neighbours == 0:
            return None
        given = self.neighbours
        if given is None:
            return space(self.vectors)
        return neighbours_of(given) if isinstance(given, Mapping) else load_neighbours(Path(given))

    def judges(self) -> Judges:
        """Return what answers how similar two texts are."""
        return Judges(encoder=encoder(self.encoder) if self.min_similarity else None)

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: resources by content, not by place."""
        digest = self.near.digest if self.near is not None else None
        table = isinstance(self.near, NeighbourTable)
        return settings_of(
            self,
            neighbours=digest if table else None,
            vectors=None if table else digest,
            encoder=model_digest(self.encoder),
        )

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts and questions, receive answers, return what happened."""
        words = changeable_words(example.text, self.columns)
        # Drawn for every word, in reading order, whatever the model answers later.
        typed = {i: typing_bugs(w.text, rng) for i, w in enumerate(words) if not is_stop_word(w.text)}
        bugs = {i: [*some, *self.swaps(words[i].text)] for i, some in typed.items()}
        open_words = [i for i, options in bugs.items() if options]

        hidden = {i: without(example.text, words[i]) for i in open_words}
        ledger = Ledger(self.query_limit)
        begun = yield from opened(example, hidden, ledger)
        if begun is None:
            return ledger.outcome(example, "missed")
        odds, order = begun
        alike = Alike(example, words, self.min_similarity, 0)

        def propose(i: int, changes: Mapping[int, str]) -> Generator[Ask, Any, Mapping[str, float]]:
            return alike.filter(i, bugs[i], changes, before={})

        return (yield from change_in_order(example, words, order, propose, ledger, odds=odds))

    def swaps(self, word: str) -> list[str]:
        """Return the neighbours that may stand in a word's place, nearest first, in the word's case."""
        if self.near is None:
            return []
        if isinstance(self.near, NeighbourTable):
            near = self.near.entries.get(word.lower(), ())[: self.max_neighbours]
        else:
            near = [other for other, _ in self.near.nearest(word.lower(), self.max_neighbours)]
        return in_case_of(word, near)


def typing_bugs(word: str, rng: torch.Generator) -> list[str]:
    """Return a space inserted, a deletion and a swap at drawn inner places, and every look-alike."""
    n, bugs = len(word), []
    if n > 2:
        space, hole = (1 + int(torch.randint(n - 2, (), generator=rng)) for _ in range(2))
        bugs += [word[:space] + " " + word[space:], word[:hole] + word[hole + 1 :]]
    if n > 3:
        k = 1 + int(torch.randint(n - 3, (), generator=rng))
        bugs.append(word[:k] + word[k + 1] + word[k] + word[k + 2 :])
    bugs += [
        word[:k] + LOOK_ALIKES[letter] + word[k + 1 :]
        for k, letter in enumerate(word)
        if letter in LOOK_ALIKES
    ]
    return [bug for bug in dict.fromkeys(bugs) if bug != word]
