import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.evaluation.shift import LabelMap, accuracy_by, brier_score, calibration_error, choose_map

NLI = ("entailment", "neutral", "contradiction")
HANS = ("entailment", "non-entailment")
MAP = "entailment=entailment,non-entailment=neutral+contradiction"


def test_merging_after_the_argmax_and_by_the_sum_differ_where_they_should():
    # Shares 0.4, 0.35, 0.25: the best class is entailment, yet both others together are likelier.
    logits = torch.tensor([[0.4, 0.35, 0.25], [0.2, 0.5, 0.3]]).log()
    first, second = LabelMap.parse(MAP), LabelMap.parse(MAP, "sum")
    columns = first.columns(NLI, HANS)
    assert columns == [[0], [1, 2]]
    predicted, shares = first.merged(logits, columns)
    assert predicted.tolist() == [0, 1]
    assert shares.tolist() == [pytest.approx([0.4, 0.6]), pytest.approx([0.2, 0.8])]
    assert second.merged(logits, columns)[0].tolist() == [1, 1]


def test_calibration_error_by_hand():
    # Confidences 0.9 (right), 0.9 (wrong), 0.6 (right): bins (13/15, 14/15] and (8/15, 9/15].
    shares = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1])
    assert calibration_error(shares, labels) == pytest.approx((abs(1 - 1.8) + abs(1 - 0.6)) / 3)
    # with a prediction that is not the most probable one, its own probability is the confidence
    other = calibration_error(shares, labels, torch.tensor([0, 0, 0]))
    assert other == pytest.approx((abs(1 - 1.8) + abs(0 - 0.4)) / 3)


def test_brier_score_by_hand():
    shares = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
    assert brier_score(shares, torch.tensor([0, 1])) == pytest.approx((0.02 + 0.5) / 2)
    assert brier_score(torch.tensor([[0.0, 1.0]]), torch.tensor([0])) == 2.0


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.integers(0, 1)), min_size=1, max_size=30))
def test_calibration_stays_in_its_range(rows):
    shares = torch.tensor([row[:2] for row in rows], dtype=torch.float64).softmax(1)
    labels = torch.tensor([row[2] for row in rows])
    assert 0 <= calibration_error(shares, labels) <= 1
    assert 0 <= brier_score(shares, labels) <= 2 + 1e-9


def test_certain_and_right_is_perfect():
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(shares, torch.tensor([0, 1])) == 0.0
    assert brier_score(shares, torch.tensor([0, 1])) == 0.0


def test_accuracy_by_group():
    found = accuracy_by(["b", "a", "b", "b"], torch.tensor([True, False, True, False]))
    assert found == {
        "a": {"examples": 1, "accuracy": 0.0},
        "b": {"examples": 3, "accuracy": pytest.approx(2 / 3)},
    }
    assert list(found) == ["a", "b"]
    assert not math.isnan(found["a"]["accuracy"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("entailment", r"label map 'entailment'; allowed: LABEL=CLASS"),
        ("a=", r"label map 'a='; allowed"),
        ("entailment=entailment,entailment=neutral", "names 'entailment' twice"),
        ("entailment=entailment,non-entailment=entailment", "gives class 'entailment' to two labels"),
        ("entailment=entailment,nonentailment=neutral+contradiction", "did you mean 'non-entailment'"),
        ("entailment=entailment,non-entailment=neutral+contra", "did you mean 'contradiction'"),
        ("entailment=entailment,non-entailment=neutral", "leaves out 'contradiction'"),
        ("entailment=entailment+neutral+contradiction", "leaves out 'non-entailment'"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_in_one_line(text, says):
    with pytest.raises(InputError, match=says) as caught:
        LabelMap.parse(text).columns(NLI, HANS)
    assert "\n" not in str(caught.value)


def test_a_way_that_does_not_exist_and_groups_of_another_length_are_refused():
    with pytest.raises(InputError, match="label map by 'mean' does not exist"):
        LabelMap.parse(MAP, "mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 group names for 2 examples"):
        accuracy_by(["a"], torch.tensor([True, False]))


@pytest.mark.parametrize(
    ("classes", "labels", "groups"),
    [
        (NLI, HANS, {"entailment": ("entailment",), "non-entailment": ("neutral", "contradiction")}),
        (NLI[::-1], ("not_entailment", "entailment"), {"not_entailment": ("neutral", "contradiction")}),
        (("entailment", "not_entailment"), HANS, {"non-entailment": ("not_entailment",)}),
        (("bad", "good"), ("good", "bad"), {"good": ("good",), "bad": ("bad",)}),
    ],
)
def test_known_sets_need_no_map(classes, labels, groups):
    chosen = choose_map(classes, labels)
    assert chosen.how == "argmax"
    assert groups.items() <= chosen.groups.items()
    numbers = chosen.columns(classes, labels)
    assert sorted(k for group in numbers for k in group) == list(range(len(classes)))


def test_a_given_map_comes_first_and_an_unknown_set_asks_for_one():
    given = LabelMap.parse("entailment=entailment+neutral,non-entailment=contradiction", "sum")
    assert choose_map(NLI, HANS, [given]) is given
    with pytest.raises(InputError, match="such as cold=entailment,warm=contradiction"):
        choose_map(NLI, ("cold", "warm"), [given])
    with pytest.raises(InputError, match="leaves out 'neutral'"):
        choose_map(NLI, HANS, [LabelMap.parse("entailment=entailment,non-entailment=contradiction")])
