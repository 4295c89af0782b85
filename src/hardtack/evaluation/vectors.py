"""Word vectors from the published text format: how near two words are, and which are the nearest."""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from hardtack.errors import InputError
from hardtack.runs import write_atomic

_FORMAT = 1  # of the two files beside the text


class _Read(NamedTuple):
    words: list[str]
    unit: np.ndarray  # float32 [words, dimension], rows of length 1
    digest: str


class Vectors:
    """Word vectors: one word a line with its numbers behind it, separated by spaces, as they are published.

    The text is read once. Beside it then lie FILE.npy (the vectors, at length 1), which is mapped into memory
    from then on, and FILE.words; both are made anew when the text has changed or one of them is cut short.
    Where the folder cannot be written, the text is read each time. Words are looked up in lower case.

    Args:
        path: the text file, such as counter-fitted-vectors.txt.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(
                f"word vectors {self.path} are no file; a text of `word v1 v2 ...` lines is needed"
            )
        words, self._unit, self.digest = _kept(self.path) or _keep(self.path)
        self._index = {word: i for i, word in enumerate(words)}
        self._words = words
        self._near: dict[tuple[int, int], list[tuple[str, float]]] = {}

    def __len__(self) -> int:
        return len(self._words)

    @cached_property
    def dimension(self) -> int:
        """How many numbers a word has."""
        return self._unit.shape[1]

    def index(self, word: str) -> int | None:
        """Return the number of a word's line, from 0; None for a word that is not there."""
        return self._index.get(word.lower())

    def cosine(self, a: str, b: str) -> float | None:
        """Return the cosine of two words' vectors, rounded to 1e-4; None where a word has none."""
        i, j = self.index(a), self.index(b)
        if i is None or j is None:
            return None
        return round(float(self._unit[i] @ self._unit[j]), 4)

    def nearest(self, word: str, k: int) -> list[tuple[str, float]]:
        """Return the k nearest other words with their cosines, rounded to 1e-4, best first.

        Equally near ones stand in the file's order. A word that is not there has none.
        """
        i = self.index(word)
        k = min(k, len(self) - 1)
        if i is None or k < 1:
            return []
        if (i, k) not in self._near:
            cosines = np.round((self._unit @ self._unit[i]).astype(np.float64), 4)
            cosines[i] = -np.inf
            # All that are as near as the k-th, so that ties are cut by position and not by chance.
            at_least = np.partition(cosines, -k)[-k]
            best = np.flatnonzero(cosines >= at_least)
            best = best[np.argsort(-cosines[best], kind="stable")][:k]
            self._near[i, k] = [(self._words[j], float(cosines[j])) for j in best]
        return self._near[i, k]


def _kept(path: Path) -> _Read | None:
    """Return what an earlier reading left beside the text, if it is whole and the text has not changed."""
    table, words_file = _beside(path)
    try:
        head, *words = words_file.read_text("utf-8").split("\n")
        known = json.loads(head)
        unit = np.load(table, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    sound = (
        isinstance(known, dict)
        and known.get("source") == _source(path)
        and known.get("words") == xxhash.xxh3_128_hexdigest("\n".join(words).encode())
        and unit.shape == tuple(known.get("shape", ()))
        and unit.dtype == np.float32
    )
    return _Read(words, unit, known["digest"]) if sound else None


def _keep(path: Path) -> _Read:
    """Read the text and leave beside it what makes the next reading quick."""
    source = _source(path)
    read = _parsed(path)
    table, words_file = _beside(path)
    joined = "\n".join(read.words)
    head = {
        "source": source,
        "shape": list(read.unit.shape),
        "words": xxhash.xxh3_128_hexdigest(joined.encode()),
        "digest": read.digest,
    }
    temporary = table.with_name(f".{table.name}.{os.getpid()}.part.npy")
    try:
        np.save(temporary, read.unit, allow_pickle=False)
        temporary.replace(table)
        write_atomic(words_file, f"{json.dumps(head)}\n{joined}")  # last: it vouches for the table
    except OSError:
        return read  # a folder that cannot be written, or a full disk: the text was read all the same
    finally:
        temporary.unlink(missing_ok=True)
    return _kept(path) or read


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.npy"), path.with_name(f"{path.name}.words")


def _source(path: Path) -> list[int]:
    there = path.stat()
    return [_FORMAT, there.st_size, there.st_mtime_ns]


def _parsed(path: Path) -> _Read:
    words: dict[str, None] = {}
    rows: list[np.ndarray] = []
    digest, end = xxhash.xxh3_128(), b""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            digest.update(line)
            end = line[-1:]
            where = f"{path} line {number}"
            name, *numbers = line.split() or (b"",)
            try:
                word = name.decode("utf-8")
                row = np.array(numbers, dtype=np.float32)
            except UnicodeDecodeError:
                raise InputError(f"{where} is not UTF-8") from None
            except ValueError:
                raise InputError(f"{where} holds something that is no number") from None
            if not len(row) or (rows and len(row) != len(rows[0])):
                needed = len(rows[0]) if rows else "at least 1"
                raise InputError(
                    f"{where} has {len(row)} numbers; {needed} are needed (is the file truncated?)"
                )
            if not np.isfinite(row).all() or not row.any():
                raise InputError(f"{where}: the vector of {word!r} is zero or not finite")
            if word.lower() in words:
                raise InputError(f"{where}: {word!r} stands in the file twice (case does not count)")
            words[word.lower()] = None
            rows.append(row)
    if not rows:
        raise InputError(f"{path} is empty; a text of `word v1 v2 ...` lines is needed")
    if end != b"\n":
        raise InputError(f"{path} is truncated: its last line has no end")
    table = np.stack(rows)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    return _Read(list(words), table, digest.hexdigest())
