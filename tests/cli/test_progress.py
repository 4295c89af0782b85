"""Bars on a terminal, a plain line now and then elsewhere, nothing for short work."""

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
    monkeypatch.setattr("tqdm.std.time", made)
    return made


def stderr(monkeypatch, tty):
    made = Terminal(tty)
    monkeypatch.setattr("sys.stderr", made)
    return made


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
        assert "train" in watch.bars
    assert "train:  50%" in screen.text
    assert "5/10 [00:05<00:05,  1.00" in screen.text


def test_a_finished_bar_is_closed_and_labels_have_their_own(monkeypatch, clock):
    stderr(monkeypatch, tty=True)
    with Bars() as watch:
        watch("train", 0, 2)
        watch("attack", 0, 2)
        assert set(watch.bars) == {"train", "attack"}
        watch("train", 2, 2)
        assert set(watch.bars) == {"attack"}
    assert not watch.bars


def test_a_resumed_bar_counts_only_what_is_done_from_here(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=True)
    with Bars() as watch:
        watch("train", 50, 100)
        clock.now += 10.0
        watch("train", 60, 100)
    assert "60/100 [00:10<00:40,  1.00" in screen.text


def test_without_a_terminal_one_plain_line_every_ten_seconds(monkeypatch, clock):
    screen = stderr(monkeypatch, tty=False)
    with Bars() as watch:
        for done in range(26):
            watch("train", done, 100)
            clock.now += 1.0
    lines = screen.text.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("train:  10%")
    assert "10/100 [00:10<01:30" in lines[0]
    assert progress.LINE_SECONDS == 10.0


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
