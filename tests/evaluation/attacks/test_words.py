import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.evaluation.attacks.words import (
    changeable_words,
    edit_distance,
    is_stop_word,
    rewrite,
    without,
)

texts = st.tuples(st.text("ab '-.\n\u00e9", max_size=30))


def reference_distance(a, b):
    """The whole Levenshtein table, as in a textbook."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            substituted = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, substituted)
    return table[-1][-1]


@given(st.text("abc", max_size=12), st.text("abc", max_size=12), st.integers(1, 14))
def test_edit_distance_equals_the_whole_table_up_to_its_limit(a, b, limit):
    assert edit_distance(a, b, limit) == min(reference_distance(a, b), limit + 1)


def test_words_of_raw_text():
    found = changeable_words(("It's a well-made film, isn’t it? 10/10 _x_",), "all")
    assert [word.text for word in found] == ["It's", "a", "well-made", "film", "isn’t", "it", "10", "10", "x"]


@given(texts)
def test_rewriting_nothing_or_every_word_by_itself_keeps_the_text(text):
    words = changeable_words(text, "all")
    assert rewrite(text, words, {}) == text
    assert rewrite(text, words, {i: word.text for i, word in enumerate(words)}) == text


@given(st.tuples(st.text("ab .", max_size=20), st.text("ab .", max_size=20)), st.data())
def test_rewriting_one_word_leaves_the_rest(text, data):
    words = changeable_words(text, "all")
    if not words:
        return
    i = data.draw(st.integers(0, len(words) - 1))
    column, start, end, _ = words[i]
    changed = rewrite(text, words, {i: "NEW"})
    assert changed[column] == text[column][:start] + "NEW" + text[column][end:]
    assert changed[1 - column] == text[1 - column]


def test_columns_that_may_change():
    pair = ("one two", "three")
    assert [w.text for w in changeable_words(pair, "all")] == ["one", "two", "three"]
    assert [w.text for w in changeable_words(pair, "first")] == ["one", "two"]
    assert [w.text for w in changeable_words(pair, "second")] == ["three"]
    with pytest.raises(InputError, match="two columns"):
        changeable_words(("one",), "second")


@pytest.mark.parametrize(("number", "left"), [(0, "good film ."), (1, "a film ."), (2, "a good .")])
def test_deleting_a_word_takes_one_space_with_it(number, left):
    text = ("a good film .",)
    assert without(text, changeable_words(text, "all")[number]) == (left,)


def test_deleting_the_last_word():
    text = ("first", "a film")
    assert without(text, changeable_words(text, "all")[2]) == ("first", "a")


def test_stop_words_whatever_their_case():
    assert all(map(is_stop_word, ["the", "The", "DON'T", "don’t", "n't", "s", "very"]))
    assert not any(map(is_stop_word, ["film", "good", "awful", "never-ending", "1"]))
