"""Says which rows are about one model, what it is called, and how good it is over its seeds."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from hardtack.reports.compare import Entry, measured_alike, title_of
from hardtack.reports.folders import Row
from hardtack.reports.table import sparsity_text, wilson
from hardtack.stats import proportion_over_seeds

GENERIC = re.compile(r"(seed-\d+|model|ticket|tickets)$")  # parts of a path that name no model
ALIKE = 0.03  # operations a token grow a little with the text
CELL = re.compile(r"(?:^|,)seed=\d+(?=,|$)")  # in what a study calls a cell's folder, inside its stage's
SAME_MODEL = ("seed", "target")  # axes that tell evaluations apart; a target's own axes stand beside it
SEED = re.compile(r"[-_.]?(seed|s)[-_]?\d+$")


class Rate(NamedTuple):
    """A rate with its 95% interval: Wilson's for one seed, over seeds and examples for several."""

    mean: float
    low: float
    high: float
    seeds: int
    examples: int


@dataclass(frozen=True)
class Model:
    """One model of the page: the rows that differ at most in their seed.

    Attributes:
        number: its place on the page, from 1.
        label: what people call it.
        entries: its rows, of every task and attack.
    """

    number: int
    label: str
    entries: tuple[Entry, ...]

    @property
    def row(self) -> Row:
        """Return its first row."""
        return self.entries[0].row

    @property
    def seeds(self) -> list[Any]:
        """Return the seeds it was made with."""
        return sorted({entry.seed for entry in self.entries}, key=str)

    @property
    def dense(self) -> bool:
        """True for a model that nothing was removed from."""
        return not self.row.get("sparsity")

    @property
    def found_with(self) -> str | None:
        """Return the objective of the search that found its ticket, where the folders say."""
        return self.entries[0].also[0] if self.entries[0].also else None

    def of(self, group: "Group") -> list[Entry]:
        """Return its rows in a group."""
        return [entry for entry in group.entries if entry.also[-1] == self.number]

    def does(self, other: "Model") -> bool:
        """Say whether one text costs it what it costs the other model: operations a token, in one runtime."""
        work = [
            (model.row["flops"] / model.row["flops_tokens"], model.row.get("runtime"))
            for model in (self, other)
            if model.row.get("flops") and model.row.get("flops_tokens")
        ]
        return len(work) == 2 and abs(work[0][0] / work[1][0] - 1) < ALIKE and work[0][1] == work[1][1]

    def middle(self, name: str, *, measured: bool = False) -> float | None:
        """Return the median over its rows of a cost."""
        rows = (entry.row["measured"] if measured else entry.row for entry in self.entries)
        values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
        return float(np.median(values)) if values else None

    def rate(self, group: "Group", name: str, *, seed: int) -> Rate | None:
        """Return a rate of its rows in a group, over their seeds."""
        rows = [entry.row for entry in self.of(group) if entry.row.get(name) is not None]
        if not rows:
            return None
        n = rows[0]["examples"]
        if len(rows) == 1:
            interval = wilson(rows[0], name)
            assert interval is not None
        else:
            counts = [round(row[name] * n) for row in rows]
            interval = proportion_over_seeds(counts, n, seed=seed)
        return Rate(*interval, len(rows), n)


@dataclass(frozen=True)
class Group:
    """Rows that may stand side by side: one task, split, attack and shift, measured alike."""

    name: str
    entries: tuple[Entry, ...]

    @property
    def row(self) -> Row:
        """Return its first row."""
        return self.entries[0].row

    @property
    def attack(self) -> str | None:
        """Return the attack's name; None for clean rows."""
        return self.row.get("attack")

    @property
    def home(self) -> tuple[Any, Any]:
        """Return the task and split it belongs to."""
        return (self.row.get("task"), self.row.get("split"))


def models_of(entries: Sequence[Entry], notes: list[str]) -> list[Model]:
    """Sort rows into models, in the order of the rows.

    Rows of one task that say the same but for the seed are one model; where that would put two rows of one
    seed into one place, they are different models after all: a study's axes tell them apart (half of all
    weights, or two of each four), else only equal names join them. Rows of two tasks are joined by equal
    names only: a model of films and one of books may say the same of themselves.
    """
    parts: list[list[Entry]] = []
    for members in _sorted_by(entries, lambda entry: (entry.what, _task(entry.row))):
        apart = [members]
        for key in (_axes, _called):
            if any(map(_clashing, apart)):
                apart = _sorted_by(members, key)
        for part in apart:
            known = [
                p for p in parts if p[0].what == part[0].what and {*map(_called, p)} & {*map(_called, part)}
            ]
            if known and _task(known[0][0].row) != _task(part[0].row):
                known[0] += part
            else:
                parts.append(list(part))
    parts = [_once(part, notes) for part in parts]
    labels = _labels(parts)
    order = {id(entry): number for number, entry in enumerate(entries)}
    pairs = sorted(zip(labels, parts, strict=True), key=lambda pair: order[id(pair[1][0])])
    # From here on a model is its number: two that say the same must never be paired as repeats of one.
    return [
        Model(number, label, tuple(_numbered(entry, number) for entry in part))
        for number, (label, part) in enumerate(pairs, start=1)
    ]


def _sorted_by(entries: Iterable[Entry], key: Callable[[Entry], Any]) -> list[list[Entry]]:
    found: dict[Any, list[Entry]] = {}
    for entry in entries:
        found.setdefault(key(entry), []).append(entry)
    return list(found.values())


def _task(row: Row) -> Any:
    """Return the task that a row's model was made for."""
    return row.get("shifted_from") or row.get("task")


def _called(entry: Entry) -> tuple[Any, Any]:
    return (entry.row.get("model"), entry.row.get("ticket"))


def _axes(entry: Entry) -> Any:
    axes = entry.row.get("axes") or {}
    told = tuple(sorted((name, str(value)) for name, value in axes.items() if name not in SAME_MODEL))
    return (told, _name(entry.row) if axes else None)


def _clashing(members: Sequence[Entry]) -> bool:
    places = [(_place(entry), entry.seed) for entry in members]
    return len(set(places)) < len(places)


def groups_of(models: Iterable[Model]) -> list[Group]:
    """Sort the rows of all models into groups that may be compared, in the order of the rows."""
    found = _sorted_by((entry for model in models for entry in model.entries), _place)
    titles = [title_of(members[0].row) for members in found]
    names = [
        f"{title}, {members[0].row['examples']} examples" if titles.count(title) > 1 else title
        for members, title in zip(found, titles, strict=True)
    ]
    names = [f"{name}, settings {nth}" if nth else name for name, nth in zip(names, _nth(names), strict=True)]
    return [Group(name, tuple(members)) for name, members in zip(names, found, strict=True)]


def _numbered(entry: Entry, number: int) -> Entry:
    return dataclasses.replace(entry, also=(*(entry.also or (None, None)), number))


def _place(entry: Entry) -> tuple[Any, ...]:
    """Return what one column of one table holds: the group, and what was measured alike in it."""
    return (*entry.group, *sorted((name, str(value)) for name, value in measured_alike(entry.row).items()))


def _once(members: list[Entry], notes: list[str]) -> list[Entry]:
    """Keep one row of each place and seed."""
    found: dict[Any, Entry] = {}
    for entry in members:
        first = found.setdefault((_place(entry), entry.seed), entry)
        if first is not entry:
            notes.append(
                f"rows {first.row['id']} and {entry.row['id']} measure the same model, seed and attack on "
                f"other examples ({title_of(entry.row)}); the first is shown"
            )
    return list(found.values())


def _labels(parts: Sequence[Sequence[Entry]]) -> list[str]:
    labels = []
    for part in parts:
        names = {_name(entry.row) for entry in part}
        labels.append(names.pop() if len(names) == 1 else _described(part[0].row))
    parted = zip(labels, parts, strict=True)
    labels = [f"{one}, {_described(part[0].row)}" if labels.count(one) > 1 else one for one, part in parted]
    return [f"{one} ({nth})" if nth else one for one, nth in zip(labels, _nth(labels), strict=True)]


def _nth(names: Sequence[str]) -> list[int]:
    """Number those that share their name from 1; 0 for a name that stands alone."""
    counts = Counter(names)
    return [names[: at + 1].count(name) if counts[name] > 1 else 0 for at, name in enumerate(names)]


def _name(row: Row) -> str:
    """Return the name that people gave the model: the last telling part of its path, without the seed."""
    model, ticket = str(row.get("model") or "model"), row.get("ticket")
    path = PurePosixPath(model.replace("\\", "/"))
    if ticket and not PurePosixPath(str(ticket).replace("\\", "/")).is_relative_to(path):
        path = PurePosixPath(str(ticket).replace("\\", "/"))  # a raw ticket: the model is only its base
        inside = [part for part in path.parts[-3:-1] if not GENERIC.match(part)]
        if inside and CELL.search(inside[-1]):
            cell = _seedless(inside[-1])
            return " ".join(part for part in (*path.parts[-4:-3], cell, path.name) if part)
        return "/".join([*inside, path.name])
    if len(path.parts) == 2 and not path.is_absolute() and not row.get("method"):
        return model  # ORG/NAME of the hub
    telling = [part for part in path.parts if not GENERIC.match(part)]
    if telling and CELL.search(telling[-1]):
        return " ".join([*telling[-2:-1], _seedless(telling[-1])]).strip()
    return SEED.sub("", telling[-1]) or telling[-1] if telling else model


def _seedless(cell: str) -> str:
    return CELL.sub("", cell).removeprefix(",")


def _described(row: Row) -> str:
    parts = [str(row.get("method") or "model")]
    if row.get("sparsity") is not None:
        parts.append(sparsity_text(row["sparsity"]))
    if row.get("objective"):
        parts.append(f"trained {row['objective']}")
    return " ".join(parts)
