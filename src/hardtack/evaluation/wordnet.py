"""Reads WordNet 3.0's own files: which words share a meaning, and which parts of speech a word can be."""

import mmap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import xxhash

from hardtack.errors import InputError

KINDS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
FILES = tuple(f"{part}.{kind}" for kind in KINDS.values() for part in ("index", "data"))

# How an inflected form ends -> how its base form may end: the rules of WordNet's manual (morphy, 7WN).
ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "n": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
        *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ),
    "v": (
        *(("s", ""), ("ies", "y"), ("es", "e"), ("es", "")),
        *(("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    ),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}


class WordNet:
    """WordNet, read from its files where they lie: nothing is loaded, a word is found by bisection.

    Inflected words are looked up by their base forms ("films" as "film"), by WordNet's rules and lists of
    exceptions. Phrases are left out.

    Args:
        folder: holds index.noun, data.noun and so on for verb, adj and adv; for irregular forms also noun.exc
            and so on.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._maps: dict[str, mmap.mmap] = {}
        for name in FILES:
            path = self.folder / name
            if not path.is_file():
                raise InputError(f"{self.folder} has no {name}; a folder of WordNet's data files is needed")
            with path.open("rb") as file:
                if not path.stat().st_size:
                    raise InputError(f"{path} is empty; WordNet's file is needed")
                self._maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if self._maps[name][-1:] != b"\n":
                raise InputError(f"{path} is truncated: its last line has no end")

    @cached_property
    def digest(self) -> str:
        """A digest of the files, which names them in a result row."""
        digest = xxhash.xxh3_128()
        for name in FILES:
            digest.update(self._maps[name])
        for irregular in self._irregular.values():
            digest.update(repr(irregular).encode())
        return digest.hexdigest()

    def synonyms(self, word: str, pos: str | None = None) -> list[str]:
        """Return the single words that share a meaning with a word, its most frequent meanings first.

        The base form of an inflected word is among them, the word itself is not.

        Args:
            word: looked up in lower case.
            pos: n, v, a or r; by default all, in this order.
        """
        found: dict[str, None] = {}
        for kind in KINDS if pos is None else (_checked(pos),):
            for base in self._bases(word.lower(), kind):
                for offset in self._meanings(base, kind):
                    found |= dict.fromkeys(self._words(offset, kind))
        return [other for other in found if "_" not in other and other.lower() != word.lower()]

    def pos(self, word: str) -> frozenset[str]:
        """Return a word's possible parts of speech, of n v a r; none for a word that is not there."""
        return frozenset(kind for kind in KINDS if self._bases(word.lower(), kind))

    def _bases(self, word: str, kind: str) -> list[str]:
        """Return the forms of a word that WordNet lists: irregular ones, itself, or its base by the rules."""
        if word in self._irregular[kind]:
            candidates = [word, *self._irregular[kind][word]]
        else:
            bare = [word[: -len(end)] + base for end, base in ENDINGS[kind] if word.endswith(end)]
            candidates = [word, *bare]
        return [form for form in dict.fromkeys(candidates) if form and self._meanings(form, kind)]

    @cached_property
    def _irregular(self) -> dict[str, dict[str, list[str]]]:
        tables: dict[str, dict[str, list[str]]] = {}
        for kind, name in KINDS.items():
            path = self.folder / f"{name}.exc"
            lines = path.read_text("ascii").splitlines() if path.is_file() else []
            tables[kind] = {form: bases for form, *bases in map(str.split, lines) if bases}
        return tables

    def _meanings(self, word: str, kind: str) -> list[int]:
        """Return where the data file describes a word's meanings, the most frequent first."""
        line = _find(self._maps[f"index.{KINDS[kind]}"], word.replace(" ", "_"))
        if line is None:
            return []
        # lemma pos meanings pointers [pointer]* meanings tagged [offset]*
        parts = line.split()
        try:
            return [int(offset) for offset in parts[-int(parts[2]) :]]
        except (ValueError, IndexError):
            raise InputError(f"{self.folder}/index.{KINDS[kind]} is damaged at {word!r}") from None

    def _words(self, offset: int, kind: str) -> Iterator[str]:
        name = f"data.{KINDS[kind]}"
        data = self._maps[name]
        # offset file type words(hexadecimal) [word number]* ...
        parts = data[offset : max(0, data.find(b"\n", offset))].decode("ascii", "replace").split()
        try:
            if int(parts[0]) != offset:
                raise ValueError
            words = parts[4 : 4 + 2 * int(parts[3], 16) : 2]
        except (ValueError, IndexError):
            raise InputError(f"{self.folder}/{name} is truncated or damaged at byte {offset}") from None
        return (word.partition("(")[0] for word in words)  # adjectives: galore(ip), only after their noun


def _checked(pos: str) -> str:
    if pos not in KINDS:
        raise InputError(f"part of speech {pos!r}; allowed: {', '.join(KINDS)}")
    return pos


def _find(index: mmap.mmap, word: str) -> str | None:
    """Return the line of a sorted file that begins with a word and a space, or None."""
    if not word.isascii():
        return None
    wanted = word.encode()
    low, high = 0, len(index)
    while low < high:
        start = index.rfind(b"\n", 0, (low + high) // 2) + 1
        end = index.find(b"\n", start)
        end = len(index) if end < 0 else end
        line = index[start:end]
        found = line.partition(b" ")[0]  # lines of the licence begin with a space: before all words
        if found == wanted:
            return line.decode("ascii", "replace")
        if found < wanted:
            low = end + 1
        else:
            high = start
    return None
