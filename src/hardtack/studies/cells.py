"""Cells, the runs of a study: their ids, which follow from content, and their folders, which people read."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hardtack.runs import Json
from hardtack.studies.verbs import Verb

FORMAT = 1
"""Version of what a cell's id is made of."""
LONGEST = 120  # characters of a cell's folder; the rest of a longer name is a hash


class Axis(NamedTuple):
    """An axis: the stage that it was written in ("" for the shared grid) and the key."""

    owner: str
    key: str


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        id: hash of everything that can change its results, the same in any folder and on any machine.
        stage: name of its stage.
        verb: what is run.
        axes: name -> value as it was typed.
        place: its folder under the study's, with `/`.
        folder: that folder's path.
        settings: the complete arguments, references filled in.
        needs: places of the cells whose results it reads.
        weights: places of the cells whose weights must be there while it runs.
        keep: its weights are never removed.
        root: the model outside the study that everything before it began with.
    """

    id: str
    stage: str
    verb: Verb
    axes: Mapping[str, Json]
    place: str
    folder: Path
    settings: Mapping[str, Json]
    needs: tuple[str, ...]
    weights: tuple[str, ...]
    keep: bool
    root: str


class Made(NamedTuple):
    """What a reference can mean: a cell, or one ticket of it."""

    cell: Cell
    axes: Mapping[Axis, Json]
    path: str
    content: list[Json]  # what of it counts in the id of a cell that refers to it
    base: tuple[str, ...]  # places of the cells whose weights a ticket of it is applied to
    root: str


def identify(verb: str, settings: Mapping[str, Json], models: Mapping[str, Json], data: Sequence[str]) -> str:
    """Return a cell's id: 12 characters that stand for what its results follow from.

    Args:
        verb: what is run.
        settings: those that differ from their defaults, with the versions of method and attacks.
        models: key -> fingerprint of a model, or what stands for the cell that makes it.
        data: fingerprints of the data that are read.
    """
    content = [FORMAT, verb, settings, models, data]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def names_of(typed: Mapping[Axis, Json], settings: Mapping[str, Json]) -> dict[str, Json]:
    """Name axes by their keys, with the stage before it where two have one; the seed is always named."""
    keys = [axis.key for axis in typed]
    named = {
        axis.key if keys.count(axis.key) == 1 else f"{axis.owner or 'grid'}.{axis.key}": value
        for axis, value in typed.items()
    }
    return named if "seed" in named else {"seed": settings.get("seed", 0), **named}


def place_of(stage: str, names: Mapping[str, Json], taken: set[str]) -> str:
    """Name a cell's folder by its axes, readable and short; equal names get a number."""
    text = ",".join(f"{name}={_text(value)}" for name, value in names.items())
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}~{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    place, number = f"{stage}/{text}", 1
    while place in taken:
        number += 1
        place = f"{stage}/{text}~{number}"
    taken.add(place)
    return place


def _text(value: Json) -> str:
    if isinstance(value, list):
        return "+".join(map(_text, value)) or "none"
    words = str(value).lower() if isinstance(value, bool) else str(value).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", words.removeprefix("@")) or "none"
