import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.attacks.fakes import WEIGHTS, Likeness, Words, cosine

from hardtack.errors import InputError
from hardtack.evaluation.attacks.textbugger import LOOK_ALIKES, TextBugger, typing_bugs
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run, generator
from hardtack.tasks.task import Example


def attack(toys, text, label=1, bias=0.0, weights=WEIGHTS, **settings):
    victim = toys.bag(weights, bias=bias)
    bugger = TextBugger(**{"vectors": Words(), "encoder": Likeness(), "min_similarity": 0.0, **settings})
    (outcome,) = attack_all(bugger, [Example("x", text, label)], victim, Run.nowhere(seed=3))
    return outcome, victim.encoder.asked


def test_the_bug_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 + 0.5 - 1 = 1.5. A typo in "good" leaves -0.5; its neighbour "dull" -2.0, the lowest.
    outcome, asked = attack(toys, ("a good film",), bias=-1.0)
    assert outcome.adversarial == ("a dull film",)
    bugs = typing_bugs("good", generator(3, "attack/textbugger-minilm", example="x"))
    expected = [*bugs, "fine", "decent", "film", "dull"]
    assert asked == [("a good film",), ("a film",), ("a good",), *((f"a {bug} film",) for bug in expected)]


def test_the_bugs_of_a_word_by_hand():
    bugs = typing_bugs("good", generator(0, "x"))
    alike = {"\u0261ood", "g\u043eod", "go\u043ed", "goo\u0501"}
    assert alike <= set(bugs)
    assert set(bugs) - alike <= {"g ood", "go od", "god"}
    assert len(bugs) == 2 + 4  # swapping the inner letters gives the word itself
    assert typing_bugs("ä", generator(0, "x")) == []


@given(st.text("abcdefgXYZ01é", min_size=1, max_size=9), st.integers(0, 99))
def test_only_look_alikes_touch_the_first_and_last_letter(word, seed):
    bugs = typing_bugs(word, generator(seed, "x"))
    assert word not in bugs
    assert len(set(bugs)) == len(bugs)
    for bug in bugs:
        if len(bug) == len(word) and sum(map(str.__ne__, bug, word)) == 1:
            k = next(k for k, letter in enumerate(word) if bug[k] != letter)
            assert bug[k] == LOOK_ALIKES[word[k]]
        else:
            assert (bug[0], bug[-1]) == (word[0], word[-1])
            assert sorted(bug.replace(" ", "")) in (
                sorted(word), *(sorted(word[:k] + word[k + 1 :]) for k in range(len(word)))
            )  # fmt: skip


def test_every_letter_has_a_look_alike_that_is_another_character():
    assert set("abcdefghijklmnopqrstuvwxyz") <= set(LOOK_ALIKES)
    assert all(len(alike) == 1 and alike != letter for letter, alike in LOOK_ALIKES.items())


def test_texts_that_change_too_much_are_not_asked(toys):
    # A changed word of two leaves a cosine of 1 / 2, of five 4 / 5.
    assert attack(toys, ("good film",), bias=-1.0, min_similarity=0.8)[0].status == "held"
    outcome, asked = attack(toys, ("good film is not a",), bias=-1.0, min_similarity=0.8)
    assert outcome.status == "fell"
    for text in asked:
        if len(text[0].split()) == 5:
            assert round(cosine(("good film is not a",), text), 4) >= 0.8


def test_neighbours_come_from_a_table_or_not_at_all(toys):
    outcome, _ = attack(
        toys, ("a good film",), bias=-1.0, vectors=None, neighbours={"good": ["mess", "fine"]}
    )
    assert outcome.adversarial == ("a mess film",)
    bugger = TextBugger(max_neighbours=0)
    assert bugger.settings()["vectors"] is bugger.settings()["neighbours"] is None
    assert TextBugger(neighbours={"good": ["fine"]}).settings()["neighbours"] != "words"
    with pytest.raises(InputError, match="one of them"):
        TextBugger(neighbours={"good": ["fine"]}, vectors=Words())


@pytest.mark.parametrize("wrong", [{"max_neighbours": -1}, {"min_similarity": 1.1}, {"query_limit": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        TextBugger(vectors=Words(), **wrong)
