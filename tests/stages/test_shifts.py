"""What a clean row is measured on, where several tasks are read at once."""

import json

import pytest
import torch
from tests.toys import saved_toy, toy_task

from hardtack.errors import InputError
from hardtack.loading import load
from hardtack.stages import Common, evaluate
from hardtack.tasks.text import Encoder, load_task

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


def write_cases(folder, names, numbers):
    """Write a test split whose rows have a case beside their label: even rows are a, odd ones b."""
    folder.mkdir()
    (folder / "info.json").write_text(json.dumps({"label_names": names}))
    data = toy_task().splits["test"]
    rows = enumerate(zip(data.texts, data.labels, strict=True))
    lines = [{"text": t, "label": numbers[label], "case": "ab"[i % 2]} for i, ((t,), label) in rows]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_accuracy_by_case_under_a_map_and_calibration_are_those_of_the_logits(tmp_path, tasks):
    home, _ = tasks
    other = write_cases(tmp_path / "cases", ["warm", "cold"], [1, 0])  # cold = bad, warm = good
    rows = evaluate(
        str(tmp_path / "tiny"),
        task=home,
        shifted=(other,),
        label_map=("cold=bad,warm=good",),
        by=("case",),
        out=tmp_path / "rows",
        common=COMMON,
    )["rows"]
    task = load_task(home)
    loaded = load(str(tmp_path / "tiny"), task.labels, seed=0)
    batches = task.batches("test", Encoder.of(loaded.tokenizer, loaded.model, 128), 8)
    right, shares, labels = [None] * batches.examples, [None] * batches.examples, [0] * batches.examples
    for batch in batches.in_order():
        logits = loaded.model(**batch.inputs).logits.detach()
        for i, row, label in zip(batch.ids.tolist(), logits, batch.labels.tolist(), strict=True):
            right[i], shares[i], labels[i] = int(row.argmax()) == label, row.softmax(0), label
    assert rows[0]["clean_accuracy"] == rows[1]["clean_accuracy"] == sum(right) / len(right)
    assert rows[0]["label_map"] is None
    assert rows[1]["label_map"] == {"groups": {"cold": ["bad"], "warm": ["good"]}, "how": "argmax"}
    brier = sum(
        float((p - (torch.arange(2) == k).float()).square().sum())
        for p, k in zip(shares, labels, strict=True)
    )
    assert rows[0]["brier_score"] == pytest.approx(brier / len(labels), rel=1e-5)
    assert rows[1]["brier_score"] == pytest.approx(rows[0]["brier_score"])
    assert rows[1]["calibration_error"] == pytest.approx(rows[0]["calibration_error"])
    cases = {case: right[number::2] for number, case in enumerate("ab")}
    assert rows[1]["by"] == {
        "case": {
            name: {"examples": len(hits), "accuracy": sum(hits) / len(hits)} for name, hits in cases.items()
        }
    }
    assert rows[0]["by"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"by": ("kind",)}, "--by kind: no column of test of sentences"),
        ({"label_map": ("cold=bad",)}, "no shifted set has exactly these labels"),
        ({"label_map": ("cold",)}, "label map 'cold'; allowed: LABEL=CLASS"),
        ({"shifted": ("cases",)}, "no label map from the classes bad, good to the labels warm, cold"),
        (
            {"shifted": ("cases",), "merge": "mean", "label_map": ("cold=bad,warm=good",)},
            "'mean' does not exist",
        ),
        ({"shifted": ("cases",), "label_map": ("cold=bad,warm=fine",)}, "names the class 'fine'"),
    ],
)
def test_what_cannot_be_mapped_or_broken_down_is_said_first(tmp_path, tasks, more, said):
    home, _ = tasks
    cases = write_cases(tmp_path / "cases", ["warm", "cold"], [1, 0])
    more = {**more, "shifted": tuple(cases for _ in more.get("shifted", ()))}
    with pytest.raises(InputError, match=said):
        evaluate(str(tmp_path / "tiny"), task=home, out=tmp_path / "rows", common=COMMON, **more)
    assert not (tmp_path / "rows" / "rows.jsonl").exists()
