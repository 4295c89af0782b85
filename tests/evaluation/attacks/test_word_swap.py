import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.evaluation.attacks.word_swap import WordSwap
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example

WEIGHTS = {"good": 2.0, "fine": 1.5, "decent": 0.2, "film": 0.5, "movie": 0.4, "picture": -0.3, "dull": -1.0}
TABLE = {"good": ["fine", "decent", "film"], "film": ["movie", "picture"], "plain": ["fine"]}


def attack(toys, text, label, bias=0.0, **settings):
    victim = toys.bag(WEIGHTS, bias=bias)
    example = Example("x", text, label)
    (outcome,) = attack_all(WordSwap(TABLE, **settings), [example], victim, Run.nowhere())
    return outcome, victim.encoder.asked


def test_the_swap_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 + 0.5 - 1 = 1.5. Deleting "good" costs 2.0, "film" 0.5: "good" goes first.
    # With "fine" 1.0 is left, with "decent" -0.3, with "film" 0.0: the second fell.
    outcome, asked = attack(toys, ("a good film",), 1, bias=-1.0)
    assert outcome == ("x", "fell", 6, ("a good film",), ("a decent film",), None)
    assert asked == [
        ("a good film",),
        ("a film",),
        ("a good",),
        ("a fine film",),
        ("a decent film",),
        ("a film film",),
    ]


def test_swaps_add_up(toys):
    # Bias -0.5: after "decent" 0.2 is left, after "picture" -0.6.
    outcome, _ = attack(toys, ("A GOOD Film!",), 1, bias=-0.5)
    assert outcome.status == "fell"
    assert outcome.adversarial == ("A DECENT Picture!",)


def test_what_does_not_change_the_prediction_holds(toys):
    # The label is 0 and "fine" for "plain" raises 0 - 2 to 1.5 - 2: not enough.
    outcome, _ = attack(toys, ("plain",), 0, bias=-2.0)
    assert outcome == ("x", "held", 2, ("plain",), None, None)  # one word: its importance is not asked
    outcome, _ = attack(toys, ("good",), 0, bias=-9.0)  # every neighbour weighs less than "good"
    assert outcome.status == "held"


def test_ties_go_to_the_first_position(toys):
    # Both words are "film": the first is changed, and alone suffices.
    outcome, _ = attack(toys, ("film , film",), 1, bias=-0.3)
    assert outcome.adversarial == ("picture , film",)


def test_the_first_of_equal_neighbours_wins(toys):
    victim = toys.bag(WEIGHTS, bias=-0.1)
    swap = WordSwap({"good": ["unknown", "unheard"]})
    (outcome,) = attack_all(swap, [Example("x", ("good",), 1)], victim, Run.nowhere())
    assert outcome.adversarial == ("unknown",)


def test_max_neighbours_and_columns(toys):
    outcome, _ = attack(toys, ("good", "film"), 1, bias=-2.1, columns="second")
    assert outcome.adversarial == ("good", "picture")
    outcome, asked = attack(toys, ("good",), 1, bias=-1.0, max_neighbours=1)
    assert outcome.status == "held"
    assert asked == [("good",), ("fine",)]


sentences = st.lists(st.sampled_from([*WEIGHTS, "Good", "FILM", "other", "plain"]), min_size=1, max_size=8)


@given(sentences.map(" ".join), st.integers(-2, 2), st.integers(0, 12))
def test_only_neighbours_replace_words(toys, text, bias, limit):
    victim = toys.bag(WEIGHTS, bias=float(bias))
    label = int(victim.logits([(text,)])[0].argmax())
    outcome, asked = attack(toys, (text,), label, bias=float(bias), query_limit=limit)
    assert outcome.queries == len(asked) == len(set(asked))
    assert not limit or outcome.queries <= limit
    assert outcome.status in ("held", "fell")
    if outcome.status == "fell":
        assert int(victim.logits([outcome.adversarial])[0].argmax()) != label
        for before, after in zip(text.split(), outcome.adversarial[0].split(), strict=True):
            assert before == after or after.lower() in TABLE[before.lower()]


def test_settings_name_the_table_by_content(tmp_path):
    file = tmp_path / "table.jsonl"
    file.write_text('{"word": "good", "neighbors": ["fine"]}\n')
    named = WordSwap(file).settings()
    assert named == WordSwap({"good": ["fine"]}).settings()
    assert named["neighbours"] != WordSwap({"good": ["nice"]}).settings()["neighbours"]
    assert str(tmp_path) not in str(named)


def test_settings_out_of_range_are_refused():
    for wrong in ({"query_limit": -1}, {"max_neighbours": -1}):
        with pytest.raises(InputError, match="allowed"):
            WordSwap(TABLE, **wrong)
