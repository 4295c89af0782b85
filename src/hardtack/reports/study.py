"""Describes a study's folder: the state of every cell, and what failed when it last ran."""

import json
from pathlib import Path

from hardtack.errors import InputError
from hardtack.reports.folders import Row, read_rows
from hardtack.reports.table import rows_text
from hardtack.reports.text import facts_text, table


def show_study(folder: Path) -> Row:
    """Describe a study from its record and its cells' folders.

    Raises:
        InputError: when the record cannot be read.
    """
    try:
        record = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        failed = {one["place"]: one["line"] for one in _failures(folder)}
        rows = read_rows(folder) if (folder / "rows.jsonl").is_file() and _size(folder) else []
        shown = {row["cell"] for row in rows}
        cells = [
            {
                **{name: cell[name] for name in ("place", "id", "stage", "verb", "axes")},
                "state": _state(folder, cell, shown, failed),
            }
            for cell in record["cells"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is no study's folder: study.json cannot be read ({error})") from None
    return {
        "kind": "study",
        "folder": str(folder),
        "name": record["name"],
        "file": record["file"],
        "cells": cells,
        "failed": [{"place": place, "line": line} for place, line in failed.items()],
        "rows": rows,
        "disk_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    }


def study_text(result: Row) -> str:
    """Render what `show_study` found as plain tables."""
    names = ("name", "file", "folder", "disk_bytes")
    blocks = [facts_text({name: result[name] for name in names})]
    blocks.append(table(("cell", "state"), [(cell["place"], cell["state"]) for cell in result["cells"]]))
    blocks += [f"{one['place']} failed: {one['line']}" for one in result["failed"]]
    if result["rows"]:
        blocks.append(rows_text(result["rows"]))
    return "\n\n".join(blocks)


def _failures(folder: Path) -> list[Row]:
    file = folder / "failed.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def _size(folder: Path) -> int:
    return (folder / "rows.jsonl").stat().st_size


def _state(folder: Path, cell: Row, shown: set[str], failed: Row) -> str:
    place = folder / cell["place"]
    if (place / "DONE").is_file():
        trained = cell["verb"] in ("train", "retrain", "soup")
        there = not trained or any((place / "model").glob("*.safetensors"))
        return "done" if there else "done, weights removed"
    if cell["id"] in shown:
        return "committed"
    if cell["place"] in failed:
        return "failed"
    return "unfinished" if (place / "recipe.json").is_file() else "not run"
