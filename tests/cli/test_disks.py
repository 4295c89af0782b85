"""Where the disk is full or read-only, or two start at once: one line, status 2, and nothing is lost."""

import shutil

import pytest
from tests.commands import COMMANDS, made, whole
from tests.disks import LIMITED, MOUNTED, mechanisms, read_only, starved
from tests.forked import forked, kinds, operations
from tests.kills import digest, run_killed, timeless_log

FULL = ("No space left on device", "File too large")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return made(tmp_path_factory.mktemp("disks"))


def moments_of(place, name):
    """Return the moments before everything that a command does to its files."""
    out = place / name / "listed"
    done = operations(COMMANDS[name](place, out), out, place / name / "operations")
    shutil.rmtree(out)
    return kinds(done, out)


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
            assert one["said"].count("\n") == 1, what
            assert any(words in one["said"] for words in FULL), what
        assert one["left"] == [], what
        assert one["resumed"] == 0, what
        assert (one["digest"], one["log"]) == expected, what
    return stopped


@pytest.mark.timeout(300)
def test_a_full_disk(place):
    moments = moments_of(place, "evaluate")
    stopped = check_starved(place, "evaluate", mechanisms()[0], moments[:: len(moments) // 2])
    assert stopped


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mechanism", [MOUNTED, LIMITED])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_at_every_kind_of_write(place, name, mechanism):
    if mechanism not in mechanisms():
        mechanism = LIMITED
    stopped = check_starved(place, name, mechanism, moments_of(place, name))
    for kind in ("recipe.json", "log.jsonl", "DONE"):
        assert any(kind in what for what in stopped), kind


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
            assert (status, said.count("\n")) == (2, 1), found
            assert "Read-only file system" in said or "Permission denied" in said
        assert digest(root) == before
        shutil.rmtree(place / "rows")
    assert run_killed(words, (), start=forked).kills == ()
    assert digest(stopped) == digest(whole(place, "iterative"))
