"""Model cards: metadata that the hub reads, rows about the model and no other, no path of this machine."""

import json

import pytest
from huggingface_hub import ModelCard

from hardtack.errors import InputError
from hardtack.exports import EXPORTS
from hardtack.exports.card import UNKNOWN, licence_of, public_name, write_card
from hardtack.stages.exporting import _rows_about

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
            "local": False,
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
    found = card(tmp_path, base=str(base), local=True, made={**MADE, "task": str(tmp_path / "data")})
    assert found.data.license == "apache-2.0"
    assert str(tmp_path) not in (tmp_path / "README.md").read_text()
    assert public_name(str(base), local=True) == "base"
    assert public_name(str(base / "model"), local=True) == "base"  # a run's


def test_a_folder_that_is_gone_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, shown in (
        ("private/client/base", "base"),
        ("private/client/model", "client"),
        ("client/base/", "base"),
        ("../base", "base"),
    ):
        assert public_name(name, local=True) == shown
    found = card(tmp_path, base="private/client", local=True)
    assert found.data.base_model == "client"
    assert "private" not in (tmp_path / "README.md").read_text()
    assert public_name("org/model", local=False) == "org/model"


@pytest.mark.parametrize("text", ["", "no metadata", "---\nlicense: [a, b]\n---\n", "---\n: : :\n---\n"])
def test_a_readme_that_states_no_licence_makes_it_unknown(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert licence_of(str(tmp_path)) == UNKNOWN
    assert licence_of("some/hub-id") == UNKNOWN


MINE = {"run": "train-x", "sparsity": 0.5, "granularity": ["head"]}


def about(folder, to="shrink", made=MINE, **row):
    (folder / "rows.jsonl").write_text(json.dumps({**ROW, "id": "a", **MINE, **row}) + "\n")
    return [row["id"] for row in _rows_about(made, to, [folder])]


def test_rows_of_another_model_are_refused(tmp_path):
    with pytest.raises(InputError, match="measured what train-x made; allowed: rows of retrain-y"):
        about(tmp_path, made={**MINE, "run": "retrain-y"})
    assert about(tmp_path) == ["a"]


@pytest.mark.parametrize(("name", "other"), [("sparsity", 0.25), ("granularity", ["head", "neuron"])])
def test_rows_of_another_ticket_of_the_same_search_are_refused(tmp_path, name, other):
    with pytest.raises(InputError) as error:
        about(tmp_path, **{name: other})
    assert str(error.value) == (
        f"--rows {tmp_path} measured {name} {other}; allowed: {MINE[name]}, the exported model's"
    )


@pytest.mark.parametrize("run", [None, "nowhere"])
def test_rows_of_what_names_no_run_are_refused(tmp_path, run):
    with pytest.raises(InputError, match="does not say which run made it; allowed: no rows"):
        about(tmp_path, made={**MINE, "run": run}, run=run)


@pytest.mark.parametrize("exported", ["absent", None, "shrink", "dense", "onnx", "openvino", "onnx-int8"])
@pytest.mark.parametrize("to", EXPORTS)
def test_rows_of_an_int8_export_are_about_nothing_else(tmp_path, exported, to):
    row = {} if exported == "absent" else {"exported": exported}  # rows of earlier versions lack it
    if (exported == "onnx-int8") == (to == "onnx-int8"):
        assert about(tmp_path, to, **row) == ["a"]
    else:
        with pytest.raises(InputError, match=rf"; allowed for --to {to}: rows of (an int8 export|the model)"):
            about(tmp_path, to, **row)
