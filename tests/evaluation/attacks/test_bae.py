import pytest
from tests.evaluation.attacks.fakes import WEIGHTS, Guesser, Likeness, Words

from hardtack.errors import InputError
from hardtack.evaluation.attacks.bae import BAE
from hardtack.evaluation.attacks.protocol import Fill
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example


def attack(toys, text, label=1, bias=0.0, guesser=None, **settings):
    victim, guesser = toys.bag(WEIGHTS, bias=bias), guesser or Guesser()
    bae = BAE(masked_lm=guesser, wordnet=Words(), encoder=Likeness(), **settings)
    (outcome,) = attack_all(bae, [Example("x", text, label)], victim, Run.nowhere())
    return outcome, victim.encoder.asked, guesser.asked


def test_the_word_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 + 0.5 - 1 = 1.5. For "good" come "fine", "decent" and "dull"; "film" is no adjective.
    outcome, asked, filled = attack(toys, ("a good film",), bias=-1.0)
    assert outcome.adversarial == ("a dull film",)
    assert asked[3:] == [("a fine film",), ("a decent film",), ("a dull film",)]
    assert filled == [Fill(("a good film",), 0, 2, 6, 50)]


def test_a_later_word_is_masked_in_the_text_as_it_is_by_then(toys):
    outcome, _, filled = attack(toys, ("Good film",), bias=1.1)  # 3.6; "Dull" leaves 0.1, "picture" -0.7
    assert outcome.adversarial == ("Dull picture",)
    assert filled == [Fill(("Good film",), 0, 0, 4, 50), Fill(("Dull film",), 0, 5, 9, 50)]
    outcome, _, filled = attack(toys, ("great film", "a film"), bias=9.0)
    assert filled[0] == Fill(("great film", "a film"), 0, 0, 5, 50)
    assert filled[1] == Fill(("slow film", "a film"), 0, 5, 9, 50)
    assert filled[2] == Fill(("slow picture", "a film"), 1, 2, 6, 50)


def test_pieces_phrases_and_the_word_itself_do_not_come(toys):
    words = ["##ing", "Good", "of course", "good", "1988"]
    guesser = Guesser({"good": [(word, 0.9 - k / 10) for k, word in enumerate(words)]})
    outcome, asked, _ = attack(toys, ("good",), guesser=guesser)
    assert outcome.status == "held"
    assert asked == [("good",), ("Good",)]


def test_what_changes_the_meaning_too_much_is_not_asked(toys):
    outcome, asked, _ = attack(toys, ("a good film",), bias=-1.0, window=0, min_similarity=0.7)
    assert outcome.status == "held"
    assert len(asked) == 3


def test_settings_name_models_by_content():
    settings = BAE(masked_lm=Guesser(), wordnet=Words(), encoder=Likeness()).settings()
    assert (settings["masked_lm"], settings["wordnet"], settings["encoder"]) == (
        "guesser",
        "words",
        "likeness",
    )
    assert settings["name"] == "bae-minilm"


@pytest.mark.parametrize(
    "wrong", [{"max_candidates": 0}, {"min_similarity": 1.1}, {"window": -1}, {"query_limit": -1}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        BAE(masked_lm=Guesser(), wordnet=Words(), **wrong)
