"""Starts `hardtack` commands as real processes that import nothing: children of one prepared server.

The server is multiprocessing's: it imports the model libraries once, computes nothing, and forks a child for
each command. The child is an ordinary process with a group of its own, which can be killed like any other.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

PREPARED = ("tests.prepared",)
WRITING = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
"""Audit events of operations that change a folder, besides opening a file to write."""


class Operation(NamedTuple):
    """The moment just before the process does `what` to files below `folder` for the `count`-th time."""

    folder: Path
    what: str
    count: int = 1


class Forked:
    """A process made by the server, with as much of `subprocess.Popen` as the tests need."""

    def __init__(self, target: Callable[..., Any], *arguments: Any):
        os.environ["OMP_NUM_THREADS"] = "1"  # the server takes its environment when it is first asked
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PREPARED))
        self.process: BaseProcess = context.Process(target=target, args=arguments)
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the signal's number where one killed it, or None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end and return the exit status."""
        self.process.join(timeout)
        return self.process.exitcode


def forked(command: Sequence[str], output: Path, moment: object = None, **_: object) -> Forked:
    """Start `hardtack` with these words; its output goes to a file; at an `Operation` it kills itself."""
    return Forked(_run, [*map(str, command)], output, moment if isinstance(moment, Operation) else None)


def _run(words: list[str], output: Path, moment: Operation | None) -> None:
    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if moment is not None:
        at(moment, lambda: os.kill(os.getpid(), signal.SIGKILL))
    from hardtack.cli import main

    sys.exit(main(words))


def operations(command: Sequence[str | Path], folder: Path, listing: Path) -> list[str]:
    """Run a command to its end and return what it did to files below `folder`, one line an operation."""
    process = Forked(_list, [*map(str, command)], folder, listing)
    assert process.wait() == 0
    return listing.read_text().splitlines()


def _list(words: list[str], folder: Path, listing: Path) -> None:
    found: list[str] = []
    watch(folder, found.append)
    from hardtack.cli import main

    status = main(words)
    listing.write_text("".join(f"{line}\n" for line in found))
    sys.exit(status)


def kinds(done: Sequence[str], folder: Path) -> list[Operation]:
    """Return the first and the second time of everything that `operations` listed, in order of appearance.

    How often states are saved depends on the machine's speed, and with it all later numbers.
    """
    return [
        Operation(folder, what, count)
        for what in dict.fromkeys(done)
        for count in range(1, 1 + min(2, done.count(what)))
    ]


def at(moment: Operation, action: Callable[[], object]) -> None:
    """Do something just before an operation of this process."""
    left = moment.count

    def count(what: str) -> None:
        nonlocal left
        left -= what == moment.what
        if left == 0 and what == moment.what:
            action()

    watch(moment.folder, count)


def watch(folder: Path, tell: Callable[[str], object]) -> None:
    """Tell of every operation of this process that changes files below `folder`, just before it happens."""
    root, inside = str(folder), False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal inside
        if inside or not (event in WRITING or (event == "open" and _writes(arguments))):
            return
        inside = True  # what the action does is no operation of the command
        try:
            name = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
            # shutil.rmtree names files within an open folder: only by their last part.
            if name.startswith(root) or (name and not os.path.isabs(name)):
                tell(f"{event} {_unnumbered(name.removeprefix(root))}")
        finally:
            inside = False

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    with contextlib.suppress(IndexError, TypeError):
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    return False


def _unnumbered(name: str) -> str:
    """Leave the process's id out of a name, so that every run names its operations alike."""
    return name.replace(f".{os.getpid()}", "")
