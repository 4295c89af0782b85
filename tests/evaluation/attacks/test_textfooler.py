import pytest
import torch
from tests.evaluation.attacks.fakes import WEIGHTS, Likeness, Words

from hardtack.errors import InputError
from hardtack.evaluation.attacks.textfooler import TextFooler
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example


def attack(toys, text, label=1, bias=0.0, weights=WEIGHTS, **settings):
    victim, likeness = toys.bag(weights, bias=bias), Likeness()
    fooler = TextFooler(vectors=Words(), wordnet=Words(), encoder=likeness, **settings)
    (outcome,) = attack_all(fooler, [Example("x", text, label)], victim, Run.nowhere())
    return outcome, victim.encoder.asked, likeness.asked


def test_the_swap_that_a_person_finds_is_the_one_the_attack_finds(toys):
    # 2.0 + 0.5 - 1 = 1.5. For "good": "fine" and "decent"; "film" is no adjective, "dull" has cosine 0.4.
    outcome, asked, compared = attack(toys, ("a good film",), bias=-1.0)
    assert outcome.adversarial == ("a decent film",)
    assert asked == [("a good film",), ("a film",), ("a good",), ("a fine film",), ("a decent film",)]
    assert compared == []  # 3 words are fewer than 15


def test_nouns_and_verbs_may_stand_for_each_other(toys):
    # "movie" is a noun only, "film" noun and verb; of "plot" the neighbour "mess" has cosine 0.55.
    outcome, asked, _ = attack(toys, ("plot",), bias=1.0)
    assert outcome.adversarial == ("mess",)
    assert asked == [("plot",), ("mess",), ("film",)]


def test_the_most_similar_of_those_that_fool_is_taken(toys):
    # Both "fine" and "decent" fool (0.7 - 1 and 0.2 - 1); the whole text is compared.
    class Prefers(Likeness):
        def similar(self, asks):
            super().similar(asks)
            scores = {"fine": 0.95, "decent": 0.9}
            return [torch.tensor([scores[c[0].split()[1]] for c in a.candidates]).double() for a in asks]

    weights = {**WEIGHTS, "fine": 0.7}
    victim = toys.bag(weights, bias=-1.0)
    fooler = TextFooler(vectors=Words(), wordnet=Words(), encoder=Prefers(), window=0)
    (outcome,) = attack_all(fooler, [Example("x", ("a good",), 1)], victim, Run.nowhere())
    assert outcome.adversarial == ("a fine",)


def test_fifteen_words_around_the_change_are_compared_with_the_text_before_it(toys):
    # 16 words: the window of word 1 is words 0 to 14, that of word 15 words 1 to 15.
    text = "great good " + "the a is not " * 3 + "the film"
    outcome, _, compared = attack(toys, (text,), bias=9.0)
    assert outcome.status == "held"
    words = text.split()
    assert len(words) == 16
    great, good, film = compared
    rest = " ".join(words[2:15])
    assert great.original == (f"great good {rest}",)
    assert great.candidates == ((f"good good {rest}",), (f"decent good {rest}",))
    assert good.original == (f"decent good {rest}",)
    assert good.candidates == ((f"decent fine {rest}",), (f"decent decent {rest}",))
    assert film.original == (f"decent {rest} film",)
    assert film.candidates == ((f"decent {rest} movie",), (f"decent {rest} picture",))


def test_what_changes_the_meaning_too_much_is_not_asked(toys):
    # One word of three differs: cosine 2 / 3.
    outcome, asked, compared = attack(toys, ("a good film",), bias=-1.0, window=0, min_similarity=0.7)
    assert outcome.status == "held"
    assert len(asked) == 3
    assert len(compared) == 2
    outcome, _, compared = attack(toys, ("a good film",), bias=-1.0, window=0, min_similarity=0.0)
    assert (outcome.status, compared) == ("fell", [])


def test_settings_name_resources_by_content():
    fooler = TextFooler(vectors=Words(), wordnet=Words(), encoder=Likeness())
    assert fooler.settings() == {
        "name": "textfooler-minilm",
        "version": 1,
        "vectors": "words",
        "wordnet": "words",
        "encoder": "likeness",
        "max_candidates": 50,
        "min_cosine": 0.5,
        "min_similarity": 0.8776,
        "window": 15,
        "query_limit": 0,
        "columns": "all",
    }


@pytest.mark.parametrize(
    "wrong", [{"max_candidates": 0}, {"min_cosine": 2}, {"min_similarity": -1}, {"window": -1}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        TextFooler(vectors=Words(), wordnet=Words(), **wrong)
