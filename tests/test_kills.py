"""The harness that kills commands, and with it: a loop that is really killed ends as if it had not been."""

import json
import sys
import time

import pytest

from tests.kills import (
    ROOT,
    Lines,
    digest,
    python,
    resumptions,
    run_killed,
    timeless_log,
    uniform_lines,
    uniform_seconds,
)
from tests.training import killed_fit

STEPS = 40


@pytest.mark.slow
def test_a_loop_killed_twice_ends_as_if_it_had_not_been(tmp_path):
    killed_fit.main(tmp_path / "whole", STEPS, 0.0)
    folder = tmp_path / "killed"
    moments = uniform_lines(folder / "log.jsonl", 2, low=1, high=STEPS - 1, seed=2)
    command = python(ROOT / "tests" / "training" / "killed_fit.py", folder, str(STEPS), "0.01")
    found = run_killed(command, moments)
    assert found.kills == tuple(moments)
    assert len(found.seconds) == 3
    assert digest(folder) == digest(tmp_path / "whole")
    assert {"DONE", "recipe.json", "model.safetensors"} == set(digest(folder))
    assert timeless_log(folder) == timeless_log(tmp_path / "whole")
    assert not (folder / "scratch").exists()
    events = resumptions(folder)
    assert len(events) == 2
    assert all(0 <= event["redone_seconds"] < 10 for event in events)


# ------------------------------------------------------------------------------------- the harness


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_kills_children_too_and_stops_killing_what_has_ended(tmp_path):
    alive, done = tmp_path / "alive", tmp_path / "done"
    child = f"import time\nwhile True:\n    print(1, file=open({str(alive)!r}, 'a')); time.sleep(0.01)"
    parent = f"""
import pathlib, subprocess, sys
if pathlib.Path({str(alive)!r}).exists():
    pathlib.Path({str(done)!r}).write_text("")
else:
    subprocess.run([sys.executable, "-c", {child!r}])
"""
    found = run_killed(script(parent), [Lines(alive, 2), 60.0, 60.0])
    assert found.kills == (Lines(alive, 2),), "the second process ended by itself"
    assert len(found.seconds) == 2
    assert done.exists()
    size = alive.stat().st_size
    time.sleep(0.1)
    assert alive.stat().st_size == size, "a child lives on"


def test_kills_once_a_file_has_so_many_lines(tmp_path):
    log = tmp_path / "log"
    text = f"import time\nfor _ in range(40):\n    print(1, file=open({str(log)!r}, 'a')); time.sleep(0.02)"
    found = run_killed(script(text), [Lines(log, 3), 0.4])
    assert found.kills == (Lines(log, 3), 0.4)
    assert found.seconds[1] == pytest.approx(0.4, abs=0.3)
    assert 43 <= len(log.read_text().splitlines()) < 80


def test_a_command_that_fails_says_so_with_its_output():
    with pytest.raises(AssertionError, match=r"ended with 3: (?s:.*)this is why"):
        run_killed(script("import sys; print('this is why', flush=True); sys.exit(3)"), [1e9])


def test_a_command_that_hangs_is_ended():
    with pytest.raises(AssertionError, match=r"took more than 0\.3 s"):
        run_killed(script("import time; time.sleep(60)"), [], timeout=0.3)


def test_moments_are_uniform_and_seeded(tmp_path):
    drawn = uniform_seconds(300, low=2.0, high=4.0, seed=1)
    assert drawn == uniform_seconds(300, low=2.0, high=4.0, seed=1)
    assert drawn != uniform_seconds(300, low=2.0, high=4.0, seed=2)
    assert min(drawn) >= 2
    assert max(drawn) <= 4
    assert sum(drawn) / 300 == pytest.approx(3, abs=0.1)
    counts = [moment.count for moment in uniform_lines(tmp_path, 200, low=1, high=5)]
    assert set(counts) == {1, 2, 3, 4, 5}
    assert counts == sorted(counts)


def fake_run(folder, **changes):
    """A small run folder, with some of its files changed."""
    files = {
        "DONE": {
            "folder": str(folder),
            "seconds": 1.5,
            "resumed": 0,
            "rows": [{"accuracy": 0.5, "measured": {"wall": 2}}],
        },
        "rows.jsonl": '{"id": "a", "measured": {"seconds": 3}, "accuracy": 0.25}\n',
        "log.jsonl": '{"step": 1, "at": 5}\n',
        "model/weights.safetensors": "weights",
        "scratch/fit.safetensors": "state",
        ".lock": "",
    }
    for name, content in {**files, **changes}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return digest(folder)


def test_a_digest_sees_results_and_no_times(tmp_path):
    first = fake_run(tmp_path / "a")
    assert set(first) == {"DONE", "rows.jsonl", "model/weights.safetensors"}
    later = {
        "DONE": {
            "folder": str(tmp_path / "b"), "seconds": 9.0, "resumed": 2,
            "rows": [{"accuracy": 0.5, "measured": {"wall": 4}}],
        },
        "rows.jsonl": '{"id": "a", "measured": {"seconds": 7}, "accuracy": 0.25}\n',
        "log.jsonl": "", "scratch/fit.safetensors": "other",
    }  # fmt: skip
    assert fake_run(tmp_path / "b", **later) == first
    for number, (name, content) in enumerate(
        [
            ("rows.jsonl", '{"id": "a", "measured": {"seconds": 3}, "accuracy": 0.26}\n'),
            ("rows.jsonl", '{"id": "a", "measured": {"seconds": 3}, "accuracy": 0.25}\n' * 2),
            ("model/weights.safetensors", "other"),
            ("extra", "one more file"),
            ("DONE", {"folder": "elsewhere"}),
        ]
    ):
        assert fake_run(tmp_path / f"changed-{number}", **{name: content}) != first, name
