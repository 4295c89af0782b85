"""Schedules: a number as a function of progress, the only clock of the project (0 = start, 1 = end)."""

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Maps progress in [0, 1] to a number."""

    def __call__(self, progress: float) -> float:
        """Return the number at this progress."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value at any progress."""

    value: float

    def __call__(self, progress: float) -> float:
        """Return the value."""
        return self.value


@dataclass(frozen=True)
class Ramp:
    """Goes linearly from `start` to `end` between `begin` and `finish`, and is flat outside.

    `begin == finish` is a step from `start` to `end` at that progress.
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0

    def __call__(self, progress: float) -> float:
        """Return the point of the ramp at this progress."""
        if progress < self.begin:
            return self.start
        if progress >= self.finish:
            return self.end
        share = (progress - self.begin) / (self.finish - self.begin)
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class WarmupDecay:
    """Rises linearly from 0 to `peak` during the first `warmup` share, then falls linearly to 0.

    `warmup=0` starts at the peak; `warmup=1` never falls.
    """

    peak: float
    warmup: float = 0.1

    def __call__(self, progress: float) -> float:
        """Return the point of the rise or fall at this progress."""
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        if self.warmup >= 1.0:
            return self.peak
        return self.peak * (1.0 - progress) / (1.0 - self.warmup)
