"""Gathers what a report is about: run folders, their rows with outcomes, and their tickets.

Whatever is odd but no reason to refuse the rest (a number that is none, a row that lies in two folders, a
broken ticket) becomes a note of one line.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardtack.errors import InputError
from hardtack.reports.compare import Entry
from hardtack.reports.folders import Row, find_runs, read_outcomes, read_recipe, read_rows

RATES = ("clean_accuracy", "accuracy_under_attack", "attack_success_rate")
COUNTS = (
    "mean_queries",
    "sparsity",
    "parameters",
    "flops",
    "flops_tokens",
    "disk_bytes",
    "prunable",
    "seed",
    "trained_seed",
)


@dataclass(frozen=True)
class Folder:
    """A run folder.

    Attributes:
        path: where it lies.
        name: how the page calls it: its place below the folder that was named.
        recipe: recipe.json; empty where there is none.
        done: whether the run was finished.
    """

    path: Path
    name: str
    recipe: Row
    done: bool


@dataclass(frozen=True)
class Drawn:
    """A ticket as it lies on disk: its record, and how many units each site has and keeps."""

    name: str
    record: Row
    units: Mapping[str, int]
    kept: Mapping[str, int]

    @property
    def origin(self) -> Row:
        """Return how the ticket was found."""
        return self.record.get("origin") or {}

    @property
    def sparsity(self) -> float:
        """Return the fraction of the prunable units that is removed."""
        return 1 - sum(self.kept.values()) / sum(self.units.values())


@dataclass(frozen=True)
class Found:
    """Everything that a report reads."""

    folders: tuple[Folder, ...]
    entries: tuple[Entry, ...]
    held: Mapping[str, Sequence[Row]]
    """Folder's name -> its rows: a row may lie in two folders, and stands among the entries once."""
    tickets: tuple[Drawn, ...]
    notes: tuple[str, ...]


def gather(places: Sequence[Path]) -> Found:
    """Read the run folders among and below `places`.

    Raises:
        InputError: when there is no run, or neither a row nor a ticket in them.
    """
    notes: list[str] = []
    folders = [_folder(path, places) for path in find_runs(places)]
    if not folders:
        raise InputError(
            f"no run folder in {', '.join(map(str, places))}; allowed: folders that hardtack's verbs made"
        )
    held: dict[str, list[Row]] = {}
    entries = _entries(folders, held, notes)
    tickets = _tickets(folders, notes)
    if not entries and not tickets:
        raise InputError(
            f"neither rows nor tickets in {', '.join(map(str, places))}; `hardtack evaluate` writes rows"
        )
    origins = _origins(folders)
    known = [dataclasses.replace(entry, also=_also(entry.row, origins)) for entry in entries]
    return Found(tuple(folders), tuple(known), held, tuple(tickets), tuple(dict.fromkeys(notes)))


def _folder(path: Path, places: Iterable[Path]) -> Folder:
    home = next(place for place in places if path == place or place in path.parents)
    below = path.relative_to(home)
    name = str(Path(home.resolve().name) / below)
    recipe = read_recipe(path) if (path / "recipe.json").is_file() else {}
    return Folder(path, name, recipe, not recipe or (path / "DONE").is_file())


def _entries(folders: Iterable[Folder], held: dict[str, list[Row]], notes: list[str]) -> list[Entry]:
    found: dict[str, Entry] = {}
    for folder in folders:
        file = folder.path / "rows.jsonl"
        if not file.is_file() or not file.stat().st_size:
            continue
        outcomes = read_outcomes(folder.path)
        for row in filter(None, (_checked(row, folder, notes) for row in read_rows(folder.path))):
            held.setdefault(folder.name, []).append(row)
            entry = Entry(folder.name, row, outcomes.get(row["id"], {}))
            first = found.setdefault(row["id"], entry)
            if _differ(first.row, row):
                notes.append(
                    f"row {row['id']} differs between {first.folder} and {folder.name}; "
                    f"the one in {first.folder} is shown"
                )
    return list(found.values())


def _differ(one: Row, other: Row) -> bool:
    """Say whether two rows of one id disagree.

    A study adds fields of its own and names places below its folder; runs measure anew.
    """
    places = {"model", "ticket"} if "cell" in one or "cell" in other else set()
    return any(one[name] != other[name] for name in one.keys() & other.keys() - {"measured"} - places)


def _checked(row: Row, folder: Folder, notes: list[str]) -> Row | None:
    """Return a row with every number finite and every rate from 0 to 1, or None where it cannot be shown."""
    examples = row.get("examples")
    if not row.get("id") or not isinstance(examples, int) or isinstance(examples, bool) or examples < 1:
        notes.append(f"a row of {folder.name} has no id or no number of examples; it is left out")
        return None
    for name in (*RATES, *COUNTS):
        value = row.get(name)
        if value is None or (name == "sparsity" and isinstance(value, str)):
            continue
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or (name in RATES and not 0 <= value <= 1):
            notes.append(
                f"row {row['id']} of {folder.name}: {name} is {json.dumps(value)}, which it cannot be; "
                "it is left out"
            )
            row = {**row, name: None}
    measured = row.get("measured")
    known = (
        {name: value for name, value in measured.items() if not _odd(value)}
        if isinstance(measured, dict)
        else {}
    )
    return {**row, "flags": list(row.get("flags") or ()), "measured": known}


def _odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _tickets(folders: Iterable[Folder], notes: list[str]) -> list[Drawn]:
    """Return the tickets of searches; where the search is not here, the trained model's folder has it."""
    found: dict[tuple[Any, ...], Drawn] = {}
    places = [(folder, path.parent) for folder in folders for path in _records(folder.path)]
    for folder, place in sorted(places, key=lambda one: one[1].parent.name != "tickets"):
        name = f"{folder.name}/{place.name}" if place.parent.name == "tickets" else folder.name
        try:
            ticket = read_ticket(place, name)
        except InputError as error:
            notes.append(f"{error}; this ticket is left out")
            continue
        origin = ticket.origin
        same = (origin.get("run"), origin.get("wanted")) if origin.get("run") else (name,)
        found.setdefault(same, ticket)
    return list(found.values())


def _records(folder: Path) -> list[Path]:
    return [*sorted(folder.glob("tickets/*/ticket.json")), *folder.glob("model/ticket/ticket.json")]


def read_ticket(folder: Path, name: str) -> Drawn:
    """Read a ticket's record and count what each site keeps, without loading torch.

    Raises:
        InputError: when its files cannot be read or do not belong together.
    """
    from safetensors import SafetensorError, safe_open

    record = _record(folder)
    units = record.get("units")
    if not isinstance(units, dict) or not units:
        raise InputError(f"{folder / 'ticket.json'} names no units")
    kept = {}
    try:
        with safe_open(folder / "masks.safetensors", framework="np") as stream:
            for site, count in units.items():
                bits = stream.get_tensor(site)
                if bits.dtype != np.uint8 or bits.size != -(-count // 8):
                    raise InputError(
                        f"{folder / 'masks.safetensors'}: {site} has other units than ticket.json"
                    )
                kept[site] = int(np.unpackbits(bits.reshape(-1), count=count).sum())
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / 'masks.safetensors'} cannot be read ({error})") from None
    return Drawn(name, record, units, kept)


def _record(folder: Path) -> Row:
    try:
        record = json.loads((folder / "ticket.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'ticket.json'} cannot be read ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{folder / 'ticket.json'} holds no JSON object")
    return record


def _origins(folders: Iterable[Folder]) -> dict[str, Row]:
    """Return how the ticket of each retrained model was found, by the id of the run that trained it."""
    found = {}
    for folder in folders:
        file = folder.path / "model" / "ticket" / "ticket.json"
        if folder.recipe.get("id") and file.is_file():
            try:
                found[folder.recipe["id"]] = _record(file.parent).get("origin") or {}
            except InputError:
                continue  # named where the tickets are read
    return found


def _also(row: Row, origins: Mapping[str, Row]) -> tuple[Any, ...]:
    """Return what the search of a row's ticket was; the row is about the training after it."""
    origin = origins.get(str(row.get("run")))
    if origin is None:
        return ()
    return (origin.get("objective"), json.dumps(origin.get("settings"), sort_keys=True))
