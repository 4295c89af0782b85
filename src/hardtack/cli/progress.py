"""Shows how far the work is, how fast it goes and how long it still takes; always on standard error."""

import sys
import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

QUIET_SECONDS = 2.0  # work shorter than this shows no bar
LINE_SECONDS = 10.0  # without a terminal: plain lines at most this often


@dataclass
class Work:
    """Work under one name: when it started, how much was done then and is now, and its bar."""

    started: float
    before: int
    done: int
    total: int
    bar: TaskID | None = None

    def pace(self, now: float) -> str:
        """Write the time it has taken and will still take: "00:05<00:20", and how much a second."""
        passed, made = now - self.started, self.done - self.before
        if made <= 0 or passed <= 0:
            return f"{_clock(passed)}<?"
        left = (self.total - self.done) * passed / made
        return f"{_clock(passed)}<{_clock(left)}, {made / passed:.2f}/s"


class Bars:
    """One bar for each kind of work on a terminal, plain lines now and then elsewhere; stages `watch` it.

    Several kinds of work may go on at once: the cells of a study, and what each of them is at.
    """

    def __init__(self):
        self.work: dict[str, Work] = {}
        self.last_line = time.monotonic()
        self.screen: Progress | None = None

    def __call__(self, label: str, done: int, total: int) -> None:
        """Report that `done` of `total` parts of the work named `label` are finished."""
        now = time.monotonic()
        # Resumed work starts at `done`: only what is done from here on counts for the rate.
        one = self.work.setdefault(label, Work(now, done, done, total))
        one.done, one.total = done, total
        if sys.stderr.isatty():
            self._draw(label, one, now)
        elif now - self.last_line >= LINE_SECONDS and now > one.started:
            for name, other in self.work.items():
                share = 100 * other.done // max(other.total, 1)
                print(f"{name}: {share}% {other.done}/{other.total} [{other.pace(now)}]", file=sys.stderr)
            sys.stderr.flush()
            self.last_line = now
        if done >= total:
            del self.work[label]  # the next work of this name has a rate of its own
            if self.screen is not None and one.bar is not None:
                self.screen.remove_task(one.bar)

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        self.work.clear()
        if self.screen is not None:
            self.screen.stop()
            self.screen = None

    def _draw(self, label: str, one: Work, now: float) -> None:
        if now - one.started < QUIET_SECONDS and self.screen is None:
            return
        if self.screen is None:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            console = Console(file=sys.stderr, stderr=True)
            self.screen = Progress(
                *columns, TextColumn("{task.fields[pace]}", markup=False), console=console, transient=True
            )
            self.screen.start()
            for name, other in self.work.items():
                self._add(name, other, now)
        if one.bar is None:
            self._add(label, one, now)
        assert one.bar is not None
        self.screen.update(one.bar, completed=one.done, total=one.total, pace=one.pace(now))

    def _add(self, label: str, one: Work, now: float) -> None:
        assert self.screen is not None
        one.bar = self.screen.add_task(label, completed=one.done, total=one.total, pace=one.pace(now))


def _clock(seconds: float) -> str:
    """Write seconds as 00:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
