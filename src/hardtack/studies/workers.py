"""Slots in which cells run: one in this process, or several persistent local processes.

A worker is a spawned process with a thread budget that is set before it imports torch. It is sent jobs and
answers with ticks and results, all as JSON over a pipe of its own, so that one that is killed leaves nothing
locked. It ends by itself as soon as its parent is gone, however that ended.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from tqdm import tqdm

from hardtack.errors import one_line
from hardtack.runs import Json, Watch
from hardtack.studies.calls import call
from hardtack.studies.cells import Cell
from hardtack.studies.verbs import VERBS

TICK_SECONDS = 0.2  # a worker reports one kind of progress at most this often
ENDING_SECONDS = 5.0  # how long a worker that is told to end may take


class Ended(NamedTuple):
    """How a cell ended: well (no line), or why not; `ours` says that the failure is the program's."""

    place: str
    line: str | None = None
    ours: bool = False
    trace: str = ""


class Slots(Protocol):
    """Where cells run."""

    def free(self) -> bool:
        """Say whether a cell can be started."""
        ...

    def start(self, cell: Cell) -> None:
        """Start a cell."""
        ...

    def ended(self) -> list[Ended]:
        """Wait until at least one cell has ended; return those that have."""
        ...


def perform(place: str, verb: str, settings: Mapping[str, Json], out: str, watch: Watch) -> Ended:
    """Run one cell; whatever it raises becomes a line."""
    try:
        call(VERBS[verb], settings, out=out, watch=watch)
    except Exception as error:
        line = one_line(error)
        said = line or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Ended(place, said, line is None, traceback.format_exc())
    return Ended(place)


class Here:
    """The one slot in this process."""

    def __init__(self, watch: Callable[[str, str, int, int], None]):
        self.watch = watch
        self.last: list[Ended] = []

    def free(self) -> bool:
        """Say whether the last cell's end was asked for."""
        return not self.last

    def start(self, cell: Cell) -> None:
        """Run a cell to its end."""

        def watch(label: str, done: int, total: int) -> None:
            self.watch(cell.place, label, done, total)

        self.last = [perform(cell.place, cell.verb.name, cell.settings, str(cell.folder), watch)]

    def ended(self) -> list[Ended]:
        """Return how the cell ended."""
        last, self.last = self.last, []
        return last


class Worker:
    """One local process."""

    def __init__(self, log: Path, threads: int):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=work, args=(theirs, threads, str(log)), daemon=True
        )
        with _environment(OMP_NUM_THREADS=str(threads), RAYON_NUM_THREADS=str(threads)), _no_interrupts():
            self.process.start()
        theirs.close()
        self.place: str | None = None

    def send(self, cell: Cell) -> None:
        """Give the worker a cell."""
        self.place = cell.place
        job = [cell.place, cell.verb.name, cell.settings, str(cell.folder)]
        with contextlib.suppress(BrokenPipeError):  # it died while idle: `ended` will say so
            self.pipe.send_bytes(json.dumps(job).encode())

    def end(self) -> None:
        """Tell the worker to end, and make sure that it does."""
        self.pipe.close()
        if self.place is not None:  # it works, and would not see that the pipe is closed
            self.process.terminate()
        self.process.join(ENDING_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class Processes:
    """Slots in local processes; one that dies takes its cell with it, no other, and is replaced."""

    def __init__(self, count: int, threads: int, log: Path, watch: Callable[[str, str, int, int], None]):
        self.threads, self.log, self.watch = threads, log, watch
        self.workers: list[Worker | None] = [None] * count

    def free(self) -> bool:
        """Say whether a process is idle or not started yet."""
        return any(worker is None or worker.place is None for worker in self.workers)

    def start(self, cell: Cell) -> None:
        """Give a cell to an idle process; a process starts when it is first needed."""
        for number, worker in enumerate(self.workers):
            if worker is None:
                worker = self.workers[number] = Worker(self.log, self.threads)
            if worker.place is None:
                return worker.send(cell)
        raise AssertionError("no slot is free")

    def ended(self) -> list[Ended]:
        """Pass ticks on until at least one cell has ended."""
        found: list[Ended] = []
        while not found:
            busy = {w.pipe: w for w in self.workers if w is not None and w.place is not None}
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                worker = busy[pipe]
                try:
                    message = json.loads(pipe.recv_bytes())
                except (EOFError, ConnectionResetError):
                    found.append(self._died(worker))
                    continue
                if "tick" in message:
                    self.watch(*message["tick"])
                else:
                    worker.place = None
                    found.append(Ended(*message["ended"]))
        return found

    def close(self) -> None:
        """End all processes."""
        for number, worker in enumerate(self.workers):
            if worker is not None:
                worker.end()
            self.workers[number] = None

    def _died(self, worker: Worker) -> Ended:
        """Say how a process ended that should not have, and free its slot."""
        worker.process.join()
        code, place = worker.process.exitcode or 0, worker.place
        assert place is not None
        self.workers[self.workers.index(worker)] = None
        worker.end()
        how = f"was killed by signal {-code} (memory?)" if code < 0 else f"ended with status {code}"
        return Ended(place, f"its process {how}; what it said is in {self.log}", ours=code >= 0)


@contextlib.contextmanager
def opened(
    processes: int, threads: int, log: Path, watch: Callable[[str, str, int, int], None]
) -> Iterator[Slots]:
    """Open the slots: this process for one, else local processes; each slot has `threads` threads."""
    if processes > 1:
        slots = Processes(processes, threads, log, watch)
        try:
            yield slots
        finally:
            slots.close()
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield Here(watch)
    finally:
        torch.set_num_threads(before)


def work(pipe: Connection, threads: int, log: str) -> None:
    """Run jobs until the parent closes the pipe or is gone; this is a worker's whole life."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)  # libraries chat; the screen belongs to the parent
    os.dup2(out, 2)
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own, a semaphore, would outlive a kill
    shown: dict[str, float] = {}

    def tick(place: str, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - shown.get(label, 0.0) >= TICK_SECONDS:
            shown[label] = now
            send({"tick": [place, label, done, total]})

    def send(message: dict[str, Any]) -> None:
        pipe.send_bytes(json.dumps(message).encode())

    while True:
        try:
            place, verb, settings, folder = json.loads(pipe.recv_bytes())
        except EOFError:
            return

        def watch(label: str, done: int, total: int, place: str = place) -> None:
            tick(place, label, done, total)

        send({"ended": perform(place, verb, settings, folder, watch)})


def _end_with_parent() -> None:
    """End this process at once when the parent is gone: a restarted study must find no lock held."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a process that is about to start."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Let a process that is about to start ignore Ctrl-C, which a terminal sends to all of them."""
    if threading.current_thread() is not threading.main_thread():  # only the main one may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
