"""Constraints: each by hand, and all of them on a thousand generated sentences with generated candidates."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.tiny import write_vectors, write_wordnet

from hardtack.evaluation.attacks.protocol import Similar
from hardtack.evaluation.attacks.words import STOP_WORDS, edit_distance
from hardtack.evaluation.constraints import (
    most_words,
    near_in,
    no_stop_words,
    not_again,
    permitted,
    same_part_of_speech,
    similar_enough,
    within_edits,
)
from hardtack.evaluation.vectors import Vectors
from hardtack.evaluation.wordnet import WordNet

SENTENCE = "the good film ran well".split()
KNOWN = ("film movie shoot plot story foot feet run ran good full big large galore well watch see seen "
         "better the a of not café zebra Film GOOD running 42 x").split()  # fmt: skip


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    return WordNet(write_wordnet(tmp_path_factory.mktemp("wordnet")))


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    rng = np.random.default_rng(0)
    words = dict.fromkeys(word.lower() for word in KNOWN[:-3])
    numbers = {word: rng.normal(size=3).round(3).tolist() for word in words}
    return Vectors(write_vectors(tmp_path_factory.mktemp("vectors") / "v.txt", numbers))


def test_no_function_word_goes_and_none_comes():
    assert no_stop_words(SENTENCE, 0, ["film", "plot"]) == [False, False]
    assert no_stop_words(SENTENCE, 2, ["plot", "the", "isn’t", "The"]) == [True, False, False, False]


def test_no_word_is_changed_twice():
    changed = {1}
    check = not_again(changed)
    assert check(SENTENCE, 1, ["fine", "great"]) == [False, False]
    assert check(SENTENCE, 2, ["movie"]) == [True]
    changed.add(2)
    assert check(SENTENCE, 2, ["movie"]) == [False]


def test_parts_of_speech_by_hand(wordnet):
    strict = same_part_of_speech(wordnet, swap_nouns_and_verbs=False)
    loose = same_part_of_speech(wordnet)
    # film: noun, verb; movie: noun; ran: verb; big: adjective; zebra: not there, so a noun
    candidates = ["movie", "ran", "big", "zebra"]
    assert strict(SENTENCE, 2, candidates) == [True, True, False, True]
    assert strict(SENTENCE, 3, candidates) == [False, True, False, False]
    assert loose(SENTENCE, 3, candidates) == [True, True, False, True]
    assert strict(["big"], 0, ["large", "well", "Large"]) == [True, False, True]


def test_nearness_by_hand(tmp_path):
    space = Vectors(write_vectors(tmp_path / "v.txt", {"good": (1, 0), "fine": (4, 3), "bad": (-1, 0)}))
    assert near_in(space, 0.8)(SENTENCE, 1, ["fine", "Fine", "bad", "zebra"]) == [True, True, False, False]
    assert near_in(space, 0.81)(SENTENCE, 1, ["fine"]) == [False]
    assert near_in(space, -1.0)(SENTENCE, 0, ["fine"]) == [False]  # the original has no vector


def test_edits_by_hand():
    assert within_edits(1)(SENTENCE, 2, ["films", "flim", "film"]) == [True, False, True]


def test_every_check_must_agree(wordnet):
    checks = [no_stop_words, same_part_of_speech(wordnet), within_edits(5)]
    assert permitted(checks, SENTENCE, 2, ["movie", "the", "big", "shoot", "foot"]) == [
        "movie",
        "shoot",
        "foot",
    ]
    assert permitted([], SENTENCE, 2, ["x"]) == ["x"]


def judged(questions, cosines):
    """Answer a sub-generator's one question and return what it asked and returned."""
    try:
        asked = next(questions)
    except StopIteration as stop:
        return None, stop.value
    with pytest.raises(StopIteration) as stop:
        questions.send(torch.tensor(cosines, dtype=torch.float64))
    return asked, stop.value.value


def test_similarity_asks_once_and_keeps_the_cosines():
    texts = [("a b",), ("a c",)]
    asked, answer = judged(similar_enough(("a",), texts, 0.8), [0.8, 0.7999])
    assert asked == Similar(("a",), (("a b",), ("a c",)))
    assert answer == [0.8, None]
    assert judged(similar_enough(("a",), [], 0.8), []) == (None, [])


LETTERS = "abcdefghijklmnopqrstuvwxyzABCéßжشश字0123456789"


def generated(rng, most, least=0):
    """Return some words, known ones and strings of letters of any script."""
    count = int(rng.integers(least, most + 1))
    strange = ["".join(rng.choice(list(LETTERS), rng.integers(1, 9))) for _ in range(count)]
    return [str(rng.choice(KNOWN)) if rng.random() < 0.7 else word for word in strange]


def test_every_constraint_is_honoured_on_a_thousand_sentences(wordnet, space):
    rng, kept = np.random.default_rng(0), 0
    for _ in range(1000):
        kept += honoured(wordnet, space, generated(rng, 12, least=1), generated(rng, 6), rng)
    assert kept > 500  # the checks let enough through to have been tested


def honoured(wordnet, space, sentence, candidates, rng):
    """Check every constraint on one sentence; return how many candidates each alone let through, added up."""
    number = int(rng.integers(len(sentence)))
    changed = set(np.flatnonzero(rng.random(len(sentence)) < 0.3).tolist())
    least, most = float(rng.choice([-0.5, 0.0, 0.5])), int(rng.integers(0, 5))
    checks = [
        no_stop_words,
        not_again(changed),
        same_part_of_speech(wordnet),
        near_in(space, least),
        within_edits(most),
    ]
    original = sentence[number]
    for check in checks:
        assert len(check(sentence, number, candidates)) == len(candidates)
    kept = permitted(checks[:3], sentence, number, candidates)
    for word in kept:
        assert number not in changed
        assert {original.lower(), word.lower()}.isdisjoint(STOP_WORDS)
        kinds = [wordnet.pos(each) or {"n"} for each in (original, word)]
        assert kinds[0] & kinds[1] or all(each & {"n", "v"} for each in kinds)
    for word in permitted(checks[3:4], sentence, number, candidates):
        numbers = [space._unit[space.index(each)] for each in (original, word)]
        assert float(numbers[0] @ numbers[1]) >= least - 1e-4
    for word in permitted(checks[4:], sentence, number, candidates):
        assert edit_distance(original, word, 99) <= most
    # All together: what each alone keeps, in the candidates' order.
    alone = [check(sentence, number, candidates) for check in checks]
    together = [word for word, fits in zip(candidates, zip(*alone, strict=True), strict=True) if all(fits)]
    assert permitted(checks, sentence, number, candidates) == together
    return sum(map(sum, alone))


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_a_share_of_the_words_is_rounded_up_and_never_by_chance(words, percent):
    assert most_words(percent / 100, words) == -(-words * percent // 100)
