"""Bars on a terminal, plain lines now and then elsewhere, nothing for short work."""

import re

import pytest

from hardtack.cli import progress
from hardtack.cli.progress import Bars


class Terminal:
    """Stands for standard error; collects what is written."""

    encoding = "utf-8"

    def __init__(self, tty):
        self.tty, self.text = tty, ""

    def isatty(self):
        return self.tty

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("time.monotonic", made)
    return made


def stderr(monkeypatch, tty):
    made = Terminal(tty)
    monkeypatch.setattr("sys.stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return made


def shown(screen):
    """Return what the screen was sent, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.text)


def test_short_work_shows_nothing_on_a_terminal(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=True)
    with Bars() as watch:
        for done in range(11):
            clock.now += 0.1
            watch("train", done, 10)
    assert screen.text == ""


def test_long_work_shows_rate_and_time_left(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=True)
    with Bars() as watch:
        for done in range(6):
            clock.now += 1.0
            watch("train", done, 10)
        assert watch.screen is not None
        watch.screen.refresh()
    assert "train" in shown(screen)
    assert "5/10 00:05<00:05, 1.00/s" in shown(screen)


def test_a_study_shows_its_cells_and_each_running_one(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=True)
    with Bars() as watch:
        watch("toy: cells", 0, 3)
        watch("dense/seed=0: train", 0, 10)
        watch("dense/seed=1: train", 0, 10)
        clock.now += 3.0
        watch("dense/seed=0: train", 5, 10)
        assert watch.screen is not None
        watch.screen.refresh()
        assert [task.description for task in watch.screen.tasks] == [
            "toy: cells",
            "dense/seed=0: train",
            "dense/seed=1: train",
        ]
        watch("dense/seed=0: train", 10, 10)
        watch("toy: cells", 1, 3)
        assert [task.description for task in watch.screen.tasks] == ["toy: cells", "dense/seed=1: train"]
    assert "0/3" in shown(screen)
    assert "5/10" in shown(screen)


def test_finished_work_leaves_and_names_have_their_own(monkeypatch, clock):
    stderr(monkeypatch, tty=True)
    with Bars() as watch:
        watch("train", 0, 2)
        watch("attack", 0, 2)
        assert set(watch.work) == {"train", "attack"}
        watch("train", 2, 2)
        assert set(watch.work) == {"attack"}
    assert not watch.work


def test_resumed_work_counts_only_what_is_done_from_here(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=False)
    with Bars() as watch:
        watch("train", 50, 100)
        clock.now += 10.0
        watch("train", 60, 100)
    assert screen.text == "train: 60% 60/100 [00:10<00:40, 1.00/s]\n"


def test_without_a_terminal_plain_lines_every_ten_seconds(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=False)
    with Bars() as watch:
        for done in range(26):
            watch("train", done, 100)
            clock.now += 1.0
    assert screen.text.splitlines() == [
        "train: 10% 10/100 [00:10<01:30, 1.00/s]",
        "train: 20% 20/100 [00:20<01:20, 1.00/s]",
    ]
    assert progress.LINE_SECONDS == 10.0


def test_without_a_terminal_all_that_goes_on_gets_a_line(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=False)
    with Bars() as watch:
        watch("toy: cells", 0, 3)
        clock.now += 10.0
        watch("dense: train", 1, 4)
        clock.now += 10.0
        watch("dense: train", 2, 4)
    assert screen.text.splitlines() == [
        "toy: cells: 0% 0/3 [00:20<?]",
        "dense: train: 50% 2/4 [00:10<00:20, 0.10/s]",
    ]


def test_the_next_work_of_one_name_has_a_rate_of_its_own(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=False)
    with Bars() as watch:
        watch("clean", 0, 100)
        watch("clean", 100, 100)
        clock.now += 1000.0
        watch("clean", 0, 100)
        clock.now += 10.0
        watch("clean", 50, 100)
    assert "50/100 [00:10<00:10" in screen.text
