"""Reads what a run folder holds: its recipe, its rows and its outcomes."""

import json
from pathlib import Path
from typing import Any

from hardtack.errors import InputError

Row = dict[str, Any]


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
    """Return the outcomes of a run folder: row id -> example id -> outcome."""
    found: dict[str, dict[str, Row]] = {}
    for file in _files(folder, "outcomes.jsonl"):
        for line in _lines(file):
            found.setdefault(line["row"], {})[line["id"]] = line
    return found


def _files(folder: Path, name: str) -> list[Path]:
    return [file for file in (folder / name, *sorted(folder.glob(f"seed-*/{name}"))) if file.is_file()]


def _lines(file: Path) -> list[Row]:
    found = []
    # Not `splitlines`: texts may hold U+0085 or U+2028, at which that cuts too and JSON does not.
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for number, line in enumerate(lines if lines != [""] else [], start=1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{file} line {number} is no JSON object: {line[:40]!r}")
        found.append(value)
    return found
