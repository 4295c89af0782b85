"""A stage that was stopped and goes on: its seconds count all processes, its events stand once in the log."""

import itertools
import json

import pytest
from tests.toys import saved_toy, toy_task

from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.methods.iterative import Iterative
from hardtack.runs import Clock, Run
from hardtack.select import Sparsity
from hardtack.stages import Common, evaluate, search, train

CPU = Common(device="cpu", batch_size=8, save_seconds=0.0)
EARLIER = 1000.0
TWO = (Sparsity.parse(0.02), Sparsity.parse(0.04))


@pytest.fixture
def place(tmp_path):
    saved_toy(tmp_path / "tiny")
    (tmp_path / "task").mkdir()
    for split, data in toy_task().splits.items():
        pairs = zip(data.texts, data.labels, strict=True)
        lines = [json.dumps({"text": text, "label": int(label)}) + "\n" for (text,), label in pairs]
        (tmp_path / "task" / f"{split}.jsonl").write_text("".join(lines))
    return tmp_path


def stopping_at(label, count):
    """Return a watch that stops the work, as Ctrl-C does, when so much of the part named `label` is done."""

    def watch(name, done, total):
        if name.startswith(label) and done >= count:
            raise KeyboardInterrupt

    return watch


@pytest.fixture
def stopped(monkeypatch):
    """Return a function that runs a stage which is stopped, in a process that has worked for long."""

    def run(stage, *values, **settings):
        seconds = Clock.seconds
        with monkeypatch.context() as patch:
            patch.setattr(Clock, "seconds", lambda self: seconds(self) + EARLIER)
            with pytest.raises(KeyboardInterrupt):
                stage(*values, **settings)

    return run


def about(seconds):
    """What took so long in earlier processes, and the moments of this one."""
    return pytest.approx(seconds + 50, abs=50)


def test_training_counts_the_seconds_of_all_processes(place, stopped):
    run = {"task": str(place / "task"), "out": place / "out", "epochs": 2, "common": CPU}
    stopped(train, str(place / "tiny"), **run, watch=stopping_at("training", 4))
    assert train(str(place / "tiny"), **run)["seconds"] == about(EARLIER)


def test_a_search_counts_the_seconds_of_its_warm_up_and_of_all_processes(place, stopped):
    run = {"task": str(place / "task"), "out": place / "out", "warm_epochs": 1, "common": CPU}
    method = HardConcrete(TWO, epochs=1)
    stopped(search, method, str(place / "tiny"), **run, watch=stopping_at("mask learning", 3))
    found = search(method, str(place / "tiny"), **run)
    assert found["seconds"] == about(2 * EARLIER)
    warm = json.loads((place / "out" / "warm" / "DONE").read_text())
    assert warm["seconds"] == about(EARLIER)


def test_rounds_count_the_seconds_of_all_processes(place, stopped):
    run = {"task": str(place / "task"), "out": place / "out", "common": CPU}
    method = Iterative((Sparsity.parse(0.4),), epochs=1)
    stopped(search, method, str(place / "tiny"), **run, watch=stopping_at("IMP round 2", 1))
    assert search(method, str(place / "tiny"), **run)["seconds"] == about(EARLIER)


def test_a_row_counts_the_seconds_of_all_processes_and_no_other_rows(place, stopped):
    run = {"task": str(place / "task"), "out": place / "out", "common": CPU, "examples": 8}
    run["attacks"] = [DeepWordBug(query_limit=20), DeepWordBug(query_limit=21)]
    stopped(evaluate, str(place / "tiny"), **run, watch=stopping_at("attack", 1))
    clean, first, second = evaluate(str(place / "tiny"), **run)["rows"]
    assert clean["measured"]["seconds"] == about(EARLIER)  # written by the process that was stopped
    assert first["measured"]["seconds"] == about(EARLIER)
    assert second["measured"]["seconds"] < 100


@pytest.mark.parametrize("method", [HardConcrete(TWO, epochs=1), Iterative(TWO, share=0.03, epochs=1)],
                         ids=lambda method: method.name)  # fmt: skip
def test_each_tickets_event_stands_once_in_the_log_wherever_the_search_was_stopped(
    place, monkeypatch, method
):
    log, run = Run.log, {"task": str(place / "task"), "warm_epochs": 1, "common": CPU}

    def events(out):
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return [(line["name"], line["sparsity"]) for line in lines if line.get("event") == "ticket"]

    search(method, str(place / "tiny"), out=place / "whole", **run)
    assert len(events(place / "whole")) == 2
    for number, late in itertools.product((1, 2), (False, True)):
        count, out = itertools.count(1), place / f"stopped-{number}-{late}"

        def stop(self, number=number, late=late, count=count, **facts):
            last = facts.get("event") == "ticket" and next(count) == number
            if not last or late:
                log(self, **facts)
            if last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "log", stop)
            with pytest.raises(KeyboardInterrupt):
                search(method, str(place / "tiny"), out=out, **run)
        search(method, str(place / "tiny"), out=out, **run)
        assert events(out) == events(place / "whole")
        search(method, str(place / "tiny"), out=out, **run)
        assert events(out) == events(place / "whole")


def test_a_reading_of_the_test_split_is_logged_once(place, monkeypatch):
    run = {"task": str(place / "task"), "out": place / "out", "common": CPU}
    with monkeypatch.context() as patch:
        patch.setattr("hardtack.stages.rows.Rows.put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate(str(place / "tiny"), **run)
    evaluate(str(place / "tiny"), **run)
    lines = [json.loads(line) for line in (place / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"] == "read"] == ["read"]


def test_a_finished_evaluation_writes_nothing_when_it_is_asked_again(place):
    run = {"task": str(place / "task"), "out": place / "out", "common": CPU}
    first = evaluate(str(place / "tiny"), **run)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.name != ".lock"}
    assert evaluate(str(place / "tiny"), **run) == first
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.name != ".lock"} == before
