"""What names a run of training."""

import json

import pytest
from tests.toys import saved_toy, toy_task

from hardtack.errors import InputError
from hardtack.stages import Common, train


def test_the_best_epoch_depends_on_validation_and_so_does_the_runs_name(tmp_path):
    saved_toy(tmp_path / "tiny")
    task = tmp_path / "task"
    task.mkdir()
    for split, data in toy_task().splits.items():
        rows = zip(data.texts, data.labels, strict=True)
        lines = [json.dumps({"text": text, "label": int(label)}) + "\n" for (text,), label in rows]
        (task / f"{split}.jsonl").write_text("".join(lines))

    def fit(rule):
        common = Common(device="cpu")
        return train(
            str(tmp_path / "tiny"),
            task=str(task),
            out=tmp_path / rule,
            epochs=0.1,
            epoch_rule=rule,
            common=common,
        )

    last = fit("last")
    assert fit("best")["id"] != last["id"]
    (task / "validation.jsonl").write_text("".join(lines))  # another validation split: test's
    assert fit("last") == last
    with pytest.raises(InputError, match="another run"):
        fit("best")
