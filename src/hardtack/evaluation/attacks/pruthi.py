"""Pruthi: fools a classifier with one typing mistake inside one word, or a few."""

import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import Columns, Ledger, Queries, Texts, best_candidate, predicted
from hardtack.evaluation.attacks.words import Word, changeable_words, is_stop_word, rewrite
from hardtack.tasks.task import Example

# Where keys stand: rows from above, and how far a row is shifted to the right, in quarters of a key.
KEYS = {
    letter: (row, 4 * place + shift)
    for row, (letters, shift) in enumerate((("qwertyuiop", 0), ("asdfghjkl", 1), ("zxcvbnm", 3)))
    for place, letter in enumerate(letters)
}


@dataclass(frozen=True)
class Pruthi:
    """Fools a classifier with one typing mistake inside one word, or a few.

    Pruthi, Dhingra, Lipton: Combating Adversarial Misspellings with Robust Word Recognition, ACL 2019, arXiv
    1905.11268. Only the inner letters of words of at least four characters change, never function words:

    1. every such word gets every edit of four kinds: two neighbouring inner characters swapped, one inner
       character deleted, one inserted before it, one replaced by a neighbour on the keyboard;
    2. all of them are asked; the text with the lowest odds of the true class is kept, better or not;
    3. while `max_words` allows it, steps 1 and 2 are repeated on the words not changed yet.

    The attack ends when the prediction changes. With one word allowed (the paper's one-character attack and
    the default of TextAttack's recipe) it is a complete search of that neighbourhood, but for the insertion.

    Differs from the paper: an inserted letter is drawn, one for each place, as in TextAttack 0.3.11; the
    paper's order in which edits are tried, which decides nothing but queries, is not kept. Differs from
    TextAttack: our own list of function words; neighbours on the keyboard follow from where the keys stand,
    where its table slips at two of them (x beside a, and d in the place of f beside g); the drawn letters are
    drawn for the whole text before the first query, not anew in each round.
    """

    name: ClassVar[str] = "pruthi"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes

    max_words: int = field(default=1, metadata={"help": "most words changed, one edit each"})
    min_length: int = field(default=4, metadata={"help": "shortest word that may change, in characters"})
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example; 0 = no limit"}
    )
    columns: Columns = field(
        default="all", metadata={"help": "which column of a pair may change: all, first or second"}
    )

    def __post_init__(self):
        if self.max_words < 1:
            raise InputError(f"max_words = {self.max_words}; allowed: 1 and more")
        if self.min_length < 3:
            raise InputError(f"min_length = {self.min_length}; allowed: 3 (one inner letter) and more")
        if self.query_limit < 0:
            raise InputError(f"query_limit = {self.query_limit}; allowed: 0 (no limit) and more")

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row."""
        return {"name": self.name, "version": self.version, **asdict(self)}

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts, receive their logits, return what happened."""
        words = changeable_words(example.text, self.columns)
        # Drawn for every word, in reading order, whatever the model answers later.
        edits = {
            i: inner_edits(word.text, rng)
            for i, word in enumerate(words)
            if len(word.text) >= self.min_length and not is_stop_word(word.text)
        }

        ledger = Ledger(self.query_limit)
        logits = yield ledger.afford([example.text])
        if predicted(logits[0]) != example.label:
            return ledger.outcome(example, "missed")

        changes: dict[int, str] = {}
        for _ in range(self.max_words):
            tried = one_more_edit(example.text, words, changes, edits)
            candidates = ledger.afford(list(tried))
            if not candidates:
                break
            logits = yield candidates
            best, _odds = best_candidate(logits, example.label)
            if predicted(logits[best]) != example.label:
                return ledger.outcome(example, "fell", candidates[best])
            changes = tried[candidates[best]]
        return ledger.outcome(example, "held")


def one_more_edit(
    text: Texts, words: list[Word], changes: Mapping[int, str], edits: Mapping[int, list[list[str]]]
) -> dict[Texts, dict[int, str]]:
    """Return every text with one more word edited: all words by one kind of edit, then the next kind."""
    tried: dict[Texts, dict[int, str]] = {}
    for kind in range(4):
        for i, kinds in edits.items():
            for edit in kinds[kind] if i not in changes else ():
                changed = {**changes, i: edit}
                tried.setdefault(rewrite(text, words, changed), changed)
    return tried


def inner_edits(word: str, rng: torch.Generator) -> list[list[str]]:
    """Return all edits of a word's inner characters by kind: swap, deletion, insertion, keyboard.

    An insertion puts one drawn letter before an inner character. The word itself is never among them.
    """
    inner = range(1, len(word) - 1)
    drawn = torch.randint(len(string.ascii_letters), (len(inner),), generator=rng).tolist()
    letters = [string.ascii_letters[k] for k in drawn]
    swaps = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in inner[:-1]]
    deletions = [word[:i] + word[i + 1 :] for i in inner]
    insertions = [word[:i] + letter + word[i:] for i, letter in zip(inner, letters, strict=True)]
    keyboard = [word[:i] + key + word[i + 1 :] for i in inner for key in keys_beside(word[i])]
    return [
        [edit for edit in dict.fromkeys(kind) if edit != word]
        for kind in (swaps, deletions, insertions, keyboard)
    ]


def keys_beside(letter: str) -> list[str]:
    """Return the letters beside one on an English keyboard, in the letter's case, row by row.

    Beside are keys at most one row away whose middles are at most 1 1/4 keys apart sideways.

    >>> "".join(keys_beside("s")), "".join(keys_beside("P")), keys_beside("é")
    ('qweadzx', 'OL', [])
    """
    if (place := KEYS.get(letter.lower())) is None:
        return []
    beside = [
        other
        for other, (row, middle) in KEYS.items()
        if abs(row - place[0]) <= 1 and abs(middle - place[1]) <= 5 and other != letter.lower()
    ]
    return [other.upper() if letter.isupper() else other for other in beside]
