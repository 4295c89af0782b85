"""A neighbour table says which words may stand in a word's place; read from a file it is checked line by
line.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import xxhash

from hardtack.errors import InputError

# Sizes are checked while reading, so that a small compressed file cannot fill the memory.
MAX_BYTES = 512 * 2**20
MAX_LINE_BYTES = 2**20
MAX_WORD_CHARACTERS = 100
MAX_NEIGHBOURS = 1000


class NeighbourTable(NamedTuple):
    """The words with their neighbours, best first, and a digest of that content."""

    entries: Mapping[str, tuple[str, ...]]
    digest: str


def neighbours_of(mapping: Mapping[str, Sequence[str]]) -> NeighbourTable:
    """Return the table that a mapping word -> neighbours describes."""
    rows = ((f"neighbours[{word!r}]", word, options) for word, options in mapping.items())
    return _table(rows, source="neighbours")


def load_neighbours(path: Path) -> NeighbourTable:
    """Read a table from jsonl, plain or gzipped: {"word": "film", "neighbors": ["movie", "picture"]} a line.

    The neighbours' key may also be spelt "neighbours". Empty lines are skipped; anything else that does not
    fit is refused in one line that names the file and the line.
    """
    if not path.is_file():
        raise InputError(
            f"neighbour table {path} is no file; a jsonl or jsonl.gz of word and neighbors is needed"
        )
    return _table(_rows(path), source=str(path))


def _table(rows: Iterator[tuple[str, object, object]], source: str) -> NeighbourTable:
    entries: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for where, word, options in rows:
        _check_word(word, where)
        assert isinstance(word, str)
        if isinstance(options, str) or not isinstance(options, Sequence):
            raise InputError(f"{where}: neighbours are {type(options).__name__}; a list of words is needed")
        if len(options) > MAX_NEIGHBOURS:
            raise InputError(f"{where}: {len(options)} neighbours; allowed: at most {MAX_NEIGHBOURS}")
        for option in options:
            _check_word(option, where)
            if option.lower() == word.lower():
                raise InputError(f"{where}: {word!r} is a neighbour of itself; other words are needed")
        # Words are looked up in lower case, so two spellings of one word would hide each other.
        if word.lower() in seen:
            raise InputError(f"{where}: {word!r} stands in the table twice (case does not count)")
        seen.add(word.lower())
        if options:
            entries[word.lower()] = tuple(options)
    if not entries:
        raise InputError(f"neighbour table {source} has no word with neighbours; at least 1 is needed")
    canonical = json.dumps(sorted(entries.items()), ensure_ascii=False, separators=(",", ":"))
    return NeighbourTable(entries, xxhash.xxh3_128_hexdigest(canonical.encode()))


def _check_word(word: object, where: str) -> None:
    # Published tables list stray control characters as words; they match nothing and do no harm.
    if not isinstance(word, str) or not word:
        raise InputError(f"{where}: {word!r} is no word; a text that is not empty is needed")
    if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
        raise InputError(
            f"{where}: {word!r} holds half a character (a lone surrogate); whole ones are needed"
        )
    if len(word) > MAX_WORD_CHARACTERS:
        raise InputError(f"{where}: a word of {len(word)} characters; allowed: at most {MAX_WORD_CHARACTERS}")


def _rows(path: Path) -> Iterator[tuple[str, object, object]]:
    for number, line in _lines(path):
        where = f"{path} line {number}"
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            raise InputError(f"{where} is not UTF-8") from None
        except (ValueError, RecursionError):
            raise InputError(f"{where} is not JSON; an object with word and neighbors is needed") from None
        if not isinstance(row, dict):
            raise InputError(
                f"{where} holds a {type(row).__name__}; an object with word and neighbors is needed"
            )
        if "word" not in row or not ("neighbors" in row or "neighbours" in row):
            keys = ", ".join(map(str, row)) or "none"
            raise InputError(f"{where} has the keys {keys[:200]}; word and neighbors are needed")
        yield where, row["word"], row["neighbors"] if "neighbors" in row else row["neighbours"]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines that are not blank, decompressed where the file starts as gzip does."""
    try:
        opened = path.open("rb")
    except OSError as error:
        raise InputError(f"neighbour table {path} cannot be read: {error.strerror}") from None
    with opened as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if zipped else raw
        total = number = 0
        while True:
            try:
                line = file.readline(MAX_LINE_BYTES + 1)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                raise InputError(f"{path} is a damaged or truncated gzip file after line {number}") from None
            if not line:
                return
            number += 1
            total += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"{path} line {number} is longer than the allowed {MAX_LINE_BYTES} bytes")
            if total > MAX_BYTES:
                raise InputError(
                    f"{path} holds more than the allowed {MAX_BYTES} bytes (after line {number})"
                )
            if line.strip():
                yield number, line
