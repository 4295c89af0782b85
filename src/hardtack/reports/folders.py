"""Reads what a run folder holds: its recipe, its rows, its outcomes and its log."""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hardtack.errors import InputError

Row = dict[str, Any]
INSIDE = frozenset(("tickets", "scratch", "model"))  # a run's own folders, in which no other run lies


def read_recipe(folder: Path) -> Row:
    """Return recipe.json of a run folder."""
    try:
        recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no run folder: recipe.json cannot be read ({error})") from None
    if not isinstance(recipe, dict):
        raise InputError(f"{folder / 'recipe.json'} holds {type(recipe).__name__}; allowed: one JSON object")
    return recipe


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of a run folder, its seeds' sub-folders included."""
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; allowed: run folders made by `hardtack evaluate`")
    rows = [row for file in _files(folder, "rows.jsonl") for row in _lines(file)]
    if not rows:
        raise InputError(f"{str(folder)!r} holds no rows.jsonl with rows; `hardtack evaluate` writes it")
    return rows


def read_outcomes(folder: Path) -> dict[str, dict[str, Row]]:
    """Return the outcomes of a run folder, or those committed of a study: row id -> example id -> outcome."""
    found: dict[str, dict[str, Row]] = {}
    for name in ("outcomes-*.jsonl.gz", "outcomes.jsonl"):
        for file in _files(folder, name):
            for line in _lines(file):
                if not {"row", "id", "status"} <= line.keys():
                    raise InputError(f"{file} holds an outcome without row, id or status: {str(line)[:60]}")
                found.setdefault(line["row"], {})[line["id"]] = line
    return found


def read_log(folder: Path) -> list[Row]:
    """Return the lines of a run's log; one that a killed process left half written is passed over."""
    file, found = folder / "log.jsonl", []
    for line in file.read_text(encoding="utf-8").split("\n") if file.is_file() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Return the run folders among and below `places`, in their order and then by name, each once.

    A run folder is one with a recipe.json or a rows.jsonl; sub-folders may be runs of their own, as a demo's
    and a study's are.
    """
    found: dict[Path, Path] = {}
    for place in places:
        if not place.is_dir():
            raise InputError(f"{str(place)!r} is no folder; allowed: run folders, or a folder of run folders")
        for folder, inside, files in os.walk(place):
            inside[:] = sorted(name for name in inside if name not in INSIDE and not name.startswith("."))
            if {"recipe.json", "rows.jsonl"} & set(files):
                found.setdefault(Path(folder).resolve(), Path(folder))
    return list(found.values())


def _files(folder: Path, pattern: str) -> Iterable[Path]:
    found = (*sorted(folder.glob(pattern)), *sorted(folder.glob(f"seed-*/{pattern}")))
    return [file for file in found if file.is_file()]


def _lines(file: Path) -> list[Row]:
    found = []
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        text = content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    # Not `splitlines`: texts may hold U+0085 or U+2028, at which that cuts too and JSON does not.
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{file} line {number} is no JSON object: {line[:40]!r}")
        found.append(value)
    return found
