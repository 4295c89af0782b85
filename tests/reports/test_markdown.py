"""Markdown holds the page's numbers; CSV holds its rows."""

import csv
import itertools
import re

import pytest
from tests.reports.made import DENSE, row, study, write

from hardtack.reports.page import report


@pytest.fixture
def runs(tmp_path):
    return study(tmp_path / "runs")


def test_markdown_says_what_the_page_says(runs, tmp_path):
    report([runs], out=tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert text.startswith("# Robustness report: toy\n\n4 models")
    for words in (
        "- **Most robust under deepwordbug (toy, test)**: robust keeps 0.700",
        "- careful: **Seeds**: 1 seed: a look, no claim",
        "| robust | 0.900 (0.867 to 0.926) | 0.700 (0.604 to 0.781) | 12.5 | none |",
        "before: a **fine** film",
        "after: a **fime** film",
        "    hardtack evaluate runs/robust \\\n        --task data/toy",
        "### Accuracy under deepwordbug against sparsity",
    ):
        assert words in text
    assert "svg" not in text


def test_every_table_is_one(runs, tmp_path):
    report([runs], out=tmp_path / "r.md")
    lines = (tmp_path / "r.md").read_text().splitlines()
    widths = [len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0 for line in lines]
    assert any(widths)
    for before, after in itertools.pairwise(widths):
        assert before == after or 0 in (before, after)


def test_a_row_of_csv_is_a_row(runs, tmp_path):
    write(
        runs / "odd",
        (row("dense", DENSE, id="x", model="=1+1", task='a,\n"b"', flags=["truncated", "one-class"]), DENSE),
    )
    report([runs], out=tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    robust = next(one for one in rows if one["id"] == "robust-attack")
    assert (robust["model"], float(robust["accuracy_under_attack"])) == ("robust", 0.7)
    assert float(robust["accuracy_under_attack_low"]) == pytest.approx(0.6041, abs=1e-4)
    assert (robust["granularity"], robust["latency_ms"]) == ('["weight"]', "5.0")
    odd = next(one for one in rows if one["id"] == "x")
    assert (odd["model"], odd["task"], odd["flags"]) == ("'=1+1", 'a,\n"b"', "truncated one-class")
