"""Model cards: metadata that the hub reads, rows about the model and no other, no path of this machine."""

import pytest
from huggingface_hub import ModelCard

from hardtack.errors import InputError
from hardtack.exports.card import UNKNOWN, licence_of, public_name, write_card

MADE = {
    "method": "early_bird",
    "granularity": ["head", "neuron"],
    "sparsity": 0.5,
    "ticket_objective": "freelb",
    "objective": "clean",
    "epochs": 3.0,
    "task": "sst2",
}
ROW = {
    "task": "sst2",
    "split": "test",
    "attack": None,
    "examples": 872,
    "clean_accuracy": 0.91234,
    "parameters": 11_000_000,
    "flags": ["few-examples"],
    "measured": {"latency_ms": 4.25, "latency_tokens": 40, "hardware": {"processor": "a chip"}},
}
ATTACKED = {**ROW, "attack": "pwws", "examples": 50, "accuracy_under_attack": 0.3, "mean_queries": 120.25}


def card(folder, **more):
    write_card(
        folder,
        **{
            "name": "small",
            "base": "some/base",
            "made": MADE,
            "labels": ("bad", "good"),
            "how": "open()",
            "form": "a folder",
            **more,
        },
    )
    return ModelCard.load(folder / "README.md")


def test_the_hub_reads_its_metadata(tmp_path):
    data = card(tmp_path, rows=[ROW, ATTACKED]).data
    assert (data.base_model, data.license, data.pipeline_tag) == ("some/base", UNKNOWN, "text-classification")
    found = [(one.metric_name, one.metric_value, one.dataset_split) for one in data.eval_results]
    assert found == [("accuracy", 0.9123, "test"), ("accuracy under pwws, 50 examples", 0.3, "test")]


def test_people_read_what_it_is_what_it_does_and_what_doubts_it(tmp_path):
    text = card(tmp_path, rows=[ROW, ATTACKED]).text
    assert "base with 50% of its heads and neurons removed" in text
    assert "`early_bird` under the objective `freelb`, then trained with `clean` for 3 epochs on sst2" in text
    assert "| sst2 | test | pwws | 50 | 0.300 | 120.2 |" in text
    assert "11,000,000 parameters that are not zero; 4.2 ms for one text of 40 tokens on a chip." in text
    assert text.count("**few-examples**: Raised if fewer than 100") == 1
    assert "0 = bad, 1 = good" in text


def test_a_model_that_nobody_measured_says_so(tmp_path):
    found = card(tmp_path)
    assert "Nothing yet." in found.text
    assert found.data.eval_results is None


def test_paths_of_this_machine_stay_here_and_the_bases_licence_goes_along(tmp_path):
    base = tmp_path / "private" / "base"
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# base\n")
    found = card(tmp_path, base=str(base), made={**MADE, "task": str(tmp_path / "data")})
    assert found.data.license == "apache-2.0"
    assert str(tmp_path) not in (tmp_path / "README.md").read_text()
    assert public_name(str(base)) == "base"
    assert public_name(str(base / "model")) == "base"  # a run's


@pytest.mark.parametrize("text", ["", "no metadata", "---\nlicense: [a, b]\n---\n", "---\n: : :\n---\n"])
def test_a_readme_that_states_no_licence_makes_it_unknown(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert licence_of(str(tmp_path)) == UNKNOWN
    assert licence_of("some/hub-id") == UNKNOWN


def test_rows_of_another_model_are_refused(tmp_path):
    import json

    from hardtack.stages.exporting import _rows_about

    (tmp_path / "rows.jsonl").write_text(json.dumps({**ROW, "id": "a", "run": "train-x"}) + "\n")
    with pytest.raises(InputError, match="measured what train-x made; allowed: rows of retrain-y"):
        _rows_about({"run": "retrain-y"}, [tmp_path])
    assert [row["id"] for row in _rows_about({"run": "train-x"}, [tmp_path])] == ["a"]
