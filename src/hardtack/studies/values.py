"""Plain values of a recipe against the types that settings have; every mistake is one line."""

import math
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from hardtack.errors import InputError, nearest
from hardtack.runs import Json

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Path: "a text in quotes",
}


def as_type(value: Json, annotation: Any) -> Json:
    """Return a plain value as a type wants it: 3 as 3.0 for a float, one value as a list for a sequence.

    Raises:
        InputError: that says what is allowed.
    """
    options = _options(annotation)
    for option in options:
        found = _fitting(value, option)
        if found is not None:
            return found
    allowed = " or ".join(dict.fromkeys(_words(option) for option in options))
    shown = "true" if value is True else "false" if value is False else repr(value)
    guess = _guess(value, options)
    raise InputError(f"{shown} is not allowed{guess}; allowed: {allowed}")


def takes_a_list(annotation: Any) -> bool:
    """Say whether a type holds several values."""
    return any(_each(option) is not None for option in _options(annotation))


def one_of(what: str, name: Json, allowed: Iterable[str]) -> None:
    """Refuse a name that is none of the allowed ones, suggesting the nearest."""
    names = list(allowed)
    if name not in names:
        raise InputError(f"{what} {name!r} does not exist{nearest(str(name), names)}")


def _options(annotation: Any) -> list[Any]:
    """Return the types that a value may be of; TOML holds no None, and mappings are for Python."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [part for part in typing.get_args(annotation) if part is not types.NoneType]
        return [part for part in parts if part in WORDS or _each(part) or typing.get_origin(part) is Literal]
    return [annotation]


def _each(annotation: Any) -> Any:
    """Return the type of one value of a sequence; None where the type is no sequence."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    return inner[0] if origin is Sequence or (origin is tuple and inner[1:] == (...,)) else None


def _fitting(value: Json, option: Any) -> Json:
    """Return the value as the type wants it, or None where it is of another type."""
    if (each := _each(option)) is not None:
        found = [_fitting(one, each) for one in (value if isinstance(value, list) else [value])]
        return None if None in found else found
    if typing.get_origin(option) is Literal:
        return value if value in typing.get_args(option) else None
    if option is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if number and math.isfinite(value) else None
    kind = str if option is Path else option
    return value if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) else None


def _words(option: Any) -> str:
    if (each := _each(option)) is not None:
        return f"{_words(each)}, or a list of them"
    if typing.get_origin(option) is Literal:
        return ", ".join(map(str, typing.get_args(option)))
    return WORDS[option]


def _guess(value: Json, options: list[Any]) -> str:
    """Say which of a few allowed words is near."""
    allowed = [str(name) for option in options for name in typing.get_args(option)]
    if not isinstance(value, str) or not all(typing.get_origin(option) is Literal for option in options):
        return ""
    return nearest(value, allowed).partition(" allowed")[0].rstrip(";")
