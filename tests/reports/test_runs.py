"""Run folders on disk: found with state and size; removed only if they are runs, below the folder, idle."""

import json
import os
import subprocess
import sys
import time

import pytest

from hardtack.cli import main
from hardtack.errors import InputError
from hardtack.reports import runs as reports
from hardtack.reports.runs import Choice, runs, runs_text
from hardtack.runs import Run, identify

DAY = 86400


def make(folder, kind="train", method="clean", seed=0, *, done=True, parent=None, steps=0, files=()):
    """Make a run folder as the stages do."""
    id = identify(kind, method, version=1, settings={"at": folder.name}, parent=parent, seed=seed)
    recipe = {"kind": kind, "method": method}
    with Run.open(folder, id, recipe=recipe, seed=seed, parent=parent) as run:
        for step in range(steps):
            run.part("round-1").log(step=step, loss=0.5)
        if steps:
            run.log(event="validation")
        for name, size in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"1" * size)
        if done:
            run.finish(id=id, folder=str(folder))
    return id


@pytest.fixture
def place(tmp_path):
    """A search with its warm-up, an evaluation, an interrupted run, an empty one, and what is no run."""
    root = tmp_path / "runs"
    ticket = "tickets/sparsity-0.3000/ticket.json"
    search = make(root / "search", "search", "hard_concrete", files=[(ticket, 9)])
    make(root / "search" / "warm", files=[("model/model.safetensors", 50_000)])
    make(root / "deep" / "rows", "evaluate", "hard_concrete", parent=search, files=[("rows.jsonl", 10)])
    make(root / "stopped", seed=1, done=False, steps=3, files=[("scratch/round-1/fit.safetensors", 20_000)])
    make(root / "empty", seed=1, done=False)
    (root / "notes").mkdir()
    (root / "notes" / "recipe.json").write_text('{"id": "pancakes"}')
    (root / "list").mkdir()
    (root / "list" / "recipe.json").write_text("[1]")
    return root


def table(result):
    return {os.path.relpath(run["path"], result["folder"]): run for run in result["runs"]}


def test_every_run_is_found_with_its_state_and_how_far_it_came(place):
    found = table(runs(place))
    states = {path: (run["kind"], run["method"], run["seed"], run["state"]) for path, run in found.items()}
    assert states == {
        "deep/rows": ("evaluate", "hard_concrete", 0, "done"),
        "empty": ("train", "clean", 1, "empty"),
        "search": ("search", "hard_concrete", 0, "done"),
        "search/warm": ("train", "clean", 0, "done"),
        "stopped": ("train", "clean", 1, "interrupted"),
    }
    assert found["stopped"]["progress"] == "round-1/step 2"
    assert found["search"]["progress"] is None
    assert found["search/warm"]["inside"] == str(place / "search")
    assert found["deep/rows"]["parent"] == found["search"]["id"]
    text = runs_text(runs(place))
    assert max(map(len, text.splitlines())) <= 100
    assert "| interrupted, " in text
    assert "| 5 runs" in text


def test_sizes_are_blocks_on_disk_and_add_up_to_the_total(place):
    result = runs(place)
    found = table(result)
    du = subprocess.run(
        ["du", "-s", "-B1", place / "search" / "warm"], capture_output=True, text=True, check=True
    )
    own = 512 * (place / "search" / "warm").stat().st_blocks
    assert found["search/warm"]["disk_bytes"] == int(du.stdout.split()[0]) - own
    assert found["search"]["disk_bytes"] < 50_000 < found["search/warm"]["disk_bytes"]
    assert result["disk_bytes"] == sum(run["disk_bytes"] for run in found.values())
    os.link(place / "search" / "warm" / "model" / "model.safetensors", place / "stopped" / "same")
    assert runs(place)["disk_bytes"] == result["disk_bytes"]  # one file under two names


def test_links_are_not_followed(place, tmp_path):
    make(tmp_path / "elsewhere" / "kept", files=[("model/model.safetensors", 10)])
    os.symlink(tmp_path / "elsewhere", place / "link")
    os.symlink(tmp_path / "elsewhere" / "kept", place / "stopped" / "link")
    assert len(runs(place)["runs"]) == 5
    for path in (place / "link" / "kept", place / "stopped" / "link"):
        with pytest.raises(InputError, match="behind a link"):
            runs(place, Choice(remove=(path,)))
    runs(place, Choice(remove=(place / "stopped",)))
    assert not (place / "stopped").exists()
    assert (tmp_path / "elsewhere" / "kept" / "model" / "model.safetensors").exists()


def test_a_run_at_work_is_seen_and_never_removed(place):
    code = (
        "import sys; from pathlib import Path; from hardtack.runs import Run\n"
        "with Run.open(Path(sys.argv[1]), sys.argv[2], recipe={}, seed=0):\n"
        "    print('at work', flush=True); input()"
    )
    id = table(runs(place))["search/warm"]["id"]
    command = [sys.executable, "-c", code, str(place / "search" / "warm"), id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"at work\n"
        assert table(runs(place))["search/warm"]["state"] == "running"
        for path in ("search/warm", "search"):
            with pytest.raises(InputError, match="search/warm is running; nothing was removed"):
                runs(place, Choice(remove=(place / "empty", place / path)))
        assert (place / "empty").exists()  # all is checked before anything goes
        gone = runs(place, Choice(remove_state=("done",), remove_warm_ups=True))["removed"]
        assert [one["path"] for one in gone] == [str(place / "deep" / "rows")]
        worker.kill()
        worker.wait()
    assert table(runs(place))["search/warm"]["state"] == "done"


def test_looking_disturbs_nobody_who_starts(place):
    id = table(runs(place))["stopped"]["id"]
    code = "import sys; from hardtack.cli import main\nwhile True: main(['runs', sys.argv[1], '--json'])"
    with subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE) as looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        for _ in range(50):
            Run.open(place / "stopped", id, recipe={}, seed=1).close()
            looker.stdout.readline()
        looker.kill()


def test_paths_are_removed_with_what_is_inside_them_and_said(place):
    before = runs(place)
    expected = sum(table(before)[path]["disk_bytes"] for path in ("search", "search/warm"))
    plan = runs(place, Choice(remove=(place / "search",)), dry_run=True)
    assert plan["removed_bytes"] == expected
    assert len(runs(place)["runs"]) == 5
    result = runs(place, Choice(remove=(place / "search",)))
    assert result["removed"] == plan["removed"]
    assert [one["path"] for one in result["removed"]] == [
        str(place / "search"),
        str(place / "search" / "warm"),
    ]
    assert not (place / "search").exists()
    assert result["disk_bytes"] == before["disk_bytes"] - expected
    assert "2 runs removed" in runs_text(result)


@pytest.mark.parametrize(
    ("path", "said"),
    [("..", "is outside"), ("../elsewhere", "is outside"), ("nothing", "does not exist"),
     *((name, "is no run folder") for name in ("notes", ".", "list", "search/tickets"))],
)  # fmt: skip
def test_what_is_no_run_below_the_folder_is_never_removed(place, path, said):
    make(place.parent / "elsewhere")
    files = sorted(place.parent.rglob("*"))
    with pytest.raises(InputError, match=said):
        runs(place, Choice(remove=(place / "empty", place / path)))
    assert sorted(place.parent.rglob("*")) == files


def test_a_path_may_be_typed_as_it_is_listed(place, monkeypatch):
    monkeypatch.chdir(place.parent)
    runs(place, Choice(remove=(place / "empty",)))
    (place / "stopped" / ".lock").unlink()  # a copy may have none
    runs(
        place.relative_to(place.parent),
        Choice(remove=tuple(map(type(place), ("stopped", "runs/search/warm")))),
    )
    assert set(table(runs(place))) == {"deep/rows", "search"}


def test_states_are_removed_but_nothing_that_an_unfinished_run_still_needs(place):
    (place / "search" / "DONE").unlink()
    gone = runs(place, Choice(remove_state=("done",)), dry_run=True)["removed"]
    assert [one["path"] for one in gone] == [str(place / "deep" / "rows")]  # the search needs its warm-up
    gone = runs(place, Choice(remove_state=("interrupted", "empty")))["removed"]
    assert {os.path.relpath(one["path"], place) for one in gone} == {
        "search",
        "search/warm",
        "stopped",
        "empty",
    }
    assert set(table(runs(place))) == {"deep/rows"}


def test_warm_ups_go_where_the_tickets_are_there(place):
    make(place / "bare", "search", "hard_concrete")
    make(place / "bare" / "warm", files=[("model/model.safetensors", 5000)])
    gone = runs(place, Choice(remove_warm_ups=True))["removed"]
    assert [one["path"] for one in gone] == [str(place / "search" / "warm")]
    assert (place / "search" / "tickets" / "sparsity-0.3000" / "ticket.json").exists()


def test_only_runs_of_a_seed_or_an_age_are_listed_and_removed(place):
    assert set(table(runs(place, Choice(seed=1)))) == {"stopped", "empty"}
    for path in (place / "stopped").rglob("*"):
        os.utime(path, (time.time() - 9 * DAY,) * 2)
    assert set(table(runs(place, Choice(older_than=8)))) == {"stopped"}
    assert set(table(runs(place, Choice(older_than=10)))) == set()
    gone = runs(place, Choice(older_than=8, remove_state=("interrupted", "empty")))["removed"]
    assert [one["path"] for one in gone] == [str(place / "stopped")]
    for wrong, said in (
        ({"older_than": -1}, "0 or more"),
        ({"remove_state": ("running",)}, "'running' cannot be"),
    ):
        with pytest.raises(InputError, match=said):
            Choice(**wrong)


def test_a_removal_that_was_stopped_half_way_leaves_a_run_that_is_not_done(place, monkeypatch):
    delete = reports._delete

    def refuse(path):
        if path.name == "tickets":
            raise OSError(30, "Read-only file system", str(path))
        delete(path)

    monkeypatch.setattr(reports, "_delete", refuse)
    with pytest.raises(
        InputError, match=r"Read-only file system: .*tickets.*; removed before it: .*search/warm"
    ):
        runs(place, Choice(remove=(place / "search",)))
    assert table(runs(place))["search"]["state"] == "interrupted"
    monkeypatch.setattr(reports, "_delete", delete)
    runs(place, Choice(remove=(place / "search",)))
    assert not (place / "search").exists()


def test_the_folder_itself_may_be_a_run(place):
    assert set(table(runs(place / "search"))) == {".", "warm"}
    with pytest.raises(InputError, match="is no folder"):
        runs(place / "nothing")


# ------------------------------------------------------------------------------------- the verb


def test_the_verb_lists_plans_and_removes(place, capsys):
    assert main(["runs", str(place)]) == 0
    assert "| search/warm" in capsys.readouterr().out
    words = ["runs", str(place), "--remove-state", "interrupted", "--remove", str(place / "empty")]
    assert main([*words, "--dry-run"]) == 0
    assert "nothing was run" in capsys.readouterr().out
    assert (place / "empty").exists()
    assert main([*words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {stage["name"] for stage in plan["stages"]} == {
        f"remove {place / 'stopped'} (interrupted)", f"remove {place / 'empty'} (empty)"
    }  # fmt: skip
    assert main(words) == 0
    assert f"removed {place / 'stopped'} (interrupted, " in capsys.readouterr().out
    assert main(["runs", str(place), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["runs"]) == 3
    assert result["removed"] == []
    assert main(["runs", str(place), "--remove", "/"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_verb_needs_no_model_library(place):
    code = f"import sys; from hardtack.cli import main; main(['runs', {str(place)!r}]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "scipy", "numpy"} & set(
        done.stdout.splitlines()[-1].split()
    )
