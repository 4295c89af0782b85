"""`search` by methods that read calibration data: attacked sentences, perturbed ones, streamed models."""

import json
import shutil
from pathlib import Path

import pytest
from tests.commands import made
from tests.reports.made import row, write

from hardtack.cli import main
from hardtack.errors import InputError
from hardtack.evaluation.attacks import ATTACKS
from hardtack.methods.magnitude import Magnitude
from hardtack.methods.obs import Obs
from hardtack.methods.retention import Retention
from hardtack.methods.wanda import Wanda
from hardtack.select import Sparsity
from hardtack.stages import Common, evaluate, search
from hardtack.stages.attacked import attacked_table, digest_of_texts
from hardtack.tasks.task import Table
from hardtack.tasks.text import load_task
from hardtack.ticket import Ticket
from hardtack.training.adversarial import FreeLB

CPU = Common(device="cpu", batch_size=8)
HALF = (Sparsity.parse("0.5"),)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, a task, and what evaluating the model under attack on validation and test leaves."""
    place = made(tmp_path_factory.mktemp("calibrating"))
    swap = ATTACKS["word_swap"](neighbours=place / "near.jsonl")
    for split in ("validation", "test"):
        evaluate(
            str(place / "tiny"), task=str(place / "task"), out=place / split, split=split,
            attacks=(swap,), examples=24, common=CPU,
        )  # fmt: skip
    return place


def searched(place: Path, out: Path, method=None, **more):
    found = search(
        method or Wanda(HALF, calibration=16), str(place / "tiny"), task=str(place / "task"), out=out,
        **{"common": CPU, **more},
    )  # fmt: skip
    (ticket,) = found["tickets"]
    return found, Ticket.load(ticket)


def test_sentences_that_fell_calibrate(place, tmp_path):
    data = load_task(str(place / "task"))
    table = attacked_table(place / "validation", data)
    lines = [json.loads(line) for line in (place / "validation" / "outcomes.jsonl").read_text().splitlines()]
    fell = {tuple(line["adversarial"]): line for line in lines if line["status"] == "fell"}
    assert 0 < len(table) == len(fell)
    labels = dict(zip(data.table("validation").texts, data.table("validation").labels.tolist(), strict=True))
    for text, label in zip(table.texts, table.labels.tolist(), strict=True):
        assert label == labels[tuple(fell[text]["original"])]
    from_ = str(place / "validation")
    _, clean = searched(place, tmp_path / "clean")
    found, mixed = searched(
        place, tmp_path / "a", Wanda(HALF, calibration=16, attacked=0.25), attacked_from=from_
    )
    assert clean.origin["calibration"]["examples"] == mixed.origin["calibration"]["examples"] == 16
    assert mixed.origin["calibration"]["attacked"] == 4
    assert mixed.origin["distance"].keys() == {"clean", "attacked"}
    assert mixed.digest() != clean.digest()
    again, same = searched(
        place, tmp_path / "a", Wanda(HALF, calibration=16, attacked=0.25), attacked_from=from_
    )
    assert again == found
    assert same.origin == mixed.origin


def test_without_a_share_they_are_only_measured(place, tmp_path):
    _, clean = searched(place, tmp_path / "clean")
    _, measured = searched(place, tmp_path / "measured", attacked_from=str(place / "validation"))
    assert measured.digest() == clean.digest()
    assert measured.origin["distance"]["clean"] == clean.origin["distance"]["clean"]
    assert "attacked" in measured.origin["distance"]
    assert measured.origin["run"] != clean.origin["run"]  # the record says more


def test_the_texts_name_the_run_and_not_their_folder(place, tmp_path):
    shutil.copytree(place / "validation", tmp_path / "copy")
    one, _ = searched(place, tmp_path / "one", attacked_from=str(place / "validation"))
    other, _ = searched(place, tmp_path / "other", attacked_from=str(tmp_path / "copy"))
    assert one["id"] == other["id"]
    texts = Table.of([("a",), ("b",)], [0, 1])
    assert digest_of_texts(texts) != digest_of_texts(Table.of([("a",), ("b",)], [1, 0]))


def test_the_test_split_never_calibrates(place, tmp_path):
    with pytest.raises(InputError) as caught:
        searched(place, tmp_path / "x", attacked_from=str(place / "test"))
    line = f"{place / 'test'} attacked the test split, which searches never read; allowed: train, validation"
    assert str(caught.value) == line
    assert not (tmp_path / "x").exists()
    shutil.copytree(place / "validation", tmp_path / "both")
    for name in ("rows.jsonl", "outcomes.jsonl"):
        both = (place / "validation" / name).read_text() + (place / "test" / name).read_text()
        (tmp_path / "both" / name).write_text(both)
    data = load_task(str(place / "task"))
    assert attacked_table(tmp_path / "both", data).texts == attacked_table(place / "validation", data).texts


def test_other_data_and_nothing_fallen_are_refused(place, tmp_path):
    data = load_task(str(place / "task"))
    write(tmp_path / "other", (row("dense", "F", split="validation"), "F"))
    text = (tmp_path / "other" / "outcomes.jsonl").read_text().replace("test-", "validation-")
    (tmp_path / "other" / "outcomes.jsonl").write_text(text)
    with pytest.raises(InputError, match="attacked other data than task 'task': validation-0 differs"):
        attacked_table(tmp_path / "other", data)
    write(tmp_path / "held", (row("dense", "HM", split="validation"), "HM"))
    with pytest.raises(InputError, match="holds no sentence that fell to an attack; allowed: a folder of"):
        attacked_table(tmp_path / "held", data)
    with pytest.raises(InputError, match="is no folder"):
        attacked_table(tmp_path / "nothing", data)


@pytest.mark.parametrize("name", ["attacked_from", "stream"])
def test_methods_that_read_no_calibration_data_refuse_it(place, tmp_path, name):
    given = {"attacked_from": str(place / "validation"), "stream": True}[name]
    with pytest.raises(InputError, match=f"magnitude takes no {name}; allowed: wanda, obs, retention"):
        searched(place, tmp_path / "x", Magnitude(HALF), **{name: given})


def test_an_objective_perturbs_and_so_names_the_run(place, tmp_path):
    clean, one = searched(place, tmp_path / "clean")
    found, other = searched(place, tmp_path / "freelb", objective=FreeLB(steps=2))
    assert found["id"] != clean["id"]
    assert other.origin["calibration"]["perturbed"] == 16
    assert other.origin["distance"].keys() == {"clean", "perturbed"}
    assert other.origin["objective"] == "freelb"
    assert one.digest() != other.digest()


@pytest.mark.parametrize("method", [Retention(HALF, calibration=16), Wanda(HALF, calibration=16)])
def test_a_streamed_search_leaves_what_the_other_leaves(method, place, tmp_path):
    whole, one = searched(place, tmp_path / "whole", method)
    parts, other = searched(place, tmp_path / "parts", method, stream=True)
    assert whole["id"] == parts["id"]
    for name in ("ticket.json", "masks.safetensors", "weights.safetensors"):
        files = [tmp_path / run / "tickets" / "sparsity-0.5000" / name for run in ("whole", "parts")]
        assert files[0].exists() == files[1].exists()
        if files[0].exists():
            assert files[0].read_bytes() == files[1].read_bytes()
    assert one.origin == other.origin
    assert not (tmp_path / "parts" / "scratch").exists()
    # The same run, so either way goes on where the other stopped.
    assert searched(place, tmp_path / "whole", method, stream=True)[0] == whole


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"start": "elsewhere"}, "stream reads one model, the base, and starts there; allowed: no start"),
        ({"objective": FreeLB()}, r"objective freelb needs the whole model in memory \(stream\); allowed"),
        ({"method": Obs(HALF, scope="global")}, "scope global compares the weights of the whole model"),
    ],
)  # fmt: skip
def test_what_streaming_cannot_do_is_refused(more, line, place, tmp_path):
    with pytest.raises(InputError, match=line):
        searched(place, tmp_path / "x", stream=True, **more)


def test_a_search_begun_in_memory_goes_on_streamed_and_the_other_way(place, tmp_path):
    class Killed(BaseException):
        pass

    method = Retention(HALF, calibration=16)
    _, whole = searched(place, tmp_path / "whole", method)
    for first in (True, False):
        out = tmp_path / str(first)

        def watch(label: str, done: int, total: int) -> None:
            if done == 2:
                raise Killed

        with pytest.raises(Killed):
            searched(place, out, method, stream=first, watch=watch)
        _, ticket = searched(place, out, method, stream=not first)
        assert ticket.digest() == whole.digest()
        assert '"event": "resumed"' in (out / "log.jsonl").read_text()


@pytest.mark.parametrize("stream", [False, True])
def test_the_plan_of_a_search_is_no_guess(stream, place, tmp_path, capsys):
    words = ["search", "retention", place / "tiny", "--task", place / "task", "--out", tmp_path / "x"]
    words += ["--sparsity", "0.5", "--sparsity", "2:4", "--device", "cpu", *(["--stream"] if stream else [])]
    assert main([*map(str, words), "--dry-run", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = [stage["name"] for stage in result["stages"]]
    assert names == [
        "retention: first pass over the calibration data", "retention: passes, 2 blocks, 2 sparsities",
        "retention: solves",
    ]  # fmt: skip
    assert 0 < result["seconds"] < 60
    assert result["bytes"] > 10_000
    assert not (tmp_path / "x").exists()


def test_flags_reach_the_search(place, tmp_path, capsys):
    words = [
        "search",
        "obs",
        place / "tiny",
        "--task",
        place / "task",
        "--out",
        tmp_path / "x",
        "--device",
        "cpu",
    ]
    words += [
        "--calibration",
        "16",
        "--attacked",
        "0.25",
        "--attacked-from",
        place / "validation",
        "--sparsity",
        "0.5",
    ]
    assert main([*map(str, words), "--stream"]) == 0
    ticket = Ticket.load(tmp_path / "x" / "tickets" / "sparsity-0.5000")
    assert ticket.origin["settings"]["attacked"] == 0.25
    assert ticket.origin["calibration"]["attacked"] == 4
    assert main([*map(str, words[:-2]), "--attacked", "2", "--out", str(tmp_path / "y")]) == 2
    assert "attacked 2.0 is not allowed; allowed: a share from 0 to 1" in capsys.readouterr().err
