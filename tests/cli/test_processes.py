"""The command line in several processes: one writes and speaks, a kill loses nothing, mistakes end all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.cli.staged import everything
from tests.kills import Lines, digest, python, resumptions, run_killed, timeless_log
from tests.several import ROOT, environments, several
from tests.toys import TOYS, toy_task, toy_tokenizer
from tests.training.test_trackers import shown

from hardtack.cli import main
from hardtack.errors import InputError
from hardtack.methods import METHODS
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.runs import Run
from hardtack.stages import Common, search
from hardtack.ticket import Ticket

pytestmark = pytest.mark.timeout(300)  # processes start slowly on a machine that is busy
SEVERAL = Path(__file__).parent.parent / "several.py"
STAGED = Path(__file__).parent / "staged.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A toy model without dropout and its task as files; the last step of an epoch has one row."""
    folder = tmp_path_factory.mktemp("several")
    config = TOYS["bert"]().config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = type(TOYS["bert"]())(config)
    model.load_state_dict(TOYS["bert"]().state_dict())
    model.save_pretrained(folder / "tiny")
    toy_tokenizer().save_pretrained(folder / "tiny")
    (folder / "task").mkdir()
    for split, data in toy_task(train=49).splits.items():
        rows = zip(data.texts, data.labels, strict=True)
        lines = [json.dumps({"text": text, "label": int(label)}) + "\n" for (text,), label in rows]
        (folder / "task" / f"{split}.jsonl").write_text("".join(lines))
    return folder


def losses_of(folder: Path) -> list[float]:
    return [line["loss"] for line in timeless_log(folder) if "loss" in line]


# ------------------------------------------------------------------------ one command, two processes


@pytest.mark.slow
def test_two_processes_find_the_tickets_of_one_and_one_of_them_writes(place, tmp_path, monkeypatch):
    settings = ("--epochs", "3", "--warm-epochs", "2", "--save-seconds", "0", "--tracker", "tensorboard")
    command = ("search", "hard_concrete", place / "tiny", "--task", place / "task", "--out", tmp_path / "two")
    first, second = several(2, "-m", "hardtack", *command, "--batch-size", "8", *settings, "--json")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    told = json.loads(first.out.splitlines()[-1])
    assert second.out == ""
    common = Common(batch_size=16, device="cpu")
    alone = search(
        HardConcrete(epochs=3.0), str(place / "tiny"), task=str(place / "task"), out=tmp_path / "one",
        warm_epochs=2.0, common=common,
    )  # fmt: skip
    assert told["id"] != alone["id"], "other bits must have another name"
    for folder in ("two", "two/warm"):
        mine, known = (losses_of(tmp_path / folder.replace("two", name)) for name in ("two", "one"))
        assert len(mine) == (8 if folder.endswith("warm") else 12)  # four steps an epoch, none written twice
        assert mine == pytest.approx(known, rel=1e-3)
        assert [value for _, value in shown(tmp_path / folder)["loss"]] == pytest.approx(mine)
    (mine,), (known,) = told["tickets"], alone["tickets"]
    masks, others = Ticket.load(mine).masks, Ticket.load(known).masks
    units = sum(mask.numel() for mask in masks.values())
    assert sum(int((masks[name] != others[name]).sum()) for name in others) <= 0.001 * units
    recipe = json.loads((tmp_path / "two" / "recipe.json").read_text())
    assert recipe["processes"] == 2
    assert json.loads((tmp_path / "one" / "recipe.json").read_text())["processes"] == 1
    assert not (tmp_path / "two" / "scratch").exists()
    with pytest.raises(InputError, match="holds another run"):
        search(
            HardConcrete(epochs=3.0), str(place / "tiny"), task=str(place / "task"), out=tmp_path / "two",
            warm_epochs=2.0, common=Common(batch_size=8, device="cpu"),
        )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [("evaluate", "runs/x", "--task", "made", "--out", "runs/y"), ("demo",), ("demo", "--dry-run")],
    ids=["evaluate", "demo", "demo-plan"],
)
def test_verbs_for_one_process_are_refused_in_several(words, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, who in (("0", "hardtack:"), ("1", "hardtack (process 1):")):
        monkeypatch.setenv("RANK", rank)
        assert main(words) == 2
        shown = capsys.readouterr()
        expected = (
            f"{who} {words[0]} works in one process and 2 were started; allowed in several: train, search, "
        )
        assert shown.err == expected + "retrain\n"
        assert shown.out == ""


def test_results_and_help_are_printed_once(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(["--version"]) == 0
        assert main(["train", "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("hardtack ") if rank == "0" else shown == ""


def test_half_precision_of_the_other_kind_is_refused_with_the_reason(capsys):
    assert main(["train", "tiny", "--task", "made", "--out", "runs/x", "--precision", "fp16"]) == 2
    reason = "its scaled gradients overflow the perturbations"
    assert capsys.readouterr().err == (
        f"hardtack: precision 'fp16' is not allowed ({reason}); allowed: fp32, bf16\n"
    )


def test_a_tracker_that_does_not_exist_is_refused_in_one_line(capsys):
    assert main(["train", "tiny", "--task", "made", "--out", "runs/x", "--tracker", "tensorbord"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hardtack: tracker 'tensorbord' does not exist; did you mean 'tensorboard'?")
    assert said.count("\n") == 1


# ------------------------------------------------------------------------------------------- real launchers


def launcher(*words: str | Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.slow
def test_accelerate_launch_starts_what_torchrun_starts(place, tmp_path):
    train = (
        "-m",
        "hardtack",
        "train",
        place / "tiny",
        "--task",
        place / "task",
        "--batch-size",
        "8",
        "--json",
    )
    known = launcher("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *train, "--out", tmp_path / "a")  # fmt: skip  # noqa: E501
    assert known.returncode == 0, known.stderr
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0")
    done = launcher(*launch, "--multi_gpu", *train, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert len(done.stdout.splitlines()) == 1
    # Without two GPUs and --multi_gpu, accelerate starts one process and says nothing.
    done = launcher(*launch, *train, "--out", tmp_path / "c")
    assert done.returncode != 0
    assert "hardtack: accelerate launch was asked for several processes and started one" in done.stderr
    assert not (tmp_path / "c").exists()


# ------------------------------------------------------------------------------------------- ends and kills


@pytest.mark.slow
def test_a_folder_in_use_is_refused_by_all(place, tmp_path):
    command = ("train", place / "tiny", "--task", place / "task", "--out", tmp_path / "run")
    with Run.open(tmp_path / "run", "toy/seed-0", recipe={}, seed=0):
        (tmp_path / "run" / "recipe.json").unlink()
        first, second = several(2, "-m", "hardtack", *command)
    assert (first.code, second.code) == (2, 2)
    assert "is in use by another process" in first.err
    assert second.err == "hardtack (process 1): process 0 was refused; its own line says why\n"


@pytest.mark.slow
def test_processes_of_different_commands_are_refused(place, tmp_path):
    """Each process draws its seed from its number, as a careless script would."""
    words = [
        "hardtack",
        "train",
        place / "tiny",
        "--task",
        place / "task",
        "--out",
        tmp_path / "run",
        "--seed",
    ]
    code = f"import os, sys; from hardtack.cli import main; sys.argv = {list(map(str, words))}; "
    for ended in several(2, "-c", code + "sys.argv += [os.environ['RANK']]; sys.exit(main())"):
        assert ended.code == 2
        assert "2 processes differ in the run; process" in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_together_and_resumed_together_is_the_same_bits(place, tmp_path):
    def command(out: Path) -> list[str | Path]:
        fit = ("--epochs", "30", "--lr", "1e-3", "--objective", "freelb", "--epoch-rule", "best")
        words = ("train", place / "tiny", "--task", place / "task", "--out", out, "--batch-size", "8", *fit)
        return python(SEVERAL, "2", "-m", "hardtack", *words, "--save-seconds", "0.2")

    run_killed(command(tmp_path / "whole"), ())
    log = tmp_path / "killed" / "log.jsonl"
    killed = run_killed(command(tmp_path / "killed"), (Lines(log, 3), Lines(log, 50), Lines(log, 100)))
    assert len(killed.kills) >= 2
    # Training's own events; one that is killed during validation also says how many answers it read back.
    resumed = [event for event in resumptions(tmp_path / "killed") if "step" in event]
    assert len(resumed) == len(killed.kills)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert timeless_log(tmp_path / "killed") == timeless_log(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_ends_and_both_resume(place, tmp_path, victim):
    log = tmp_path / "run" / "log.jsonl"

    def start(environment: dict[str, str], out: Path) -> subprocess.Popen:
        words = ("train", place / "tiny", "--task", place / "task", "--out", out, "--batch-size", "8")
        command = python(
            Path("-m"), "hardtack", *words, "--epochs", "30", "--lr", "1e-3", "--save-seconds", "0.2"
        )
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    both = [start(environment, tmp_path / "run") for environment in environments(2)]
    while not log.exists() or log.read_bytes().count(b"\n") < 20:
        assert all(process.poll() is None for process in both)
        time.sleep(0.01)
    os.kill(both[victim].pid, signal.SIGKILL)
    other = both[1 - victim]
    said = other.communicate(timeout=60)[1]
    both[victim].communicate()
    assert other.returncode == 2
    assert "another process ended, its own lines say why" in said
    for out in (tmp_path / "run", tmp_path / "whole"):
        again = [start(environment, out) for environment in environments(2)]
        assert [process.communicate(timeout=250) and process.returncode for process in again] == [0, 0]
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_train_every_search_and_retrain_in_two_processes(place, tmp_path, precision):
    first, second = several(2, STAGED, place, tmp_path / "two", precision, "8", timeout=300)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    results = json.loads(first.out.splitlines()[-1])
    assert results == json.loads(second.out.splitlines()[-1])
    known = everything(place, tmp_path / "one", precision, 16)
    assert len(results) == len(known) == 1 + 2 * len(METHODS)
    units, differ = 0, 0
    for mine, alone in zip(results, known, strict=True):
        if mine["kind"] == "retrain" and units < 100 and differ:
            continue  # a swapped head makes another subnetwork, with other losses
        two, one = losses_of(Path(mine["folder"])), losses_of(Path(alone["folder"]))
        # In bf16 each sum over rows is rounded to 8 bits: the processes round other sums.
        assert two == pytest.approx(one, rel=1e-3 if precision == "fp32" else 0.1)
        if mine["kind"] == "search":
            masks, others = (Ticket.load(facts["tickets"][0]).masks for facts in (mine, alone))
            differ = sum(int((masks[name] != others[name]).sum()) for name in others)
            # The start was trained by two and by one as well; 0.4 % was seen in bf16, of hard-concrete.
            allowed = 0 if mine["method"] == "random" else 0.001 if precision == "fp32" else 0.02
            units = sum(mask.numel() for mask in masks.values())  # 86 heads and neurons, or every weight
            assert differ <= max(allowed * units, 2 if precision == "bf16" else 0), mine["method"]
        else:
            weights = load_file(Path(mine["model"]) / "model.safetensors")
            assert {weight.dtype for weight in weights.values()} == {torch.float32}
            if mine["sparsity"] is not None:
                zeros = sum(int((weight == 0).sum()) for weight in weights.values())
                assert zeros >= round(mine["sparsity"] * Ticket.load(Path(mine["model"]) / "ticket").units())
