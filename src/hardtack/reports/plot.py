"""Draws plots as inline SVG: text stays text, colours are the page's, and equal numbers give equal bytes."""

import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

from hardtack.errors import InputError

WIDTH, HEIGHT = 360, 280  # in units that are pixels on a phone; on a desk the page enlarges them
SIZE = 11
MARKERS = "osD^vPX*"
COLOURS = 6  # of the page's palette; markers go on where they repeat
LABEL = 24  # characters of a legend's line
# Colours that matplotlib writes and the page replaces: ink, pale ink, grid, and the palette from SERIES on.
INK, PALE, GRID, SERIES = 0x010101, 0x010102, 0x010103, 0x010110
VARIABLES = {INK: "--ink", PALE: "--pale", GRID: "--line"} | {
    SERIES + number: f"--series-{number + 1}" for number in range(COLOURS)
}
ATTRIBUTE = re.compile(r'(?P<how>\bid="|xlink:href="#|url\(#)')


class Point(NamedTuple):
    """A measured point with its interval."""

    x: float
    y: float
    low: float
    high: float


class Series(NamedTuple):
    """Points of one kind, drawn with one marker and colour."""

    name: str
    points: tuple[Point, ...]


class Line(NamedTuple):
    """A curve."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


class Mark(NamedTuple):
    """A straight line across a plot, named in its legend."""

    name: str
    at: float


def scatter(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    level: float | None = None,
    joined: bool = False,
) -> str:
    """Draw points with their intervals, and a dashed line at the yardstick's level.

    Args:
        name: of the plot on its page, which keeps its ids apart from other plots'.
        title: for those who do not see it.
        series: what is drawn.
        x: name of the horizontal axis, with its unit.
        y: name of the vertical axis.
        level: height of the dashed line.
        joined: draw lines between the points of a series.
    """
    places = [point.x for one in series for point in one.points]
    left, right = min(places), max(places)
    # Not so narrow that some percent look like a lot.
    half = max((right - left) / 2, 0.2 * abs(left + right) / 2, 0.01)
    top = min(1.0, max(0.2, 1.2 * max(point.high for one in series for point in one.points)))
    crowd = Counter(round(place, 3) for place in places)
    seen: Counter[float] = Counter()

    def apart(place: float) -> float:
        """Set points at one place a little apart, or their intervals would hide each other."""
        rank = seen[round(place, 3)]
        seen[round(place, 3)] += 1
        return place + (rank - (crowd[round(place, 3)] - 1) / 2) * 0.06 * half

    def draw(axes: Any) -> None:
        if level is not None:
            axes.axhline(level, color=_colour(PALE), linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for number, one in enumerate(series):
            xs, ys = [apart(p.x) for p in one.points], [p.y for p in one.points]
            spread = [[p.y - p.low for p in one.points], [p.high - p.y for p in one.points]]
            axes.errorbar(
                xs, ys, yerr=spread, label=_short(one.name), color=_colour(SERIES + number % COLOURS),
                marker=MARKERS[number % len(MARKERS)], markersize=5.5, capsize=3, linewidth=1.4,
                linestyle="-" if joined and len(one.points) > 1 else "none",
            )  # fmt: skip
        axes.set_xlim((left + right) / 2 - 1.15 * half, (left + right) / 2 + 1.15 * half)
        axes.set_ylim(-0.02 * top, 1.02 * top)
        axes.locator_params(axis="x", nbins=7)

    return _svg(name, title, draw, x=x, y=y, legend=len(series))


def curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    level: Mark | None = None,
    moment: Mark | None = None,
) -> str:
    """Draw curves over steps.

    Args:
        name: of the plot on its page.
        title: for those who do not see it.
        lines: what is drawn.
        x: name of the horizontal axis, with its unit.
        y: name of the vertical axis.
        level: a dashed line at a height.
        moment: a dotted line at a place of the horizontal axis.
    """
    marks = [mark for mark in (level, moment) if mark is not None]

    def draw(axes: Any) -> None:
        for number, line in enumerate(lines):
            colour, dash = _colour(SERIES + number % COLOURS), ("-", "--", "-.", ":")[number % 4]
            look = {"linestyle": dash, "linewidth": 1.6, "marker": "o" if len(line.x) == 1 else None}
            axes.plot(line.x, line.y, label=_short(line.name), color=colour, **look)
        if level is not None:
            axes.axhline(level.at, label=level.name, color=_colour(PALE), linewidth=1, linestyle=(0, (4, 3)))
        if moment is not None:
            axes.axvline(moment.at, label=moment.name, color=_colour(INK), linewidth=1, linestyle=":")
        axes.set_ylim(bottom=min(0, *(min(line.y) for line in lines)))

    return _svg(name, title, draw, x=x, y=y, legend=len(lines) + len(marks))


def strip(
    name: str,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
) -> str:
    """Draw a strip of shaded cells, one a site: the more is removed, the darker; with numbers where they fit.

    Args:
        name: of the plot on its page.
        title: for those who do not see it.
        rows: names of the parts.
        columns: names of the layers.
        values: [rows, columns], from 0 to 1; None where there is no such site.
    """
    from matplotlib.patches import Rectangle

    top = max((value for line in values for value in line if value is not None), default=0.0) or 1.0
    numbers = len(columns) <= 12

    def draw(axes: Any) -> None:
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                if value is None:
                    continue
                # Never so dark that the number on it, in the colour of ink, could not be read.
                cell = {"facecolor": _colour(SERIES), "alpha": 0.06 + 0.40 * value / top, "edgecolor": "none"}
                axes.add_patch(Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, **cell))
                if numbers:
                    text = f"{value:.2f}".removeprefix("0") if len(columns) > 8 else f"{value:.2f}"
                    axes.text(x, y, text, ha="center", va="center", fontsize=SIZE - 2.5, color=_colour(INK))
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        step = 1 if len(columns) <= 12 else 4
        axes.set_xticks(range(0, len(columns), step), columns[::step])
        axes.set_yticks(range(len(rows)), [_short(row, 20) for row in rows])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    return _svg(name, title, draw, x="layer", y="", legend=0, height=60 + 24 * len(rows))


def _svg(
    name: str, title: str, draw: Callable[[Any], None], *, x: str, y: str, legend: int, height: float = HEIGHT
) -> str:
    """Set up the axes, let `draw` fill them, and return the page's version of the SVG."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "plots need matplotlib: pip install 'hardtack[report]'; --out report.md does without"
        ) from None
    lines = -(-legend // 2) if legend > 1 else 0
    settings: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "hardtack", "font.size": SIZE, "text.color": _colour(INK),
        "axes.edgecolor": _colour(PALE), "axes.labelcolor": _colour(INK), "xtick.color": _colour(PALE),
        "ytick.color": _colour(PALE), "xtick.labelcolor": _colour(INK), "ytick.labelcolor": _colour(INK),
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": _colour(GRID),
        "grid.linewidth": 0.7, "axes.facecolor": "none", "figure.facecolor": "none", "legend.frameon": False,
        "axes.axisbelow": True, "text.parse_math": False,
    }  # fmt: skip
    stream = io.StringIO()
    with rc_context(settings):
        figure = Figure(figsize=(WIDTH / 72, (height + 16 * lines) / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        draw(axes)
        if lines:
            figure.legend(
                loc="outside lower left",
                ncols=2,
                fontsize=SIZE - 1,
                handlelength=1.6,
                columnspacing=1.0,
                borderpad=0,
            )
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _inlined(stream.getvalue(), name, title)


def _inlined(svg: str, name: str, title: str) -> str:
    """Make an SVG part of a page: no prologue or metadata, ids of its own, the page's colours and fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)  # would style the page
    svg = ATTRIBUTE.sub(lambda found: f"{found['how']}{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"(?<=font: )([\d.]+px) [^;\"]*", r"\1 inherit", svg)
    for number, variable in VARIABLES.items():
        svg = svg.replace(_colour(number), f"var({variable})")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    start = f'<svg {box[0]} role="img" aria-labelledby="{name}-title">'
    start += f'<title id="{name}-title">{escape(title)}</title>'
    return start + svg[svg.index(">") + 1 :].strip()


def _colour(number: int) -> str:
    return f"#{number:06x}"


def _short(name: str, size: int = LABEL) -> str:
    """Cut the middle out of a long name; a legend would leave out one that starts with an underscore."""
    if len(name) > size:
        name = f"{name[: size // 2 - 1]}\N{HORIZONTAL ELLIPSIS}{name[-(size // 2 - 1) :]}"
    return f"\N{THIN SPACE}{name}" if name.startswith("_") else name


def thinned(values: Sequence[Any], count: int) -> list[Any]:
    """Return at most about `count` of the values at equal distances, the last one always."""
    step = max(1, -(-len(values) // count))
    kept = list(values[::step])
    return kept if not values or kept[-1] is values[-1] else [*kept, values[-1]]
