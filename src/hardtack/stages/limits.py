"""The limits of `ship`: which candidate meets them best, or which one cannot be met and how near it came."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hardtack.errors import InputError

Facts = dict[str, Any]
"""What was measured of a candidate: `name`, `latency_ms`, `accuracy`, `accuracy_under_attack` (or None)."""


class Limit(NamedTuple):
    """One limit: how it is typed, the fact that it is about, its value, and 1 for a least, -1 for a most."""

    flag: str
    fact: str
    value: float
    sign: int

    def missed(self, facts: Facts) -> float:
        """Return by which share of the limit a candidate misses it; 0 where it is met."""
        return max(0.0, self.sign * (self.value - facts[self.fact])) / self.value if self.value else 0.0


@dataclass(frozen=True)
class Limits:
    """What an exported model has to keep to; None asks nothing.

    Attributes:
        max_latency_ms: longest milliseconds of one forward of one text.
        min_accuracy: least accuracy on the whole validation split, 0 to 1.
        min_accuracy_under_attack: least accuracy under the attack that leaves least, 0 to 1.
    """

    max_latency_ms: float | None = None
    min_accuracy: float | None = None
    min_accuracy_under_attack: float | None = None

    def __post_init__(self) -> None:
        latency = self.max_latency_ms
        if latency is not None and not (latency > 0 and math.isfinite(latency)):
            raise InputError(f"--max-latency-ms {latency:g} cannot be met; allowed: above 0, finite")
        for flag, value in (
            ("--min-accuracy", self.min_accuracy),
            ("--min-accuracy-under-attack", self.min_accuracy_under_attack),
        ):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{flag} {value:g} cannot be met; allowed: 0 to 1")

    def asked(self) -> Iterator[Limit]:
        """Yield the limits that are asked."""
        if self.max_latency_ms is not None:
            yield Limit("--max-latency-ms", "latency_ms", self.max_latency_ms, -1)
        if self.min_accuracy is not None:
            yield Limit("--min-accuracy", "accuracy", self.min_accuracy, 1)
        if self.min_accuracy_under_attack is not None:
            least = self.min_accuracy_under_attack
            yield Limit("--min-accuracy-under-attack", "accuracy_under_attack", least, 1)

    def met_by(self, facts: Facts) -> bool:
        """Say whether a candidate meets all limits."""
        return not any(limit.missed(facts) for limit in self.asked())

    def choose(self, candidates: Sequence[Facts]) -> Facts:
        """Return the best candidate that meets all limits.

        Of those that do, the one that is most accurate under attack; then the one most accurate before; then
        the fastest; then the first. Without limits all do.

        Raises:
            InputError: when none does: it says which limit, how near it came and by which candidate.
        """
        fitting = [facts for facts in candidates if self.met_by(facts)]
        if fitting:
            return max(
                fitting,
                key=lambda one: (one["accuracy_under_attack"] or 0.0, one["accuracy"], -one["latency_ms"]),
            )
        raise InputError(self._unmet(candidates))

    def _unmet(self, candidates: Sequence[Facts]) -> str:
        alone = []
        for limit in self.asked():
            near = min(candidates, key=lambda facts: -limit.sign * facts[limit.fact])
            if limit.missed(near):
                alone.append(
                    f"{limit.flag} {limit.value:g} (nearest: {_said(limit, near)} by {near['name']})"
                )
        if alone:
            return f"no candidate meets {'; nor '.join(alone)}"
        near = min(candidates, key=lambda facts: sum(limit.missed(facts) for limit in self.asked()))
        missed = [limit for limit in self.asked() if limit.missed(near)]
        what = ", ".join(f"{limit.flag} {limit.value:g} with {_said(limit, near)}" for limit in missed)
        return f"no candidate meets all limits together; nearest: {near['name']} misses {what}"


def _said(limit: Limit, facts: Facts) -> str:
    value = facts[limit.fact]
    return f"{value:.4g} ms" if limit.sign < 0 else f"{value:.4f}"
