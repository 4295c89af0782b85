"""The report as a person meets it: in a real browser, on desk and phone, in light and dark, by keyboard."""

import itertools
from pathlib import Path

import pytest
from tests.browser.chrome import Chrome
from tests.reports.made import DENSE, log, record, row, study, ticket, write

from hardtack.reports.page import report

pytestmark = pytest.mark.browser
MEASURE = (Path(__file__).parent / "measure.js").read_text(encoding="utf-8")
VIEWS = [(1280, False), (1280, True), (360, False), (360, True)]
TEXT = "the <b>{}</b> " + "x" * 90 + " \u05d8\u05d5\u05d1 \U0001f600"
HARD = (TEXT.format("film"), TEXT.format("fllm"))
LONG = "a-model-with-a-very-long-name-that-nobody-would-choose-but-somebody-will"
TAB, ENTER = ("Tab", 9), ("Enter", 13)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    browser = Chrome(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with everything on it: long names and words, flags, shift, a ticket of 24 layers, a search."""
    home = tmp_path_factory.mktemp("page")
    runs = study(home / "runs", texts=HARD)
    flagged = row("random", DENSE, id="l", model=LONG, flags=["truncated", "few-examples"])
    away = row("dense", id="s", task="books", shifted_from="toy", clean_accuracy=0.7)
    write(
        runs / "more",
        (flagged, DENSE),
        (away, ""),
        (row("dense", id="n", task="nan", clean_accuracy=float("nan")), ""),
    )
    large = record(runs / "large", kind="search", method="hard_concrete", model="org/large")
    sites = {
        f"model.layers.{n}.{part}": [True, n % 3 == 0] for n in range(24) for part in ("attn.q", "mlp.up")
    }
    ticket(large / "tickets" / "t", sites)
    log(large, {"step": 0, "open": 1.0}, {"step": 50, "open": 0.4})
    report([runs], out=home / "report.html")
    return (home / "report.html").as_uri()


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]}-{'dark' if view[1] else 'light'}")
def view(request, chrome, address):
    width, dark = request.param
    chrome.open(address, width=width, dark=dark)
    return {**chrome.run(MEASURE), "asked": width, "dark": dark}


def test_nothing_is_wider_than_the_screen(view):
    assert view["width"] >= view["asked"] - 20  # a desk's scroll bar
    assert view["scrollWidth"] <= view["width"]
    assert view["outside"] == []


def test_every_text_can_be_told_from_what_lies_behind_it(view):
    assert view["texts"] > 300
    assert view["worst"]["ratio"] >= 4.5, view["worst"]


def test_dark_is_dark_and_light_is_light(view):
    numbers = [int(part) for part in view["paper"].removeprefix("rgb(").removesuffix(")").split(",")]
    assert max(numbers) < 60 if view["dark"] else min(numbers) > 200


def test_headings_are_seen(view):
    assert view["hidden"] == 0
    assert view["headings"][0] == "H1 Robustness report: toy, nan"
    sections = [heading[3:] for heading in view["headings"] if heading.startswith("H2")]
    assert sections == [
        "Summary", "Scorecard", "Differences", "Robustness against size and speed", "On other data",
        "What the attacks did", "Where the tickets are sparse", "How the searches went",
        "Flags and words explained", "How this was made", "Odd things in the input",
    ]  # fmt: skip


def test_tables_are_whole_named_and_reachable(view):
    assert len(view["tables"]) > 10
    for table in view["tables"]:
        assert table["named"], table
        assert table["focusable"], table
        assert table["cells"], table
        assert table["captionFits"], table
        assert table["font"] >= 14, table


def test_plots_are_as_large_as_the_screen_allows(view):
    assert len(view["plots"]) == 5
    for plot in view["plots"]:
        assert plot["width"] >= 300, plot
        assert plot["height"] > 60, plot
        assert plot["text"] >= 9, plot


def test_changed_words_are_marked_by_more_than_colour(view):
    assert view["marks"]
    assert all(mark["weight"] >= 600 and "underline" in mark["line"] for mark in view["marks"])


def test_nothing_is_fetched(view):
    assert view["loaded"] == 0


def test_the_first_screen_answers(chrome, address):
    chrome.open(address, width=1280)
    script = """
        [...document.querySelectorAll("dd strong, .checks li")]
            .map((element) => [element.textContent, element.getBoundingClientRect().bottom])
    """
    seen = [" ".join(text.split()) for text, bottom in chrome.run(script) if bottom <= 800]
    assert any(text.startswith("robust keeps 0.700") for text in seen)
    assert any(text.startswith("Careful Seeds. 1 seed: a look, no claim") for text in seen)


def focused(chrome):
    what = "document.activeElement"
    return chrome.run(
        f"({what}.textContent || '').trim().split('\\n')[0].slice(0, 60) + '|' + {what}.tagName"
    )


def test_the_keyboard_reaches_everything_in_order(chrome, address):
    chrome.open(address, width=1280)
    chrome.press(*TAB)
    assert focused(chrome) == "Skip to the report|A"
    assert chrome.run("document.activeElement.getBoundingClientRect().left") >= 0  # it shows itself
    assert chrome.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    chrome.press(*ENTER)
    chrome.press(*TAB)
    assert chrome.run("document.activeElement.closest('main') !== null")  # past the table of contents
    expected = chrome.run("document.querySelectorAll('main a, main [tabindex=\"0\"], main summary').length")
    tops = []
    for _ in range(expected):
        hidden = chrome.run("document.activeElement === document.body")
        if hidden:
            break
        tops.append(chrome.run("document.activeElement.getBoundingClientRect().top + scrollY"))
        assert chrome.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        chrome.press(*TAB)
    closed = chrome.run("[...document.querySelectorAll('details:not([open]) .scroll')].length")
    assert len(tops) == expected - closed  # what a closed part holds is not stopped at
    jumps = [after - before for before, after in itertools.pairwise(tops) if after < before - 900]
    assert jumps == []  # down the page; only the plots beside each other step back, by less than a screen


def test_a_part_opens_by_keyboard(chrome, address):
    chrome.open(address, width=360)
    chrome.run("document.querySelector('summary').focus()")
    assert chrome.run("document.querySelector('details').open") is False
    chrome.press(*ENTER)
    assert chrome.run("document.querySelector('details').open") is True


def test_a_wide_table_scrolls_inside_itself_on_a_phone(chrome, address):
    chrome.open(address, width=360)
    script = """(() => {
        const region = document.querySelector(".scroll");
        region.scrollLeft = 9999;
        const name = region.querySelector("tbody th").getBoundingClientRect().left;
        const wider = region.scrollWidth > region.clientWidth;
        return [region.scrollLeft, wider, name - region.getBoundingClientRect().left];
    })()"""
    moved, wider, first = chrome.run(script)
    assert moved > 0
    assert wider
    assert abs(first) < 1  # the names of the rows stay in sight


def test_print_hides_the_navigation_and_cuts_nothing(chrome, address):
    chrome.open(address, width=1280)
    chrome.call("Emulation.setEmulatedMedia", media="print")
    assert chrome.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert chrome.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    chrome.call("Emulation.setEmulatedMedia", media="")
    pages = chrome.call("Page.printToPDF", preferCSSPageSize=True)["data"]
    assert len(pages) > 10_000
