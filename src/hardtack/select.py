"""From scores to masks: exact counts over the model, each site, each row or each bank; ties by position.

Among equal scores the later position goes first, so the first positions are kept. Counts are round-half-up of
sparsity * units, never the result of a `>` threshold.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardtack.errors import InputError
from hardtack.prunable import KINDS, Prunable

SCOPES = ("global", "site", "row")
COSTS = ("parameters", "flops", "latency")


@dataclass(frozen=True)
class Sparsity:
    """What share of the prunable units is removed: one fraction, one for each kind, n:m banks, or a cost.

    Exactly one of the fields is set, but for a cost that `search` has found the fraction of units for: it has
    that, too, and keeps its name. `learned` stands for what a method closed by itself.
    """

    fraction: float | None = None
    per_kind: tuple[tuple[str, float], ...] = ()
    banks: tuple[int, int] | None = None
    learned: bool = False
    cost: tuple[str, float] | None = None

    @classmethod
    def parse(cls, text: "str | float | Sparsity") -> "Sparsity":
        """Read "0.5", "head=0.17,neuron=0.4", "flops=0.5", "2:4" (two of four kept) or "learned"."""
        if isinstance(text, Sparsity):
            return text
        words = str(text).strip()
        if words == "learned":
            return cls(learned=True)
        if match := re.fullmatch(r"(\d+):(\d+)", words):
            keep, bank = int(match[1]), int(match[2])
            if not 0 < keep < bank:
                raise InputError(f"sparsity {words!r}: of n:m, n must be at least 1 and below m")
            return cls(banks=(keep, bank))
        if "=" in words:
            pairs = tuple((kind.strip(), _fraction(value, words)) for kind, _, value in _pairs(words))
            if len(pairs) == 1 and pairs[0][0] in COSTS:
                return cls(cost=pairs[0])
            if unknown := [kind for kind, _ in pairs if kind not in KINDS]:
                allowed = f"{', '.join(KINDS)}; alone: {', '.join(COSTS)}"
                raise InputError(
                    f"sparsity {words!r}: kind {unknown[0]!r} does not exist; allowed: {allowed}"
                )
            if len(dict(pairs)) < len(pairs):
                raise InputError(f"sparsity {words!r} names a kind twice; allowed: each kind once")
            return cls(per_kind=tuple(sorted(pairs)))
        return cls(fraction=_fraction(words, words))

    def __str__(self) -> str:
        """Return the name of the ticket's folder, e.g. "sparsity-0.7000" or "head-0.1700_neuron-0.4000"."""
        if self.cost:
            return f"{self.cost[0]}-{self.cost[1]:.4f}"
        if self.learned:
            return "learned"
        if self.banks:
            return f"banks-{self.banks[0]}of{self.banks[1]}"
        if self.per_kind:
            return "_".join(f"{kind}-{value:.4f}" for kind, value in self.per_kind)
        return f"sparsity-{self.fraction:.4f}"

    def of(self, kind: str) -> float:
        """Return the fraction to remove of one kind (0 for a kind that is not named)."""
        return dict(self.per_kind).get(kind, 0.0) if self.fraction is None else self.fraction


def _pairs(words: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in words.split(",")]


def _fraction(value: str, whole: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1:
        raise InputError(
            f"sparsity {whole!r}: {value!r} is not a fraction; "
            "allowed: 0 <= sparsity < 1, head=0.2,neuron=0.4, flops=0.5, 2:4, learned"
        )
    if round(number, 4) != number:
        raise InputError(f"sparsity {whole!r}: {value!r} has more than the 4 decimals that name its folder")
    return number + 0.0  # -0 becomes 0, which reads better in a folder's name


def cut(scores: Tensor, count: int, eligible: Tensor | None = None) -> Tensor:
    """Return a bool mask of the shape of `scores`, False at exactly `count` lowest of the eligible positions.

    Args:
        scores: any shape, finite.
        count: how many to remove.
        eligible: bool, positions that may be removed (default all); the others come back True.
    """
    flat = scores.detach().flatten()
    if not torch.isfinite(flat).all():
        raise InputError("scores hold NaN or infinity; nothing can be ranked")
    if eligible is not None:
        flat = torch.where(eligible.flatten(), flat, torch.inf)
    assert 0 <= count <= (flat.numel() if eligible is None else int(eligible.sum()))
    mask = torch.ones_like(flat, dtype=torch.bool)
    if count == 0:
        return mask.view(scores.shape)
    limit = flat.kthvalue(count).values
    below = flat < limit
    mask[below] = False
    ties = (flat == limit).nonzero().flatten()
    mask[ties[len(ties) - (count - int(below.sum())) :]] = False
    return mask.view(scores.shape)


def round_half_up(number: float) -> int:
    """Round to the nearest integer, halves up (Python rounds halves to even)."""
    return math.floor(number + 0.5 + max(1e-9, 4 * math.ulp(number)))  # 0.285 * 100 is 28.499999999999996


def draw(
    view: Prunable, scores: Mapping[str, Tensor], sparsity: Sparsity, scope: str = "global"
) -> dict[str, Tensor]:
    """Draw masks that remove exactly the wanted number of lowest-scored units.

    Args:
        view: the units.
        scores: site -> float [units].
        sparsity: a fraction (of each kind apart), a fraction per kind, or banks n:m.
        scope: "global" ranks all units of a kind together (heads and neurons keep at least one a site),
            "site" removes the same fraction of each site, "row" of each row of a weight matrix.

    Raises:
        InputError: when a site would be emptied, a scope does not fit, or a bank does not divide the rows.
    """
    if scope not in SCOPES:
        raise InputError(f"scope {scope!r} does not exist; allowed: {', '.join(SCOPES)}")
    if sparsity.learned:
        raise InputError(
            "sparsity 'learned' is for methods that close units themselves; allowed here: a fraction or n:m"
        )
    if sparsity.cost and sparsity.fraction is None:
        raise InputError(
            f"sparsity {sparsity} is a share of a cost; `search` finds the fraction of units that removes it"
        )
    if unknown := [kind for kind, _ in sparsity.per_kind if kind not in view.granularity]:
        raise InputError(f"sparsity {sparsity} names {unknown[0]!r}; allowed: {', '.join(view.granularity)}")
    masks: dict[str, Tensor] = {}
    for kind in view.granularity:
        sites = [site.name for site in view.sites if site.kind == kind]
        if sparsity.banks:
            masks |= {
                name: _banks(_by_row(view, name, scores), *sparsity.banks, name, kind) for name in sites
            }
        elif scope == "global":
            masks |= _global(
                {name: scores[name] for name in sites}, sparsity.of(kind), floor=int(kind != "weight")
            )
        elif scope == "row":
            masks |= {name: _rows(_by_row(view, name, scores), sparsity.of(kind), kind) for name in sites}
        else:
            masks |= {
                name: cut(scores[name], round_half_up(sparsity.of(kind) * scores[name].numel()))
                for name in sites
            }
    return checked(masks, str(sparsity))


def drawn_evenly(view: Prunable, sparsity: Sparsity, scope: str = "global") -> dict[str, Tensor]:
    """Draw masks that cut every site alike, with the counts that any scores would give."""
    return draw(view, {site.name: torch.linspace(0, 1, site.units) for site in view.sites}, sparsity, scope)


def check_drawable(view: Prunable, sparsities: Sequence[Sparsity], scope: str = "global") -> None:
    """Refuse sparsities that no scores could draw."""
    for sparsity in sparsities:
        drawn_evenly(view, sparsity, scope)


def checked(masks: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Return the masks, or raise InputError naming the first site that would be left empty."""
    for name, mask in masks.items():
        if not mask.any():
            raise InputError(
                f"{what} empties {name} (0 of {mask.numel()} kept); choose a lower sparsity or scope 'site'"
            )
    return dict(masks)


def _global(scores: Mapping[str, Tensor], fraction: float, floor: int) -> dict[str, Tensor]:
    sizes = [score.numel() for score in scores.values()]
    joined = torch.cat([score.flatten() for score in scores.values()]) if scores else torch.empty(0)
    count = round_half_up(fraction * joined.numel())
    eligible = None
    if floor and scores:
        protected = [cut(score, score.numel() - floor) for score in scores.values()]  # each site's best stays
        eligible = ~torch.cat([part.flatten() for part in protected])
        if count > int(eligible.sum()):
            raise InputError(
                f"sparsity {fraction} empties a layer: {count} of {joined.numel()} would go, one a site stays"
            )
    parts = cut(joined, count, eligible).split(sizes)
    return {name: part.clone() for name, part in zip(scores, parts, strict=True)}


def _by_row(view: Prunable, name: str, scores: Mapping[str, Tensor]) -> tuple[Tensor, torch.Size, int]:
    """Return a weight site's scores as [outputs, inputs], and what `_flat` needs to undo it."""
    site = next(site for site in view.sites if site.name == name)
    shape, inputs = view.shapes[site.exit.param], site.exit.dim
    if site.kind != "weight":
        return scores[name], shape, inputs
    if len(shape) > 2:  # a convolution: all taps of an output are its inputs
        return scores[name].view(shape[0], -1), shape, inputs
    return scores[name].view(shape).movedim(inputs, 1), shape, inputs


def _flat(mask: Tensor, shape: torch.Size, inputs: int) -> Tensor:
    return (mask if len(shape) > 2 else mask.movedim(1, inputs)).flatten()


def _rows(by_row: tuple[Tensor, torch.Size, int], fraction: float, kind: str) -> Tensor:
    rows, shape, inputs = by_row
    if kind != "weight":
        raise InputError(f"scope 'row' does not fit granularity {kind!r}; allowed: weight")
    return _flat(lowest(rows, round_half_up(fraction * rows.shape[1])), shape, inputs)


def _banks(by_row: tuple[Tensor, torch.Size, int], keep: int, bank: int, name: str, kind: str) -> Tensor:
    rows, shape, inputs = by_row
    if kind != "weight":
        raise InputError(f"banks {keep}:{bank} do not fit granularity {kind!r}; allowed: weight")
    if rows.shape[1] % bank:
        raise InputError(f"banks {keep}:{bank} do not divide the {rows.shape[1]} inputs of {name}")
    return _flat(lowest(rows.reshape(-1, bank), bank - keep).view(rows.shape), shape, inputs)


def lowest(rows: Tensor, count: int) -> Tensor:
    """Mask out the `count` lowest of each row; among equals the later position goes first."""
    if not torch.isfinite(rows).all():
        raise InputError("scores hold NaN or infinity; nothing can be ranked")
    order = rows.flip(1).sort(dim=1, stable=True).indices
    mask = torch.ones_like(rows, dtype=torch.bool)
    gone = rows.shape[1] - 1 - order[:, :count]
    return mask.scatter_(1, gone, False)
