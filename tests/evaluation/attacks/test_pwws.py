import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.attacks.fakes import NEAR, WEIGHTS, Words

from hardtack.errors import InputError
from hardtack.evaluation.attacks.pwws import PWWS
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example


def attack(toys, text, label=1, bias=0.0, weights=WEIGHTS, **settings):
    victim = toys.bag(weights, bias=bias)
    attack = PWWS(wordnet=Words(), **settings)
    (outcome,) = attack_all(attack, [Example("x", text, label)], victim, Run.nowhere())
    return outcome, victim.encoder.asked


def test_the_synonym_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 + 0.5 - 1 = 1.5. Best synonyms: "dull" for "good" (-1.5), "picture" for "film" (-0.3).
    outcome, asked = attack(toys, ("a good film",), bias=-1.0)
    assert outcome.adversarial == ("a dull film",)
    hidden = [("a [UNK] film",), ("a good [UNK]",)]
    swaps = [(f"a {word} film",) for word in ("fine", "decent", "film", "dull")]
    assert asked == [("a good film",), *hidden, *swaps, ("a good movie",), ("a good picture",)]
    assert outcome.queries == 9  # the swaps of the first word are asked again and count once


def test_order_is_saliency_times_effect(toys):
    # p = s(x): s(2.7) = 0.937. Without "great" s(0.5), without "film" s(2.2): saliency 0.315 and 0.037.
    # Effects: "slow" for "great" s(2.7) - s(-0.4) = 0.536; "picture" for "film" s(2.7) - s(1.9) = 0.067.
    # Give "film" the better synonym and the order turns, although "great" stays the more salient word.
    s = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    weights = {**WEIGHTS, "picture": -4.0, "slow": 2.1, "good": 2.1, "decent": 2.1}
    softmax = [math.exp(s(2.7) - s(0.5)), math.exp(s(2.7) - s(2.2))]
    scores = [softmax[0] * (s(2.7) - s(2.6)), softmax[1] * (s(2.7) - s(-1.8))]
    assert scores[0] < scores[1]
    outcome, _ = attack(toys, ("great film",), weights=weights)
    assert outcome.adversarial == ("great picture",)


def test_changes_add_up(toys):
    outcome, _ = attack(toys, ("GOOD Film !",), bias=1.1)  # 3.6; "DULL" leaves 0.1, "Picture" then -0.7
    assert outcome.adversarial == ("DULL Picture !",)


def test_words_without_synonyms_are_hidden_and_stay(toys):
    outcome, asked = attack(toys, ("truly mess the",), label=0)
    assert outcome.status == "held"
    assert asked == [("truly mess the",), ("[UNK] mess the",), ("truly [UNK] the",)]


sentences = st.lists(st.sampled_from([*WEIGHTS, "Good", "unseen"]), min_size=1, max_size=7).map(" ".join)


@given(sentences, st.integers(-2, 2), st.integers(0, 15))
def test_only_synonyms_of_content_words_come(toys, text, bias, limit):
    label = int(toys.bag(WEIGHTS, bias=bias).logits([(text,)])[0].argmax())
    outcome, asked = attack(toys, (text,), label, bias, query_limit=limit)
    assert outcome.queries == len(asked) == len(set(asked))
    assert not limit or outcome.queries <= limit
    for (candidate,) in asked:
        for before, after in zip(text.split(), candidate.split(), strict=True):
            allowed = {word for word, _ in NEAR.get(before.lower(), [])}
            assert after in (before, "[UNK]") or after.lower() in allowed


def test_settings_name_wordnet_by_content():
    assert PWWS(wordnet=Words()).settings() == {
        "name": "pwws",
        "version": 1,
        "wordnet": "words",
        "query_limit": 0,
        "columns": "all",
        "unknown": "[UNK]",
    }
    with pytest.raises(InputError, match="allowed"):
        PWWS(wordnet=Words(), query_limit=-1)
