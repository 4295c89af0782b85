"""Sparsities that are said as a cost: finds the fraction of units whose removal saves that share of it.

Every kind of unit loses the same fraction. `parameters=0.5` counts the parameters of the tensors that the
units are made of: no embeddings, no norms, no head. `flops=0.5` counts the operations of one forward of the
whole model, `latency=0.5` takes its median time on this machine; both for one text, the longest among the
first 64 of validation, as the rows of `evaluate` do.

The fraction is the smallest that removes at least the share: to 4 decimals where it is counted, in hundredths
where it is measured. The model that is tried loses its units evenly over its layers. For parameters and
operations it makes no difference which heads or neurons go, so the count holds for any ticket of that
fraction; channels of different layers weigh differently, and there it holds for an even ticket.
"""

import copy
import dataclasses
import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import cache

from torch import Tensor, nn

from hardtack import cost
from hardtack.errors import InputError
from hardtack.methods.search import Search
from hardtack.modes import evaluation_mode
from hardtack.prunable import Prunable
from hardtack.runs import Json
from hardtack.select import Sparsity, drawn_evenly
from hardtack.shrunk import shrink_

FINE, COARSE = 10_000, 100
"""Steps from nothing to everything: of a fraction that is counted, and of one that is measured."""
TURNS = 3


def costs_of(method: Search) -> list[Sparsity]:
    """Return the sparsities of a method that are said as a cost."""
    return [sparsity for sparsity in method.sparsities if sparsity.cost]


def check_costs(method: Search, view: Prunable) -> None:
    """Refuse costs of single weights: zeros save none of them."""
    for sparsity in costs_of(method):
        if "weight" in view.granularity:
            assert sparsity.cost is not None
            name, share = sparsity.cost
            raise InputError(
                f"sparsity {name}={share:g} needs units that can be taken out; allowed: --granularity head, "
                "neuron, channel; of single weights say a fraction"
            )


def find(
    method: Search, model: nn.Module, view: Prunable, inputs: Mapping[str, Tensor]
) -> dict[str, dict[str, Json]]:
    """Find the fraction for each sparsity of a method that is said as a cost.

    Args:
        method: the method; its own scope says how units are drawn.
        model: the base, which is left as it is; copies of it are really shrunk.
        view: its units: heads, neurons or channels.
        inputs: one text, on the model's device.

    Returns:
        Name of the sparsity -> fraction, share it removes, tokens of the text, and what was measured.

    Raises:
        InputError: when no fraction that leaves a unit in every layer removes the share.
    """
    return {str(sparsity): _found(sparsity, method, model, view, inputs) for sparsity in costs_of(method)}


def settled(method: Search, found: Mapping[str, Mapping[str, Json]]) -> Search:
    """Return the method with the fractions that were found in place of costs."""
    sparsities = tuple(
        dataclasses.replace(one, fraction=found[str(one)]["fraction"]) if one.cost else one
        for one in method.sparsities
    )
    return dataclasses.replace(method, sparsities=sparsities)  # type: ignore[type-var]


def sentence(name: str, facts: Mapping[str, Json]) -> str:
    """Say what a cost came to."""
    times = facts["measured"]
    timed = (
        f" ({times['before_ms']:.3g} to {times['after_ms']:.3g} ms, {facts['tokens']} tokens)"
        if times
        else ""
    )
    return f"{name}: {facts['fraction']:g} of each kind's units, {facts['removed']:.4g} removed{timed}"


def _found(
    sparsity: Sparsity, method: Search, model: nn.Module, view: Prunable, inputs: Mapping[str, Tensor]
) -> dict[str, Json]:
    assert sparsity.cost is not None
    name, share = sparsity.cost
    steps = COARSE if name == "latency" else FINE
    scope = getattr(method, "scope", "global")  # methods without one rank over the whole model

    def masks(step: int) -> dict[str, Tensor]:
        return drawn_evenly(view, Sparsity(fraction=step / steps), scope)

    def empties(step: int) -> bool:
        try:
            masks(step)
        except InputError:
            return True
        return False

    @cache
    def measured(step: int) -> tuple[float, float]:
        return MEASURES[name](model, view, masks(step), inputs)

    def removed(step: int) -> float:
        before, after = measured(step)
        return (before - after) / before

    def reaches(step: int) -> bool:
        return removed(step) >= share * (1 - 1e-12)  # of counts, the share itself is enough

    top = bisect_left(range(1, steps), True, key=empties)  # the largest step that leaves a unit everywhere
    step = bisect_left(range(top + 1), True, key=reaches)
    if step > top:
        raise InputError(
            f"sparsity {name}={share:g} cannot be reached: with a unit left in every layer at most "
            f"{removed(top):.4f} of the {name} goes; allowed: up to that"
        )
    tokens = int(inputs["input_ids"].shape[1])
    facts: dict[str, Json] = {"fraction": step / steps, "removed": removed(step), "tokens": tokens}
    before, after = measured(step)
    machine = cost.hardware(str(next(model.parameters()).device))
    times = {"before_ms": before, "after_ms": after, "hardware": machine}
    return {**facts, "measured": times if name == "latency" else None}


def _parameters(
    model: nn.Module, view: Prunable, masks: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> tuple[float, float]:
    """Count the tensors that the units are made of, and what is left of them."""
    gone: dict[str, dict[int, int]] = {name: {} for name in view.pruned()}
    for site in view.sites:
        units = int((~masks[site.name]).sum())
        for param, dim, index in site.slices:
            assert index is not None
            gone[param][dim] = gone[param].get(dim, 0) + units * index.shape[1]
    sizes = [view.shapes[name] for name in gone]
    left = [
        [width - along.get(dim, 0) for dim, width in enumerate(size)]
        for size, along in zip(sizes, gone.values(), strict=True)
    ]
    return sum(map(math.prod, sizes)), sum(map(math.prod, left))


def _flops(
    model: nn.Module, view: Prunable, masks: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> tuple[float, float]:
    """Count the operations of one forward, and of one without these units."""
    smaller = _smaller(model, masks)
    with evaluation_mode(model), evaluation_mode(smaller):
        return cost.forward_flops(model, inputs), cost.forward_flops(smaller, inputs)


def _latency(
    model: nn.Module, view: Prunable, masks: Mapping[str, Tensor], inputs: Mapping[str, Tensor]
) -> tuple[float, float]:
    """Time one forward and one without these units in turn, so that what else the machine does hits both."""
    smaller = _smaller(model, masks)
    with evaluation_mode(model), evaluation_mode(smaller):
        pairs = [(cost.latency_ms(model, inputs), cost.latency_ms(smaller, inputs)) for _ in range(TURNS)]
    before, after = zip(*pairs, strict=True)
    return statistics.median(before), statistics.median(after)


def _smaller(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a model without what the masks remove."""
    smaller = copy.deepcopy(model)
    shrink_(smaller, masks)
    return smaller


MEASURES: Mapping[str, Callable[..., tuple[float, float]]] = {
    "parameters": _parameters,
    "flops": _flops,
    "latency": _latency,
}
"""Name of a cost -> what measures it, whole and under masks."""
