import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hardtack import runs
from hardtack.errors import InputError
from hardtack.runs import Run, commit, versions

GOLDEN = Path(__file__).parent / "golden"

# ------------------------------------------------------------------------------------ folders


def opened(folder, id="search-random-01234567/seed-0", **facts):
    return Run.open(folder, id, **{"recipe": {"task": "toy"}, "seed": 4, **facts})


def test_a_new_run_writes_its_recipe(tmp_path):
    with opened(tmp_path / "new" / "deep", parent="train-clean-1/seed-0") as run:
        recipe = json.loads((run.folder / "recipe.json").read_text())
    assert recipe["id"] == run.id == "search-random-01234567/seed-0"
    assert (recipe["task"], recipe["seed"], recipe["parent"]) == ("toy", 4, "train-clean-1/seed-0")
    assert recipe["versions"] == versions()
    assert run.recipe == {"task": "toy"}


def test_the_same_run_continues_and_keeps_its_first_recipe(tmp_path):
    with opened(tmp_path) as run:
        run.log(step=1)
    before = (tmp_path / "recipe.json").read_bytes()
    with opened(tmp_path) as again:
        assert again.log_size() > 0
    assert (tmp_path / "recipe.json").read_bytes() == before


def test_another_run_in_the_folder_is_refused(tmp_path):
    opened(tmp_path).close()
    with pytest.raises(
        InputError, match=r"holds another run \(search-random-01234567/seed-0, this one is x\)"
    ):
        opened(tmp_path, id="x")


@pytest.mark.parametrize("foreign", ["thesis.tex", ".git", "recipe.json"])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, foreign):
    (tmp_path / foreign).write_text("[1, 2]")
    with pytest.raises(InputError, match="holds files that are not a run's"):
        opened(tmp_path)
    assert os.listdir(tmp_path) == [foreign]


def test_a_damaged_recipe_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_bytes(b'{"id": \xff')
    with pytest.raises(InputError, match="holds files that are not a run's"):
        opened(tmp_path)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        opened(tmp_path / "out")


def test_a_run_killed_before_its_recipe_was_written_starts_again(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".recipe.json.4711.part").write_text('{"id": ')
    with opened(tmp_path):
        assert sorted(os.listdir(tmp_path)) == [".lock", "recipe.json"]


def test_leftovers_of_killed_writes_go(tmp_path):
    opened(tmp_path).close()
    (tmp_path / ".rows.jsonl.4711.part").touch()
    (tmp_path / ".ticket.4711.part").mkdir()
    opened(tmp_path).close()
    assert sorted(os.listdir(tmp_path)) == [".lock", "recipe.json"]


def test_a_folder_in_use_by_another_process_is_refused_until_that_process_is_gone(tmp_path):
    opened(tmp_path).close()
    code = (
        "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire();"
        "print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="is in use by another process"):
            opened(tmp_path)
        other.kill()
        other.wait()
        opened(tmp_path).close()


def test_a_folder_in_use_by_this_process_is_refused_too(tmp_path):
    with opened(tmp_path), pytest.raises(InputError, match="is in use"):
        opened(tmp_path)
    opened(tmp_path).close()


# ------------------------------------------------------------------------------------ log, scratch, end


def test_log_lines_are_data_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.time, "time", lambda: 12.3456)
    with opened(tmp_path) as run:
        run.log(step=0, loss=0.5)
        run.part("warm").log(step=1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [
        {"part": "", "step": 0, "loss": 0.5, "at": 12.346},
        {"part": "warm/", "step": 1, "at": 12.346},
    ]


def test_cut_log_drops_what_came_later_and_tells_the_seconds_lost(tmp_path, monkeypatch):
    now = iter([100.0, 101.0, 103.5, 107.25])
    monkeypatch.setattr(runs.time, "time", lambda: next(now))
    with opened(tmp_path) as run:
        run.log(step=0)
        run.log(step=1)
        size = run.log_size()
        run.log(step=2)
        run.log(step=3)
        with open(tmp_path / "log.jsonl", "a") as stream:
            stream.write('{"step": 4, "a')  # the process was killed here
        assert run.cut_log(size) == 6.25
        assert run.log_size() == size
        assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
            0,
            1,
        ]
        assert run.cut_log(size) == 0.0


def test_cut_log_to_nothing_and_without_a_log(tmp_path, monkeypatch):
    now = iter([5.0, 7.0])
    monkeypatch.setattr(runs.time, "time", lambda: next(now))
    with opened(tmp_path) as run:
        assert run.log_size() == 0
        assert run.cut_log(0) == 0.0
        run.log(step=0)
        run.log(step=1)
        assert run.cut_log(0) == 2.0
        assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_keep_and_kept_in_each_part_apart(tmp_path):
    with opened(tmp_path) as run:
        part = run.part("round-1")
        assert run.kept("fit") is None
        run.keep("fit", {"a": torch.ones(2)}, step=1)
        part.keep("fit", {"a": torch.zeros(2)}, step=2)
        assert part.scratch == tmp_path / "scratch" / "round-1"
        for where, value, step in ((run, 1.0, 1), (part, 0.0, 2)):
            kept = where.kept("fit")
            assert kept is not None
            assert kept[0]["a"].tolist() == [value, value]
            assert kept[1].pop("seconds") >= 0
            assert kept[1] == {"step": step}
        part.discard()
        assert part.kept("fit") is None
        assert run.kept("fit") is not None


def test_parts_share_folder_and_settings_but_not_the_lock(tmp_path):
    seen = []
    with opened(tmp_path, watch=lambda *facts: seen.append(facts), save_seconds=0.5) as run:
        part = run.part("a")
        part.tick("training", 1, 3)
        part.close()
        with pytest.raises(InputError, match="in use"):
            opened(tmp_path)
    assert seen == [("training", 1, 3)]
    assert (part.id, part.seed, part.folder, part.recipe, part.save_seconds) == (
        (run.id, run.seed, run.folder, run.recipe, 0.5)
    )


def test_finish_removes_scratch_and_writes_done_last(tmp_path):
    with opened(tmp_path) as run:
        run.part("a").keep("fit", {"a": torch.ones(2)})
        assert not run.finished()
        run.finish(tickets=2)
        assert run.finished()
    assert not (tmp_path / "scratch").exists()
    assert json.loads((tmp_path / "DONE").read_text()) == {"tickets": 2}


def test_a_kill_between_done_and_the_end_of_scratch_costs_nothing(tmp_path, monkeypatch):
    with opened(tmp_path) as run:
        run.keep("fit", {"a": torch.ones(2)})
        with monkeypatch.context() as patch:
            patch.setattr(runs.shutil, "rmtree", lambda *_, **__: pytest.fail("killed"))
            with pytest.raises(pytest.fail.Exception, match="killed"):
                run.finish(tickets=2)
    with opened(tmp_path) as run:
        assert run.finished()
        assert not (tmp_path / "scratch").exists()


def test_what_a_killed_process_was_writing_is_gone(tmp_path):
    with opened(tmp_path) as run:
        assert run.part("round-1").scratch is not None
    unfinished = tmp_path / "tickets" / ".sparsity-0.3000.7.part"
    unfinished.mkdir(parents=True)
    (tmp_path / "candidates" / ".half.7.part").mkdir(parents=True)  # of an export in `ship`
    (unfinished / "ticket.json").write_text("{}")  # no ticket: it was not put in its place yet
    (tmp_path / "scratch" / "round-1" / ".fit.safetensors.7.part").write_bytes(b"1")
    with opened(tmp_path):
        pass
    assert not list(tmp_path.rglob("*.part"))


def test_a_run_that_was_refused_before_it_left_anything_frees_its_folder(tmp_path):
    def refuse(leave):
        with Run.open(tmp_path / leave, "search-random-1/seed-0", recipe={}, seed=0) as run:
            assert run.scratch is not None
            if leave == "log":
                run.log(step=1)
            raise InputError("scope 'globl' does not exist")

    for leave in ("nothing", "log"):
        with pytest.raises(InputError, match="globl"):
            refuse(leave)
    with Run.open(tmp_path / "nothing", "search-random-2/seed-0", recipe={}, seed=0) as run:
        assert run.id == "search-random-2/seed-0"
    with pytest.raises(InputError, match="holds another run"):
        Run.open(tmp_path / "log", "search-random-2/seed-0", recipe={}, seed=0)


def test_nowhere_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.nowhere(seed=2)
    run.log(step=1)
    run.keep("fit", {"a": torch.ones(1)})
    run.tick("training", 1, 2)
    run.discard()
    run.finish()
    assert run.scratch is None
    assert run.kept("fit") is None
    assert (run.log_size(), run.cut_log(0), run.finished()) == (0, 0.0, False)
    assert os.listdir(tmp_path) == []


def test_commit_is_of_this_tree_and_never_of_a_checkout_around_an_installed_package(tmp_path, monkeypatch):
    found = commit()
    assert found is None or (len(found) == 40 and set(found) <= set("0123456789abcdef"))
    site = tmp_path / ".venv" / "hardtack"
    site.mkdir(parents=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "other"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    monkeypatch.setattr(runs, "__file__", str(site / "runs.py"))
    assert commit() is None
    monkeypatch.setenv("PATH", "")
    assert commit() is None
