"""What post-training pruning lost: how far each layer is from the dense model's, and each matrix's error."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from hardtack.reports import plot
from hardtack.reports.blocks import Figure, table
from hardtack.reports.figures import REST, TICKETS, called, place
from hardtack.reports.gather import Found


class Layer(NamedTuple):
    """What one layer lost: its name, the mean error of its matrices, and kind and vector -> distance."""

    name: str
    error: float | None
    distances: Mapping[str, float | None]


def layers_lost(origin: Mapping[str, Any]) -> list[Layer]:
    """Return what a ticket's record says, layer by layer; [] for a method that does not measure it.

    An error is |Y' - Y|^2 / |Y|^2, Y the dense model's outputs; a distance is 1 - cosine to the dense model's
    vectors behind the layer.
    """
    errors: dict[str, list[float]] = {}
    for site, error in _numbers(origin.get("reconstruction_error")):
        errors.setdefault(place(site)[0], []).append(error)
    apart = _distances(origin)
    count = max([*map(len, apart.values()), 0])
    names = sorted({*errors, *map(str, range(count))}, key=lambda name: (name == REST, len(name), name))
    found = []
    for name in names:
        at = int(name) if name.isdecimal() else count
        distances = {what: values[at] if at < len(values) else None for what, values in apart.items()}
        mean = sum(errors[name]) / len(errors[name]) if name in errors else None
        found.append(Layer(name, mean, distances))
    return found


def lost_rows(layers: list[Layer]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the head and the rows of a table of what was lost."""
    head = ("layer", "mean error", *layers[0].distances)
    rows = [
        (layer.name, _number(layer.error), *(_number(value) for value in layer.distances.values()))
        for layer in layers
    ]
    return head, rows


def lost(found: Found) -> list[Figure]:
    """Draw, for each ticket whose search measured it, distances over layers and errors of matrices."""
    figures = []
    for number, ticket in enumerate(found.tickets[:TICKETS]):
        layers = layers_lost(ticket.origin)
        if not layers:
            continue
        head, rows = lost_rows(layers)
        lines = [
            plot.Line(what, tuple(map(float, range(len(values)))), tuple(values))
            for what, values in _distances(ticket.origin).items()
        ]
        if lines:
            title = f"{ticket.name}: how far each layer is from the dense model's"
            numbers = table(f"{title} (1 - cosine)", head, rows, right=range(1, len(head)))
            draw = partial(plot.curves, f"lost{number}", title, lines, x="layer", y="1 - cosine")
            figures.append(Figure(title, _reading(lines), draw, numbers))
        if errors := dict(_numbers(ticket.origin.get("reconstruction_error"))):
            figures.append(_matrices(ticket.name, number, errors))
    return figures


def _matrices(name: str, number: int, errors: Mapping[str, float]) -> Figure:
    cells: dict[str, dict[str, float]] = {}
    for site, error in errors.items():
        layer, part = place(site)
        cells.setdefault(part, {})[layer] = error
    columns = sorted(
        {layer for line in cells.values() for layer in line}, key=lambda c: (c == REST, len(c), c)
    )
    values = [[line.get(layer) for layer in columns] for line in cells.values()]
    title = f"{name}: what each matrix lost of its output"
    head = ("part", *(layer if layer == REST else f"layer {layer}" for layer in columns))
    rows = [[part, *map(_number, line)] for part, line in zip(cells, values, strict=True)]
    numbers = table(f"{title} (squared error over squared output)", head, rows, right=range(1, len(head)))
    most, least = max(errors, key=lambda s: errors[s]), min(errors, key=lambda s: errors[s])
    reading = (
        f"Most is lost in {called(most)} ({errors[most]:.3f} of its output's energy), least in "
        f"{called(least)} ({errors[least]:.3f}), on the calibration data."
    )
    draw = partial(plot.strip, f"errors{number}", title, list(cells), columns, values)
    return Figure(title, reading, draw, numbers)


def _reading(lines: list[plot.Line]) -> str:
    said = [f"{line.y[-1]:.2g} ({line.name})" for line in lines]
    return f"Behind the last layer the distance is {', '.join(said)}; 0 is the dense model itself."


def _distances(origin: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return "clean, mean" -> a distance a layer, for each kind of input and vector."""
    found = {}
    for kind, vectors in _items(origin.get("distance")):
        for vector, values in _items(vectors):
            if isinstance(values, list) and values and all(isinstance(v, int | float) for v in values):
                found[f"{kind}, {vector}"] = values
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    yield from value.items() if isinstance(value, Mapping) else ()


def _numbers(value: Any) -> Iterator[tuple[str, float]]:
    yield from ((name, error) for name, error in _items(value) if isinstance(error, int | float))
