"""What a changed word or text must satisfy: small checks that attacks compose."""

import math
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from typing import Any, Protocol

from hardtack.evaluation.attacks.protocol import Similar, Texts
from hardtack.evaluation.attacks.words import edit_distance, is_stop_word

Check = Callable[[Sequence[str], int, Sequence[str]], list[bool]]
"""Called with a text's words, the number of one and what may stand in its place: says which of that may."""


class Thesaurus(Protocol):
    """Knows synonyms and parts of speech."""

    @property
    def digest(self) -> str:
        """What names it in a result row."""
        ...

    def synonyms(self, word: str, pos: str | None = None) -> list[str]:
        """Return the words that share a meaning with a word, itself left out."""
        ...

    def pos(self, word: str) -> frozenset[str]:
        """Return a word's possible parts of speech, of n v a r; none for an unknown word."""
        ...


class Space(Protocol):
    """Word vectors."""

    @property
    def digest(self) -> str:
        """What names it in a result row."""
        ...

    def cosine(self, a: str, b: str) -> float | None:
        """Return the cosine of two words' vectors; None where one has none."""
        ...

    def nearest(self, word: str, k: int) -> list[tuple[str, float]]:
        """Return the k nearest words with their cosines, best first; none for an unknown word."""
        ...


def permitted(
    checks: Iterable[Check], original: Sequence[str], number: int, candidates: Sequence[str]
) -> list[str]:
    """Return the candidates that every check lets stand in the place of word `number`, in their order."""
    left = list(candidates)
    for check in checks:
        left = [word for word, fits in zip(left, check(original, number, left), strict=True) if fits]
    return left


def no_stop_words(original: Sequence[str], number: int, candidates: Sequence[str]) -> list[bool]:
    """Check that no function word is replaced, and none becomes a replacement."""
    if is_stop_word(original[number]):
        return [False] * len(candidates)
    return [not is_stop_word(word) for word in candidates]


def not_again(changed: Collection[int]) -> Check:
    """Return a check that no word is changed twice; `changed` is looked at anew each time."""

    def check(original: Sequence[str], number: int, candidates: Sequence[str]) -> list[bool]:
        return [number not in changed] * len(candidates)

    return check


def same_part_of_speech(wordnet: Thesaurus, *, swap_nouns_and_verbs: bool = True) -> Check:
    """Return a check that a candidate can be a part of speech that the original word can be.

    It knows no context: "film" is noun and verb wherever it stands. A word that WordNet lacks counts as a
    noun, as most words are that a dictionary lacks (names, new words).

    Args:
        wordnet: knows the parts of speech.
        swap_nouns_and_verbs: nouns and verbs may stand for each other, as in TextFooler.
    """

    def kinds(word: str) -> frozenset[str]:
        found = wordnet.pos(word.lower()) or frozenset("n")
        return found | set("nv") if swap_nouns_and_verbs and found & set("nv") else found

    def check(original: Sequence[str], number: int, candidates: Sequence[str]) -> list[bool]:
        wanted = kinds(original[number])
        return [bool(wanted & kinds(word)) for word in candidates]

    return check


def near_in(vectors: Space, least: float) -> Check:
    """Return a check that a candidate's vector has at least this cosine with the original word's.

    Words without a vector are not near anything.
    """

    def check(original: Sequence[str], number: int, candidates: Sequence[str]) -> list[bool]:
        found = [vectors.cosine(original[number].lower(), word.lower()) for word in candidates]
        return [cosine is not None and cosine >= least for cosine in found]

    return check


def within_edits(most: int) -> Check:
    """Return a check that a candidate is at most so many Levenshtein edits from the original word."""

    def check(original: Sequence[str], number: int, candidates: Sequence[str]) -> list[bool]:
        return [edit_distance(original[number], word, most) <= most for word in candidates]

    return check


def most_words(share: float, words: int) -> int:
    """Return how many of so many words may change when a share of them may.

    >>> most_words(0.4, 5), most_words(0.4, 6), most_words(0.1, 30)
    (2, 3, 3)
    """
    return math.ceil(round(share * words, 9))  # 0.1 * 30 is a little more than 3


def similar_enough(
    original: Texts, candidates: Sequence[Texts], least: float
) -> Generator[Similar, Any, list[float | None]]:
    """Return each candidate's similarity to the original, or None where it is below the least."""
    if not candidates:
        return []
    cosines = yield Similar(original, tuple(candidates))
    return [cosine if cosine >= least else None for cosine in cosines.tolist()]
