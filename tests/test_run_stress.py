"""Run folders that several want at once, that are killed or starved of disk: nothing half, nothing twice."""

import json
import resource
import threading

import filelock
import pytest

from hardtack import runs
from hardtack.errors import InputError
from hardtack.runs import Run
from tests.test_runs import opened


def test_who_owns_a_folder_is_asked_again_once_it_is_locked(tmp_path, monkeypatch):
    lock = runs._lock

    def wait_for_another(folder, *, finished):
        monkeypatch.undo()
        opened(folder, id="search-random-89abcdef/seed-0").close()  # it came and went while we waited
        return lock(folder, finished=finished)

    monkeypatch.setattr(runs, "_lock", wait_for_another)
    with pytest.raises(InputError, match="holds another run"):
        opened(tmp_path)
    opened(tmp_path, id="search-random-89abcdef/seed-0").close()  # the refused one gave its lock back


def test_a_lock_held_for_an_instant_refuses_nobody(tmp_path):
    opened(tmp_path).close()
    look = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    look.acquire()
    threading.Timer(0.1, look.release).start()
    opened(tmp_path).close()


def test_a_run_that_cannot_be_begun_gives_its_lock_back(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            opened(tmp_path)
    opened(tmp_path).close()


def test_a_log_line_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    with opened(tmp_path) as run:
        run.log(step=0)
        before = (tmp_path / "log.jsonl").read_bytes()
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 7, limit[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                run.log(step=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert (tmp_path / "log.jsonl").read_bytes() == before
        run.log(step=1)
    with open(tmp_path / "log.jsonl", "a") as stream:
        stream.write('{"step": 2, "a')  # the process was killed here
    with opened(tmp_path) as run:
        run.log(step=2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]


def test_an_event_is_known_by_all_its_facts(tmp_path):
    assert not Run.nowhere().logged(event="ticket")
    with opened(tmp_path) as run:
        assert not run.logged(event="ticket", name="a")
        run.log(event="ticket", name="a")
        with open(tmp_path / "log.jsonl", "a") as log:
            log.write('"ticket" and no JSON\n"ticket"\n')
        assert run.logged(event="ticket", name="a")
        assert not run.logged(event="ticket", name="b")
        assert not run.logged(event="round", name="a")


def test_a_clock_counts_over_processes_and_once(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    run = Run("x", folder=tmp_path)
    now[0] = 130.0
    assert run.part("round-1").clock.seconds() == 30.0
    run.part("round-1").keep("fit", {}, step=1)
    now[0] = 1000.0  # killed at once or later: what came after the state is done again, and counts then
    again = Run("x", folder=tmp_path)
    now[0] = 1002.0
    kept = again.part("round-1").kept("fit")
    assert kept is not None
    again.clock.catch_up(kept[1]["seconds"])
    assert again.clock.seconds() == 30.0
    now[0] = 1007.0
    again.clock.catch_up(3.0)  # an earlier state is no news
    assert again.clock.seconds() == 35.0
    again.clock.restart()
    assert again.clock.seconds() == 0.0
