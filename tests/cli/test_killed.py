"""search, retrain and evaluate really killed and started again: the same bits but for what measures time."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tests.kills import After, digest, resumptions, run_killed
from tests.toys import saved_toy, toy_task

from hardtack.runs import generator

MOST_REDONE_SECONDS = 60
COMMON = ("--device", "cpu", "--save-seconds", "0.3", "--batch-size", "8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A toy model, its task as files, a neighbour table, and one uninterrupted run of each verb."""
    folder = tmp_path_factory.mktemp("killed")
    saved_toy(folder / "tiny")
    (folder / "task").mkdir()
    words = set()
    for split, data in toy_task().splits.items():
        rows = [
            {"text": text, "label": int(label)}
            for (text,), label in zip(data.texts, data.labels, strict=True)
        ]
        words |= {word for row in rows for word in row["text"].split()}
        (folder / "task" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = [{"word": word, "neighbors": sorted(words - {word})[:6]} for word in sorted(words)]
    (folder / "near.jsonl").write_text("".join(json.dumps(line) + "\n" for line in table))
    for verb in ("search", "retrain", "evaluate"):
        (folder / verb).mkdir()
        run_killed(command(verb, folder, folder / verb / "whole"), ())
    return folder


def command(verb: str, place: Path, out: Path) -> list[str | Path]:
    task = ("--task", place / "task", "--out", out, *COMMON)
    hardtack = (sys.executable, "-m", "hardtack", verb)
    if verb == "search":
        more = ("--epochs", "12", "--warm-epochs", "4", "--sparsity", "0.3", "--sparsity", "0.5")
        return [
            *hardtack,
            "hard_concrete",
            place / "tiny",
            *task,
            *more,
            "--freelb.steps",
            "2",
            "--objective",
            "freelb",
        ]
    if verb == "retrain":
        ticket = place / "search" / "whole" / "tickets" / "sparsity-0.3000"
        return [*hardtack, ticket, *task, "--epochs", "40", "--lr", "1e-3", "--epoch-rule", "best"]
    attacks = ("--attack", "deepwordbug", "--attack", "word_swap", "--neighbours", place / "near.jsonl")
    return [*hardtack, place / "retrain" / "whole", *task, *attacks, "--examples", "24"]


def killed_equals_whole(place: Path, verb: str, shares: list[float]) -> int:
    """Kill one run a share of the way from its first file to DONE, resume it, compare; return the kills."""
    whole = place / verb / "whole"
    length = (whole / "DONE").stat().st_mtime - (whole / "recipe.json").stat().st_mtime
    killed = 0
    for share in shares:
        out = place / verb / f"killed-{share:.4f}"
        moment = After(out / "recipe.json", share * length)
        killed += len(run_killed(command(verb, place, out), (moment,)).kills)
        assert digest(out) == digest(whole), f"{verb} killed at {share:.3f} differs"
        assert all(event["redone_seconds"] <= MOST_REDONE_SECONDS for event in resumptions(out))
        shutil.rmtree(out)
    return killed


@pytest.mark.timeout(300)
def test_two_kills(place):
    assert killed_equals_whole(place, "search", [0.6]) + killed_equals_whole(place, "evaluate", [0.5]) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("verb", ["search", "retrain", "evaluate"])
def test_ten_kills_uniform_from_the_first_step_to_done(place, verb):
    shares = torch.rand(10, generator=generator(0, f"kill {verb}"), dtype=torch.float64).tolist()
    # A run may be quicker than the measured one, and be done before its moment; most must really be killed.
    assert killed_equals_whole(place, verb, shares) >= 8
