import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.evaluation.attacks.pruthi import Pruthi, inner_edits, keys_beside
from hardtack.evaluation.attacks.words import edit_distance
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run, generator
from hardtack.tasks.task import Example

WEIGHTS = {"good": 2.0, "goof": -1.0, "gold": -3.0, "film": 0.5, "fill": -0.7, "truly": 0.5, "bad": -2.0}


def attack(toys, text, label=1, bias=0.0, **settings):
    victim = toys.bag(WEIGHTS, bias=bias)
    (outcome,) = attack_all(Pruthi(**settings), [Example("x", text, label)], victim, Run.nowhere(seed=3))
    return outcome, victim.encoder.asked


def test_the_edit_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 - 1 = 1 > 0. Any inner edit of "good" leaves -1 or, as "gold" (l beside o), -4: the lowest.
    outcome, asked = attack(toys, ("a good bad",), bias=1.0)
    assert outcome.adversarial == ("a gold bad",)
    # All inner edits of "good", the only word of four letters: no swap, 1 deletion, 2 insertions, 8 keys.
    assert outcome.queries == len(asked) == 1 + 1 + 2 + 8


def test_two_words_are_changed_when_they_may_be(toys):
    # 2.0 + 0.5 - 0.4 = 2.1. "gold" leaves -2.9 at once; without it "film" must fall too.
    weights = {"good": 2.0, "film": 0.5, "fiom": -0.7}
    victim = toys.bag(weights, bias=0.1)
    held, fell = (
        attack_all(Pruthi(max_words=n), [Example("x", ("good film",), 1)], victim, Run.nowhere())[0]
        for n in (1, 2)
    )
    # One edit of "good" leaves 0.6; the best edit of "film", "fiom" (o beside l), then gives -0.6.
    assert held.status == "held"
    assert fell.status == "fell"
    assert fell.adversarial[0].split()[1] == "fiom"


def test_the_best_first_edit_is_kept_even_if_it_is_worse_than_none(toys):
    # Every edit of "bald" raises 0's rival; the second round is asked all the same (paper, section 3).
    outcome, asked = attack(toys, ("wolf mild",), label=0, bias=-1.0, max_words=2)
    assert outcome.status == "held"
    assert any(text[0].split()[0] != "wolf" and text[0].split()[1] != "mild" for text in asked)


def test_inner_edits_of_a_word_by_hand():
    swaps, deletions, insertions, keyboard = inner_edits("word", generator(0, "x"))
    assert swaps == ["wrod"]
    assert deletions == ["wrd", "wod"]
    assert [edit[:1] + edit[2:] for edit in insertions[:1]] == ["word"]
    assert [edit[:2] + edit[3:] for edit in insertions[1:]] == ["word"]
    assert keyboard == [f"w{key}rd" for key in "ipkl"] + [f"wo{key}d" for key in "etdfg"]
    assert inner_edits("good", generator(0, "x"))[0] == []  # two equal neighbours swapped are the word


@given(st.text("abcXYZ'é1", min_size=3, max_size=9), st.integers(0, 99))
def test_the_first_and_last_letter_stay_and_an_edit_is_one_edit(word, seed):
    for kind, edits in enumerate(inner_edits(word, generator(seed, "x"))):
        assert len(set(edits)) == len(edits)
        for edit in edits:
            assert edit != word
            assert (edit[0], edit[-1]) == (word[0], word[-1])
            assert edit_distance(word, edit, 5) <= (2 if kind == 0 else 1)
            assert len(edit) - len(word) == (0, -1, 1, 0)[kind]


def test_a_key_is_beside_its_neighbours_and_they_beside_it():
    letters = "qwertyuiopasdfghjklzxcvbnm"
    for one in letters:
        for other in letters:
            assert (one in keys_beside(other)) == (other in keys_beside(one))
        assert one not in keys_beside(one)
    assert keys_beside("ß") == keys_beside("1") == []


@pytest.mark.parametrize("wrong", [{"max_words": 0}, {"min_length": 2}, {"query_limit": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        Pruthi(**wrong)
