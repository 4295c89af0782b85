"""Words inside raw text: where they are, which are function words, how a text reads with some replaced."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import Columns, Texts

# Letters and digits; apostrophes, hyphens and underscores belong to a word when they stand inside it.
_WORD = re.compile(r"[^\W_]+(?:['’_-][^\W_]+)*")

# English function words, written down by word class; endings such as the "t" of "don 't" stand alone in split
# text.
STOP_WORDS = frozenset(
    # articles, determiners, quantifiers
    "a an the this that these those each every either neither both all any some no such same other another "
    "own few more most much many"
    # pronouns
    " i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it "
    "its itself we us our ours ourselves they them their theirs themselves one who whom whose which what"
    # prepositions
    " of in on at by for with about against between among into through during before after above below to "
    "from up down out off over under within without upon onto toward towards until till since as per via"
    # conjunctions and connecting adverbs
    " and or but nor so yet if because while although though unless whether than then else when where why "
    "how there here again once further also too very just only not now ever never"
    # auxiliaries
    " am is are was were be been being have has had having do does did doing done can could will would "
    "shall should may might must ought cannot"
    # contractions, whole and as tokenisers split them
    " i'm you're he's she's it's we're they're i've you've we've they've i'd you'd he'd she'd we'd they'd "
    "i'll you'll he'll she'll we'll they'll isn't aren't wasn't weren't hasn't haven't hadn't doesn't "
    "don't didn't won't wouldn't shan't shouldn't can't couldn't mustn't mightn't needn't let's that's "
    "who's what's here's there's n't ca wo sha ai don didn doesn isn aren wasn weren hasn haven hadn "
    "couldn wouldn shouldn mustn needn s t d m ll re ve o y ma".split()
)


class Word(NamedTuple):
    """One word of a text: its column, its place there (characters start to end) and itself."""

    column: int
    start: int
    end: int
    text: str


def is_stop_word(word: str) -> bool:
    """Say whether a word is an English function word, whatever its case and kind of apostrophe."""
    return word.lower().replace("’", "'") in STOP_WORDS


def changeable_words(texts: Texts, columns: Columns) -> list[Word]:
    """Return the words of the columns that an attack may change, in reading order."""
    if columns == "second" and len(texts) < 2:
        raise InputError("columns = 'second' needs texts of two columns; these have one, allowed: all, first")
    chosen = {"all": range(len(texts)), "first": range(1), "second": range(1, 2)}[columns]
    return [Word(c, m.start(), m.end(), m.group()) for c in chosen for m in _WORD.finditer(texts[c])]


def rewrite(texts: Texts, words: list[Word], changes: Mapping[int, str]) -> Texts:
    """Return the texts with word number i replaced by changes[i]; every other character stays.

    >>> rewrite(("a good film",), changeable_words(("a good film",), "all"), {1: "fine"})
    ('a fine film',)
    """
    pieces: list[list[str]] = [[] for _ in texts]
    done = [0] * len(texts)
    for i in sorted(changes):
        word = words[i]
        pieces[word.column] += [texts[word.column][done[word.column] : word.start], changes[i]]
        done[word.column] = word.end
    return tuple("".join(p) + text[d:] for p, text, d in zip(pieces, texts, done, strict=True))


def without(texts: Texts, word: Word) -> Texts:
    """Return the texts with one word deleted, and with it one of the spaces around it.

    >>> without(("a good film",), Word(0, 2, 6, "good"))
    ('a film',)
    """
    text = texts[word.column]
    left, right = text[: word.start], text[word.end :]
    if right[:1] == " " and (not left or left[-1] == " "):
        right = right[1:]
    elif not right and left[-1:] == " ":
        left = left[:-1]
    return (*texts[: word.column], left + right, *texts[word.column + 1 :])


def edit_distance(a: str, b: str, limit: int) -> int:
    """Return the Levenshtein distance of two strings, or limit + 1 when it is larger than limit.

    Only the diagonal band that a distance within the limit can touch is filled, so long texts stay cheap.

    >>> edit_distance("kitten", "sitting", 5), edit_distance("kitten", "sitting", 2)
    (3, 3)
    """
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    beyond = limit + 1
    above = [min(j, beyond) for j in range(len(b) + 1)]
    for i, x in enumerate(a, start=1):
        low, high = max(1, i - limit), min(len(b), i + limit)
        row = [beyond] * (len(b) + 1)
        row[0] = min(i, beyond)
        for j in range(low, high + 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != b[j - 1]), beyond)
        above = row
    return above[len(b)]
