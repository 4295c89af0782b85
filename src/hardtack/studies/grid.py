"""Expands a recipe into cells: one for each combination of its axes, with a folder and an id of its own.

A stage has the shared axes that it has keys for, its own, and those of the cells that it refers to. Only
`sparsity` is special: one search draws its tickets at all sparsities from the same scores, so that axis
belongs to the tickets, and stages that refer to the search have a cell a ticket.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hardtack.errors import InputError
from hardtack.methods import METHODS
from hardtack.runs import Json
from hardtack.select import Sparsity
from hardtack.studies.calls import check, parts_of, resolved
from hardtack.studies.cells import Axis, Cell, Made, identify, names_of, place_of
from hardtack.studies.contents import Contents
from hardtack.studies.recipe import Recipe, Stage, is_reference
from hardtack.studies.verbs import Verb, chosen, owner_of, sparsities

Point = tuple[dict[Axis, Json], dict[str, Made]]
"""A combination of values, and what the stage's references mean there."""


def expand(recipe: Recipe, out: Path, contents: Contents) -> list[Cell]:
    """Return all cells of a recipe, in the order of its stages and axes.

    Args:
        recipe: what was read.
        out: the study's folder.
        contents: fingerprints of data and of models outside the study.

    Raises:
        InputError: when a combination of settings is refused, or data or models cannot be read.
    """
    made: dict[str, list[Made]] = {}
    cells: dict[str, list[Cell]] = {}
    for stage in recipe.in_order():
        made[stage.name] = [one for many in _stage(recipe, stage, made, out, contents) for one in many]
        cells[stage.name] = list({one.cell.place: one.cell for one in made[stage.name]}.values())
    return [cell for stage in recipe.stages for cell in cells[stage.name]]


def _stage(
    recipe: Recipe, stage: Stage, made: Mapping[str, list[Made]], out: Path, contents: Contents
) -> Iterator[list[Made]]:
    """Yield, cell by cell, what references to the stage can mean."""
    keys = stage.verb.takes
    shared = {k: v for k, v in recipe.grid.items() if k in keys and k not in {**stage.fixed, **stage.grid}}
    axes = {Axis("", key): values for key, values in shared.items()}
    axes |= {Axis(stage.name, key): values for key, values in stage.grid.items()}
    drawn = next((axis for axis in axes if axis.key == "sparsity"), None)  # the tickets' axis, not the cells'
    _refuse_unused(recipe, stage, axes)
    taken: set[str] = set()
    points = list(_points(recipe, stage, axes, drawn, made))
    for point, references in _wanted(recipe, stage, points):
        values = {axis.key: value for axis, value in point.items() if axis in axes}
        settings = {**stage.fixed, **values, **{key: one.path for key, one in references.items()}}
        many = _gathered(settings.get(stage.verb.gathers), point, made)
        if many:
            settings[stage.verb.gathers] = [one if isinstance(one, str) else one.path for one in many]
        if drawn is not None:
            settings["sparsity"] = axes[drawn]
        apply = chosen(stage.verb, settings)
        settings = {key: v for key, v in settings.items() if not owner_of(key) or owner_of(key) in apply}
        typed = {axis: _typed(recipe, value) for axis, value in point.items()}
        try:
            yield _cell(stage, settings, typed, references, many, drawn, out, contents, taken)
        except InputError as error:
            where = ", ".join(f"{name} = {value}" for name, value in names_of(typed, settings).items())
            recipe.wrong(f"{error} (at {where})" if len(typed) else str(error), stage.name)


def _points(
    recipe: Recipe, stage: Stage, axes: Mapping[Axis, list[Json]], drawn: Axis | None, made: Mapping
) -> Iterator[Point]:
    """Yield each combination of values with what the stage's references mean there.

    The order of the axes: shared ones, own ones that name models, inherited ones, other own ones; settings of
    one method come last, because they only vary where that method is chosen.
    """
    plain = [axis for axis in axes if axis != drawn and not owner_of(axis.key)]
    first = [axis for axis in plain if not axis.owner or axis.key in stage.verb.refers]
    rest = [axis for axis in plain if axis not in first]
    dotted = [axis for axis in axes if owner_of(axis.key)]
    for values in itertools.product(*(axes[axis] for axis in first)):
        point = dict(zip(first, values, strict=True))
        named = {key: stage.fixed.get(key) for key in stage.verb.refers}
        named |= {axis.key: value for axis, value in point.items() if axis.key in named}
        wanted = {key: str(value)[1:] for key, value in named.items() if is_reference(value)}
        joins = list(_joins(point, list(wanted.items()), made))
        if not joins:
            at = ", ".join(f"{axis.key} = {value}" for axis, value in point.items())
            recipe.wrong(f"no cells of {', '.join(wanted.values())} fit together at {at}", stage.name)
        for joined, references in joins:
            for more in itertools.product(*(axes[axis] for axis in rest)):
                full = {**joined, **dict(zip(rest, more, strict=True))}
                apply = chosen(stage.verb, {**stage.fixed, **{axis.key: v for axis, v in full.items()}})
                varied = [axis for axis in dotted if owner_of(axis.key) in apply]
                for last in itertools.product(*(axes[axis] for axis in varied)):
                    yield {**full, **dict(zip(varied, last, strict=True))}, references


def _joins(
    point: dict[Axis, Json], wanted: Sequence[tuple[str, str]], made: Mapping[str, list[Made]]
) -> Iterator[tuple[dict[Axis, Json], dict[str, Made]]]:
    """Yield every way to choose one result a reference so that equal axes have equal values."""
    if not wanted:
        yield point, {}
        return
    (key, stage), *others = wanted
    for one in made[stage]:
        if all(point.get(axis, value) == value for axis, value in one.axes.items()):
            for joined, references in _joins({**point, **one.axes}, others, made):
                yield joined, {key: one, **references}


def _gathered(named: Json, point: Mapping[Axis, Json], made: Mapping[str, list[Made]]) -> list[Made | str]:
    """Return what a list of models means: outside ones, and all cells of a stage that fit on shared axes."""
    found: list[Made | str] = []
    for one in named or ():
        if not is_reference(one):
            found.append(one)
            continue
        found += [
            cell
            for cell in made[one[1:]]
            if all(axis.owner or point.get(axis, value) == value for axis, value in cell.axes.items())
        ]
    return found


def _cell(
    stage: Stage, settings: dict[str, Json], typed: Mapping[Axis, Json], references: Mapping[str, Made],
    many: Sequence[Made | str], drawn: Axis | None, out: Path, contents: Contents, taken: set[str],
) -> list[Made]:  # fmt: skip
    """Make one cell, and what references to it can mean."""
    verb, found = stage.verb, dict(references)
    inside = [*found.values(), *(one for one in many if isinstance(one, Made))]
    ticket = found.get("ticket") or found.get("target")
    if ticket is not None and ticket.base and "base" not in settings:
        settings["base"] = str(out / ticket.base[0])  # a ticket's base may have moved with the study
    names = names_of(typed, settings)
    place = place_of(stage.name, names, taken)
    outside = {key for key in verb.refers if key in settings} - {"base", verb.gathers, *found}
    content: dict[str, Json] = {key: one.content for key, one in found.items()}
    content |= {key: contents.model(settings[key]) for key in sorted(outside)}
    if many:
        content[verb.gathers] = [
            one.content if isinstance(one, Made) else contents.model(one) for one in many
        ]
    check(verb, settings)
    whole = resolved(verb, settings)
    data = contents.data(verb.name, settings)
    id = identify(verb.name, whole, content, data)
    weights = {one.cell.place for one in inside if one.cell.verb.name != "search"}
    weights |= {place for one in inside for place in one.base}
    roots = (one.root for key, one in found.items() if key != "distil_from")  # a teacher begins nothing
    root = next(roots, None) or next((one if isinstance(one, str) else one.root for one in many), None)
    root = root or contents.root(verb.name, settings)
    cell = Cell(
        id=id, stage=stage.name, verb=verb, axes=names, place=place, folder=out / place, settings=settings,
        needs=tuple(sorted({one.cell.place for one in inside})), weights=tuple(sorted(weights)),
        keep=stage.keep, root=root,
    )  # fmt: skip
    if verb.name != "search":
        return [Made(cell, typed, str(cell.folder), [id], (), root)]
    # A ticket is the same whatever other tickets its search draws: one more changes nothing after it. But
    # where all of them decide when a search stops, they count.
    together = getattr(METHODS[settings["method"]], "together", False) and len(sparsities(settings)) > 1
    dropped = () if together else ("sparsities",)
    parts = {**whole, "method": [[*part[:2], {k: v for k, v in part[2].items() if k not in dropped}]
                                 for part in whole["method"]]}  # fmt: skip
    alone = identify(verb.name, parts, content, data)
    base = (found["model"].cell.place,) if "model" in found else ()
    tickets = [
        Made(
            cell, typed if drawn is None else {**typed, drawn: value},
            str(cell.folder / "tickets" / str(sparsity)), [alone, str(sparsity)], base, root,
        )
        for value, sparsity in _tickets(verb, settings)
    ]  # fmt: skip
    return tickets


def _tickets(verb: Verb, settings: Mapping[str, Json]) -> list[tuple[Json, Sparsity]]:
    given = settings.get("sparsity")
    wanted = sparsities(settings)
    if not wanted:
        wanted = parts_of(verb, settings)["method"].sparsities
    return list(zip(given if isinstance(given, list) else [given] * len(wanted), wanted, strict=True))


def _typed(recipe: Recipe, value: Json) -> Json:
    """Return a value as it was typed, before variables were filled in."""
    return recipe.variables.get(value, value) if isinstance(value, str) else value


def _wanted(recipe: Recipe, stage: Stage, points: Sequence[Point]) -> list[Point]:
    """Return the combinations that the stage's `only` wants.

    Refused are an axis or a value that none of them has, and a choice that leaves nothing.
    """
    for key, values in stage.only.items():
        found = [value for point, _ in points for axis, value in point.items() if axis.key == key]
        if not found:
            there = ", ".join(sorted({axis.key for point, _ in points for axis in point}))
            recipe.wrong(f"only names {key!r}; axes here: {there or 'none'}", stage.name)
        for value in values:
            if value not in found:
                shown = ", ".join(dict.fromkeys(map(str, found)))
                recipe.wrong(f"only wants {key} = {value!r}; its values here: {shown}", stage.name)
    left = [
        (point, references)
        for point, references in points
        if all(value in stage.only.get(axis.key, [value]) for axis, value in point.items())
    ]
    if not left:
        recipe.wrong(f"only = {dict(stage.only)} leaves no combination", stage.name)
    return left


def _refuse_unused(recipe: Recipe, stage: Stage, axes: Mapping[Axis, list[Json]]) -> None:
    """Refuse settings of a method, objective or attack that no cell of the stage chooses."""
    tables = [axis for axis in axes if axis.key in ("method", "objective", "attack")]
    apply: set[str] = set()
    for values in itertools.product(*(axes[axis] for axis in tables)):
        more: dict[str, Any] = {axis.key: value for axis, value in zip(tables, values, strict=True)}
        apply |= chosen(stage.verb, {**stage.fixed, **more})
    own = [*stage.fixed, *stage.grid]
    for key in own:
        if owner_of(key) and owner_of(key) not in apply:
            said = f"{key!r} is a setting of {owner_of(key)!r}, which no cell of this stage chooses"
            recipe.wrong(f"{said}; chosen: {', '.join(sorted(apply)) or 'nothing'}", stage.name)
