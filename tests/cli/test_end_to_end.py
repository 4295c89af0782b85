"""The verbs one after another on a toy model: each reads what the one before it left."""

import json

import pytest
from tests.toys import saved_toy, toy_task

from hardtack.cli import main
from hardtack.reports.commands import command_words
from hardtack.reports.folders import read_recipe

FEW = ("--epochs", "1", "--lr", "1e-3")
ATTACK = ("--attack", "deepwordbug", "--deepwordbug.query-limit", "30", "--examples", "8")


def run(capfd, *words):
    """Run a command and return its result; standard output holds that result and nothing else."""
    assert main((*words, "--json")) == 0
    shown = capfd.readouterr()
    assert shown.out.count("\n") == 1
    return json.loads(shown.out)


@pytest.fixture
def place(tmp_path, monkeypatch, capfd):
    """A working folder with a toy model and its task as files."""
    monkeypatch.chdir(tmp_path)
    saved_toy(tmp_path / "tiny")
    (tmp_path / "task").mkdir()
    for split, data in toy_task().splits.items():
        lines = [
            {"text": text, "label": int(label)}
            for (text,), label in zip(data.texts, data.labels, strict=True)
        ]
        (tmp_path / "task" / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    capfd.readouterr()
    return tmp_path


def test_train_search_retrain_evaluate_compare_show(place, capfd):
    task = ("--task", "task", "--device", "cpu")
    plan = run(capfd, "train", "tiny", *task, *FEW, "--out", "dense", "--dry-run")
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]), abs=0.1)
    assert not (place / "dense").exists()

    dense = run(capfd, "train", "tiny", *task, *FEW, "--out", "dense")
    assert dense == run(capfd, "train", "tiny", *task, *FEW, "--out", "dense")  # found done
    found = run(
        *(capfd, "search", "random", "tiny", *task, "--sparsity", "0.3", "--sparsity", "head=0.34"),
        *("--granularity", "head", "--out", "search"),
    )
    assert found["tickets"] == ["search/tickets/head-0.3400", "search/tickets/sparsity-0.3000"]
    run(capfd, "retrain", "search/tickets/head-0.3400", *task, *FEW, "--out", "retrained")
    for target, out in (("dense", "one"), ("retrained", "two")):
        rows = run(capfd, "evaluate", target, *task, *ATTACK, "--out", out)["rows"]
        assert [row["attack"] for row in rows] == [None, "deepwordbug"]

    compared = run(capfd, "compare", "one", "two")
    assert [(table["attack"], table["examples"]) for table in compared["tables"]] == [
        (None, 24),
        ("deepwordbug", 8),
    ]
    assert len(compared["tables"][1]["differences"]) == 1
    for thing, kind in (("search", "run"), ("one", "run"), ("dense/model", "model"), ("task", "task")):
        assert run(capfd, "show", thing)["kind"] == kind
    assert run(capfd, "show", "search/tickets/head-0.3400")["units"] == 6

    folders = ("dense", "search", "retrained", "one", "two")
    page = run(capfd, "report", *folders, "--out", "report.html")
    assert (page["models"], page["runs"], page["notes"]) == (["dense", "retrained"], 5, [])
    for folder in folders:  # the commands on the page make the same runs again
        recipe, rows = read_recipe(place / folder), place / folder / "rows.jsonl"
        known = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
        (words,) = command_words(recipe, out=f"again-{folder}", rows=known)
        again = run(capfd, *words[1:])
        assert again["id"] == recipe["id"]
        assert [row["id"] for row in again.get("rows", ())] == [row["id"] for row in known]

    for words in (("compare", "one", "two"), ("show", "one"), ("show", "search/tickets/head-0.3400")):
        assert main(words) == 0
        assert max(map(len, capfd.readouterr().out.splitlines())) <= 100


def test_wrong_input_to_real_stages_is_one_line(place, capfd):
    task = ("--task", "task", "--device", "cpu", "--out", "x")
    (place / "other").mkdir()
    (place / "other" / "mine.txt").write_text("mine")
    for words, said in (
        (("train", "nomodel", *task), "nomodel"),
        (("train", "task", *task), "task is no model"),
        (("train", "tiny", "--task", "nowhere", "--out", "x"), "no task, folder or file 'nowhere'"),
        (("train", "tiny", *task, "--epoch-rule", "lats"), "did you mean 'last'?"),
        (("train", "tiny", *task, "--seed", "-1"), "seed -1"),
        (("train", "tiny", *task, "--device", "cuda:77"), "device 'cuda:77'"),
        (
            ("train", "tiny", "--task", "task", "--device", "cpu", "--out", "other"),
            "holds files that are not a run's",
        ),
        (("train", "tiny", *task, "--out", "tiny/config.json"), "is a file"),
        (("search", "random", "tiny", *task, "--granularity", "heads"), "granularity 'heads'"),
        (("search", "random", "tiny", *task, "--from", "nowhere"), "nowhere"),
        (("retrain", "tiny", *task), "tiny is no ticket"),
        (("evaluate", "tiny", *task, "--split", "tset"), "no split 'tset'"),
        (("evaluate", "tiny", *task, "--attack", "word_swap", "--neighbours", "none.jsonl"), "none.jsonl"),
        (("show", "other"), "is a folder with nothing to show"),
    ):
        assert main(words) == 2, words
        shown = capfd.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1, shown.err
        assert said in shown.err, words
    assert not (place / "x" / "DONE").exists()
