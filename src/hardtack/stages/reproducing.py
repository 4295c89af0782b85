"""`recipe.toml` in a run's folder: a study of one stage that does the same again."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardtack.runs import Json
from hardtack.select import Sparsity
from hardtack.stages.common import Common


def recipe(verb: str, arguments: Mapping[str, Any]) -> str | None:
    """Write a stage's arguments as a recipe; None where one of them is no text, number or list.

    A table of words given in Python, for instance, has no text. Where several commands evaluated into one
    folder, it keeps the recipe of the last one that measured something.
    """
    keys: dict[str, Json] = {}
    sparsities: list[Json] = []
    for name, value in arguments.items():
        if name in ("out", "watch", "dry_run") or value is None or value == ():
            continue
        if name in ("method", "objective"):
            keys |= {name: value.name, **_settings(value, f"{value.name}.")}
            sparsities += [_sparsity(one) for one in getattr(value, "sparsities", ())]
        elif name == "attacks":
            keys |= _attacks(value)
        elif name == "common":
            keys |= _settings(value, "")
        else:
            keys["from" if name == "start" else name] = value
    lines = ["[[stage]]", f'verb = "{verb}"']
    try:
        lines += [f"{key} = {_value(value)}" for key, value in keys.items()]
        lines += [f"grid = {{sparsity = {_value(sparsities)}}}"] if sparsities else []
    except TypeError:
        return None
    return "\n".join(lines) + "\n"


def _attacks(attacks: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of attacks; what a sweep took apart stands together again, members have their names."""
    keys: dict[str, Any] = {"attack": list(dict.fromkeys(one.name for one in attacks))}
    for one in attacks:
        settings = _settings(one, f"{one.name}.")
        for key, value in settings.items():
            swept = hasattr(one, "sweep") and isinstance(value, tuple) and key in keys
            keys[key] = tuple(dict.fromkeys((*keys[key], *value))) if swept else value
        inside = [member for member in getattr(one, "members", ()) if not isinstance(member, str)]
        for member in inside:
            keys |= _settings(member, f"{member.name}.")
        if inside:
            keys[f"{one.name}.members"] = [getattr(member, "name", member) for member in one.members]
    return keys


def _settings(part: Any, prefix: str) -> dict[str, Any]:
    """Return the fields that differ from their default; of `Common` also those that cannot change results."""
    fields = [field for field in dataclasses.fields(part) if field.name != "sparsities"]
    found = {f"{prefix}{field.name}": (getattr(part, field.name), field.default) for field in fields}
    named = isinstance(part, Common)  # a seed of 0 is said, because it names the cell
    return {
        key: value for key, (value, default) in found.items() if value != default or (named and key == "seed")
    }


def _sparsity(value: Sparsity) -> Json:
    """Write a sparsity as it is typed."""
    if value.cost:
        return f"{value.cost[0]}={value.cost[1]}"
    if value.fraction is not None:
        return value.fraction
    if value.per_kind:
        return ",".join(f"{kind}={share}" for kind, share in value.per_kind)
    return "learned" if value.learned else "{}:{}".format(*(value.banks or ()))


def _value(value: Any) -> str:
    """Write a value as TOML, which for these kinds is JSON; raises TypeError for any other kind."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        return json.dumps(value.replace("$", "$$"), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise TypeError(type(value).__name__)
