import pytest
from tests.evaluation.attacks.fakes import WEIGHTS, Guesser, Likeness

from hardtack.errors import InputError
from hardtack.evaluation.attacks.bert_attack import BERTAttack
from hardtack.evaluation.attacks.protocol import Fill
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example


def attack(toys, text, label=1, bias=0.0, guesser=None, **settings):
    victim, guesser = toys.bag(WEIGHTS, bias=bias), guesser or Guesser()
    (outcome,) = attack_all(
        BERTAttack(masked_lm=guesser, **settings), [Example("x", text, label)], victim, Run.nowhere()
    )
    return outcome, victim.encoder.asked, guesser.asked


def test_the_word_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 + 0.5 - 1 = 1.5. "dull" for "good" leaves -2.0, the lowest.
    outcome, asked, filled = attack(toys, ("a good film",), bias=-1.0)
    assert outcome.adversarial == ("a dull film",)
    assert asked[:3] == [("a good film",), ("a [MASK] film",), ("a good [MASK]",)]
    assert asked[3:] == [(f"a {word} film",) for word in ("fine", "decent", "film", "dull")]
    assert filled == [Fill(("a good film",), 0, 2, 6, 48, masked=False)]


def test_the_original_is_read_whatever_has_changed_by_then(toys):
    outcome, _, filled = attack(toys, ("good film a",), bias=1.1)
    assert outcome.adversarial == ("dull picture a",)  # ceil(0.4 * 3) = 2 words may change
    assert [ask.text for ask in filled] == [("good film a",)] * 2


def test_at_most_the_share_of_the_words_changes(toys):
    assert attack(toys, ("good film",), bias=1.1)[0].status == "held"  # ceil(0.8) = 1 word
    assert attack(toys, ("good film",), bias=1.1, max_share=1.0)[0].status == "fell"


def test_function_words_neither_go_nor_come(toys):
    guesser = Guesser({"good": [("the", 0.9), ("not", 0.8), ("dull", 0.1)]})
    outcome, asked, filled = attack(toys, ("the good",), guesser=guesser)
    assert outcome.adversarial == ("the dull",)
    assert asked == [("the good",), ("the dull",)]
    assert len(filled) == 1


def test_similarity_is_compared_only_when_asked_for(toys):
    likeness = Likeness()
    settings = {"encoder": likeness, "min_similarity": 0.8, "bias": -1.0}
    outcome, asked, _ = attack(toys, ("a good film",), **settings)
    assert (outcome.status, len(asked), len(likeness.asked)) == ("held", 3, 2)
    assert BERTAttack(masked_lm=Guesser()).judges().encoder is None
    assert BERTAttack(masked_lm=Guesser()).settings()["encoder"] is None


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"max_share": 0.0}, {"max_share": 1.1}, {"min_similarity": 2}, {"query_limit": -1}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        BERTAttack(masked_lm=Guesser(), **wrong)
