"""From a cell's settings to the call of a stage, the words one would type, and what counts in its id."""

import typing
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from hardtack import stages
from hardtack.errors import InputError
from hardtack.evaluation.attacks import ATTACKS, attacks_of
from hardtack.methods import METHODS
from hardtack.prunable import KINDS
from hardtack.runs import Json, Watch
from hardtack.stages.common import Common, settings_of
from hardtack.stages.epochs import Fit
from hardtack.studies.values import one_of
from hardtack.studies.verbs import (
    RENAMED,
    TABLES,
    Settings,
    Verb,
    chosen,
    common_of,
    fields,
    owner_of,
    sparsities,
)
from hardtack.training.adversarial import OBJECTIVES


def parts_of(verb: Verb, settings: Settings) -> dict[str, Any]:
    """Build the method, objective and attacks of a cell's settings; a key that is not there has no part."""
    found: dict[str, Any] = {}
    if "method" in verb.tables:
        more = {"sparsities": sparsities(settings)} if sparsities(settings) else {}
        found["method"] = _built(METHODS[settings["method"]], settings, more)
    if "objective" in verb.tables:
        (name,) = chosen(verb, settings) & set(OBJECTIVES)
        if settings.get("objective") or any(owner_of(key) == name for key in settings):
            found["objective"] = _built(OBJECTIVES[name], settings, {})
    if "attack" in verb.tables:
        names, members = settings.get("attack") or (), settings.get("cascade.members") or ()
        found["attacks"] = attacks_of(
            names, members, lambda name, known: _built(ATTACKS[name], settings, known)
        )
    return found


def check(verb: Verb, settings: Settings) -> None:
    """Refuse what the stage would refuse once it runs, as far as no data or model is needed for that.

    Raises:
        InputError: that says what is allowed.
    """
    arguments(verb, settings)
    if "epoch_rule" in verb.takes:
        Fit(**{name: settings[name] for name in fields(Fit) if name in settings})
    for kind in settings.get("granularity", ()):
        one_of("granularity", kind, KINDS)
    names = [str(sparsity) for sparsity in sparsities(settings)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two sparsities share the folder {min(twice)}; allowed: each once, to 4 decimals")
    if settings.get("examples", 1) < 1:
        raise InputError(f"examples = {settings['examples']}; allowed: 1 or more")


def _built(cls: Any, settings: Settings, more: Mapping[str, Any]) -> Any:
    known = fields(cls)
    mine = {key: settings[f"{cls.name}.{key}"] for key in known if f"{cls.name}.{key}" in settings}
    for key, item in known.items():
        if key not in mine and item.default is MISSING:
            raise InputError(f"{cls.name} needs {cls.name}.{key}")
    return cls(**{**{key: _python(value, known[key].annotation) for key, value in mine.items()}, **more})


def _python(value: Json, annotation: Any) -> Any:
    """Return the object that the command line makes of a plain value."""
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if Path in typing.get_args(annotation) else value


def _plain(verb: Verb, settings: Settings) -> dict[str, Json]:
    """Return the settings that are ordinary parameters of the function, by their key."""
    skipped = {verb.subject, *TABLES, "sparsity", *fields(Common)}
    return {key: value for key, value in settings.items() if key not in skipped and not owner_of(key)}


def arguments(verb: Verb, settings: Settings) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the stage function, all but `out`, `watch` and `dry_run`."""
    parts = parts_of(verb, settings)
    first = (parts.pop("method"),) if "method" in parts else ()
    names = {key: name for name, key in RENAMED.items()}
    hints = verb.takes
    plain = {
        names.get(key, key): _python(value, hints[key].annotation)
        for key, value in _plain(verb, settings).items()
    }
    return (*first, settings[verb.subject]), {**plain, **parts, "common": common_of(settings)}


def call(
    verb: Verb, settings: Settings, *, out: str | Path, watch: Watch | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Run a stage."""
    values, named = arguments(verb, settings)
    return getattr(stages, verb.name)(*values, out=str(out), watch=watch, dry_run=dry_run, **named)


def words(verb: Verb, settings: Settings, *, out: str | Path) -> list[str]:
    """Return the command that does the same; only what differs from a default is typed."""
    line = ["hardtack", verb.name]
    if "method" in verb.tables:
        line.append(settings["method"])
    subject = settings[verb.subject]
    line += [*(subject if verb.gathers else [subject]), "--task", settings["task"]]
    known = verb.takes
    for key, value in settings.items():
        owner = owner_of(key)
        if key in (verb.subject, "task", "method") or (owner and owner not in chosen(verb, settings)):
            continue
        if value == known[key].default:
            continue
        flag = key.removeprefix(f"{owner}.").replace("_", "-")
        flag = f"--{owner}.{flag}" if owner and owner not in METHODS else f"--{flag}"
        if isinstance(value, bool):
            line.append(flag if value else f"--no-{flag.removeprefix('--')}")
            continue
        for one in value if isinstance(value, list) else [value]:
            line += [flag, str(one)]
    implied = parts_of(verb, settings).get("objective")
    if implied is not None and not settings.get("objective"):  # typed settings need the name typed, too
        line += ["--objective", implied.name]
    return [*line, "--out", str(out)]


def resolved(verb: Verb, settings: Settings) -> dict[str, Json]:
    """Return what can change a stage's results, but for data and models: non-default settings, versions.

    Names of places (task, models, tables of words) are left out: their content counts, by other means.
    """
    known = verb.takes
    found: dict[str, Json] = {
        key: value
        for key, value in _plain(verb, settings).items()
        if key not in ("task", "shifted", *verb.refers) and value != known[key].default
    }
    found |= settings_of(common_of(settings))
    for name in ("text_column", "label_column"):  # the data's fingerprint says what was read
        found.pop(name, None)
    parts = parts_of(verb, settings)
    if "objective" in verb.tables:  # the same one counts the same, typed or by default
        (default,) = chosen(verb, settings) & set(OBJECTIVES)
        parts.setdefault("objective", OBJECTIVES[default]())
    for name, part in parts.items():
        many = part if isinstance(part, tuple) else (part,)
        found[name] = [[one.name, getattr(one, "version", 1), _settings_by_content(one)] for one in many]
    return found


def _settings_by_content(part: Any) -> dict[str, Json]:
    """Return non-default settings; an attack names its files by their content."""
    by_content = part.settings() if hasattr(part, "settings") else {}
    return {name: by_content.get(name, value) for name, value in settings_of(part).items()}
