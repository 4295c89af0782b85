import pytest
from tests.evaluation.attacks.fakes import WEIGHTS, Words, linear

from hardtack.errors import InputError
from hardtack.evaluation.attacks.hotflip import HotFlip
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example


def attack(victim, text, label=1, **settings):
    (outcome,) = attack_all(HotFlip(**settings), [Example("x", text, label)], victim, Run.nowhere())
    return outcome


def test_the_flip_that_a_person_finds_is_the_one_the_attack_finds():
    # 2.0 + 0.5 - 1 = 1.5. Any word may come: "mess" for "good" promises 4.5, the most, and gives -3.0.
    victim = linear(bias=-1.0)
    outcome = attack(victim, ("a good film",), min_cosine=0.0)
    assert outcome.status == "fell"
    assert outcome.adversarial == ("a mess film",)
    assert outcome.queries == 1 + 10


def test_only_similar_words_of_the_same_kind_come():
    # Near "good" with cosine 0.8: "fine" (1.5) and "decent" (0.2); near "film": "movie", "picture" (-0.3).
    # 2.0 + 0.5 - 1 = 1.5; "decent" takes 1.8 away.
    settings = {"vectors": Words(), "wordnet": Words()}
    outcome = attack(linear(bias=-1.0), ("a good film",), **settings)
    assert (outcome.adversarial, outcome.queries) == (("a decent film",), 1 + 4)
    # With 3.2 only both together do: "decent" (-1.8) in the first round, "picture" (-0.8) in the second.
    outcome = attack(linear(bias=-0.6, weights={**WEIGHTS, "good": 2.7}), ("a good film",), **settings)
    assert outcome.adversarial == ("a decent picture",)
    outcome = attack(
        linear(bias=-0.6, weights={**WEIGHTS, "good": 2.7}), ("a good film",), max_words=1, **settings
    )
    assert outcome.status == "held"


def test_the_case_of_a_word_is_kept():
    outcome = attack(linear(bias=-1.0), ("A GOOD film",), vectors=Words(), wordnet=Words())
    assert outcome.adversarial == ("A DECENT film",)


def test_a_word_of_several_tokens_is_not_exchanged(toys):
    # The tokenizer of single letters knows "good", "film", "bad" and "plot" whole and nothing longer.
    victim = toys.bert()
    for label in (0, 1):
        outcome = attack(victim, ("xyz qqq",), label, min_cosine=0.0)
        assert outcome.status in ("missed", "held")
        assert outcome.queries == 1


def test_a_real_bert_falls_and_the_estimate_is_the_gradient(toys):
    victim = toys.bert(seed=3)
    texts = [("good film bad plot",), ("bad film",), ("good plot",), ("film film bad",)]
    labels = victim.logits(texts).argmax(dim=1).tolist()
    examples = [
        Example(str(i), text, label) for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    outcomes = attack_all(HotFlip(min_cosine=0.0), examples, victim, Run.nowhere())
    assert any(o.status == "fell" for o in outcomes)
    assert not victim.model.training
    assert all(parameter.grad is None for parameter in victim.model.parameters())


def test_a_black_box_is_refused(toys):
    with pytest.raises(InputError, match="get_input_embeddings"):
        attack(toys.bag({"good": 2.0}), ("good",), min_cosine=0.0)


@pytest.mark.parametrize("wrong", [{"min_cosine": 1.5}, {"max_words": 0}, {"beam": 0}, {"query_limit": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        HotFlip(**{"min_cosine": 0.0, **wrong})
