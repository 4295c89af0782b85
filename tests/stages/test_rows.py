"""Rows and outcomes on disk: read back as written, whatever characters the texts hold."""

import json

from hardtack.evaluation.attacks.protocol import Outcome
from hardtack.reports.folders import read_outcomes, read_rows
from hardtack.stages.rows import Rows

# IMDB holds U+0085; `splitlines` cuts at all of these, JSON at none.
ODD = "good\x85 film\u2028 truly\u2029 \x1c \x0b end"


def test_texts_may_hold_line_separators(tmp_path):
    rows = Rows(tmp_path)
    outcome = Outcome("test-1", "fell", 3, (ODD,), (f"bad {ODD}",))
    rows.put({"id": "a", "flags": []}, [outcome])
    rows.put({"id": "b", "model": ODD}, [outcome])
    rows.put({"id": "a", "flags": ["few-examples"]}, [outcome])
    assert (
        rows.all()
        == read_rows(tmp_path)
        == [
            {"id": "a", "flags": ["few-examples"]},  # replaced where it stood
            {"id": "b", "model": ODD},
        ]
    )
    found = read_outcomes(tmp_path)
    assert found.keys() == {"a", "b"}
    assert found["a"]["test-1"] == json.loads(json.dumps({"row": "a", **outcome._asdict()}))


def test_a_folder_without_rows_has_none(tmp_path):
    assert Rows(tmp_path).all() == []
    assert Rows(tmp_path).ids() == set()
