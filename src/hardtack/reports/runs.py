"""Finds run folders, says how far each has come and what it takes on disk, and removes what is asked for."""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from hardtack.errors import InputError, nearest
from hardtack.reports.text import byte_text, second_text, table

try:
    import fcntl
except ImportError:  # Windows: there the lock file itself cannot be removed while it is held
    fcntl = None

State = Literal["done", "interrupted", "empty"]
"""States whose runs can be removed; the fourth is "running"."""
OUR_ID = re.compile(r"(\w+)-([\w.]+)-[0-9a-f]{8}/seed-(\d+)")
"""KIND-METHOD-HASH/seed-N, as `hardtack.runs.identify` writes it; that module would import torch."""
LAST = ("DONE", ".lock", "recipe.json")
"""What goes last when a run is removed, so that a half-removed one is still known as a run (but not done)."""


@dataclass
class Found:
    """One run folder.

    Attributes:
        path: as the user would type it, below the folder that was asked for.
        id: name derived from what produced it.
        kind: the verb.
        method: the method or objective.
        seed: base of its random streams.
        state: "done", "running" (its lock is held now), "interrupted" or "empty" (nothing written yet: its
            command was refused or killed at its start).
        progress: how far an unfinished one came.
        disk_bytes: blocks of its files on disk, without those of runs inside it.
        age_seconds: since it was last written to.
        parent: id of the run that it read, if any.
        inside: path of the run folder around it, if any.
    """

    path: str
    id: str
    kind: str
    method: str
    seed: int
    state: str
    progress: str | None
    disk_bytes: int
    age_seconds: float
    parent: str | None
    inside: str | None


@dataclass(frozen=True)
class Choice:
    """Which runs are listed, and which of them go."""

    remove: tuple[Path, ...] = field(default=(), metadata={"help": "remove this run folder, as it is listed"})
    remove_state: tuple[State, ...] = field(
        default=(), metadata={"help": "remove all listed runs of this state"}
    )
    remove_warm_ups: bool = field(
        default=False,
        metadata={"help": "remove the warm-up models of finished searches: their tickets do not need them"},
    )
    seed: int | None = field(default=None, metadata={"help": "list only the runs of this seed"})
    older_than: float = field(default=0.0, metadata={"help": "list only runs last written so many days ago"})

    def __post_init__(self) -> None:
        if other := [state for state in self.remove_state if state not in get_args(State)]:
            raise InputError(f"state {other[0]!r} cannot be removed{nearest(other[0], get_args(State))}")
        if self.older_than < 0:
            raise InputError(f"older_than {self.older_than} days; allowed: 0 or more")

    def lists(self, run: Found) -> bool:
        """Say whether a run is among those that are asked about."""
        return self.seed in (None, run.seed) and run.age_seconds >= self.older_than * 86400

    @property
    def removes(self) -> bool:
        """True when something is to go."""
        return bool(self.remove or self.remove_state or self.remove_warm_ups)


def runs(folder: Path, choice: Choice | None = None, *, dry_run: bool = False) -> dict[str, Any]:
    """List the run folders in and below `folder`, after removing those that `choice` names.

    Links are not followed. Everything that is to go is checked before anything goes.

    Args:
        folder: where to look.
        choice: filters, and what to remove.
        dry_run: remove nothing; `removed` then says what would go.

    Raises:
        InputError: when a path to remove is no run folder below `folder`, or a run in it is at work.
    """
    choice = choice or Choice()
    found, unreadable = find(folder)
    gone = _chosen(folder, found, choice)
    if not dry_run:
        _remove(gone)
        found = [run for run in found if run not in gone]
    listed = [run for run in found if choice.lists(run)]
    return {
        "folder": str(folder),
        "runs": [asdict(run) for run in listed],
        "disk_bytes": sum(run.disk_bytes for run in listed),
        "unreadable": unreadable,
        "removing": choice.removes,
        "removed": [{"path": r.path, "state": r.state, "disk_bytes": r.disk_bytes} for r in gone],
        "removed_bytes": sum(run.disk_bytes for run in gone),
    }


def find(folder: Path) -> tuple[list[Found], list[str]]:
    """Return the run folders in and below `folder`, outer ones first, and the folders that cannot be read."""
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; allowed: a folder with runs below it")
    found: list[Found] = []
    unreadable: list[str] = []
    seen: set[tuple[int, int]] = set()

    def walk(place: Path, inside: Found | None) -> None:
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            unreadable.append(str(place))
            return
        if (mine := _described(place, inside)) is not None:
            found.append(mine)
            inside = mine
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                walk(place / entry.name, inside)
            if inside is not None:
                inside.disk_bytes += _blocks(entry, seen)

    walk(folder, None)
    return found, unreadable


def _blocks(entry: os.DirEntry, seen: set[tuple[int, int]]) -> int:
    """Return the bytes that an entry itself takes on disk; a file with several names counts once."""
    with contextlib.suppress(OSError):
        facts = entry.stat(follow_symlinks=False)
        if facts.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
            if (facts.st_dev, facts.st_ino) in seen:
                return 0
            seen.add((facts.st_dev, facts.st_ino))
        return 512 * facts.st_blocks if hasattr(facts, "st_blocks") else facts.st_size
    return 0


def _described(place: Path, inside: Found | None) -> Found | None:
    """Return what a folder's recipe says, or None where it is no run folder."""
    record = place / "recipe.json"
    try:
        recipe = json.loads(record.read_bytes()) if record.is_file() and not record.is_symlink() else None
    except (OSError, ValueError):
        return None
    name = OUR_ID.fullmatch(str(recipe.get("id"))) if isinstance(recipe, dict) else None
    if name is None:
        return None
    assert isinstance(recipe, dict)
    state = _state(place)
    written = [place / each for each in ("recipe.json", "log.jsonl", "rows.jsonl", "scratch", "DONE")]
    latest = max(path.stat().st_mtime for path in written if path.exists())
    return Found(
        str(place),
        str(recipe["id"]),
        name[1],
        str(recipe.get("method", name[2])),
        int(name[3]),
        state,
        None if state in ("done", "empty") else _progress(place),
        0,
        max(0.0, time.time() - latest),
        recipe.get("parent"),
        None if inside is None else inside.path,
    )


def _state(place: Path) -> str:
    if _held(place / ".lock"):
        return "running"
    if (place / "DONE").is_file():
        return "done"
    files = (path.name for path in place.rglob("*") if path.is_file())
    return "interrupted" if any(name not in ("recipe.json", ".lock") for name in files) else "empty"


@contextlib.contextmanager
def _locked(lock: Path, *, shared: bool = False) -> Iterator[bool]:
    """Hold a run's lock for a while and say so, or say that somebody is at work; nothing is written.

    A shared lock only finds out: two who look at once do not take each other for workers.
    """
    if fcntl is None or not lock.exists():
        yield True
        return
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)  # and with it the lock


def _held(lock: Path) -> bool:
    try:
        with _locked(lock, shared=True) as free:
            return not free
    except OSError:  # it may not be opened: whoever made it may be at work or not
        return False


def _progress(place: Path) -> str | None:
    """Say how far a run came: its last logged step, or what it has written."""
    for line in reversed(_tail(place / "log.jsonl")):
        with contextlib.suppress(ValueError, AttributeError):
            said = json.loads(line)
            if said.get("step") is not None:
                return f"{said.get('part', '')}step {said['step']}"
    with contextlib.suppress(OSError):
        rows = (place / "rows.jsonl").read_bytes().count(b"\n")
        return f"{rows} rows"
    return None


def _tail(log: Path, size: int = 65536) -> list[bytes]:
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, log.stat().st_size - size))
            return stream.read().splitlines()
    except OSError:
        return []


# ------------------------------------------------------------------------------------- removing


def _chosen(folder: Path, found: Sequence[Found], choice: Choice) -> list[Found]:
    """Return the runs that go, with all runs inside them; refuse where one of them may not."""
    if not choice.removes:
        return []
    by_path = {os.path.abspath(run.path): run for run in found}
    around = {run.path: run for run in found}
    outer: list[Found] = []
    for path in choice.remove:
        run = by_path.get(os.path.abspath(path)) or by_path.get(os.path.abspath(folder / path))
        if run is None:
            raise InputError(f"--remove {path} {_why_not(folder, path)}; `hardtack runs {folder}` lists them")
        outer.append(run)

    def free(run: Found) -> bool:
        """A run inside an unfinished one is part of that work and goes with it only."""
        return run.inside is None or around[run.inside].state == "done"

    def busy(run: Found) -> Found | None:
        """Return a run that is at work in this one or around it."""
        near = everything(run)
        while run.inside is not None:
            near.append(run := around[run.inside])
        return next((other for other in near if other.state == "running"), None)

    def everything(run: Found) -> list[Found]:
        return [other for other in found if other is run or Path(run.path) in Path(other.path).parents]

    for run in found:
        if not choice.lists(run) or not free(run) or busy(run):
            continue
        warm_up = run.inside is not None and run.kind == "train" and Path(run.path).name == "warm"
        if run.state in choice.remove_state or (
            choice.remove_warm_ups and warm_up and _has_tickets(around[str(run.inside)])
        ):
            outer.append(run)
    for run in outer:
        if at_work := busy(run):
            raise InputError(f"--remove {run.path}: {at_work.path} is running; nothing was removed")
    names = {other.path for run in outer for other in everything(run)}
    return [run for run in found if run.path in names]


def _has_tickets(run: Found) -> bool:
    return run.kind == "search" and any(Path(run.path).glob("tickets/*/ticket.json"))


def _why_not(folder: Path, path: Path) -> str:
    root, place = os.path.abspath(folder), os.path.abspath(path)
    if place != root and not place.startswith(root + os.sep):
        return f"is outside {folder}"
    return "is no run folder, or behind a link" if os.path.lexists(place) else "does not exist"


def _remove(gone: Sequence[Found]) -> None:
    """Remove runs, those inside others first, each under its lock."""
    done: list[str] = []
    try:
        for run in sorted(gone, key=lambda run: len(Path(run.path).parts), reverse=True):
            place = Path(run.path)
            with _locked(place / ".lock") as free:
                if not free:
                    raise InputError(f"{place} is running since a moment; removed before it: {_listed(done)}")
                (place / "DONE").unlink(missing_ok=True)
                for entry in list(os.scandir(place)):
                    if entry.name not in LAST:
                        _delete(place / entry.name)
                for name in LAST:
                    (place / name).unlink(missing_ok=True)
                place.rmdir()
            done.append(run.path)
    except OSError as error:
        raise InputError(
            f"{error.strerror}: {str(error.filename)!r} cannot be removed; removed before it: {_listed(done)}"
        ) from None


def _delete(path: Path) -> None:
    delete: Callable[[Path], object] = shutil.rmtree if path.is_dir() and not path.is_symlink() else os.unlink
    delete(path)  # a link goes, what it points to stays


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths) or "nothing"


# ------------------------------------------------------------------------------------- for people


def plan_of(result: dict[str, Any]) -> dict[str, Any]:
    """Turn the result of a dry run into a plan: what would go, with its bytes."""
    stages = [
        {"name": f"remove {one['path']} ({one['state']})", "seconds": 0.0, "bytes": one["disk_bytes"]}
        for one in result["removed"]
    ]
    return {"stages": stages, "seconds": 0.0, "bytes": result["removed_bytes"]}


def runs_text(result: dict[str, Any]) -> str:
    """Render what was removed, or else the table of runs."""
    if result["removing"]:
        lines = [f"removed {one['path']} ({one['state']}, {byte_text(one['disk_bytes'])})" for one in
                 result["removed"]]  # fmt: skip
        lines.append(f"{len(lines)} runs removed, {byte_text(result['removed_bytes'])} of disk freed")
        return "\n".join(lines)
    root = result["folder"]
    paths = {run["id"]: os.path.relpath(run["path"], root) for run in result["runs"]}
    rows = [
        (
            os.path.relpath(run["path"], root),
            run["kind"],
            run["method"],
            run["seed"],
            f"{run['state']}, {run['progress']}" if run["progress"] else run["state"],
            byte_text(run["disk_bytes"]),
            _age(run["age_seconds"]),
            paths.get(run["parent"], run["parent"]),
        )
        for run in result["runs"]
    ]
    count = len(rows)
    rows.append(("all", "", "", "", f"{count} runs", byte_text(result["disk_bytes"]), "", ""))
    head = (f"in {root}", "verb", "method", "seed", "state", "on disk", "age", "read from")
    text = table(head, rows, right=(3, 5, 6))
    for path in result["unreadable"]:
        text += f"\n{path} cannot be read"
    return f"{text}\nsizes are blocks on disk, without the runs inside a run"


def _age(seconds: float) -> str:
    days = seconds / 86400
    return f"{days:.0f} d" if days >= 2 else second_text(round(seconds)).replace(".0 s", " s")
