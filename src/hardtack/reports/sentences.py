"""Attacked examples side by side with the changed words marked."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from hardtack.reports.blocks import Attacked, Piece, Sentences
from hardtack.reports.folders import Row
from hardtack.reports.models import Group, Model

Pieces = tuple[Piece, ...]
WORDS = 80  # a longer text is shown only around what changed
AROUND = 12  # words shown on each side of a change
ALIGNED = 400  # changed stretches longer than this are marked as a whole: aligning them is quadratic
CHANGES = 12  # changes listed in words
FATES = (("held", "Held up"), ("fell", "Fell"), ("missed", "Wrong before the attack"))
TOKEN = re.compile(r"\s+|\S+")


def attacked(models: Sequence[Model], groups: Iterable[Group], *, count: int, seed: int) -> list[Sentences]:
    """Draw up to `count` examples that fell, for each attack; which ones follows from the seed alone."""
    found = []
    for group in groups:
        fallen: dict[str, tuple[Model, Row]] = {}
        fates: dict[str, dict[str, list[str]]] = {}
        for model in models:
            for entry in model.of(group)[:1]:  # one seed is enough to look at
                for name, outcome in entry.outcomes.items():
                    fates.setdefault(name, {}).setdefault(str(outcome["status"]), []).append(model.label)
                    if outcome["status"] == "fell" and outcome.get("original") and outcome.get("adversarial"):
                        fallen.setdefault(name, (model, outcome))
        if not fallen or count < 1:
            continue
        drawn = sorted(sorted(fallen, key=lambda name: _draw(seed, name))[:count], key=_in_order)
        size = f"{len(drawn)} of {len(fallen)} examples that fell"
        title = f"{group.name}: {size} for at least one model, drawn at random"
        found.append(Sentences(title, tuple(_example(name, *fallen[name], fates[name]) for name in drawn)))
    return found


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/sentences/{name}".encode(), digest_size=8).digest()


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sort test-9 before test-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _example(name: str, model: Model, outcome: Row, fates: dict[str, list[str]]) -> Attacked:
    pairs = [
        marked(a, b)
        for a, b in zip(_columns(outcome["original"]), _columns(outcome["adversarial"]), strict=False)
    ]
    changes = [change for before, after in pairs for change in _listed(before, after)]
    more = (f"and {len(changes) - CHANGES} more",) if len(changes) > CHANGES else ()
    told = tuple(f"{words}: {', '.join(fates[status])}" for status, words in FATES if status in fates)
    title = f"{name}: how {model.label} was fooled, after {outcome.get('queries', '?')} queries"
    return Attacked(
        title, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), (*changes[:CHANGES], *more), told
    )


def _columns(texts: object) -> list[str]:
    return [str(text) for text in texts] if isinstance(texts, list | tuple) else [str(texts)]


def marked(before: str, after: str) -> tuple[Pieces, Pieces]:
    """Split two texts into stretches that are equal and stretches that changed, word by word.

    >>> marked("a good film", "a goood film")[1]
    (Piece(text='a ', changed=False), Piece(text='goood', changed=True), Piece(text=' film', changed=False))
    """
    left, right = TOKEN.findall(before), TOKEN.findall(after)
    first = 0
    while first < min(len(left), len(right)) and left[first] == right[first]:
        first += 1
    last = 0
    while last < min(len(left), len(right)) - first and left[-1 - last] == right[-1 - last]:
        last += 1
    middle, theirs = left[first : len(left) - last], right[first : len(right) - last]
    marks = _marks(middle, theirs)
    sides = []
    for tokens, changed in ((left, marks[0]), (right, marks[1])):
        flags = [False] * first + changed + [False] * last
        sides.append(_pieces(_clipped(tokens, flags)))
    return sides[0], sides[1]


def _marks(left: Sequence[str], right: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Say of each token whether it changed."""
    if len(left) == len(right):  # substitutions in place, as most attacks make them
        pairs = [a != b for a, b in zip(left, right, strict=True)]
        return pairs, list(pairs)
    if max(len(left), len(right)) > ALIGNED:
        return [True] * len(left), [True] * len(right)
    changed = [True] * len(left), [True] * len(right)
    for a, b, size in SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
        changed[0][a : a + size] = [False] * size
        changed[1][b : b + size] = [False] * size
    return changed


def _clipped(tokens: Sequence[str], changed: Sequence[bool]) -> list[Piece]:
    """Leave out what is far from every change, where the text is long."""
    pieces = [Piece(token, flag) for token, flag in zip(tokens, changed, strict=True)]
    if len(tokens) <= 2 * WORDS:  # words and the spaces between them
        return pieces
    near = set()
    for place, flag in enumerate(changed):
        if flag:
            near.update(range(place - 2 * AROUND, place + 2 * AROUND + 1))
    if not near:
        near.update(range(2 * WORDS))
    kept, gap = [], False
    for place, piece in enumerate(pieces):
        if place in near:
            kept.append(piece)
        elif not gap:
            kept.append(Piece(" ... ", False))
        gap = place not in near
    return kept


def _pieces(tokens: Iterable[Piece]) -> Pieces:
    """Join neighbours of one kind; a space between two changed words stays unmarked."""
    found: list[Piece] = []
    for token in tokens:
        changed = token.changed and not token.text.isspace()
        if found and found[-1].changed == changed:
            found[-1] = Piece(found[-1].text + token.text, changed)
        else:
            found.append(Piece(token.text, changed))
    return tuple(found)


def _listed(before: Pieces, after: Pieces) -> list[str]:
    """List the changes in words, where both sides changed equally often."""
    left, right = ([piece.text for piece in side if piece.changed] for side in (before, after))
    if len(left) == len(right):
        return [f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in zip(left, right, strict=True)]
    return [f"removed: {', '.join(left) or 'nothing'}; added: {', '.join(right) or 'nothing'}"]
