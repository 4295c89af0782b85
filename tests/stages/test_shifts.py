"""What a clean row is measured on, where several tasks are read at once."""

import json

import pytest
from tests.toys import saved_toy, toy_task

from hardtack.stages import Common, evaluate

COMMON = Common(device="cpu")


def write(folder, splits, flip=False):
    """Write splits as files; `flip` exchanges the two labels."""
    folder.mkdir(parents=True)
    (folder / "info.json").write_text(json.dumps({"label_names": ["bad", "good"]}))
    for split, data in splits.items():
        rows = zip(data.texts, data.labels, strict=True)
        lines = [json.dumps({"text": t, "label": int(label) ^ int(flip)}) for (t,), label in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture
def tasks(tmp_path):
    saved_toy(tmp_path / "tiny")
    splits = toy_task().splits
    home = write(tmp_path / "a" / "sentences", splits)
    # Another task of the same name: its test holds the home task's training texts under exchanged labels.
    away = {"train": splits["test"], "validation": splits["validation"], "test": splits["train"]}
    return home, write(tmp_path / "b" / "sentences", away, flip=True)


def test_two_tasks_of_one_name_are_kept_apart(tmp_path, tasks):
    home, away = tasks
    run = {"out": tmp_path / "both", "common": COMMON}
    both = evaluate(str(tmp_path / "tiny"), task=home, shifted=(away,), **run)["rows"]
    alone = evaluate(str(tmp_path / "tiny"), task=home, out=tmp_path / "one", common=COMMON)["rows"]
    other = evaluate(str(tmp_path / "tiny"), task=away, out=tmp_path / "two", common=COMMON)["rows"]
    assert [row["shifted_from"] for row in both] == [None, "sentences"]
    assert both[0]["clean_accuracy"] == alone[0]["clean_accuracy"]
    assert both[1]["clean_accuracy"] == other[0]["clean_accuracy"]
    assert both[1]["data_fingerprint"] == other[0]["data_fingerprint"]


def test_a_shifted_set_is_doubted_for_the_texts_the_model_was_trained_on(tmp_path, tasks):
    home, away = tasks
    rows = evaluate(str(tmp_path / "tiny"), task=home, shifted=(away,), out=tmp_path / "rows", common=COMMON)[
        "rows"
    ]
    assert "train-test-overlap" in rows[1]["flags"]  # its test is the home task's training split


def test_a_log_that_a_full_disk_cut_short_does_not_stop_an_evaluation(tmp_path, tasks):
    home, away = tasks
    run = {"task": home, "out": tmp_path / "rows", "common": COMMON}
    evaluate(str(tmp_path / "tiny"), **run)
    with open(tmp_path / "rows" / "log.jsonl", "a") as log:
        log.write('{"part": "", "event": "read", "da\n')
    rows = evaluate(str(tmp_path / "tiny"), shifted=(away,), **run)["rows"]
    assert len(rows) == 2
