"""Every verb that works long, really killed and started again: the same bits but for what measures time."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.commands import COMMANDS, made, whole
from tests.forked import forked, kinds, operations
from tests.kills import Moment, digest, resumptions, run_killed, timeless_log

from hardtack.runs import generator

KILLS = 100
"""Kills at uniform moments, over all verbs together."""
WRITES = 8
"""More kills of each verb, each just before another kind of change to its files."""
MOST_REDONE_SECONDS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return made(tmp_path_factory.mktemp("killed"))


def killed_equals_whole(place: Path, name: str, out: Path, moments: list[Moment]) -> int:
    """Kill one run at these moments, let it end, compare it with the uninterrupted one; return the kills."""
    kills = run_killed(COMMANDS[name](place, out), moments, start=forked).kills
    uninterrupted = whole(place, name)
    assert digest(out) == digest(uninterrupted), f"{name} killed at {kills} differs"
    for log in uninterrupted.rglob("log.jsonl"):
        mine = out / log.relative_to(uninterrupted).parent
        assert timeless_log(mine) == timeless_log(log.parent), f"{name} killed at {kills} logs otherwise"
        assert all(event.get("redone_seconds", 0) <= MOST_REDONE_SECONDS for event in resumptions(mine))
    for rows in out.rglob("rows.jsonl"):
        ids = [json.loads(line)["id"] for line in rows.read_text().splitlines()]
        assert len(ids) == len(set(ids))
    assert not list(out.rglob("*.part"))
    shutil.rmtree(out)
    return len(kills)


def uniform_kills(place: Path, name: str, wanted: int) -> None:
    """Kill a command `wanted` times, at most twice a run, uniformly over the whole time that it takes."""
    whole(place, name)  # which warms the machine up, too
    out, shares = place / name / "killed", generator(0, f"kill {name}")
    (length,) = run_killed(COMMANDS[name](place, out), (), start=forked).seconds
    shutil.rmtree(out)
    killed = 0
    for attempt in itertools.count():
        assert attempt < 3 * wanted + 3, f"{name} was killed only {killed} times in {attempt} runs"
        if killed >= wanted:
            return
        # A process that is done before its moment is not killed: another moment is drawn instead.
        drawn = torch.rand(min(2, wanted - killed), generator=shares, dtype=torch.float64).tolist()
        killed += killed_equals_whole(place, name, out, [share * length for share in drawn])


def writing_kills(place: Path, name: str, wanted: int) -> None:
    """Kill a command `wanted` times just before changes to its files, each of another kind."""
    whole(place, name)
    out = place / name / "writing"
    found = kinds(operations(COMMANDS[name](place, out), out, place / name / "operations"), out)
    shutil.rmtree(out)
    order = torch.randperm(len(found), generator=generator(0, f"writing {name}")).tolist()
    killed = 0
    for position in order:
        if killed < wanted:  # a run that was quicker may save no state where the listed one did
            killed += killed_equals_whole(place, name, out, [found[position]])
    assert killed == wanted


@pytest.mark.timeout(300)
def test_two_kills(place):
    uniform_kills(place, "train", 1)
    writing_kills(place, "evaluate", 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_uniform_moments(place, name):
    shares = [KILLS // len(COMMANDS) + (rank < KILLS % len(COMMANDS)) for rank in range(len(COMMANDS))]
    assert sum(shares) == KILLS
    uniform_kills(place, name, shares[list(COMMANDS).index(name)])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_while_it_writes(place, name):
    writing_kills(place, name, WRITES)
