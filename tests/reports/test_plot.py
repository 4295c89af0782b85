"""Plots: text is text, colours are the page's, ids are the plot's own, and equal numbers give equal bytes."""

import re
from xml.etree import ElementTree

import pytest

from hardtack.reports.plot import Line, Mark, Point, Series, curves, scatter, strip, thinned

SERIES = [
    Series("dense & <co>", (Point(0.0, 0.3, 0.2, 0.4),)),
    Series("robust", (Point(0.3, 0.5, 0.4, 0.6), Point(0.5, 0.45, 0.3, 0.6))),
    Series("_under $x$", (Point(0.3, 0.2, 0.1, 0.3),)),
]
PLOTS = {
    "scatter": lambda name: scatter(name, "a <title>", SERIES, x="sparsity", y="accuracy", level=0.3),
    "one point": lambda name: scatter(name, "t", SERIES[:1], x="sparsity", y="accuracy"),
    "curves": lambda name: curves(name, "t", [Line("a", (0.0, 1.0), (1.0, 0.5))] * 2, x="step", y="open"),
    "marked": lambda name: curves(
        name,
        "t",
        [Line("a", (1.0,), (0.5,))],
        x="epochs",
        y="distance",
        level=Mark("threshold", 0.1),
        moment=Mark("stopped", 1.0),
    ),
    "strip": lambda name: strip(name, "t", ["query", "key"], ["0", "rest"], [[0.1, None], [0.0, 0.9]]),
    "wide strip": lambda name: strip(name, "t", ["q"], [str(n) for n in range(24)], [[0.0] * 24]),
}


@pytest.fixture(params=PLOTS)
def plot(request):
    return PLOTS[request.param]


def test_it_is_one_svg_without_anything_from_elsewhere(plot):
    svg = plot("p")
    tree = ElementTree.fromstring(svg)
    assert tree.tag == "svg"
    assert tree.get("role") == "img"
    assert tree.get("aria-labelledby") == tree[0].get("id")
    assert "://" not in svg
    assert "<style" not in svg
    assert {*re.findall(r'(?:href="|url\()(.)', svg)} <= {"#"}


def test_equal_numbers_give_equal_bytes(plot):
    assert plot("p") == plot("p")


def test_no_two_plots_share_an_id(plot):
    ids = [re.findall(r'\bid="([^"]+)"', plot(name)) for name in ("p1", "p2")]
    assert ids[0]
    assert not {*ids[0]} & {*ids[1]}
    assert all(len(set(some)) == len(some) for some in ids)


def test_every_reference_has_its_target(plot):
    svg = plot("p")
    used = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
    assert {*used} <= {*re.findall(r'\bid="([^"]+)"', svg)}


def test_colours_are_the_pages(plot):
    svg = plot("p")
    assert "var(--" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)  # a fixed colour would vanish in dark mode


def test_text_stays_text_and_is_escaped():
    svg = PLOTS["scatter"]("p")
    words = [element.text for element in ElementTree.fromstring(svg).iter("text")]
    assert {"sparsity", "accuracy", "dense & <co>", "robust"} <= {*words}
    assert any("_under $x$" in word for word in words)  # neither dropped nor set as mathematics
    assert "a <title>" in [element.text for element in ElementTree.fromstring(svg).iter("title")]


def test_numbers_stand_in_the_strip_where_they_fit():
    words = [element.text for element in ElementTree.fromstring(PLOTS["strip"]("p")).iter("text")]
    assert {"0.10", "0.90", "query", "rest"} <= {*words}


@pytest.mark.parametrize("size", [0, 1, 2, 199, 200, 201, 5000])
def test_thinning_keeps_the_ends(size):
    values = [object() for _ in range(size)]
    kept = thinned(values, 200)
    assert len(kept) <= 201
    assert kept[:1] == values[:1]
    assert kept[-1:] == values[-1:]
