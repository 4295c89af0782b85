"""What `ship` is asked for, and what of it is refused before any work."""

import dataclasses
from pathlib import Path
from typing import Any

from hardtack.errors import InputError, nearest
from hardtack.evaluation.attacks.cascade import Cascade
from hardtack.evaluation.attacks.protocol import TextAttack
from hardtack.exports.programs import check_installed
from hardtack.loading import Loaded
from hardtack.methods.search import Search
from hardtack.prunable import Prunable, kinds_of
from hardtack.runs import Watch
from hardtack.select import Sparsity, drawn_evenly
from hardtack.stages import sizing
from hardtack.stages.common import Common, part_watch
from hardtack.stages.epochs import Fit
from hardtack.stages.limits import Limits
from hardtack.stages.measuring import one_input
from hardtack.stages.teaching import open_teacher
from hardtack.tasks.task import Task
from hardtack.training.adversarial import Objective

FORMS = ("shrink", "onnx", "onnx-int8", "openvino")
"""Exports in which removed units are really gone."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What is shipped, and how: everything but the limits, which choose among what is measured."""

    model: str
    task: str
    folder: Path
    methods: tuple[Search, ...]
    attacks: tuple[TextAttack, ...]
    examples: int
    to: str
    objective: Objective
    fit: Fit
    common: Common
    watch: Watch | None

    def part(self, name: str) -> dict[str, Any]:
        """Return what every stage is given."""
        return {"task": self.task, "common": self.common, "watch": part_watch(self.watch, name)}

    def candidates(self) -> list[tuple[str, Search, Sparsity]]:
        """Return the candidates: a name, a method and a sparsity each."""
        return [
            (f"{method.name}-{sparsity}", method, sparsity)
            for method in self.methods
            for sparsity in method.sparsities
        ]


def check(order: Order, limits: Limits) -> None:
    """Refuse what can be known to be wrong before a model is loaded."""
    if order.to not in FORMS:
        raise InputError(f"--to {order.to!r} is not for ship{nearest(order.to, FORMS)}")
    check_installed(order.to)
    if order.examples < 1:
        raise InputError(f"examples {order.examples}; allowed: 1 or more")
    if order.to != "shrink" and (seeing := [one.name for one in order.attacks if _sees_gradients(one)]):
        raise InputError(
            f"--attack {seeing[0]} sees gradients, of which --to {order.to} has none; allowed: --to shrink, "
            "or attacks that ask for answers alone"
        )
    if limits.min_accuracy_under_attack is not None and not order.attacks:
        raise InputError("--min-accuracy-under-attack needs an attack; allowed: --attack, once or more")
    names, methods = [name for name, _, _ in order.candidates()], [method.name for method in order.methods]
    if not names:
        raise InputError("ship needs a method with a sparsity; there is none")
    for tried in (methods, names):
        if twice := [name for name in tried if tried.count(name) > 1]:
            raise InputError(f"{twice[0]} is tried twice; allowed: each method and sparsity once")


def kinds_removed(order: Order, loaded: Loaded, data: Task) -> tuple[str, ...]:
    """Return the kinds of unit that are removed; refuse sparsities that empty a layer or remove nothing."""
    wanted = [kind for kind in ("head", "neuron", "channel") if kind in kinds_of(loaded.model)]
    kinds = tuple(wanted) or ("head", "neuron")
    view = Prunable.of(loaded.model, kinds)  # which says it of a family that is not listed
    for method in order.methods:
        _check_costs(order, method, loaded, view, data)
        counted = tuple(one for one in method.sparsities if not one.cost)
        if not counted:
            continue
        dataclasses.replace(method, sparsities=counted).check(view)  # type: ignore[type-var]
        for sparsity in counted:
            if all(bool(mask.all()) for mask in drawn_evenly(view, sparsity).values()):
                raise InputError(f"sparsity {sparsity} removes no unit of {order.model}; choose a larger one")
    return kinds


def _check_costs(order: Order, method: Search, loaded: Loaded, view: Prunable, data: Task) -> None:
    """Refuse shares of a counted cost that cannot be reached; a latency has to be measured first."""
    said = tuple(one for one in sizing.costs_of(method) if one.cost and one.cost[0] != "latency")
    if said:
        common = order.common
        text = one_input(data, "validation", common.encoder(loaded), common.place())
        counted: Any = dataclasses.replace(method, sparsities=said)  # type: ignore[type-var]
        sizing.find(counted, loaded.model, view, text)


def teacher_of(order: Order, loaded: Loaded, data: Task) -> Loaded | None:
    """Return the teacher of retraining, None where none is asked for; refuse one that cannot be used."""
    name, common = order.fit.distil_from, order.common
    return None if name is None else open_teacher(name, loaded, common.encoder(loaded), data, common)


def _sees_gradients(attack: TextAttack) -> bool:
    """Say whether an attack, or a member of a cascade, asks for gradients."""
    members = attack.attacks if isinstance(attack, Cascade) else ()
    return getattr(attack, "sees_gradients", False) or any(map(_sees_gradients, members))
