"""The page's figures: what is plotted, what a plot says in one sentence, and the numbers behind it."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hardtack.reports import plot
from hardtack.reports.blocks import Figure, table
from hardtack.reports.folders import read_log
from hardtack.reports.gather import Drawn, Folder, Found
from hardtack.reports.models import Group, Model, Rate
from hardtack.reports.scorecard import counted, rate_cell, shifted
from hardtack.reports.table import sparsity_text
from hardtack.reports.verdicts import Compared

TICKETS = 12  # tickets whose layers are drawn; the others are counted
CURVE = 200  # points of a curve; its table has fewer
ROWS = 12
REST = "rest"  # the column of sites that are in no layer
LAYER = re.compile(r"(?<=\.)(\d+)(?=\.)|^(\d+)(?=\.)")
Placed = tuple[Model, float, Rate]


class Axis(NamedTuple):
    """What robustness is plotted against."""

    name: str
    label: str


class Against(NamedTuple):
    """What a plot's points are seen against: the yardstick and the paired differences."""

    group: Group
    yardstick: Model
    compared: Compared | None
    rates: dict[int, Rate]

    @property
    def level(self) -> float | None:
        """Return the yardstick's accuracy under attack."""
        rate = self.rates.get(self.yardstick.number)
        return None if rate is None else rate.mean


SPARSITY = Axis("sparsity", "sparsity: share of prunable units removed")
LATENCY = Axis("latency", "latency: milliseconds a text")


def robustness(
    models: Sequence[Model],
    compared: Iterable[Compared],
    groups: Iterable[Group],
    yardstick: Model,
    *,
    seed: int,
) -> list[Figure]:
    """Plot accuracy under attack against sparsity and against latency, a figure for each attack."""
    found = []
    by_group = {id(one.group): one for one in compared}
    for number, group in enumerate(group for group in groups if group.attack and not shifted(group)):
        rated = [(model, model.rate(group, "accuracy_under_attack", seed=seed)) for model in models]
        known = [(model, rate) for model, rate in rated if rate is not None]
        against = Against(
            group, yardstick, by_group.get(id(group)), {model.number: rate for model, rate in known}
        )
        for axis, where in ((SPARSITY, _sparsity), (LATENCY, _latency)):
            placed = [(model, at, rate) for model, rate in known if (at := where(model)) is not None]
            if placed and (axis is LATENCY or any(at for _, at, _ in placed)):
                found.append(_scatter(f"{axis.name}{number}", axis, placed, against))
    return found


def _sparsity(model: Model) -> float | None:
    value = model.row.get("sparsity")
    return 0.0 if value is None else float(value) if isinstance(value, int | float) else None


def _latency(model: Model) -> float | None:
    return model.middle("latency_ms", measured=True)


def _scatter(name: str, axis: Axis, placed: Sequence[Placed], against: Against) -> Figure:
    series: dict[tuple[object, ...], list[Placed]] = {}
    for one in placed:
        # A method's models are one series over their sparsities, unless several have the same.
        kind = _kind(one[0])
        same = [other for other in placed if _kind(other[0]) == kind and _cut(other[0]) == _cut(one[0])]
        series.setdefault(kind if len(same) == 1 else (one[0].number,), []).append(one)
    drawn = [
        plot.Series(
            _series_name(members),
            tuple(plot.Point(at, r.mean, r.low, r.high) for _, at, r in sorted(members, key=lambda p: p[1])),
        )
        for members in series.values()
    ]
    attack = against.group.attack
    title = f"Accuracy under {attack} against {axis.name}"
    rows = [
        [model.label, _at(at, axis), rate_cell(rate), str(rate.seeds)]
        for model, at, rate in sorted(placed, key=lambda p: (p[1], p[0].number))
    ]
    head = ("model", axis.name, "under attack [95%]", "seeds")
    numbers = table(f"{title}: {against.group.name}", head, rows, right=(1, 2, 3))
    names = {"x": axis.label, "y": f"accuracy under {attack}"}
    draw = partial(plot.scatter, name, title, drawn, **names, level=against.level, joined=axis is SPARSITY)
    return Figure(title, _reading(axis, placed, against), draw, numbers)


def _kind(model: Model) -> tuple[object, ...]:
    row = model.row
    return (row.get("method"), row.get("objective"), str(row.get("granularity")), model.found_with)


def _cut(model: Model) -> object:
    sparsity = _sparsity(model)
    return None if sparsity is None else round(sparsity, 3)


def _series_name(members: Sequence[Placed]) -> str:
    first = members[0][0]
    if len(members) == 1:
        return first.label
    return f"{first.row.get('method') or first.label}{f', {first.found_with}' if first.found_with else ''}"


def _at(at: float, axis: Axis) -> str:
    return sparsity_text(at) if axis is SPARSITY else f"{at:.1f} ms"


def _reading(axis: Axis, placed: Sequence[Placed], against: Against) -> str:
    model, at, rate = max(placed, key=lambda p: p[2].mean)
    size = f"{rate.mean:.2f} [{rate.low:.2f}, {rate.high:.2f}]"
    text = f"The highest point is {model.label} at {_at(at, axis)} with {size}"
    if against.level is not None and model is against.yardstick:
        text += ", the yardstick itself (dashed line)"
    elif against.level is not None:
        text += f"; the dashed line is {against.yardstick.label} at {against.level:.2f}"
        if against.compared and (one := against.compared.of(model, "accuracy_under_attack")):
            text += f", and the paired difference says: {one.firm}"
    crowded = len({round(at, 3) for _, at, _ in placed}) < len(placed)
    return (
        f"{text}. Bars are 95% intervals{'; points of one place are set a little apart' if crowded else ''}."
    )


def layers(found: Found) -> list[Figure]:
    """Draw, for each ticket, how much of each layer's parts is removed."""
    figures = []
    for number, ticket in enumerate(found.tickets[:TICKETS]):
        cells: dict[str, dict[str, tuple[int, int]]] = {}
        for site, units in ticket.units.items():
            layer, part = place(site)
            kept, all_ = cells.setdefault(part, {}).get(layer, (0, 0))
            cells[part][layer] = (kept + ticket.kept[site], all_ + units)
        columns = sorted(
            {layer for line in cells.values() for layer in line}, key=lambda one: (one == REST, len(one), one)
        )
        values = [[_removed(line.get(layer)) for layer in columns] for line in cells.values()]
        title = f"{ticket.name}: what is removed where"
        rows = [
            [part, *("-" if value is None else f"{value:.3f}" for value in line)]
            for part, line in zip(cells, values, strict=True)
        ]
        head = ("part", *(layer if layer == REST else f"layer {layer}" for layer in columns))
        numbers = table(f"{title} (share of its units)", head, rows, right=range(1, len(head)))
        draw = partial(plot.strip, f"layers{number}", title, list(cells), columns, values)
        figures.append(Figure(title, _layers_reading(ticket), draw, numbers))
    return figures


def _removed(cell: tuple[int, int] | None) -> float | None:
    return None if cell is None else 1 - cell[0] / cell[1]


def place(site: str) -> tuple[str, str]:
    """Split a site's name into layer and part: encoder.layer.3.attention.self.query.weight -> 3, query."""
    number = LAYER.search(site)
    if number is None:
        return REST, site.removesuffix(".weight")
    part = site[number.end() + 1 :].removesuffix(".weight")
    return number[0], part.replace("attention.self.", "").replace("attention.output", "attention out")


def _layers_reading(ticket: Drawn) -> str:
    shares = {site: 1 - ticket.kept[site] / units for site, units in ticket.units.items()}
    most, least = max(shares, key=lambda s: shares[s]), min(shares, key=lambda s: shares[s])
    total = f"{ticket.sparsity:.2f} of {counted(sum(ticket.units.values()))} units are removed"
    if shares[most] - shares[least] < 0.005:
        return f"{total}, evenly: every site loses the same share."
    ends = [f"{called(site)} ({shares[site]:.2f})" for site in (most, least)]
    return f"{total}: most in {ends[0]}, least in {ends[1]}."


def called(site: str) -> str:
    """Say which matrix a site is: query of layer 3."""
    layer, part = place(site)
    return part if layer == REST else f"{part} of layer {layer}"


def trajectories(found: Found, read: Callable[[Path], list[dict]] = read_log) -> list[Figure]:
    """Plot the expected share of open gates over the steps of each search that logs it."""
    lines = []
    for folder in found.folders:
        if folder.recipe.get("kind") != "search":
            continue
        logged = {
            line["step"]: float(line["open"])
            for line in read(folder.path)
            if isinstance(line.get("step"), int) and isinstance(line.get("open"), int | float)
        }
        steps = plot.thinned(
            sorted(step for step, value in logged.items() if abs(value) < float("inf")), CURVE
        )
        if len(steps) > 1:
            lines.append(
                plot.Line(folder.name, tuple(map(float, steps)), tuple(logged[step] for step in steps))
            )
    if not lines:
        return []
    title = "Expected share of open gates during the search"
    rows = [
        [line.name, f"{int(x):,}", f"{y:.4f}"]
        for line in lines
        for x, y in plot.thinned(list(zip(line.x, line.y, strict=True)), ROWS)
    ]
    numbers = table(f"{title}, at some steps", ("search", "step", "open"), rows, right=(1, 2))
    said = [
        f"{line.name} goes from {line.y[0]:.2f} to {line.y[-1]:.2f} in {int(line.x[-1]) + 1:,} steps"
        for line in lines
    ]
    more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
    draw = partial(plot.curves, "open", title, lines, x="step", y="expected share of open gates")
    return [Figure(title, f"{'; '.join(said[:3])}{more}.", draw, numbers)]


def settling(found: Found, read: Callable[[Path], list[dict]] = read_log) -> list[Figure]:
    """Plot how far the ranking of each early-bird search still moved, with its threshold and its stop."""
    figures = []
    for folder in found.folders:
        kinds = [str(kind) for kind in folder.recipe.get("granularity") or ()]
        looks = [line for line in read(folder.path) if line.get("event") == "trajectory"]
        looks = [look for look in looks if {"epochs", "settled", *kinds} <= look.keys()]  # not the first one
        if kinds and looks and len(figures) < TICKETS:
            figures.append(_settling(len(figures), folder, kinds, looks))
    return figures


def _settling(number: int, folder: Folder, kinds: Sequence[str], looks: Sequence[dict]) -> Figure:
    settings = folder.recipe.get("settings") or {}
    window, threshold = settings.get("window"), float(settings.get("threshold") or 0)
    shown = plot.thinned(looks, CURVE)
    places = tuple(float(look["epochs"]) for look in shown)
    lines = [plot.Line(kind, places, tuple(float(look[kind]) for look in shown)) for kind in kinds]
    stop = plot.Mark("the search stopped", places[-1]) if looks[-1]["settled"] else None
    what = "rankings: 1 - correlation" if settings.get("stop") == "rank" else "masks: share of units"
    title = f"{folder.name}: how far the ranking still moves"
    head, said = ("epochs", *kinds, "settled"), {True: "yes", False: "no"}
    rows = [
        [f"{look['epochs']:.3f}", *(f"{look[kind]:.4f}" for kind in kinds), said[bool(look["settled"])]]
        for look in plot.thinned(looks, ROWS)
    ]
    caption = f"Largest distance to the {window} checkpoints before ({what}), at some checkpoints"
    draw = partial(
        plot.curves, f"settling{number}", title, lines, x="epochs", y=f"distance ({what})",
        level=plot.Mark(f"threshold {threshold:g}", threshold), moment=stop,
    )  # fmt: skip
    ways = ", ".join(f"{line.name} from {line.y[0]:.3f} to {line.y[-1]:.3f}" for line in lines)
    end = "the search stopped (dotted line)" if stop else "its steps ended before it had settled"
    reading = (
        f"Distances go: {ways}. At {places[-1]:.2f} epochs {end}; the threshold, {threshold:g}, is dashed."
    )
    return Figure(title, reading, draw, table(caption, head, rows, right=range(len(kinds) + 1)))
