"""Where the disk is full or read-only, or two start at once: one line, status 2, and nothing is lost."""

import re
import shutil

import pytest
from tests.commands import COMMANDS, made, whole
from tests.disks import mechanisms, read_only, starved
from tests.forked import forked, kinds, operations
from tests.kills import digest, run_killed, timeless_log

FULL = ("No space left on device", "File too large")

STARVED = [name for name in COMMANDS if name != "study"]
"""A study tells of a full disk cell by cell, and goes on with the others."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return made(tmp_path_factory.mktemp("disks"))


def moments_of(place, name):
    """Return the moments before the first writing of each kind: files (numbers in names aside) and folders.

    What native code writes follows the folder that is made for it. Rows and outcomes count twice: the second
    writing copies the first.
    """
    out = place / name / "listed"
    done = operations(COMMANDS[name](place, out), out, place / name / "operations")
    shutil.rmtree(out)
    found = {}
    for moment in kinds(done, out):
        again = moment.count if "rows" in moment.what or "outcomes" in moment.what else 1
        if moment.what.startswith(("open", "os.mkdir")):
            found.setdefault((re.sub(r"[0-9a-f]*\d[0-9a-f]*", "N", moment.what), again), moment)
    return list(found.values())


def one_line(said):
    """Return the only line that is no progress (which slow machines print too)."""
    (line,) = [line for line in said.splitlines() if not re.search(r"\d+/\d+ \[\d+:\d+<", line)]
    assert line.startswith("hardtack: ")
    return line


def check_starved(place, name, mechanism, moments):
    uninterrupted = whole(place, name)
    expected = digest(uninterrupted), timeless_log(uninterrupted)
    stopped = set()
    found = starved(lambda out: COMMANDS[name](place, out), place / f"small-{name}", moments, mechanism)
    for moment, one in zip(moments, found, strict=True):
        what = f"{name} {mechanism} at {moment}: {one}"
        assert one["status"] in (0, 2), what  # 0: nothing more had to be written
        if one["status"] == 2:
            stopped.add(moment.what)
            assert any(words in one_line(one["said"]) for words in FULL), what
        assert one["left"] == [], what
        assert one["resumed"] == 0, what
        assert (one["digest"], one["log"]) == expected, what
    return stopped


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_full_disk(place):
    moments = moments_of(place, "evaluate")
    stopped = check_starved(place, "evaluate", mechanisms()[0], moments[:: len(moments) // 2])
    assert stopped


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", STARVED)
def test_a_full_disk_at_every_kind_of_write(place, name):
    mechanism = mechanisms()[STARVED.index(name) % len(mechanisms())]  # both, in turn
    stopped = check_starved(place, name, mechanism, moments_of(place, name))
    for kind in ("recipe.json", "log.jsonl", "DONE"):
        assert any(kind in what for what in stopped), kind


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_equal_commands_at_once(place):
    out = place / "train" / "twice"
    words = [str(word) for word in COMMANDS["train"](place, out)]
    both = [forked(words, place / f"said-{number}") for number in range(2)]
    assert sorted(process.wait() for process in both) == [0, 2]
    refused = next(n for n, process in enumerate(both) if process.returncode == 2)
    said = (place / f"said-{refused}").read_text()
    assert said == f"hardtack: --out {out} is in use by another process; wait for it or choose another\n"
    assert digest(out) == digest(whole(place, "train"))
    run_killed(words, (), start=forked)  # now it finds the result
    assert digest(out) == digest(whole(place, "train"))


@pytest.mark.timeout(300)
def test_a_read_only_place(place):
    root = place / "shelf"
    root.mkdir()
    for name in ("train", "evaluate"):
        shutil.copytree(whole(place, name), root / name)
    stopped = root / "stopped"
    words = COMMANDS["iterative"](place, stopped)
    process = forked([*map(str, words)], place / "said")
    while not (stopped / "log.jsonl").exists():
        assert process.wait(0.01) is None
    process.process.kill()
    process.wait()
    before = digest(root)
    finished = [COMMANDS[name](place, root / name) for name in ("train", "evaluate")]
    reading = [("show", root / "train"), ("show", root / "train" / "model"), ("runs", root),
               ("compare", root / "evaluate", whole(place, "evaluate")),
               ("evaluate", root / "train", *words[3:5], "--out", place / "rows")]  # fmt: skip
    refused = [words, COMMANDS["train"](place, root / "new"), ("runs", root, "--remove", root / "train"),
               [*finished[1], "--split", "validation"]]  # fmt: skip
    for mechanism in mechanisms():
        found = read_only([*finished, *reading, *refused], root, mechanism)
        good, bad = found[: -len(refused)], found[-len(refused) :]
        assert [status for status, _ in good] == [0] * len(good), found
        for status, said in bad:
            assert status == 2, found
            assert any(words in one_line(said) for words in ("Read-only file system", "Permission denied"))
        assert digest(root) == before
        shutil.rmtree(place / "rows")
    assert run_killed(words, (), start=forked).kills == ()
    assert digest(stopped) == digest(whole(place, "iterative"))
