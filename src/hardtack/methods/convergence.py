"""When a ranking of units has settled: the distance between masks, or rankings, along a training run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity, draw

Scores = Mapping[str, Tensor]
"""Site -> float [units]."""
Distances = dict[str, float]
"""Kind of unit -> distance."""


def hamming(view: Prunable, one: Scores, other: Scores) -> Distances:
    """Return the share of a kind's units on which two masks differ, for each kind: 0 for equal masks."""
    return {
        kind: _joined(view, kind, one).ne(_joined(view, kind, other)).float().mean().item()
        for kind in _kinds(view)
    }


def rank_distance(view: Prunable, one: Scores, other: Scores, scope: str = "global") -> Distances:
    """Return 1 - Spearman's correlation of two rankings, for each kind: 0 for equal, 2 for opposite ones.

    Args:
        view: the units.
        one: their scores.
        other: their scores at another time.
        scope: "global" ranks a kind's units together, "site" each site's own (the mean over sites counts).
    """
    found: Distances = {}
    for kind in _kinds(view):
        sites = [site.name for site in view.sites if site.kind == kind and site.units > 1]
        if scope == "global":
            pairs = [(_joined(view, kind, one), _joined(view, kind, other))]
        else:
            pairs = [(one[name], other[name]) for name in sites]
        each = [1 - _spearman(first, second) for first, second in pairs]
        found[kind] = float(np.mean(each)) if each else 0.0
    return found


@dataclass
class Convergence:
    """Watches a ranking at equally spaced checkpoints and says at each how far it still moves.

    Attributes:
        view: the units.
        sparsities: the tickets that are wanted; the masks of each have to settle.
        scope: how masks are drawn.
        rule: "hamming" compares masks, "rank" rankings.
        window: a checkpoint is compared with so many before it.
        threshold: every one of these distances has to be below it.
        run: keeps what earlier checkpoints were, so that a killed search goes on with the same history.
    """

    view: Prunable
    sparsities: Sequence[Sparsity]
    scope: str
    rule: str
    window: int
    threshold: float
    run: Run
    _seen: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    _found: dict[int, Distances] = field(default_factory=dict)

    def look(self, number: int, scores: Scores) -> tuple[Distances, bool]:
        """Return the largest distance of each kind to the checkpoints before, and whether all have settled.

        Args:
            number: of this checkpoint; they are numbered one by one.
            scores: site -> float [units] on the CPU.
        """
        now = self._state(scores)
        earlier = [self._at(number - back) for back in range(1, min(self.window, number - 1) + 1)]
        known = [self._distances(now, before) for before in earlier if before]
        kinds = known[0] if known else ()
        largest = {kind: round(max(each[kind] for each in known), 6) for kind in kinds}
        self._seen[number], self._found[number] = now, largest
        self.run.keep(str(number), now, distances=largest)
        self._seen.pop(number - self.window, None)
        return largest, len(known) == self.window and max(largest.values()) < self.threshold

    def distances(self, number: int) -> Distances:
        """Return what was found at a checkpoint, also by an earlier process; {} where there was none."""
        if number not in self._found:
            kept = self.run.kept(str(number))
            self._found[number] = kept[1]["distances"] if kept else {}
        return self._found[number]

    def _at(self, number: int) -> dict[str, Tensor]:
        """Return an earlier checkpoint: from memory, or from disk where an earlier process saw it."""
        if number not in self._seen:
            kept = self.run.kept(str(number))
            self._seen[number] = kept[0] if kept else {}
        return self._seen[number]

    def _state(self, scores: Scores) -> dict[str, Tensor]:
        if self.rule == "rank":
            return {name: score.clone() for name, score in scores.items()}
        masks = [draw(self.view, scores, sparsity, self.scope) for sparsity in self.sparsities]
        return {f"{index} {name}": mask for index, drawn in enumerate(masks) for name, mask in drawn.items()}

    def _distances(self, one: Scores, other: Scores) -> Distances:
        if self.rule == "rank":
            return rank_distance(self.view, one, other, self.scope)
        each = []
        for index in range(len(self.sparsities)):
            names = {site.name: f"{index} {site.name}" for site in self.view.sites}
            masks = ({name: state[key] for name, key in names.items()} for state in (one, other))
            each.append(hamming(self.view, *masks))
        return {kind: max(distances[kind] for distances in each) for kind in each[0]}


def tells_apart(view: Prunable, scores: Scores) -> bool:
    """Say whether every kind has units whose scores differ: before that, masks only follow positions."""
    joined = [_joined(view, kind, scores) for kind in _kinds(view)]
    return all(len(each) == 1 or bool(each.ne(each[0]).any()) for each in joined)


def _kinds(view: Prunable) -> list[str]:
    return list(dict.fromkeys(site.kind for site in view.sites))


def _joined(view: Prunable, kind: str, values: Scores) -> Tensor:
    return torch.cat([values[site.name] for site in view.sites if site.kind == kind])


def _spearman(one: Tensor, other: Tensor) -> float:
    """Correlate ranks, ties sharing theirs; a ranking that ranks nothing agrees with none."""
    ranks = [rankdata(scores.numpy()) for scores in (one, other)]
    if any(rank.min() == rank.max() for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
