"""Finding run folders, and reading logs that a killed process left behind."""

import pytest
from tests.reports.made import DENSE, outcome, record, row, write

from hardtack.errors import InputError
from hardtack.reports.folders import find_runs, read_log, read_outcomes


def test_runs_below_runs_are_found_once_and_their_own_folders_are_not(tmp_path):
    for place in ("a", "a/dense", "a/tickets/t", "a/model", "a/scratch/x", "a/.hidden", "b/deep/er"):
        record(tmp_path / place, kind="train")
    (tmp_path / "empty").mkdir()
    found = find_runs([tmp_path / "b", tmp_path, tmp_path / "a"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["b/deep/er", "a", "a/dense"]


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere' is no folder; allowed: run folders"):
        find_runs([tmp_path / "nowhere"])


def test_a_log_that_was_cut_short_is_read_up_to_there(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 0}\n[1]\n{"step": 1}\n{"st')
    assert read_log(tmp_path) == [{"step": 0}, {"step": 1}]
    assert read_log(tmp_path / "nowhere") == []


def test_outcomes_are_the_same_compressed_and_plain(tmp_path):
    for zipped in (False, True):
        write(tmp_path / str(zipped), (row("dense", DENSE), DENSE), zipped=zipped)
    assert read_outcomes(tmp_path / "True") == read_outcomes(tmp_path / "False")
    assert read_outcomes(tmp_path / "True")["dense-attack"]["test-0"] == outcome("dense-attack", 0, "M")
