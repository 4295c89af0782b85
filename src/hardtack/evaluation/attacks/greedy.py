"""The search that most word attacks share: the most important words, one after another, each for the best."""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from hardtack.evaluation.attacks.protocol import (
    Ask,
    Ledger,
    Queries,
    Similar,
    Texts,
    by_importance,
    log_odds,
    predicted,
)
from hardtack.evaluation.attacks.words import Word, changeable_words, rewrite
from hardtack.tasks.task import Example

# (word number, changes so far) -> what may stand there, each with its similarity to the text it replaces.
Propose = Callable[[int, Mapping[int, str]], Generator[Ask, Any, Mapping[str, float]]]


def opened(
    example: Example, hidden: Mapping[int, Texts], ledger: Ledger
) -> Generator[Ask, Any, tuple[float, list[int]] | None]:
    """Ask the original, then order words by importance; None where the original is wrong already.

    Args:
        example: what is attacked.
        hidden: word number -> the text with that word hidden.
        ledger: pays for the queries.

    Returns:
        The log odds of the true class for the original, and the word numbers, most important first.
    """
    logits: Tensor = yield ledger.afford([example.text])
    if predicted(logits[0]) != example.label:
        return None
    odds = float(log_odds(logits, example.label)[0])
    return odds, (yield from by_importance(hidden, example.label, ledger))


def change_in_order(
    example: Example,
    words: list[Word],
    order: Iterable[int],
    propose: Propose,
    ledger: Ledger,
    *,
    odds: float,
    most: int = 0,
) -> Queries:
    """Change words in order, keeping for each the best proposal that lowers the odds of the true class.

    It ends when the prediction changes. Of several proposals that change it, the most similar one is taken;
    of equally similar ones that with the lowest odds, the first of equals.

    Args:
        example: what is attacked.
        words: its changeable words.
        order: their numbers, most important first.
        propose: gives the proposals for one word.
        ledger: pays for the queries.
        odds: log odds of the true class for the original.
        most: how many words may change; 0 = any number.
    """
    changes: dict[int, str] = {}
    for i in order:
        if most and len(changes) == most:
            break
        options = yield from propose(i, changes)
        tried = {rewrite(example.text, words, {**changes, i: option}): option for option in options}
        candidates = ledger.afford(list(tried))
        if not candidates:
            continue
        logits: Tensor = yield candidates
        levels = log_odds(logits, example.label).tolist()
        fooling = [k for k in range(len(candidates)) if predicted(logits[k]) != example.label]
        if fooling:
            best = max(fooling, key=lambda k: (options[tried[candidates[k]]], -levels[k]))
            return ledger.outcome(example, "fell", candidates[best])
        best = min(range(len(candidates)), key=levels.__getitem__)
        if levels[best] < odds:
            odds = levels[best]
            changes[i] = tried[candidates[best]]
    return ledger.outcome(example, "held")


def fixed(options: Mapping[int, Sequence[str]]) -> Propose:
    """Propose what was chosen beforehand, all of it equally similar."""

    def propose(i: int, changes: Mapping[int, str]) -> Generator[Ask, Any, Mapping[str, float]]:
        yield from ()
        return dict.fromkeys(options[i], 0.0)

    return propose


class Alike(NamedTuple):
    """Filters what may stand in a word's place by how similar the text stays.

    Texts are compared over `size` words around the word; a column of fewer words is not compared at all, as
    in TextFooler, and every option then counts as equally similar. Size 0 compares whole texts, however
    short; least 0 compares nothing.
    """

    example: Example
    words: list[Word]
    least: float  # smallest cosine of sentence embeddings
    size: int

    def filter(
        self, i: int, options: Sequence[str], changes: Mapping[int, str], *, before: Mapping[int, str]
    ) -> Generator[Ask, Any, dict[str, float]]:
        """Return the options for word i that keep the text similar, each with its similarity.

        Args:
            i: the number of the word.
            options: what may stand in its place.
            changes: what has been changed so far.
            before: the changes of the text that is compared with: none for the original.
        """
        text, words = self.example.text, self.words
        short = sum(word.column == words[i].column for word in words) < self.size
        if not options or self.least == 0 or short:
            return dict.fromkeys(options, 0.0)
        changed = (
            excerpt(text, words, {**changes, i: option}, around=i, size=self.size) for option in options
        )
        reference = excerpt(text, words, before, around=i, size=self.size)
        cosines: Tensor = yield Similar(reference, tuple(changed))
        found = zip(options, cosines.tolist(), strict=True)
        return {option: cosine for option, cosine in found if cosine >= self.least}


def excerpt(text: Texts, words: list[Word], changes: Mapping[int, str], *, around: int, size: int) -> Texts:
    """Return the part of one column that holds `size` words around a word, with the changes made.

    The word stands in the middle, except near an end of the text, where the part begins or ends with it. A
    column of no more words than that is returned whole; size 0 asks for the whole of all columns.

    >>> words = [Word(0, 0, 1, "a"), Word(0, 2, 3, "b"), Word(0, 4, 5, "c"), Word(0, 6, 7, "d")]
    >>> excerpt(("a b c d",), words, {2: "x"}, around=2, size=2)
    ('b x',)
    """
    column = words[around].column
    inside = [i for i, word in enumerate(words) if word.column == column]
    if not size:
        return rewrite(text, words, changes)
    if len(inside) <= size:
        return rewrite(text, words, changes)[column : column + 1]
    first = min(max(around - size // 2, inside[0]), inside[-1] + 1 - size)
    start, end = words[first].start, words[first + size - 1].end
    kept = [word._replace(column=0, start=word.start - start, end=word.end - start) for word in words]
    held = {i: change for i, change in changes.items() if first <= i < first + size}
    return rewrite((text[column][start:end],), kept, held)


def in_case_of(word: str, options: Iterable[str]) -> list[str]:
    """Return the options in the case of a word (all upper, capitalised, or as they stand), each once.

    The word itself is never among them.

    >>> in_case_of("GOOD", ["fine", "good"]), in_case_of("Good", ["fine"]), in_case_of("good", ["fine"])
    (['FINE'], ['Fine'], ['fine'])
    """

    def cased(option: str) -> str:
        if len(word) > 1 and word.isupper():
            return option.upper()
        return option[:1].upper() + option[1:] if word[:1].isupper() else option

    return [option for option in dict.fromkeys(map(cased, options)) if option != word]


def place_of(words: list[Word], changes: Mapping[int, str], i: int) -> tuple[int, int, int]:
    """Return where word i stands (column, start, end) in the text with the changes made.

    >>> place_of([Word(0, 0, 4, "good"), Word(0, 5, 9, "film")], {0: "fine bit of"}, 1)
    (0, 12, 16)
    """
    word = words[i]
    moved = sum(
        len(change) - len(words[j].text)
        for j, change in changes.items()
        if words[j].column == word.column and words[j].start < word.start
    )
    start = word.start + moved
    return word.column, start, start + len(changes.get(i, word.text))


def is_one_word(text: str) -> bool:
    """Say whether a proposal is exactly one word with a letter in it.

    >>> is_one_word("well-made"), is_one_word("of course"), is_one_word("##ing"), is_one_word("1988")
    (True, False, False, False)
    """
    found = changeable_words((text,), "all")
    return len(found) == 1 and found[0].text == text and any(map(str.isalpha, text))
