"""Data and models outside a study count by content."""

import shutil

import pytest
from tests.studies.toy import make_place
from tests.toys import saved_toy

from hardtack.errors import InputError
from hardtack.studies.contents import Contents


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(make_place(tmp_path))
    return tmp_path


def test_a_copy_of_a_model_is_the_same_and_another_is_not(place, saved_ticket):
    shutil.copytree("tiny", "copy")
    saved_toy("other", seed=1)
    contents = Contents()
    assert contents.model("tiny") == contents.model("copy")
    assert contents.model("tiny") != contents.model("other")
    assert contents.model(str(saved_ticket)) not in (contents.model("tiny"), contents.model("other"))


def test_a_stage_counts_the_splits_that_it_reads(place):
    settings = {"task": "task"}
    before = {verb: Contents().data(verb, settings) for verb in ("train", "search", "evaluate")}
    best = Contents().data("train", {**settings, "epoch_rule": "best"})
    with open("task/test.csv", "a") as stream:
        stream.write("one more,1\n")
    assert Contents().data("train", settings) == before["train"] == before["search"]
    assert Contents().data("evaluate", settings) != before["evaluate"]
    with open("task/validation.csv", "a") as stream:
        stream.write("one more,1\n")
    assert Contents().data("train", settings) == before["train"]
    assert Contents().data("train", {**settings, "epoch_rule": "best"}) != best
    shutil.move("task", "moved")
    assert Contents().data("train", {"task": "moved"}) == before["train"]


def test_limits_and_their_seed_count(place):
    contents = Contents()
    found = [
        contents.data("train", {"task": "task", **more})
        for more in (
            {},
            {"train_examples": 20},
            {"train_examples": 20, "seed": 1},
            {"seed": 1},
            {"min_words": 6},
        )
    ]
    assert found[0] == found[3]
    assert len({tuple(one) for one in found}) == 4


def test_shifted_data_need_the_same_labels(place):
    with pytest.raises(InputError, match="shifted 'made': no label map"):
        Contents().data("evaluate", {"task": "task", "shifted": ["made"]})
