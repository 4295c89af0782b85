import pytest
from tests.evaluation.attacks.fakes import WEIGHTS, Likeness, Words

from hardtack.errors import InputError
from hardtack.evaluation.attacks.embedding_swap import EmbeddingSwap
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example


def attack(toys, text, label=1, bias=0.0, **settings):
    victim, likeness = toys.bag(WEIGHTS, bias=bias), Likeness()
    swap = EmbeddingSwap(vectors=Words(), wordnet=Words(), encoder=likeness, **settings)
    (outcome,) = attack_all(swap, [Example("x", text, label)], victim, Run.nowhere())
    return outcome, victim.encoder.asked, likeness.asked


def test_the_swap_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 + 0.5 - 1 = 1.5. However far: "dull" (cosine 0.4) for "good"; "film" is no adjective.
    outcome, asked, compared = attack(toys, ("a good film",), bias=-1.0)
    assert outcome.adversarial == ("a dull film",)
    assert asked[3:] == [("a fine film",), ("a decent film",), ("a dull film",)]
    assert [ask.original for ask in compared] == [("a good film",)]  # however short


def test_every_change_is_compared_with_the_original(toys):
    outcome, asked, compared = attack(toys, ("good film",), bias=1.1)
    assert outcome.status == "held"  # "dull picture" shares no word with it
    assert [ask.original for ask in compared] == [("good film",)] * 2
    assert ("dull picture",) not in asked
    assert attack(toys, ("good film",), bias=1.1, min_similarity=0.0)[0].adversarial == ("dull picture",)


@pytest.mark.parametrize("wrong", [{"max_candidates": 0}, {"min_similarity": 1.1}, {"query_limit": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        EmbeddingSwap(vectors=Words(), wordnet=Words(), **wrong)
