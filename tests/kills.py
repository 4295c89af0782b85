"""Really killing a command and starting it again: SIGKILL to its whole process group, at given moments.

A moment is a number of seconds after the start, `Lines(file, count)`: as soon as the file has that many
lines, `After(file, seconds)`: so long after the file appeared, or an `Operation` of `tests.forked`: just
before a change to its files. What a killed and resumed command leaves is what an uninterrupted one
leaves, bit for bit, except what measures time: see `digest`.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from hardtack.runs import generator
from tests.forked import Operation

ROOT = Path(__file__).parent.parent
POLL_SECONDS = 0.003
LEFT_OUT = ("log.jsonl", ".lock")
"""Files that say when things happened or that somebody is at work."""
TIMED = ("measured", "seconds", "resumed", "at", "created", "commit")
"""Keys of JSON files (any depth) that hold times, resumptions, or the commit of the source."""


class Lines(NamedTuple):
    """The moment at which a file has `count` lines."""

    file: Path
    count: int


class After(NamedTuple):
    """The moment `seconds` after a file is there."""

    file: Path
    seconds: float


Moment = float | Lines | After | Operation


class Process(Protocol):
    """A started command."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int | None: ...


@dataclass(frozen=True)
class Killed:
    """What happened: the moments at which a process was really killed, and how long each process ran."""

    kills: tuple[Moment, ...]
    seconds: tuple[float, ...]
    output: str


def run_killed(
    command: Sequence[str | Path],
    moments: Iterable[Moment],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout: float = 600.0,
    start: Callable[..., Process] | None = None,
) -> Killed:
    """Start a command, SIGKILL it at each moment and start it again, and in the end let it run to its end.

    A process that ends by itself before its moment must have succeeded; the moments after it are dropped, and
    they are not among `kills`.

    Args:
        command: what to run; it must be the same line that resumes.
        moments: one for each kill, counted anew (seconds) or absolute (lines) for each process.
        cwd: where it runs.
        env: more environment variables; one thread and no network are set already.
        timeout: seconds for any one process.
        start: starts a process, e.g. `tests.forked.forked`; by default `command` is a program with arguments.

    Raises:
        AssertionError: when a process fails by itself or takes too long, with the end of its output.
    """
    kills, seconds = [], []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(env or {})}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        for moment in (*moments, None):
            began = time.monotonic()
            words = [str(word) for word in command]
            process = (start or _program)(words, output, moment, cwd=cwd, env=environment)
            try:
                killed = _wait(process, moment, began, timeout)
            finally:
                _end(process)
            seconds.append(time.monotonic() - began)
            said = output.read_text(errors="replace") if output.exists() else ""
            if killed:
                assert moment is not None, f"took more than {timeout} s: {said[-2000:]}"
                kills.append(moment)
            else:
                assert process.returncode == 0, f"ended with {process.returncode}: {said[-2000:]}"
                break
    return Killed(tuple(kills), tuple(seconds), said)


def _program(words: list[str], output: Path, moment: Moment | None, *, cwd: Path, env: dict) -> Process:
    with open(output, "ab") as stream:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, so that its children die with it
        )


def _end(process: Process) -> None:
    """Kill a process and its children; one that has only just begun may have no group of its own yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None or kill is os.killpg:
                kill(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: Process, moment: Moment | None, began: float, timeout: float) -> bool:
    """Wait for the moment (True) or the process's own end (False), whichever comes first."""
    appeared = None
    while process.poll() is None:
        passed = time.monotonic() - began
        if isinstance(moment, After) and moment.file.exists():
            appeared = appeared if appeared is not None else time.monotonic()
            if time.monotonic() - appeared >= moment.seconds:
                return True
        if isinstance(moment, Lines) and _lines(moment.file) >= moment.count:
            return True
        if isinstance(moment, float | int) and passed >= moment:
            return True
        if passed > timeout:
            assert moment is None, f"{moment} did not come within {timeout} s"
            return True
        time.sleep(POLL_SECONDS)
    return isinstance(moment, Operation) and process.returncode == -signal.SIGKILL


def _lines(file: Path) -> int:
    try:
        return file.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def python(script: Path, *words: str | Path) -> list[str]:
    """Return the command line of a script under this interpreter."""
    return [sys.executable, str(script), *map(str, words)]


def uniform_seconds(count: int, *, low: float, high: float, seed: int = 0) -> list[float]:
    """Draw moments uniformly between two times in seconds, the same for the same seed."""
    drawn = torch.rand(count, generator=generator(seed, "kill moments"), dtype=torch.float64)
    return [low + (high - low) * float(share) for share in drawn]


def uniform_lines(file: Path, count: int, *, low: int, high: int, seed: int = 0) -> list[Lines]:
    """Draw moments uniformly between two line counts of a log (both included), in increasing order."""
    drawn = torch.randint(low, high + 1, (count,), generator=generator(seed, "kill lines"))
    return [Lines(file, int(number)) for number in sorted(drawn.tolist())]


def digest(folder: Path, *, left_out: Iterable[str] = ()) -> dict[str, str]:
    """Return a hash of every file of a folder that two runs of one command must have in common.

    Left out are the log, the lock and `scratch/`. In JSON and JSON-lines files times do not count (TIMED),
    and the folder's own path is written as `.`, in TOML too: copies of one run in two places are equal.

    Args:
        folder: a run's folder.
        left_out: more file names to leave out.
    """
    skipped = {*LEFT_OUT, *left_out}
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and "scratch" not in name.parts and name.name not in skipped:
            found[str(name)] = hashlib.sha256(_content(path, folder)).hexdigest()
    return found


def _content(path: Path, folder: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".toml":
        return content.replace(str(folder).encode(), b".")
    if path.suffix not in (".json", ".jsonl") and path.name != "DONE":
        return content
    content = content.replace(str(folder).encode(), b".")
    values = (
        [json.loads(line) for line in content.splitlines()]
        if path.suffix == ".jsonl"
        else [json.loads(content)]
    )
    return "\n".join(json.dumps(_timeless(value)) for value in values).encode()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in TIMED}
    if isinstance(value, list):
        return [_timeless(inner) for inner in value]
    return value


def resumptions(folder: Path) -> list[dict[str, Any]]:
    """Return the log's events that say that work was resumed, with their step and seconds redone."""
    return [line for line in log_lines(folder) if line.get("event") == "resumed"]


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    log = folder / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def timeless_log(folder: Path) -> list[dict[str, Any]]:
    """Return the log but for times and resumptions: what must be equal line for line."""
    return [_timeless(line) for line in log_lines(folder) if line.get("event") != "resumed"]
