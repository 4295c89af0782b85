"""What a report reads, and what it says about input that is odd."""

import json

import pytest
from tests.reports.made import DENSE, log, record, row, study, ticket, write

from hardtack.errors import InputError
from hardtack.reports.gather import gather
from hardtack.reports.models import models_of
from hardtack.reports.page import report


def test_a_study_is_found_below_one_folder(tmp_path):
    found = gather([study(tmp_path / "runs")])
    names = ["evaluate-dense", "evaluate-imp", "evaluate-random", "evaluate-robust", "search"]
    assert [folder.name for folder in found.folders] == [f"runs/{name}" for name in names]
    assert len(found.entries) == 8
    assert [ticket.name for ticket in found.tickets] == ["runs/search/sparsity-0.5000"]
    assert found.notes == ()


def test_folders_named_one_by_one_keep_their_order(tmp_path):
    study(tmp_path)
    found = gather([tmp_path / "evaluate-robust", tmp_path / "evaluate-dense"])
    assert [entry.folder for entry in found.entries] == ["evaluate-robust"] * 2 + ["evaluate-dense"] * 2


def test_compressed_outcomes_are_read(tmp_path):
    write(tmp_path / "a", (row("dense", DENSE), DENSE), zipped=True)
    assert len(gather([tmp_path / "a"]).entries[0].outcomes) == len(DENSE)


def test_what_each_site_keeps_is_counted(tmp_path):
    kept = {"a": [True] * 3 + [False] * 10, "b": [True, True, False]}  # 13 units: the last byte is part empty
    record(tmp_path / "s", kind="search", method="x")
    ticket(tmp_path / "s" / "tickets" / "t", kept)
    (drawn,) = gather([tmp_path / "s"]).tickets
    assert (dict(drawn.kept), dict(drawn.units)) == ({"a": 3, "b": 2}, {"a": 13, "b": 3})
    assert drawn.sparsity == pytest.approx(11 / 16)


def test_a_row_in_two_folders_counts_once(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, (row("dense", DENSE), DENSE))
    found = gather([tmp_path])
    assert len(found.entries) == 1
    assert found.notes == ()


def test_a_row_that_differs_between_folders_is_named(tmp_path):
    write(tmp_path / "a", (row("dense", DENSE), DENSE))
    write(tmp_path / "b", (row("dense", DENSE, epochs=9.0), DENSE))
    (note,) = gather([tmp_path]).notes
    assert note.startswith("row dense-attack differs between ")
    assert note.endswith("/a is shown")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clean_accuracy": float("nan")}, "clean_accuracy is NaN, which it cannot be; it is left out"),
        ({"accuracy_under_attack": 1.5}, "accuracy_under_attack is 1.5, which it cannot be"),
        ({"mean_queries": float("inf")}, "mean_queries is Infinity, which it cannot be"),
        ({"parameters": "many"}, 'parameters is "many", which it cannot be'),
        ({"examples": 0}, "a row of runs has no id or no number of examples; it is left out"),
        ({"id": None}, "a row of runs has no id or no number of examples; it is left out"),
    ],
)
def test_numbers_that_are_none_are_left_out_with_a_line(tmp_path, change, said):
    write(tmp_path / "runs", (row("imp"), ""), (row("dense", DENSE, **change), DENSE))
    found = gather([tmp_path / "runs"])
    assert len(found.notes) == 1
    assert said in found.notes[0]
    kept = [entry.row for entry in found.entries if entry.row["id"] == "dense-attack"]
    assert all(one[name] is None for one in kept for name in change)


def test_a_broken_ticket_is_left_out_with_a_line(tmp_path):
    study(tmp_path)
    place = tmp_path / "search" / "tickets" / "sparsity-0.5000"
    record_ = json.loads((place / "ticket.json").read_text())
    record_["units"]["pooler.weight"] = 999
    (place / "ticket.json").write_text(json.dumps(record_))
    found = gather([tmp_path])
    assert found.tickets == ()
    (note,) = found.notes
    assert "pooler.weight has other units than ticket.json; this ticket is left out" in note


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_ticket_record_that_is_none_is_left_out(tmp_path, content):
    study(tmp_path)
    (tmp_path / "search" / "tickets" / "sparsity-0.5000" / "ticket.json").write_text(content)
    assert len(gather([tmp_path]).notes) == 1


@pytest.mark.parametrize(
    "how", ["missing", "empty", "nothing", "broken rows", "broken outcomes", "broken zip"]
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, how):
    folder = tmp_path / "x"
    if how == "empty":
        folder.mkdir()
    if how == "nothing":
        log(record(folder, kind="train", model="m"), {"step": 0})
    if how == "broken rows":
        write(folder, (row("dense", DENSE), DENSE))
        (folder / "rows.jsonl").write_text('{"id": ')
    if how == "broken outcomes":
        write(folder, (row("dense", DENSE), DENSE))
        (folder / "outcomes.jsonl").write_text('{"row": "dense-attack"}\n')
    if how == "broken zip":
        write(folder, (row("dense", DENSE), DENSE), zipped=True)
        file = folder / "outcomes-000.jsonl.gz"
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError) as caught:
        gather([folder])
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_rows_of_a_study_without_its_runs_say_which_program_ran(tmp_path):
    one = row("dense", DENSE)
    one["measured"]["program"] = {"torch": "1.2.3", "commit": "abc"}
    write(tmp_path / "x", (one, DENSE), zipped=True)
    report([tmp_path], out=tmp_path / "page.md")
    assert "Versions: torch 1.2.3, commit abc" in (tmp_path / "page.md").read_text()


def test_a_study_s_axes_tell_models_apart_that_say_the_same(tmp_path):
    rows = []
    for seed in (0, 1):
        for wanted, name in (("0.5", "sparsity-0.5000"), ("2:4", "banks-2of4")):
            one = row("wanda", DENSE, seed=seed)
            one |= {"id": f"{name}-{seed}", "model": "dense/seed=0", "sparsity": 0.5, "trained_seed": seed}
            one |= {"ticket": f"pruned/seed={seed},method=wanda/tickets/{name}"}
            rows.append((one | {"axes": {"seed": seed, "method": "wanda", "sparsity": wanted}}, ""))
    write(tmp_path / "x", *rows)
    found = models_of(gather([tmp_path]).entries, [])
    assert {model.label: model.seeds for model in found} == {
        "pruned method=wanda sparsity-0.5000": [0, 1], "pruned method=wanda banks-2of4": [0, 1],
    }  # fmt: skip
