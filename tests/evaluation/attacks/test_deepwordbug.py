import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug, one_edit_each
from hardtack.evaluation.attacks.words import changeable_words, edit_distance, is_stop_word
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run, generator
from hardtack.tasks.task import Example

WEIGHTS = {"good": 2.0, "truly": 0.5, "film": 0.1, "dull": -1.5, "plot": -0.2, "mess": -2.5, "great": 2.2}


def test_the_edit_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 + 0.5 + 0.1 - 1 = 1.6 > 0: positive. Only without "good" (-0.4) is it negative: any typo there wins.
    victim = toys.bag(WEIGHTS, bias=-1.0)
    example = Example("x", ("A truly good film .",), 1)
    (outcome,) = attack_all(DeepWordBug(), [example], victim, Run.nowhere(seed=3))
    assert outcome.status == "fell"
    before, after = example.text[0].split(), outcome.adversarial[0].split()
    assert [i for i in range(5) if before[i] != after[i]] == [2]
    # Asked: the text, three words replaced by [UNK] ("A" is a function word), the edits of "good".
    rng = generator(3, "attack/deepwordbug", example="x")
    edits = [one_edit_each(word, rng) for word in ("truly", "good", "film")]
    assert outcome.queries == 1 + 3 + len(edits[1])
    assert after[2] == edits[1][0]  # every edit of "good" scores the same: the first wins


def test_edits_add_up_until_the_prediction_changes(toys):
    # 2.0 + 2.2 - 1 = 3.2: "great" goes first (1.0 is left), "good" next.
    victim = toys.bag(WEIGHTS, bias=-1.0)
    example = Example("x", ("good , great .",), 1)
    (outcome,) = attack_all(DeepWordBug(), [example], victim, Run.nowhere())
    assert outcome.status == "fell"
    good, comma, great, stop = outcome.adversarial[0].split()
    assert (comma, stop) == (",", ".")
    assert good != "good"
    assert great != "great"


def test_a_word_whose_edits_do_not_help_is_left_as_it_was(toys):
    # The label is 0: hiding "dull" or "mess" helps, hiding "plot" too, hiding "good" would not.
    victim = toys.bag(WEIGHTS, bias=-3.0)
    example = Example("x", ("good plot",), 0)
    (outcome,) = attack_all(DeepWordBug(), [example], victim, Run.nowhere())
    assert outcome.status == "held"
    assert outcome.adversarial is None


def test_wrong_before_the_attack_costs_one_query(toys):
    (outcome,) = attack_all(DeepWordBug(), [Example("x", ("dull",), 1)], toys.bag(WEIGHTS), Run.nowhere())
    assert outcome == ("x", "missed", 1, ("dull",), None, None)


def test_a_text_of_function_words_holds_after_one_query(toys):
    victim = toys.bag(WEIGHTS, bias=1.0)
    (outcome,) = attack_all(DeepWordBug(), [Example("x", ("it is a",), 1)], victim, Run.nowhere())
    assert outcome == ("x", "held", 1, ("it is a",), None, None)


@given(st.text("abcdefgh", min_size=0, max_size=9), st.integers(0, 1000))
def test_each_kind_of_edit_is_one_edit(word, seed):
    edits = one_edit_each(word, generator(seed, "x"))
    assert len(edits) <= 4
    assert len(set(edits)) == len(edits)
    assert word not in edits
    assert bool(edits) == (len(word) > 1)
    for edit in edits:
        swap = len(edit) == len(word) and sorted(edit) == sorted(word)
        assert edit_distance(word, edit, 5) <= (2 if swap else 1)


vocabulary = st.sampled_from([*WEIGHTS, "the", "not", "it's", "Good", "unseen", "a"])
sentences = st.lists(vocabulary, min_size=1, max_size=12).map(" ".join)


@given(
    text=st.one_of(st.tuples(sentences), st.tuples(sentences, sentences)),
    columns=st.sampled_from(["all", "first"]),
    distance=st.integers(1, 6),
    limit=st.integers(0, 20),
    seed=st.integers(0, 99),
    bias=st.integers(-3, 3),
)
def test_what_may_not_change_does_not(toys, text, columns, distance, limit, seed, bias):
    victim = toys.bag(WEIGHTS, bias=float(bias))
    label = int(victim.logits([text])[0].argmax())
    victim.encoder.asked.clear()
    attack = DeepWordBug(max_distance=distance, query_limit=limit, columns=columns)
    (outcome,) = attack_all(attack, [Example("x", text, label)], victim, Run.nowhere(seed=seed))
    asked = victim.encoder.asked
    assert outcome.queries == len(asked) == len(set(asked))
    assert not limit or outcome.queries <= limit
    assert (outcome.status == "fell") == (outcome.adversarial is not None)
    assert outcome.status != "missed"
    for candidate in asked:
        if "[UNK]" in " ".join(candidate):
            continue
        assert sum(map(lambda a, b: edit_distance(a, b, 99), text, candidate)) <= distance
        if columns == "first":
            assert candidate[1:] == text[1:]
        for before, after in zip(text, candidate, strict=True):
            old, new = before.split(" "), after.split(" ")
            assert len(old) == len(new)
            assert all(x == y for x, y in zip(old, new, strict=True) if is_stop_word(x) or len(x) < 2)
    if outcome.adversarial is not None:
        assert int(victim.logits([outcome.adversarial])[0].argmax()) != label


def test_distances_add_up_over_words(toys):
    # Every edit costs 1 or 2: within 3 at most three words change, and a text of 200 words is no trouble.
    victim = toys.bag({"good": 0.01}, bias=9.0)
    text = ("good " * 200,)
    (outcome,) = attack_all(DeepWordBug(max_distance=3), [Example("x", text, 1)], victim, Run.nowhere())
    assert outcome.status == "held"
    changed = [sum(word != "good" for word in asked[0].split()) for asked in victim.encoder.asked]
    assert max(changed) in (2, 3)


def test_each_word_changes_at_most_once(toys):
    victim = toys.bag(WEIGHTS, bias=-1.0)
    text = ("good great truly film",)
    (outcome,) = attack_all(DeepWordBug(), [Example("x", text, 1)], victim, Run.nowhere())
    for before, after in zip(text[0].split(), outcome.adversarial[0].split(), strict=True):
        assert edit_distance(before, after, 9) <= 2
    assert len(changeable_words(outcome.adversarial, "all")) == 4


@pytest.mark.parametrize("wrong", [{"max_distance": 0}, {"query_limit": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        DeepWordBug(**wrong)


def test_settings_name_everything():
    assert DeepWordBug().settings() == {
        "name": "deepwordbug",
        "version": 2,
        "max_distance": 30,
        "query_limit": 0,
        "columns": "all",
        "unknown": "[UNK]",
    }
