"""Runs: hash-named result folders with locks and atomic writes, and random streams that follow from keys."""

import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import filelock
import torch
from torch import Tensor

from hardtack.errors import InputError
from hardtack.storage import Stored, append, load_tensors, save_tensors, stream_tensors, write_atomic

Json = Any
Watch = Callable[[str, int, int], None]


class Mirror(Protocol):
    """Shows what a run logs somewhere else too, e.g. in TensorBoard."""

    def __call__(self, part: str, numbers: Mapping[str, Json]) -> None:
        """Take the numbers of one line of the log."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


FORMAT = 1
"""Version of the run folder's layout; part of every run's hash."""
LOCK_SECONDS = 0.5
"""How long a lock is tried for: `hardtack runs` takes each one for an instant, to see who is at work."""
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def key(seed: int, label: str, step: int = 0, example: str | int | None = None) -> int:
    """Return a 63-bit integer that depends on these four values alone."""
    digest = hashlib.blake2b(f"{seed}/{label}/{step}/{example}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, label: str, step: int = 0, example: str | int | None = None) -> torch.Generator:
    """Return the random stream of (seed, label, step, example): the same in every process and resume."""
    return torch.Generator().manual_seed(key(seed, label, step, example))


def identify(
    kind: str, method: str, *, version: int, settings: Mapping[str, Json], parent: str | None, seed: int
) -> str:
    """Name a run by what produces it, e.g. "search-hard_concrete-3f9a1c07/seed-0".

    Args:
        kind: the verb.
        method: the method or objective.
        version: the method's version, raised when a fix changes its results.
        settings: the fields that differ from their defaults (so that a new field keeps old names).
        parent: id of the run that this one reads, if any.
        seed: base of the run's random streams; repeats stand side by side.
    """
    content = [FORMAT, kind, method, version, settings, parent]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    return f"{kind}-{method}-{digest}/seed-{seed}"


def versions() -> dict[str, str]:
    """Return the versions that a number may depend on."""
    names = ("hardtack", "torch", "transformers", "accelerate", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def commit() -> str | None:
    """Return the commit of the source tree this package runs from, or None for an installed package."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # Inside somebody else's checkout (a virtual environment there) this file is not tracked.
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=True
        )
        return subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class Clock:
    """Counts the seconds of a run's work over all its processes; what was done twice counts once.

    Every saved state holds the time that was on the clock; whoever continues from it catches up with that.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from now."""
        self._zero = time.monotonic()

    def seconds(self) -> float:
        """Return the seconds worked so far."""
        return time.monotonic() - self._zero

    def catch_up(self, seconds: float) -> None:
        """Add what an earlier process had worked when it saved what this one continues from."""
        self._zero = min(self._zero, time.monotonic() - seconds)


@dataclass
class Run:
    """A place to write, handed in from above.

    A folder holds `recipe.json`, `log.jsonl`, results, `scratch/` while it is under way, and last of all
    `DONE`. The lock is the operating system's: it goes with the process, however that ends.

    Attributes:
        id: the name derived from what produces the run.
        seed: base of every random stream.
        folder: where results go; None writes nothing.
        parent: id of the run that this one reads.
        recipe: fully resolved settings.
        watch: receives (label, done, total) as work goes on; the command line draws bars from it.
        save_seconds: seconds between saved states of long work.
        clock: the seconds of work, over all processes.
        writes: False for all but one of several processes: those read along and write nothing.
        meet: waits for the other processes; alone, it does nothing.
        mirror: is told the numbers of every line of the log.
    """

    id: str
    seed: int = 0
    folder: Path | None = None
    parent: str | None = None
    recipe: Mapping[str, Json] = field(default_factory=dict)
    watch: Watch | None = None
    save_seconds: float = 30.0
    prefix: str = ""
    clock: Clock = field(default_factory=Clock)
    _lock: filelock.BaseFileLock | None = None
    writes: bool = True
    meet: Callable[[], None] = lambda: None
    mirror: Mirror | None = None

    @classmethod
    def nowhere(cls, seed: int = 0, watch: Watch | None = None) -> "Run":
        """A run that keeps nothing on disk, for library use and tests."""
        return cls("nowhere", seed, watch=watch)

    @classmethod
    def open(
        cls,
        folder: Path,
        id: str,
        *,
        recipe: Mapping[str, Json],
        seed: int,
        parent: str | None = None,
        watch: Watch | None = None,
        save_seconds: float = 30.0,
    ) -> "Run":
        """Create or continue the run in `folder`.

        Raises:
            InputError: when the folder belongs to another run, holds files of something else, or is in use.
        """
        owner = _owner(folder, id)
        lock = _lock(folder, finished=owner is not None and (folder / "DONE").is_file())
        run = cls(id, seed, folder, parent, dict(recipe), watch, save_seconds, _lock=lock)
        if lock is None:
            return run  # it is finished, and nothing can be written here: its result can still be read
        try:
            owner = _owner(folder, id)  # again: another process may have come and gone before we had the lock
            _tidy(folder)
            if owner is None:
                facts = {"id": id, "parent": parent, "seed": seed, "versions": versions(), "commit": commit()}
                write_atomic(folder / "recipe.json", json.dumps({**facts, **recipe}, indent=2) + "\n")
        except BaseException:
            run.close()
            raise
        return run

    def close(self) -> None:
        """Give the lock back."""
        if self.mirror is not None:
            self.mirror.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError) and self.folder is not None and self.writes:
            left = (path for path in self.folder.rglob("*") if path.is_file())
            if {path.name for path in left} <= {"recipe.json", "recipe.toml", ".lock"}:
                # Refused before it left anything: the corrected command may have the folder.
                for name in ("recipe.toml", "recipe.json"):
                    (self.folder / name).unlink(missing_ok=True)
                shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        self.close()

    def part(self, label: str) -> "Run":
        """Return a view of this run for one part of it: own streams and scratch, same folder and log."""
        return replace(self, prefix=f"{self.prefix}{label}/", _lock=None)

    @property
    def scratch(self) -> Path | None:
        """Folder for states that are only needed until the run is done; None when nothing is kept."""
        if self.folder is None or not self.writes:
            return None
        path = self.folder / "scratch" / self.prefix
        path.mkdir(parents=True, exist_ok=True)
        return path

    def rng(self, label: str, step: int = 0, example: str | int | None = None) -> torch.Generator:
        """Return the stream of (seed, part, label, step, example)."""
        return generator(self.seed, self.prefix + label, step, example)

    def key(self, label: str, step: int = 0, example: str | int | None = None) -> int:
        """Return the integer behind `rng`."""
        return key(self.seed, self.prefix + label, step, example)

    def log(self, **numbers: Json) -> None:
        """Append one line of numbers to log.jsonl."""
        if self.folder is not None and self.writes:
            line = {"part": self.prefix, **numbers, "at": round(time.time(), 3)}
            append(self.folder / "log.jsonl", (json.dumps(line) + "\n").encode())
            if self.mirror is not None:
                self.mirror(self.prefix, numbers)

    def log_size(self) -> int:
        """Return the log's length in bytes, to be kept beside a state."""
        path = self.folder / "log.jsonl" if self.folder else None
        return path.stat().st_size if path is not None and path.exists() else 0

    def cut_log(self, size: int) -> float:
        """Cut the log back to `size` bytes and return the seconds of work that the lost lines stand for.

        Events that say that work was resumed stay: they are the only record of what was repeated, and a
        process may be killed again before its first state is saved.
        """
        path = self.folder / "log.jsonl" if self.folder and self.writes else None
        if path is None or not path.exists() or path.stat().st_size <= size:
            return 0.0
        content = path.read_bytes()
        lost = content[size:].splitlines(keepends=True)
        events = [number for number, line in enumerate(lost) if b'"event": "resumed"' in line]
        since = lost[events[-1] :] if events else content[:size].splitlines()[-1:] + lost
        known = [moment for moment in map(_time_of, since) if moment is not None]
        write_atomic(path, content[:size] + b"".join(lost[number] for number in events))
        return known[-1] - known[0] if len(known) > 1 else 0.0

    def lines(self, **facts: Json) -> list[dict[str, Json]]:
        """Return the log's lines that hold these facts."""
        path = self.folder / "log.jsonl" if self.folder else None
        if path is None or not path.exists():
            return []
        first = json.dumps(next(iter(facts.values()))).encode()  # only lines that may hold them are parsed
        parsed = [_parsed(line) for line in path.read_bytes().splitlines() if first in line]
        return [line for line in parsed if all(line.get(name) == value for name, value in facts.items())]

    def logged(self, **facts: Json) -> bool:
        """Say whether the log already has a line with these facts: an event that must stand there once."""
        return bool(self.lines(**facts))

    def tick(self, label: str, done: int, total: int) -> None:
        """Report progress to whoever watches."""
        if self.watch is not None:
            self.watch(label, done, total)

    def keep(self, name: str, tensors: Mapping[str, Tensor], **metadata: Json) -> None:
        """Keep tensors in scratch under a name, atomically, with the seconds that are on the clock."""
        if (scratch := self.scratch) is not None:
            path = scratch / f"{name}.safetensors"
            save_tensors(path, tensors, **{"seconds": self.clock.seconds(), **metadata})

    def kept(self, name: str) -> tuple[dict[str, Tensor], dict[str, Json]] | None:
        """Return what `keep` kept, or None."""
        if self.folder is None:
            return None
        path = self.folder / "scratch" / self.prefix / f"{name}.safetensors"
        self.meet()  # all read the same state: it is written before and not overwritten meanwhile
        found = load_tensors(path) if path.exists() else None
        self.meet()
        return found

    def stream(
        self, name: str, names: Sequence[str], tensors: Iterable[tuple[str, Tensor]], **metadata: Json
    ) -> Stored:
        """Keep tensors of one type in scratch as they come; return them as they lie there."""
        scratch = self.scratch
        assert scratch is not None, "streaming needs a folder"
        stream_tensors(scratch / f"{name}.safetensors", names, tensors, **metadata)
        return self.stored(name, names)

    def stored(self, name: str, names: Iterable[str]) -> Stored:
        """Return what was kept under a name without reading it: those of its tensors that are named."""
        assert self.folder is not None
        path = self.folder / "scratch" / self.prefix / f"{name}.safetensors"
        return Stored({each: (path, each) for each in names})

    def drop(self, name: str) -> None:
        """Remove what was kept under a name, if anything was."""
        if (scratch := self.scratch) is not None:
            (scratch / f"{name}.safetensors").unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove this part's scratch."""
        if (scratch := self.scratch) is not None:
            shutil.rmtree(scratch)

    def finished(self) -> bool:
        """True when DONE was written."""
        done = self.folder is not None and (self.folder / "DONE").exists()
        self.meet()  # the process that writes it waits until all have looked
        return done

    def finish(self, **facts: Json) -> None:
        """Write DONE, the last file of a run, then remove scratch: a kill between them costs no work."""
        if self.folder is not None and self.writes:
            write_atomic(self.folder / "DONE", json.dumps(facts) + "\n")
            shutil.rmtree(self.folder / "scratch", ignore_errors=True)


def _owner(folder: Path, id: str) -> str | None:
    """Return the id of the run in a folder, None for a folder that is free; refuse one that is not for us."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; a run needs a folder of its own")
    try:
        content = json.loads((folder / "recipe.json").read_bytes())
    except (FileNotFoundError, ValueError):
        content = None
    owner = content.get("id") if isinstance(content, dict) else None
    if owner is None and folder.exists() and any(not _is_ours(path) for path in folder.iterdir()):
        raise InputError(f"--out {folder} holds files that are not a run's; allowed: a new or empty folder")
    if owner not in (None, id):
        raise InputError(
            f"--out {folder} holds another run ({owner}, this one is {id}); choose another folder"
        )
    return owner


def _lock(folder: Path, *, finished: bool) -> filelock.BaseFileLock | None:
    """Lock a run's folder; None for a finished run where nothing can be written."""
    lock = filelock.FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)
    except filelock.Timeout:
        raise InputError(
            f"--out {folder} is in use by another process; wait for it or choose another"
        ) from None
    except OSError as error:
        if finished and error.errno in READ_ONLY:
            return None
        raise
    return lock


def _tidy(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote; nobody else writes here under our lock."""
    for place in (folder, folder / "tickets", folder / "candidates", folder / "scratch"):
        for path in list(place.rglob(".*.part") if place.name == "scratch" else place.glob(".*.part")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if (folder / "DONE").exists():
        shutil.rmtree(folder / "scratch", ignore_errors=True)  # killed right after it wrote DONE
    log = folder / "log.jsonl"
    if log.exists() and not (content := log.read_bytes()).endswith(b"\n"):
        os.truncate(log, content.rfind(b"\n") + 1)  # else the next line would be lost with the half one


def _is_ours(path: Path) -> bool:
    """Say whether a run leaves such a file behind when it is killed before its recipe is written."""
    return path.name == ".lock" or (path.name.startswith(".recipe.json.") and path.suffix == ".part")


def _time_of(line: bytes) -> float | None:
    return _parsed(line).get("at")


def _parsed(line: bytes) -> dict[str, Json]:
    """Read a line of the log; one that is cut short says nothing."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
