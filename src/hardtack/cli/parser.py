"""Turns dataclass fields and function parameters into flags, and every mistake in them into one line.

Why not jsonargparse: docs/decisions/0002-argparse-from-fields.md.
"""

import argparse
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from hardtack.errors import InputError, nearest

NO_DEFAULT: Any = dataclasses.MISSING


class Setting(NamedTuple):
    """One flag to be: a dataclass field or a function's parameter."""

    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """Say the name as it is typed, without leading dashes."""
        return self.name.replace("_", "-")


class Parser(argparse.ArgumentParser):
    """An argparse parser whose every complaint is an `InputError` of one line."""

    def __init__(self, prog: str, *, summary: str, example: str):
        super().__init__(
            prog=prog,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage: the command line prints one line and nothing else."""
        raise InputError(f"{self.prog}: {message}")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse, naming the nearest flag for an unknown one before complaining about anything else."""
        known = [flag for action in self._actions for flag in action.option_strings]
        for word in words:
            flag = word.partition("=")[0]
            if word == "--":
                break
            if flag.startswith("-") and flag not in known and not _is_number(flag):
                near = get_close_matches(flag, known, n=1)
                guess = f"; did you mean {near[0]!r}?" if near else ";"
                self.error(f"unknown flag {flag!r}{guess} `{self.prog} --help` lists what is allowed")
        args, extra = self.parse_known_args(words)
        if extra:
            self.error(f"unexpected argument {extra[0]!r}; `{self.prog} --help` shows what is allowed")
        return args


def fields(cls: type) -> list[Setting]:
    """List the fields of a dataclass that can be flags; `metadata={"flag": False}` keeps one out."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.init and field.metadata.get("flag", True):
            found.append(Setting(field.name, hints[field.name], default, field.metadata.get("help", "")))
    return found


def parameters(function: Callable, helps: Mapping[str, str]) -> list[Setting]:
    """List the parameters of `function` that `helps` explains; types and defaults are the function's own."""
    signature = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    found = []
    for name, help in helps.items():
        default = signature[name].default
        found.append(
            Setting(name, hints[name], NO_DEFAULT if default is inspect.Parameter.empty else default, help)
        )
    return found


def add(
    parser: Parser,
    settings: Iterable[Setting],
    *,
    title: str,
    prefix: str = "",
    short: Mapping[str, str] | None = None,
) -> None:
    """Add one flag a setting, `--PREFIX.NAME-WITH-DASHES`; only flags that were typed reach the namespace.

    Args:
        parser: where the flags go.
        settings: from `fields` or `parameters`.
        title: the heading of the group in `--help`.
        prefix: stands before the name, with a dot, so that two owners may have a field of one name.
        short: setting name -> a second, plain flag for the same value.
    """
    group = parser.add_argument_group(title)
    for setting in settings:
        kind, repeated = _plain_type(setting.annotation)
        names = [f"--{prefix}.{setting.flag}" if prefix else f"--{setting.flag}"]
        if short and setting.name in short:
            names.insert(0, short[setting.name])
        more: dict[str, Any] = {"dest": f"{prefix}.{setting.name}", "default": argparse.SUPPRESS}
        more["help"] = _help(setting, repeated)
        if kind is bool:
            group.add_argument(*names, action=argparse.BooleanOptionalAction, **more)
        else:
            action = "append" if repeated else "store"
            group.add_argument(*names, action=action, type=_reader(kind), metavar=_metavar(kind), **more)


def typed(
    args: argparse.Namespace, settings: Iterable[Setting], *, owner: str, prefix: str = ""
) -> dict[str, Any]:
    """Return the values that were typed for these settings; a needed one that is missing is refused."""
    found = {}
    for setting in settings:
        name = f"{prefix}.{setting.name}"
        if name in vars(args):
            value = vars(args)[name]
            found[setting.name] = tuple(value) if isinstance(value, list) else value
        elif setting.default is NO_DEFAULT:
            flag = f"--{prefix}.{setting.flag}" if prefix else f"--{setting.flag}"
            raise InputError(f"{owner} needs {flag}: {setting.help}")
    return found


def one_of(what: str, names: Iterable[str]) -> Callable[[str], str]:
    """Make a reader of names that suggests the nearest one for a wrong one."""
    allowed = list(names)

    def read(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"unknown {what} {text!r}{nearest(text, allowed)}")
        return text

    return read


def _plain_type(annotation: Any) -> tuple[Any, bool]:
    """Strip `| None`, `tuple[..., ...]`, `Sequence[...]` off a type: what one value is, and if it repeats."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        # Of `str | Path | Mapping` a flag holds what can be typed, and says PATH where that is one.
        parts = typing.get_args(annotation)
        held = [part for part in parts if _is_plain(part) or _repeated(part) is not None]
        if held:
            return _plain_type(Path if Path in held else held[0])
    if (one := _repeated(annotation)) is not None:
        return _plain_type(one)[0], True
    if _is_plain(annotation):
        return annotation, False
    raise TypeError(f'no flag can hold a {annotation}: mark the field with metadata={{"flag": False}}')


def _is_plain(annotation: Any) -> bool:
    return annotation in READERS or annotation is bool or typing.get_origin(annotation) is Literal


def _repeated(annotation: Any) -> Any:
    """Return the type of one value of a tuple of any length or a sequence; None for any other type."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Sequence or (origin is tuple and inner[1:] == (...,)):
        return inner[0]
    return None


def _reader(kind: Any) -> Callable[[str], Any]:
    if typing.get_origin(kind) is Literal:
        return one_of("value", typing.get_args(kind))
    return READERS[kind]


def notation(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make a reader of a function that raises InputError, whose words argparse would replace."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def whole_number(text: str) -> int:
    """Read a whole number, or say that it is none."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def number(text: str) -> float:
    """Read a finite number, or say that it is none."""
    if not _is_number(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    return METAVARS[kind]


def _help(setting: Setting, repeated: bool) -> str:
    """Compose the help text: what the owner says, whether it repeats, and the default."""
    notes = ["may be repeated"] if repeated else []
    default = setting.default
    if default is NO_DEFAULT:
        notes.append("needed")
    elif default not in (None, ()):
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        notes.append(f"default: {shown}")
    text = f"{setting.help} ({'; '.join(notes)})" if notes else setting.help
    return text.strip().replace("%", "%%")


READERS: Mapping[Any, Callable[[str], Any]] = {int: whole_number, float: number, str: str, Path: Path}
METAVARS: Mapping[Any, str] = {int: "N", float: "X", str: "NAME", Path: "PATH"}
