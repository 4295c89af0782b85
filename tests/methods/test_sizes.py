"""Memory and disk, said before the work; and what a plan counts."""

import json
import shutil
from collections import namedtuple

import pytest
import torch
from tests.toys import toy_batches
from tests.zoo import ZOO

from hardtack import cost
from hardtack.errors import InputError
from hardtack.methods.blocks import Blocks
from hardtack.methods.calibration import samples
from hardtack.methods.known import Known, Paths
from hardtack.methods.obs import Obs
from hardtack.methods.retention import Retention
from hardtack.methods.search import Data
from hardtack.methods.sizes import plan, room
from hardtack.methods.wanda import Wanda
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.ticket import Base
from hardtack.training.adversarial import Clean

HALF = (Sparsity.parse("0.5"),)
Usage = namedtuple("Usage", "total used free")


def search(method, run):
    model = ZOO["bert"]()
    data = Data(toy_batches(model, examples=24), None)
    return next(method.search(model, Base.of(model), Prunable.of(model), data, Clean(), run))


def needed(method):
    model = ZOO["bert"]()
    data = Data(toy_batches(model, examples=24), None)
    view = Prunable.of(model)
    blocks = Blocks.of(model, samples(method, model, data, Clean(), Run.nowhere()))
    tokens = sum(sample.batch.inputs["input_ids"].numel() for sample in blocks.samples)
    return room(method, blocks, list(blocks.stages(view)), view), tokens, view.units


def test_room_by_hand():
    """Toy BERT: width 24, inner 40; a block reads 24, 24, 24 and 40 inputs."""
    found, tokens, units = needed(Obs(sparsities=HALF))
    # four sums of a block at once, a factor of the widest, and its Hessian in float32
    assert found.hessians == 8 * (3 * 24**2 + 40**2) + 12 * 40**2
    assert found.weights == 5 * units + 6 * 8 * 24 * 40
    assert found.disk == 5 * units + 4 * 4 * 24 * tokens + units // 8 + 4096 + 4 * units
    assert found.states > 3 * 4 * 24 * tokens
    full, _, _ = needed(Retention(sparsities=HALF))
    # one sum at a time: 40 inputs and as many columns of targets as the dense outputs are wide
    assert full.hessians == 8 * 40 * (40 + 24) + 12 * 40**2
    # targets: three inputs of 24, and an output of 24 in place of 40 inputs
    assert full.states == found.states + 4 * tokens * 4 * 24
    assert (found.known, full.known) == (0, 2 * 4 * tokens * (4 * 24 + 40 + 24))  # outputs of six matrices
    wanda, _, _ = needed(Wanda(sparsities=HALF))
    assert wanda.hessians == 8 * (3 * 24 + 40)
    assert wanda.weights < found.weights


@pytest.mark.parametrize("method", [Wanda, Obs, Retention])
def test_too_little_memory_is_said_before_the_work(method, monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "free_memory_bytes", lambda device="cpu": 10_000)
    ticks = []
    with pytest.raises(InputError) as caught:
        search(method(sparsities=HALF), Run("x", 0, tmp_path, watch=lambda *tick: ticks.append(tick)))
    line = str(caught.value)
    assert line.startswith(
        f"{method.name} needs 0.00 GB of memory beside the model (states 0.00 GB, hessians "
    )
    assert line.endswith("0.00 GB are there; allowed: a smaller calibration than 256, or stream (--stream)")
    assert ticks == []
    assert not (tmp_path / "scratch").exists()


def test_too_little_disk_is_said_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 1000))
    with pytest.raises(
        InputError, match=r"needs 0\.00 GB of disk in .*, 0\.00 GB are there; allowed: another"
    ):
        search(Obs(sparsities=HALF), Run("x", 0, tmp_path))
    search(Obs(sparsities=HALF), Run.nowhere())  # which writes nothing


def test_what_a_stopped_search_has_written_is_not_missing_from_the_disk(monkeypatch, tmp_path):
    search(Obs(sparsities=HALF), Run("x", 0, tmp_path))
    (tmp_path / "states").write_bytes(bytes(10**6))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 1000))
    search(Obs(sparsities=HALF), Run("x", 0, tmp_path))


def test_without_room_for_what_matrices_gave_the_ticket_is_the_same(monkeypatch):
    found, _, _ = needed(Retention(sparsities=HALF))
    tickets = []
    for free in (found.memory, found.memory + found.known):
        monkeypatch.setattr(cost, "free_memory_bytes", lambda device="cpu", free=free: free)
        made = []
        monkeypatch.setattr(Paths, "new", lambda made=made: made.append(Paths(Known(), Known())) or made[-1])
        tickets.append((search(Retention(sparsities=HALF), Run.nowhere()), len(made)))
    (one, none), (other, some) = tickets
    assert (none, some) == (0, 3)  # two blocks and the head
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)


def test_what_is_needed_and_there_is_logged_once(tmp_path):
    for _ in range(2):
        search(Obs(sparsities=HALF), Run("x", 0, tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line.get("event") == "room"]
    assert 0 < line["memory_bytes"] < line["measured"]["memory_bytes"]
    assert 0 < line["disk_bytes"] < line["measured"]["disk_bytes"]


def test_a_system_that_says_nothing_is_not_checked(monkeypatch):
    monkeypatch.setattr(cost, "free_memory_bytes", lambda device="cpu": None)
    search(Obs(sparsities=HALF), Run.nowhere())


@pytest.mark.parametrize(
    "method", [Wanda(), Obs(), Retention(), Retention(scope="global"), Obs(solver="exact")]
)
def test_a_plan_counts_passes_and_solves(method):
    model = ZOO["bert"]()
    data = Data(toy_batches(model, examples=24), None)
    parts = list(plan(method, model, Prunable.of(model), data, Clean()))
    assert [part.name.removeprefix(f"{method.name}: ") for part in parts] == [
        "first pass over the calibration data", "passes, 2 blocks, 1 sparsity", "solves",
    ]  # fmt: skip
    assert all(part.seconds > 0 for part in parts)
    assert sum(part.bytes for part in parts) > 0


def test_free_memory_is_below_the_machine_s():
    free = cost.free_memory_bytes()
    assert free is None or 2**20 < free < 2**50
