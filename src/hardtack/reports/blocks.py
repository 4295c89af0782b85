"""What a page is made of: plain data that the HTML template and the Markdown writer both render."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """One cell of a table: its text, a smaller note under it, and a part of the page that it points to."""

    text: str
    note: str = ""
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        caption: what it shows, in a sentence.
        head: names of the columns.
        rows: as many cells each.
        right: columns of numbers.
        anchors: for each row the id that links point to; none by default.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: frozenset[int] = frozenset()
    anchors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of short sentences."""

    items: tuple[str, ...]


class Finding(NamedTuple):
    """One answer of the first screen: the question, who is best, and how sure that is."""

    question: str
    answer: str
    detail: str


@dataclass(frozen=True)
class Findings:
    """Answers of the first screen."""

    findings: tuple[Finding, ...]


class Check(NamedTuple):
    """One reason to believe the numbers, or to be careful."""

    good: bool
    what: str
    text: str


@dataclass(frozen=True)
class Checks:
    """Reasons to believe the numbers, or to be careful."""

    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Figure:
    """A plot with its one-sentence reading and the numbers behind it; `draw` makes its SVG."""

    title: str
    reading: str
    draw: Callable[[], str]
    table: Table


@dataclass(frozen=True)
class Figures:
    """Plots that stand side by side where there is room."""

    figures: tuple[Figure, ...]


class Piece(NamedTuple):
    """A stretch of text that an attack left as it was, or changed."""

    text: str
    changed: bool


@dataclass(frozen=True)
class Attacked:
    """An attacked example: its texts before and after, and what became of it with every model."""

    name: str
    before: tuple[tuple[Piece, ...], ...]
    after: tuple[tuple[Piece, ...], ...]
    changes: tuple[str, ...]
    fates: tuple[str, ...]


@dataclass(frozen=True)
class Sentences:
    """Attacked examples of one attack."""

    title: str
    examples: tuple[Attacked, ...]


@dataclass(frozen=True)
class Command:
    """A command line and what it made."""

    title: str
    words: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commands:
    """The commands behind the page."""

    commands: tuple[Command, ...]


Block = Text | Items | Table | Findings | Checks | Figures | Sentences | Commands


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; its id, in short, is also what the table of contents calls it."""

    id: str
    title: str
    blocks: tuple[Block, ...]

    @property
    def kinds(self) -> list[tuple[str, Block]]:
        """Return the blocks with the names of their kinds, for the template."""
        return [(type(block).__name__.lower(), block) for block in self.blocks]


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell | str | None]],
    *,
    right: Iterable[int] = (),
    anchors: Sequence[str] = (),
) -> Table:
    """Build a table; None becomes a dash."""
    cells = tuple(
        tuple(cell if isinstance(cell, Cell) else Cell("-" if cell is None else cell) for cell in row)
        for row in rows
    )
    return Table(caption, tuple(head), cells, frozenset(right), tuple(anchors))
