"""Writes the commands that repeat runs, from recipes and rows, with all settings that can change a result."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from hardtack.reports.blocks import Command
from hardtack.reports.folders import Row
from hardtack.reports.gather import Folder, Found

# What recipes and rows record beside flags: names, versions, counts, and a loss that is a function.
RECORDED = frozenset(("name", "version", "words", "loss"))
DIGEST = re.compile(r"[0-9a-f]{32}")
NO_RESULT = frozenset(("device", "save_seconds"))  # cannot change a result
FILE = "FILE"
COLUMNS = 76


def commands(found: Found) -> list[Command]:
    """Return the commands of all runs, in the order of the folders."""
    lines = []
    for folder in found.folders:
        if not folder.recipe:
            continue
        for words in command_words(folder.recipe, out=str(folder.path), rows=found.held.get(folder.name, ())):
            lines.append(Command(folder.name, _wrapped(words), tuple(_facts(folder, words))))
    return lines


def command_words(recipe: Row, *, out: str, rows: Iterable[Row] = ()) -> list[list[str]]:
    """Return the commands that repeat a run, as lists of words: more where `evaluate` was called more often.

    Args:
        recipe: of the run.
        out: its folder.
        rows: what an evaluation measured; its recipe does not list attacks.
    """
    kind, common = recipe.get("kind"), _flags(recipe.get("common") or {}, without=NO_RESULT)
    task = ["--task", str(recipe.get("task_from") or recipe.get("task"))]
    place = ["--out", out]
    if kind == "train":
        return [["hardtack", "train", str(recipe.get("model")), *task, *_fit(recipe), *common, *place]]
    if kind == "retrain":
        base = ["--base", str(recipe["base_from"])] if recipe.get("base_from") else []
        return [
            ["hardtack", "retrain", str(recipe.get("ticket")), *task, *base, *_fit(recipe), *common, *place]
        ]
    if kind == "search":
        return [[*_search(recipe), *task, *_objective(recipe), *common, *place]]
    if kind == "evaluate":
        common = _flags(recipe.get("common") or {}, without=NO_RESULT | {"precision"})  # nothing is trained
        return [[*words, *common, *place] for words in _evaluations(recipe, task, rows)]
    if kind == "soup":
        common = _flags(recipe.get("common") or {}, without=NO_RESULT | {"precision"})
        words = ["hardtack", "soup", *map(str, recipe.get("models") or ()), *task]
        for name, settings in recipe.get("attacks") or ():
            words += ["--attack", name, *_flags(settings, prefix=f"{name}.")]
        if recipe.get("attacks"):
            words += _flags({"examples": recipe.get("examples")})
        return [[*words, *(["--uniform"] if recipe.get("uniform") else []), *common, *place]]
    if kind == "demo":
        shared = recipe.get("common") or {}
        return [["hardtack", "demo", *_flags({"seed": shared.get("seed")}), *place]]
    return []


def _fit(recipe: Row) -> list[str]:
    return [*_flags(recipe.get("fit") or {}), *_objective(recipe)]


def _objective(recipe: Row) -> list[str]:
    objective = recipe.get("objective") or {}
    name = objective.get("name")
    return ["--objective", str(name), *_flags(objective, prefix=f"{name}.")] if name else []


def _search(recipe: Row) -> list[str]:
    settings = dict(recipe.get("settings") or {})
    words = ["hardtack", "search", str(recipe.get("method")), str(recipe.get("model"))]
    if recipe.get("start") and recipe.get("warm_epochs") is None:
        words += ["--from", str(recipe["start"])]
    for sparsity in settings.pop("sparsities", None) or ():
        words += ["--sparsity", _sparsity(str(sparsity))]
    words += _flags(settings)
    for name in ("granularity", "keep_whole", "attacked_from"):
        words += _flags({name: recipe.get(name)})
    return [*words, *_flags({name: recipe.get(name) for name in ("warm_epochs", "warm_lr")})]


def _sparsity(name: str) -> str:
    """Turn a ticket folder's name into what is typed: banks-2of4 -> 2:4, head-0.1700_neuron-0.4000 alike."""
    if banks := re.fullmatch(r"banks-(\d+)of(\d+)", name):
        return f"{banks[1]}:{banks[2]}"
    parts = [re.fullmatch(r"([a-z]+)-([0-9.]+)", part) for part in name.split("_")]
    if not all(parts):
        return name
    typed = [(part[1], f"{float(part[2]):g}") for part in parts if part]
    return typed[0][1] if typed[0][0] == "sparsity" else ",".join(f"{kind}={share}" for kind, share in typed)


def _evaluations(recipe: Row, task: Sequence[str], rows: Iterable[Row]) -> list[list[str]]:
    """Return one command for each split and number of attacked examples."""
    calls: dict[tuple[Any, Any], list[Row]] = {}
    rows = list(rows)
    for row in rows:
        if row.get("attack"):
            calls.setdefault((row.get("split"), row["examples"]), []).append(row)
    for row in rows:
        if not row.get("attack") and not any(split == row.get("split") for split, _ in calls):
            calls[row.get("split"), None] = []
    commands = []
    for (split, examples), attacked in (calls or {(None, None): []}).items():
        words = ["hardtack", "evaluate", str(recipe.get("target")), *task]
        words += _flags({"base": recipe.get("base_from"), "split": split, "examples": examples})
        for row in attacked:
            name = str(row["attack"])
            words += ["--attack", name, *_flags(row.get("attack_settings") or {}, prefix=f"{name}.")]
        others = [row for row in rows if row.get("shifted_from") and row.get("split") == split]
        known = recipe.get("shifted_from") or {}
        words += _flags(
            {"shifted": [known.get(name, name) for name in dict.fromkeys(r["task"] for r in others)]}
        )
        words += _broken_down(rows)
        commands.append(words)
    return commands


def _broken_down(rows: Sequence[Row]) -> list[str]:
    """Spell how labels were mapped and by which columns accuracy was broken down."""
    maps = [row["label_map"] for row in rows if row.get("label_map")]
    texts = [
        ",".join(f"{label}={'+'.join(classes)}" for label, classes in one["groups"].items()) for one in maps
    ]
    columns = [name for row in rows for name in row.get("by") or ()]
    merge = next((one["how"] for one in maps if one["how"] != "argmax"), None)
    return _flags(
        {"label_map": list(dict.fromkeys(texts)), "merge": merge, "by": list(dict.fromkeys(columns))}
    )


def _flags(settings: Mapping[str, Any], *, prefix: str = "", without: Iterable[str] = ()) -> list[str]:
    """Spell settings as flags; what is not set, or no flag, is left out."""
    words = []
    for name, value in settings.items():
        flag = f"{prefix}{name.replace('_', '-')}"
        if value is None or name in RECORDED or name in without or isinstance(value, dict):
            continue
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
            continue
        for one in value if isinstance(value, list) else [value]:
            text = FILE if isinstance(one, str) and DIGEST.fullmatch(one) else str(one)
            words += [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]
    return words


def _facts(folder: Folder, words: Sequence[str]) -> Iterable[str]:
    recipe = folder.recipe
    yield f"run {recipe.get('id')}"
    if recipe.get("parent"):
        yield f"reads {recipe['parent']}"
    if recipe.get("commit"):
        yield f"commit {str(recipe['commit'])[:12]}"
    if FILE in words:
        yield f"{FILE}: a file that rows name by its digest only"
    if recipe.get("task") != "made" and not recipe.get("task_from"):
        yield "the task is given by its name; a folder of your own needs its path"
    if not folder.done:
        yield "unfinished: the same command resumes it"


def _wrapped(words: Sequence[str]) -> str:
    """Write words for a shell, in lines that break before a flag."""
    flags = [at for at, word in enumerate(words) if word.startswith("--")]
    ends = [*flags, len(words)]
    parts = [shlex.join(words[: ends[0]]), *(shlex.join(words[a:b]) for a, b in pairwise(ends))]
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines) > 1 and len(lines[-1]) + len(part) < COLUMNS:
            lines[-1] += f" {part}"
        else:
            lines.append(f"    {part}")
    return " \\\n".join(lines)
