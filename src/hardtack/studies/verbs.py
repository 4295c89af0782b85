"""The verbs that a stage may be: which keys each takes, the call that they mean and the words one would type.

The keys are the names of the flags with `_` for `-`, so a recipe says nothing that the command line cannot.
A setting of one method, objective or attack has a dotted name, `hard_concrete.price`, and applies where that
one is chosen.
"""

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hardtack import stages
from hardtack.evaluation.attacks import ATTACKS
from hardtack.methods import METHODS
from hardtack.runs import Json
from hardtack.select import Sparsity
from hardtack.stages.common import Common
from hardtack.studies.values import as_type, one_of
from hardtack.training.adversarial import OBJECTIVES

Settings = Mapping[str, Json]
"""Keys of a recipe with plain values; settings of a method, objective or attack have dotted names."""

TABLES: Mapping[str, Mapping[str, type]] = {"method": METHODS, "objective": OBJECTIVES, "attack": ATTACKS}
RENAMED = {"start": "from", "attacks": "attack"}  # parameter -> key, where the flag has another name
LEFT_OUT = ("out", "common", "watch", "dry_run")
TRAINED = ("train", "retrain", "soup")
"""Verbs that make a model."""


class Key(NamedTuple):
    """What a key holds: a type and a default (MISSING where there is none)."""

    annotation: Any
    default: Any


@dataclass(frozen=True)
class Verb:
    """A stage function as a recipe sees it.

    Attributes:
        name: of the verb and of the function in `stages`.
        subject: the key of the first argument.
        refers: the keys that may name another stage (`@NAME`), and which verbs' results they take.
        tables: which tables of settings belong to it.
        gathers: of the keys that refer, the one whose value is a list: a stage in it stands for all of its
            cells that have the same values on the shared axes.
    """

    name: str
    subject: str
    refers: Mapping[str, tuple[str, ...]]
    tables: tuple[str, ...]
    gathers: str = ""

    @cached_property
    def takes(self) -> dict[str, Key]:
        """List every key that a stage of this verb may hold."""
        function = getattr(stages, self.name)
        hints = typing.get_type_hints(function)
        found: dict[str, Key] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if name in LEFT_OUT:
                continue
            key = RENAMED.get(name, name)
            empty = parameter.default is inspect.Parameter.empty
            found[key] = Key(hints[name], MISSING if empty else parameter.default)
            if key in TABLES:  # an instance in Python, a name here
                found[key] = Key(tuple[str, ...] if key == "attack" else str, MISSING if empty else None)
        if "method" in self.tables:
            found["sparsity"] = Key(Sparsity, None)
        found |= fields(Common)
        for table in self.tables:
            for name, cls in TABLES[table].items():
                found |= {f"{name}.{key}": item for key, item in fields(cls).items()}
        return found


VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("train", "model", {"model": TRAINED, "distil_from": TRAINED}, ("objective",)),
        Verb("search", "model", {"model": TRAINED, "from": TRAINED}, ("method", "objective")),
        Verb(
            "retrain",
            "ticket",
            {"ticket": ("search",), "base": TRAINED, "distil_from": TRAINED},
            ("objective",),
        ),
        Verb("soup", "models", {"models": TRAINED}, ("attack",), gathers="models"),
        Verb("evaluate", "target", {"target": (*TRAINED, "search"), "base": TRAINED}, ("attack",)),
    )
}


def fields(cls: type) -> dict[str, Key]:
    """List the fields of a dataclass that a recipe may set: those that may be flags."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: Key(hints[field.name], field.default)
        for field in dataclasses.fields(cls)
        if field.init and field.metadata.get("flag", True)
    }


def checked(verb: Verb, key: str, value: Json) -> Json:
    """Return a value as its key's type wants it; raises InputError that says what is allowed."""
    if key in TABLES:
        for name in value if isinstance(value, list) else [value]:
            one_of(key, name, TABLES[key])
    known = verb.takes[key]
    if known.annotation is Sparsity:
        Sparsity.parse(str(value))
        return value
    return as_type(value, known.annotation)


def chosen(verb: Verb, settings: Settings) -> set[str]:
    """Return the methods, objectives and attacks that apply with these settings."""
    names: set[str] = set(settings.get("attack") or ())
    if "cascade" in names:
        names |= set(settings.get("cascade.members") or ()) & ATTACKS.keys()
    if "method" in verb.tables and (method := settings.get("method")) in METHODS:
        names |= {method, settings.get("objective") or METHODS[method].minimises}
    elif "objective" in verb.tables:
        names.add(settings.get("objective") or "clean")
    return names


def owner_of(key: str) -> str:
    """Return the method, objective or attack that a dotted key is a setting of; "" for a plain key."""
    return key.rpartition(".")[0]


def common_of(settings: Settings) -> Common:
    """Return the `Common` of a cell's settings."""
    return Common(**{name: settings[name] for name in fields(Common) if name in settings})


def sparsities(settings: Settings) -> tuple[Sparsity, ...]:
    """Return the sparsities that a search draws tickets at; () for the method's own."""
    given = settings.get("sparsity")
    values = given if isinstance(given, list) else [] if given is None else [given]
    return tuple(Sparsity.parse(str(value)) for value in values)
