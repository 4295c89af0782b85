"""Changed words are marked, nothing is lost, and the draw follows from the seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reports.made import DENSE, outcome, row

from hardtack.reports.compare import Entry
from hardtack.reports.models import groups_of, models_of
from hardtack.reports.sentences import WORDS, attacked, marked


def changed(pieces):
    return [piece.text for piece in pieces if piece.changed]


@pytest.mark.parametrize(
    ("before", "after", "was", "now"),
    [
        ("a fine film", "a fime film", ["fine"], ["fime"]),
        ("so good , so bad", "so goood , so baad", ["good", "bad"], ["goood", "baad"]),
        ("very good film", "good film", ["very"], []),
        ("good film", "really good film", [], ["really"]),
        ("one two three four", "one TWO 2 three four", ["two"], ["TWO", "2"]),
        ("same", "same", [], []),
        ("", "new", [], ["new"]),
    ],
)
def test_changed_words_by_hand(before, after, was, now):
    left, right = marked(before, after)
    assert " ".join(changed(left)).split() == was
    assert " ".join(changed(right)).split() == now


@given(st.text(max_size=120), st.text(max_size=120))
def test_no_character_is_lost(before, after):
    left, right = marked(before, after)
    assert "".join(piece.text for piece in left) == before
    assert "".join(piece.text for piece in right) == after
    assert (before == after) == (not changed(left) and not changed(right)) or before.split() == after.split()


def test_a_long_text_is_shown_around_its_changes():
    words = [f"w{n}" for n in range(5000)]
    attacked_words = [*words[:3000], "XXX", *words[3001:]]
    left, right = marked(" ".join(words), " ".join(attacked_words))
    assert (changed(left), changed(right)) == (["w3000"], ["XXX"])
    assert len("".join(piece.text for piece in right).split()) < WORDS
    assert "w2995" in right[0].text
    assert "..." in right[0].text


def test_a_long_rewrite_does_not_take_for_ever():
    left, right = marked(" ".join("a b c".split() * 3000), " ".join("b d".split() * 3000))
    assert changed(left)
    assert changed(right)


def groups(*models):
    found = []
    for name, letters in models:
        facts = row(name, letters)
        lines = {f"test-{n}": outcome(facts["id"], n, letter) for n, letter in enumerate(letters)}
        found.append(Entry("runs", facts, lines))
    modelled = models_of(found, [])
    return modelled, groups_of(modelled)


def test_the_draw_is_of_those_that_fell_and_follows_from_the_seed():
    models, found = groups(("dense", DENSE), ("imp", "M" * 100))
    (first,) = attacked(models, found, count=5, seed=0)
    (again,) = attacked(models, found, count=5, seed=0)
    (other,) = attacked(models, found, count=5, seed=1)
    assert first == again
    assert [example.name for example in first.examples] != [example.name for example in other.examples]
    assert "5 of 60 examples that fell" in first.title
    numbers = [int(example.name.split(":")[0].removeprefix("test-")) for example in first.examples]
    assert numbers == sorted(numbers)
    assert all(40 <= number < 100 for number in numbers)
    assert first.examples[0].fates == ("Fell: dense", "Wrong before the attack: imp")
    assert first.examples[0].changes == ("fine \N{RIGHTWARDS ARROW} fime",)


def test_none_wanted_or_none_there_shows_none():
    models, found = groups(("dense", DENSE))
    assert attacked(models, found, count=0, seed=0) == []
    for line in found[0].entries[0].outcomes.values():
        del line["original"], line["adversarial"]  # as committed outcomes are
    assert attacked(models, found, count=5, seed=0) == []
