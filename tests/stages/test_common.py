"""The settings that every stage shares."""

import pytest

from hardtack.errors import InputError
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.methods.iterative import Iterative
from hardtack.runs import Run
from hardtack.stages import Common
from hardtack.stages.common import provenance_of, result_of, settle


@pytest.mark.parametrize("damaged", ["", "{", "3", '["a"]', '"words"'])
def test_a_damaged_record_of_how_a_model_was_made_is_refused_in_one_line(tmp_path, damaged):
    (tmp_path / "hardtack.json").write_text(damaged)
    with pytest.raises(InputError) as error:
        provenance_of(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'hardtack.json'} cannot be read: ")
    assert str(error.value).endswith("; allowed: what hardtack wrote")
    assert "\n" not in str(error.value)


def test_a_precision_that_does_not_exist_is_refused_before_a_folder_is_made():
    with pytest.raises(InputError, match=r"precision 'fp16' is not allowed .*; allowed: fp32, bf16"):
        Common(precision="fp16")


@pytest.mark.parametrize("method", [HardConcrete, Iterative])
@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"lr": 0.0}, {"epochs": 0.0}, {"weight_decay": -0.1}, {"clip": -1.0}]
)
def test_training_that_no_optimiser_takes_is_refused_in_one_line(method, wrong):
    with pytest.raises(InputError, match="allowed: epochs and lr above 0") as caught:
        method(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"price": -0.5}, "price -0.5"),
        ({"price": float("nan")}, "price nan"),
        ({"price": float("inf")}, "price inf"),
        ({"price_begin": -0.1}, "price_begin -0.1"),
        ({"price_begin": 0.5}, "price_begin 0.5, price_finish 0.4"),
        ({"price_finish": 1.5}, "price_finish 1.5"),
        ({"price_finish": float("nan")}, "price_finish nan"),
        ({"warmup": -0.1}, "warmup -0.1"),
        ({"warmup": float("nan")}, "warmup nan"),
        ({"opening": float("nan")}, "opening nan"),
        ({"lr": float("nan")}, "lr nan"),
        ({"epochs": float("inf")}, "epochs inf"),
    ],
)
def test_a_price_or_schedule_that_means_nothing_is_refused_in_one_line(wrong, said):
    with pytest.raises(InputError, match=rf"{said}.*; ?allowed: ") as caught:
        HardConcrete(**wrong)
    assert "\n" not in str(caught.value)


def test_the_paths_of_a_result_follow_a_folder_that_has_moved(tmp_path):
    with Run.open(tmp_path / "dense", "train-clean-0/seed-0", recipe={}, seed=0) as run:
        model = str(tmp_path / "dense" / "model")
        told = settle(run, kind="dense", model=model, lines=[{"ticket": model, "size": 1}])
        assert result_of(run) == told
    (tmp_path / "dense").rename(tmp_path / "moved")
    with Run.open(tmp_path / "moved", "train-clean-0/seed-0", recipe={}, seed=0) as run:
        found = result_of(run)
    model = str(tmp_path / "moved" / "model")
    assert found["folder"] == str(tmp_path / "moved")
    assert (found["kind"], found["model"]) == ("dense", model)
    assert found["lines"] == [{"ticket": model, "size": 1}]
