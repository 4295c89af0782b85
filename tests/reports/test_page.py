"""The page as a whole: what stands on it, that nothing escapes, that it is the same twice, and odd input."""

import html.parser
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.reports.made import DENSE, ROBUST, log, record, row, study, ticket, write

from hardtack.cli import main
from hardtack.doubts import FLAGS
from hardtack.errors import InputError
from hardtack.reports.page import report

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text, and refuses tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def having(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def page(folder, **more):
    out = folder.parent / "report.html"
    result = report([folder], out=out, **more)
    return result, Reader(out.read_text(encoding="utf-8"))


@pytest.fixture
def runs(tmp_path):
    return study(tmp_path / "runs")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The study's page, written once for the tests that only look at it."""
    return page(study(tmp_path_factory.mktemp("study") / "runs"))


def test_what_stands_on_the_page(written):
    result, shown = written
    assert result["models"] == ["dense", "imp", "random", "robust"]
    assert (result["rows"], result["runs"], result["notes"], result["format"]) == (8, 5, [], "html")
    assert "4 models, 8 rows, 5 run folders. 1 seed: a look, no claim (a claim needs 5)." in shown.text
    for words in (
        "robust keeps 0.700 [0.604 to 0.781] of 100 examples",
        "0.300 0.219 to 0.396",  # dense under attack, Wilson's interval of 30 of 100
        "of 800 weights",
        "+0.400",
        "Before a fine film After a fime film",
        "fine \N{RIGHTWARDS ARROW} fime",
        "runs/search/sparsity-0.5000: what is removed where",
        "goes from 1.00 to 0.55 in 10 steps",
        "hardtack search hard_concrete org/base",
        "hardtack 0.1.0, torch 2.13.0",
        "system Linux, threads 2",
        "run search-search/seed-0",
    ):
        assert words in shown.text
    assert len(shown.having("svg")) == 4  # against sparsity and latency, one ticket, one search
    assert len(shown.having("details")) == 4 + 5  # their numbers, and the commands


def test_the_page_is_whole_and_in_order(written):
    _, shown = written
    headings = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert [tag for tag, _ in shown.tags if tag in ("header", "nav", "main")] == ["header", "nav", "main"]
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {attributes["href"][1:] for attributes in shown.having("a")}
    targets |= {
        attributes[name] for _, attributes in shown.tags for name in attributes if name == "aria-labelledby"
    }
    assert targets <= set(ids)
    assert shown.having("html")[0]["lang"] == "en"
    assert len(shown.having("caption")) == len(shown.having("table"))
    assert {attributes.get("scope") for attributes in shown.having("th")} == {"row", "col"}


def test_nothing_comes_from_elsewhere(written):
    result, shown = written
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in shown.tags}
    source = Path(result["out"]).read_text(encoding="utf-8")
    assert "://" not in source
    assert "@import" not in source
    assert {*re.findall(r"url\((.)", source)} <= {"#"}
    policy = next(m["content"] for m in shown.having("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("suffix", ["html", "md", "csv"])
def test_the_same_bytes_twice(runs, tmp_path, suffix):
    files = [tmp_path / f"{name}.{suffix}" for name in ("a", "b")]
    for file in files:
        report([runs], out=file)
    assert files[0].read_bytes() == files[1].read_bytes()


EVIL = '<script>alert("x")</script> & <em>bold</em> \u202e abc \U0001f600'


@pytest.mark.parametrize("suffix", ["html", "md"])
def test_texts_cannot_become_code(tmp_path, suffix):
    runs = study(tmp_path / "runs", texts=(EVIL, f"{EVIL} <img src=x onerror=y>"))
    write(
        runs / "z",
        (row("dense", DENSE, id="z", model="runs/<i>evil</i>", task='"><script>', flags=["<u>"]), DENSE),
    )
    out = tmp_path / f"r.{suffix}"
    report([runs], out=out, title="<i>T")
    source = out.read_text(encoding="utf-8")
    assert "alert" in source
    assert not re.search(r"(?<!\\)<(script|em>|img|i>|u>)", source)


def test_texts_can_be_left_out(runs):
    _, shown = page(runs, sentences=0)
    assert "a fine film" not in shown.text
    assert "Sentences" not in shown.text


def test_flags_are_explained_where_they_are_raised(tmp_path):
    write(tmp_path / "runs", (row("dense", DENSE, flags=["truncated", "of-tomorrow"]), DENSE))
    _, shown = page(tmp_path / "runs")
    assert " ".join(FLAGS["truncated"].split()) in shown.text
    assert FLAGS["one-class"] not in shown.text
    assert "of-tomorrow This version of hardtack does not know it." in shown.text
    assert {"#flag-truncated", "#flag-of-tomorrow"} <= {a["href"] for a in shown.having("a")}


def test_two_tasks_have_two_tables(tmp_path):
    rows = [row("dense", DENSE, id=task, task=task) for task in ("films", "books")]
    write(tmp_path / "runs", *((one, DENSE) for one in rows))
    _, shown = page(tmp_path / "runs")
    assert "Robustness report: films, books" in shown.text
    assert "Accuracy on task films, split test" in shown.text
    assert "Accuracy on task books, split test" in shown.text


def test_shift_stands_beside_home(tmp_path):
    away = row(
        "dense",
        id="s",
        task="books",
        shifted_from="toy",
        clean_accuracy=0.7,
        examples=50,
        calibration_error=0.123,
    )
    write(tmp_path / "runs", (row("dense"), ""), (away, ""))
    _, shown = page(tmp_path / "runs")
    assert "Accuracy on other data: books, for models of toy" in shown.text
    assert "-0.200 0.123" in shown.text
    assert "Accuracy on task books" not in shown.text


def test_rows_without_an_attack(tmp_path):
    write(tmp_path / "runs", (row("dense"), ""))
    _, shown = page(tmp_path / "runs")
    assert "No row was measured under attack: nothing here is about robustness." in shown.text
    assert shown.having("svg") == []


def test_a_search_without_rows(tmp_path):
    search = record(tmp_path / "runs", kind="search", method="random")
    ticket(search / "tickets" / "t", {"model.layers.10.mlp.up": [True, False]})
    _, shown = page(tmp_path / "runs")
    assert "No row: nothing was evaluated, so this page says nothing about accuracy." in shown.text
    assert len(shown.having("svg")) == 1


def test_odd_numbers_are_noted_and_the_rest_is_shown(tmp_path):
    study(tmp_path / "runs")
    write(
        tmp_path / "runs" / "odd",
        (row("random", DENSE, id="odd", task="x", clean_accuracy=float("nan")), DENSE),
    )
    log(
        tmp_path / "runs" / "search",
        {"step": 0, "open": float("nan")},
        {"step": 1, "open": 0.5},
        {"step": 2, "open": 0.4},
    )
    result, shown = page(tmp_path / "runs")
    assert any("clean_accuracy is NaN" in note for note in result["notes"])
    assert "clean_accuracy is NaN, which it cannot be; it is left out" in shown.text
    assert "nan" not in shown.text.replace("NaN", "")


def test_more_tickets_than_are_drawn_are_counted(tmp_path):
    search = record(tmp_path / "runs", kind="search", method="random")
    for number in range(14):
        ticket(search / "tickets" / f"t{number:02}", {"layer.0.a": [True, False]})
    _, shown = page(tmp_path / "runs")
    assert len(shown.having("svg")) == 12
    assert "2 more tickets are not drawn" in shown.text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"out": "r.pdf"}, "--out r.pdf ends in .pdf; allowed: .html, .md, .csv"),
        ({"out": "r"}, "--out r ends in nothing; allowed"),
        ({"sentences": -1}, "sentences -1, seed 0; allowed: 0 and more"),
        ({"yardstick": "dence"}, "no model is called 'dence'; did you mean 'dense'"),
    ],
)
def test_what_is_wrong_is_one_line(runs, more, said):
    with pytest.raises(InputError, match=re.escape(said)):
        report([runs], **{"out": runs.parent / "r.html", **more})
    assert not list(runs.parent.glob("r.*"))


def test_an_older_page_survives_a_failure(runs, tmp_path):
    out = tmp_path / "r.html"
    out.write_text("old")
    with pytest.raises(InputError):
        report([runs], out=out, yardstick="nobody")
    assert out.read_text() == "old"


def test_the_verb(runs, tmp_path, capsys):
    out = tmp_path / "deep" / "er" / "r.md"
    assert main(["report", str(runs), "--out", str(out), "--json", "--title", "T", "--sentences", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["out"], result["bytes"]) == (str(out), out.stat().st_size)
    assert out.read_text().startswith("# T\n")
    assert main(["report", str(runs), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_model_library_is_loaded(runs, tmp_path):
    code = "import sys; from hardtack.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    words = [sys.executable, "-c", code, "report", str(runs), "--out", str(tmp_path / "r.html")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    modules = set(done.stdout.splitlines()[-1].split())
    assert not {"torch", "transformers", "datasets"} & modules
    assert "4 models, 8 rows, 5 run folders" in done.stdout


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_without_the_extra_html_is_refused_and_the_rest_is_written(runs, tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'hardtack\[report\]'; --out report.md does without"):
        report([runs], out=tmp_path / "r.html")
    for name in ("r.md", "r.csv"):
        assert report([runs], out=tmp_path / name)["rows"] == 8


def test_models_of_unequal_rows(tmp_path):
    """A model that lacks what others have gets dashes, not somebody else's numbers."""
    write(tmp_path / "runs" / "a", (row("dense"), ""), (row("dense", DENSE), DENSE))
    bare = dict.fromkeys(("parameters", "flops", "disk_bytes", "sparsity", "epochs", "objective"))
    write(tmp_path / "runs" / "b", (row("robust", ROBUST, **bare, measured={}), ROBUST))
    _, shown = page(tmp_path / "runs")
    assert "robust hard_concrete 0 dense - - - - 0" in shown.text
