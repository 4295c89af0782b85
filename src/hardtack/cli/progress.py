"""Shows how far the work is, how fast it goes and how long it still takes; always on standard error."""

import shutil
import sys
import time
from types import TracebackType

from tqdm import tqdm

QUIET_SECONDS = 2.0  # work shorter than this shows no bar
LINE_SECONDS = 10.0  # without a terminal: a plain line at most this often


class Bars:
    """One bar a label on a terminal, a plain line now and then elsewhere; stages call it as their `watch`."""

    def __init__(self):
        self.bars: dict[str, tqdm] = {}
        self.started: dict[str, tuple[float, int]] = {}  # label -> when, and how much was done then
        self.last_line = time.monotonic()

    def __call__(self, label: str, done: int, total: int) -> None:
        """Report that `done` of `total` parts of the work named `label` are finished."""
        if sys.stderr.isatty():
            self._bar(label, done, total)
        else:
            self._line(label, done, total)

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        for bar in self.bars.values():
            bar.close()
        self.bars.clear()

    def _bar(self, label: str, done: int, total: int) -> None:
        bar = self.bars.get(label)
        if bar is None:
            # A resumed run starts at `done`: only what is done from here on counts for the rate.
            screen = shutil.get_terminal_size()  # 80 x 24 where a terminal claims to have no size
            bar = tqdm(
                total=total,
                initial=done,
                desc=label,
                delay=QUIET_SECONDS,
                file=sys.stderr,
                ncols=screen.columns,
                nrows=screen.lines,
            )
            self.bars[label] = bar
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
            del self.bars[label]

    def _line(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        start, before = self.started.setdefault(label, (now, done))
        if now - self.last_line >= LINE_SECONDS and now > start:
            meter = tqdm.format_meter(done, total, now - start, prefix=label, ncols=0, initial=before)
            print(meter, file=sys.stderr, flush=True)
            self.last_line = now
        if done >= total:
            del self.started[label]  # the next work of this name has a rate of its own
