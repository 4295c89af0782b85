"""Worker processes: one that is killed takes only its cell with it; all end when their parent is killed."""

import os
import signal
import subprocess
import sys
import time

import filelock
import pytest
from tests.kills import ROOT
from tests.studies.toy import RECIPE, make_place, rows_of

from hardtack.studies import study
from hardtack.studies.contents import Contents
from hardtack.studies.grid import expand
from hardtack.studies.reading import read
from hardtack.studies.workers import Processes

ENDING_SECONDS = 5.0


def done_in(place):
    """Count the finished cells of the study there."""
    return len(list((place / "runs/toy").glob("*/*/DONE")))


def wait_for(what, seconds=120.0):
    """Wait until something holds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_worker_loses_its_cell_and_is_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(make_place(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    long, short = expand(read("toy.toml"), out, Contents())[:2]
    ticks = []
    slots = Processes(1, 1, out / "workers.log", lambda *tick: ticks.append(tick))
    try:
        long.settings["epochs"] = 1e6
        slots.start(long)
        assert not slots.free()
        worker = slots.workers[0]
        assert worker is not None
        assert worker.process.pid is not None
        wait_for((long.folder / "recipe.json").is_file)
        os.kill(worker.process.pid, signal.SIGKILL)
        (ended,) = slots.ended()
        assert (ended.place, ended.ours) == ("dense/seed=0", False)
        assert ended.line is not None
        assert ended.line.startswith("its process was killed by signal 9 (memory?)")
        slots.start(short)
        (ended,) = slots.ended()
        assert ended.line is None
        assert (short.folder / "DONE").is_file()
        assert ("dense/seed=1", "training", 3, 3) in ticks
    finally:
        slots.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_end_with_their_parent_and_the_same_command_finishes(tmp_path, monkeypatch):
    monkeypatch.chdir(make_place(tmp_path))
    study("toy.toml", out="runs/whole")
    (tmp_path / "toy.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "hardtack", "study", "toy.toml", "--processes", "2", "--threads", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    running = {}
    for started in ("dense/seed=1", "subnets/seed=0,sparsity=0.5"):  # killed at the start and in the middle
        parent = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        wait_for((tmp_path / "runs/toy" / started / "recipe.json").is_file)
        parent.kill()  # the parent alone, not its group
        parent.wait()
        for lock in (tmp_path / "runs/toy").rglob(".lock"):
            with filelock.FileLock(lock, timeout=ENDING_SECONDS):  # no worker holds it any more
                running[lock] = True
    assert running
    # Ctrl-C: a terminal sends it to the whole group; only the parent says something.
    before = done_in(tmp_path)
    parent = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: done_in(tmp_path) > before)
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert said.splitlines()[-1] == "hardtack: interrupted; the same command resumes where it stopped"
    assert "Traceback" not in said
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "runs/toy") == rows_of(tmp_path / "runs/whole")
    assert "Traceback" not in done.stderr
    assert "leaked" not in done.stderr
