"""Reads a recipe and checks it: every mistake is one line with file, stage, value and what is allowed."""

import os
import re
import string
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hardtack.errors import InputError, nearest
from hardtack.runs import Json
from hardtack.stages.common import Common
from hardtack.stages.demonstrating import embedded_model
from hardtack.studies.recipe import Recipe, Stage, each, is_reference
from hardtack.studies.values import one_of, takes_a_list
from hardtack.studies.verbs import VERBS, Verb, checked, fields

TOP = ("name", "results", "explores", "common", "grid", "stage")
OWN = ("name", "verb", "grid", "keep", "only")
DEFAULTS: Mapping[str, Callable[[], str]] = {
    "HARDTACK_DATA": lambda: "../shared/data",
    "HARDTACK_MINILM": embedded_model,  # of the extra "demo"
}
"""What stands for a variable that the environment does not set."""
FIRST_EXPLORING = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read(path: str | Path) -> Recipe:
    """Read and check a recipe; nothing is opened but the file itself."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}; allowed: a recipe, a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no TOML: {error}") from None
    return Reader(file, text, content).recipe()


class Reader:
    """Turns the content of a TOML file into a recipe."""

    def __init__(self, file: Path, text: str, content: dict[str, Any]):
        self.content, self.variables = content, {}
        name = content.get("name", file.stem)
        self.empty = Recipe(file, str(name), text)
        self.wrong = self.empty.wrong
        if not isinstance(name, str) or not NAME.fullmatch(name):
            self.wrong(f"name {name!r} is not allowed; allowed: letters, digits, - _ . (it names a folder)")

    def recipe(self) -> Recipe:
        """Check everything that can be checked without data or models."""
        self.known("", self.content, TOP)
        common, shared = self.table("common"), self.table("grid")
        entries = self.content.get("stage")
        if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
            self.wrong("it has no stages; needed: one [[stage]] table or more")
        results, explores = self.content.get("results", "docs/results"), self.content.get("explores", False)
        if not isinstance(results, str) or not isinstance(explores, bool):
            self.wrong(f"results {results!r}, explores {explores!r}; allowed: a folder, true or false")
        stages = [self.stage(entry, common, shared, number) for number, entry in enumerate(entries, start=1)]
        names = [stage.name for stage in stages]
        for name in names:
            if names.count(name) > 1:
                self.wrong(f"two stages are called {name!r}; allowed: different names")
        grid = self.axes("", shared, stages)
        for stage in stages:
            self.references(stage, grid, {other.name: other for other in stages})
        found = replace(
            self.empty,
            results=results,
            explores=explores,
            grid=grid,
            stages=tuple(stages),
            variables=self.variables,
        )
        found.in_order()
        if explores:
            self.exploring(found)
        return found

    def exploring(self, recipe: Recipe) -> None:
        """Refuse what belongs to confirmations: a test split, and seeds below FIRST_EXPLORING."""
        for stage in recipe.stages:
            axes = {k: v for k, v in recipe.grid.items() if k not in stage.fixed}
            axes.update(stage.grid)
            for seed in axes.get("seed", [stage.fixed.get("seed", 0)]):
                if seed < FIRST_EXPLORING:
                    said = f"seed {seed} in a study that explores; allowed: {FIRST_EXPLORING} or more"
                    self.wrong(f"{said} (the lower ones confirm what was chosen)", stage.name)
            if stage.verb.name == "evaluate" and "test" in axes.get(
                "split", [stage.fixed.get("split", "test")]
            ):
                said = "split = 'test' in a study that explores; allowed: 'validation'"
                self.wrong(f"{said} (a test split is read once, after every choice)", stage.name)

    def table(self, name: str) -> dict[str, Json]:
        """Return [common] or [grid], flat."""
        value = self.content.get(name, {})
        if not isinstance(value, dict):
            self.wrong(f"{name} is {value!r}; allowed: a table, [{name}]")
        if name == "common":
            self.known("[common]", value, {"task", *fields(Common)})
        return flat(value)

    def known(self, where: str, keys: Mapping[str, Json], allowed: Iterable[str], stage: str = "") -> None:
        """Refuse a key that is none of the allowed ones; of dotted keys those of its owner are listed."""
        for key in keys:
            if key not in (allowed := list(allowed)):
                owner = key.rpartition(".")[0]
                near = [name for name in allowed if name.rpartition(".")[0] == owner] or list(allowed)
                self.wrong(f"unknown key {key!r}{where and ' in ' + where}{nearest(key, near)}", stage)

    def stage(self, entry: dict[str, Json], common: Mapping, shared: Mapping, number: int) -> Stage:
        """Check one stage by itself."""
        name = entry.get("name", entry.get("verb"))
        if not isinstance(name, str) or not NAME.fullmatch(name):
            self.wrong(f"stage {number} has the name {name!r}; allowed: letters, digits, - _ .")
        if "verb" not in entry:
            self.wrong(f"it has no verb; allowed: {', '.join(VERBS)}", name)
        self.attempt(lambda: one_of("verb", entry["verb"], VERBS), name)
        verb = VERBS[entry["verb"]]
        keys = verb.takes
        own = flat({key: value for key, value in entry.items() if key not in OWN})
        grid = entry.get("grid", {})
        if not isinstance(grid, dict):
            self.wrong(f"grid is {grid!r}; allowed: a table, {{key = [value, value]}}", name)
        many = isinstance(own.get(verb.subject), list) and not verb.gathers
        if many:  # several models, tickets or targets: an axis
            grid = {verb.subject: own.pop(verb.subject), **grid}
        grid = flat(grid)
        self.known("", own, [*keys, *OWN], name)
        self.known("grid", grid, keys, name)
        keep = entry.get("keep", False)
        if not isinstance(keep, bool):
            self.wrong(f"keep is {keep!r}; allowed: true or false", name)
        for key in own:
            if key in grid:
                self.wrong(f"{key!r} stands in the stage and in its grid; allowed: one of them", name)
        fixed = {
            key: self.value(verb, key, value, name) for key, value in {**common, **own}.items() if key in keys
        }
        axes = {key: self.axis(verb, key, values, name) for key, values in grid.items()}
        for key in axes:
            fixed.pop(key, None)  # an axis of one's own stands before [common]
        stage = Stage(name, verb, fixed, axes, keep, self.only(entry.get("only", {}), name))
        self.complete(stage, shared)
        return stage

    def only(self, wanted: Json, stage: str) -> dict[str, list[Json]]:
        """Check the shape of a choice among combinations; its axes are known once stages are joined."""
        if not isinstance(wanted, dict) or not all(isinstance(v, list) and v for v in flat(wanted).values()):
            self.wrong(f"only is {wanted!r}; allowed: a table, {{key = [value, value]}}", stage)
        return {key: [self.filled(value, stage) for value in values] for key, values in flat(wanted).items()}

    def complete(self, stage: Stage, shared: Mapping[str, Json]) -> None:
        """Refuse a stage that lacks a key which has no default."""
        for key in (stage.verb.subject, "task", *(["method"] if "method" in stage.verb.tables else [])):
            if key not in {**stage.fixed, **stage.grid, **shared}:
                where = " (or in [common])" if key == "task" else ""
                self.wrong(f"it has no {key!r}; a {stage.verb.name} stage needs one{where}", stage.name)

    def axes(self, stage: str, shared: Mapping[str, Json], stages: list[Stage]) -> dict[str, list[Json]]:
        """Check the shared axes: each is a key of some stage that does not fix it."""
        found = {}
        allowed = {key for one in stages for key in one.verb.takes}
        self.known("[grid]", shared, allowed)
        for key, values in shared.items():
            if key in self.content.get("common", {}):
                self.wrong(f"{key!r} stands in [common] and in [grid]; allowed: one of them")
            takers = [one for one in stages if key in one.verb.takes and key not in {**one.fixed, **one.grid}]
            if not takers:
                self.wrong(f"no stage takes the axis {key!r} of [grid]: each fixes it or has no such key")
            found[key] = self.axis(takers[0].verb, key, values, "")
        return found

    def axis(self, verb: Verb, key: str, values: Json, stage: str) -> list[Json]:
        """Check the values of one axis."""
        if not isinstance(values, list) or not values:
            self.wrong(f"the axis {key!r} of the grid is {values!r}; allowed: a list of values", stage)
        found = [self.value(verb, key, value, stage) for value in values]
        for number, value in enumerate(found):
            if value in found[:number]:
                self.wrong(f"the axis {key!r} of the grid holds {values[number]!r} twice", stage)
        return found

    def value(self, verb: Verb, key: str, value: Json, stage: str) -> Json:
        """Check one value, and fill its variables in."""
        if isinstance(value, dict):
            self.wrong(f"{key!r} is a table; allowed: a value", stage)
        if isinstance(value, list) and not takes_a_list(verb.takes[key].annotation):
            self.wrong(f"{key!r} takes one value; several go into grid = {{{key} = {value}}}", stage)
        value = self.filled(value, stage)
        try:
            return checked(verb, key, value)
        except InputError as error:
            said = str(error) if repr(value) in str(error) and key in str(error) else f"{key} = {error}"
            self.wrong(said, stage)

    def filled(self, value: Json, stage: str) -> Json:
        """Fill $VARIABLES of the environment into texts."""
        if isinstance(value, list):
            return [self.filled(one, stage) for one in value]
        if not isinstance(value, str) or "$" not in value:
            return value
        try:
            template = string.Template(value)
            known = {name: make() for name, make in DEFAULTS.items() if name in template.get_identifiers()}
            full = template.substitute({**known, **os.environ})
        except KeyError as error:
            self.wrong(f"variable ${error.args[0]} in {value!r} is not set; set it in the environment", stage)
        except ValueError:
            self.wrong(f"{value!r} holds a $ without a name; allowed: $NAME, ${{NAME}}, $$ for $", stage)
        self.variables[full] = value
        return full

    def references(self, stage: Stage, grid: Mapping[str, list[Json]], stages: Mapping[str, Stage]) -> None:
        """Refuse a reference to a stage that is not there or makes something else."""
        shared = {key: values for key, values in grid.items() if key not in {**stage.fixed, **stage.grid}}
        for key, verbs in stage.verb.refers.items():
            axis = {**shared, **stage.grid}.get(key, [])
            named = [one for value in (stage.fixed.get(key), *axis) for one in each(value)]
            for value in map(str, filter(is_reference, named)):
                if value[1:] not in stages:
                    names = [f"@{name}" for name in stages]
                    self.wrong(f"{key} = {value!r} names no stage{nearest(value, names)}", stage.name)
                if (made := stages[value[1:]].verb.name) not in verbs:
                    said = f"{key} = {value!r} is a stage of the verb {made}"
                    self.wrong(f"{said}; allowed: {', '.join(verbs)}", stage.name)

    def attempt(self, check: Any, stage: str) -> None:
        """Run a check; its line gets the file and the stage."""
        try:
            check()
        except InputError as error:
            self.wrong(str(error), stage)


def flat(table: Mapping[str, Json], owner: str = "") -> dict[str, Json]:
    """Give the entries of tables inside a table dotted names: {freelb: {steps: 3}} is {"freelb.steps": 3}."""
    found: dict[str, Json] = {}
    for key, value in table.items():
        if isinstance(value, dict) and not owner:
            found |= flat(value, f"{key}.")
        else:
            found[f"{owner}{key}"] = value
    return found
