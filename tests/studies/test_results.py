"""What is committed: rows and outcomes without texts, in small files; equal content gives equal bytes."""

import gzip
import json

import pytest
import torch

from hardtack.errors import InputError
from hardtack.runs import generator
from hardtack.studies import results
from hardtack.studies.results import Committed, hardware_name


def row(cell, number):
    return {"cell": cell, "id": f"row {number}", "stage": "attacked", "measured": {"seconds": 1.5}}


def outcome(number, example):
    return {
        "row": f"row {number}", "id": f"test-{example}", "status": "held", "queries": example,
        "original": ["secret"], "adversarial": None,
    }  # fmt: skip


def test_texts_stay_and_the_rest_is_read_back(tmp_path):
    Committed(tmp_path / "x").write([row("a", 1), row("a", 2)], [outcome(2, 5), outcome(2, 6)])
    found = Committed(tmp_path / "x")
    assert found.rows == {"a": [row("a", 1), row("a", 2)]}
    assert [(line["id"], line["queries"], line["status"]) for line in found.outcomes()] == [
        ("test-5", 5, "held"), ("test-6", 6, "held")
    ]  # fmt: skip
    content = (tmp_path / "x" / "outcomes-000.jsonl.gz").read_bytes()
    assert b"secret" not in gzip.decompress(content)
    Committed(tmp_path / "y").write([row("a", 1), row("a", 2)], [outcome(2, 5), outcome(2, 6)])
    assert (tmp_path / "y" / "outcomes-000.jsonl.gz").read_bytes() == content


def test_cells_that_a_recipe_no_longer_has_stay_listed(tmp_path):
    Committed(tmp_path).write([row("a", 1), row("b", 2)], [outcome(1, 5), outcome(2, 6)])
    Committed(tmp_path).write([row("c", 3), row("b", 2)], [outcome(3, 7), outcome(2, 6)])
    found = Committed(tmp_path)
    assert list(found.rows) == ["c", "b", "a"]
    assert [line["id"] for line in found.outcomes()] == ["test-7", "test-6", "test-5"]


def test_many_outcomes_go_into_several_files_of_bounded_size(tmp_path, monkeypatch):
    assert results.LARGEST < 1_500_000
    monkeypatch.setattr(results, "LARGEST", 20_000)
    monkeypatch.setattr(results, "PART", 500)
    numbers = torch.randint(0, 10**15, (4000,), generator=generator(0, "ids")).tolist()
    lines = [outcome(1, number) for number in numbers]
    Committed(tmp_path).write([row("a", 1)], lines)
    files = sorted(tmp_path.glob("outcomes-*.jsonl.gz"))
    assert len(files) > 1
    assert max(file.stat().st_size for file in files) <= results.LARGEST
    assert [line["queries"] for line in Committed(tmp_path).outcomes()] == numbers
    Committed(tmp_path).write([row("a", 1)], lines[:5])
    assert [file.name for file in sorted(tmp_path.glob("outcomes-*"))] == ["outcomes-000.jsonl.gz"]


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}'])
def test_a_broken_file_is_named(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row("a", 1)) + f"\n{line}\n")
    with pytest.raises(InputError, match=r"rows.jsonl line 2 is no row of a study"):
        Committed(tmp_path)


def test_hardware_is_named_by_processor_and_threads(monkeypatch):
    facts = {"system": "Linux", "processor": "Some(R) CPU @ 2.10GHz", "threads": 8}
    monkeypatch.setattr("hardtack.cost.hardware", lambda device: facts | {"gpu": device})
    assert hardware_name("NVIDIA X", 2) == "linux-some-r-cpu-2-10ghz-2-threads-nvidia-x"
