import pytest
from tests.evaluation.attacks.fakes import WEIGHTS, Guesser, Likeness, Words

from hardtack.errors import InputError
from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.attacks.bae import BAE
from hardtack.evaluation.attacks.cascade import Cascade
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.attacks.embedding_pgd import EmbeddingPGD
from hardtack.evaluation.attacks.pruthi import Pruthi
from hardtack.evaluation.attacks.textfooler import TextFooler
from hardtack.evaluation.attacks.word_swap import WordSwap
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example

TABLE = {"good": ["fine", "decent"], "film": ["movie", "picture"]}
MILD, STRONG = WordSwap({"good": ["fine"]}), WordSwap({"good": ["mess"]})


def attack(toys, members, text, label=1, bias=0.0, **settings):
    victim = toys.bag(WEIGHTS, bias=bias)
    cascade, example = Cascade(members, **settings), Example("x", text, label)
    (outcome,) = attack_all(cascade, [example], victim, Run.nowhere(3))
    return outcome, victim.encoder.asked


def test_the_first_member_that_fells_an_example_is_named(toys):
    # 2.0 - 1 = 1.0: "fine" leaves 0.5; a typo leaves -1.0.
    outcome, asked = attack(toys, (MILD, Pruthi()), ("good",), bias=-1.0)
    assert (outcome.status, outcome.by) == ("fell", "pruthi")
    assert asked[:2] == [("good",), ("fine",)]
    outcome, _ = attack(toys, (Pruthi(), MILD), ("good",), bias=-1.0)
    assert outcome.by == "pruthi"
    outcome, _ = attack(toys, (MILD,), ("good",), bias=-1.0)
    assert (outcome.status, outcome.by) == ("held", None)


def test_queries_add_up_and_texts_in_common_count_once(toys):
    both, _ = attack(toys, (MILD, MILD, WordSwap({"good": ["fine", "great"]})), ("a good film",))
    assert both == ("x", "held", 3, ("a good film",), None, None)  # the text, "fine", "great"
    assert attack(toys, (MILD, STRONG), ("a good",), label=0)[0] == (
        "x",
        "missed",
        1,
        ("a good",),
        None,
        None,
    )


def test_a_limit_is_shared(toys):
    # The first member asks 2 texts; of a limit of 4 the second gets the original (asked already) and 2 more.
    outcome, asked = attack(toys, (MILD, Pruthi()), ("good",), bias=9.0, query_limit=4)
    assert (outcome.status, outcome.queries, len(asked)) == ("held", 4, 4)
    outcome, asked = attack(toys, (MILD, Pruthi()), ("good",), bias=9.0, query_limit=2)
    assert len(asked) == 2
    outcome, asked = attack(
        toys, (WordSwap(TABLE, query_limit=2), Pruthi()), ("good",), bias=9.0, query_limit=9
    )
    assert [text[0] for text in asked[:2]] == ["good", "fine"]
    assert len(asked) == 9


def test_it_fells_whatever_one_of_its_members_fells(toys):
    victim, run = toys.bert(seed=2), Run.nowhere()
    lines = ("good film", "bad plot a good film", "film bad", "plot plot good", "bad bad film")
    texts = [(line,) for line in lines]
    labels = victim.logits(texts).argmax(dim=1).tolist()
    examples = [
        Example(str(i), text, label) for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    swap = WordSwap({"good": ["bad"]})
    alone = attack_all(swap, examples, victim, run)
    together = attack_all(Cascade((swap, Pruthi())), examples, victim, run)
    assert {o.status for o in alone} == {"held", "fell"}
    for one, both in zip(alone, together, strict=True):
        assert both.queries >= one.queries
        if one.status == "fell":
            assert both == one._replace(by="word_swap")


def test_members_draw_from_streams_of_their_own(toys):
    # What the second draws does not depend on what stands before it drew or asked.
    first, _ = attack(toys, (MILD, DeepWordBug()), ("good",), bias=-1.0)
    second, _ = attack(toys, (WordSwap({"film": ["movie"]}), DeepWordBug()), ("good",), bias=-1.0)
    assert first.by == second.by == "deepwordbug"
    assert first.adversarial == second.adversarial


def test_settings_hold_those_of_all_members():
    assert Cascade((MILD, "pruthi"), query_limit=7).settings() == {
        "name": "cascade",
        "version": 1,
        "members": [MILD.settings(), Pruthi().settings()],
        "query_limit": 7,
    }


def test_judges_are_those_of_the_members():
    likeness, guesser = Likeness(), Guesser()
    fooler = TextFooler(vectors=Words(), wordnet=Words(), encoder=likeness)
    bae = BAE(masked_lm=guesser, wordnet=Words(), encoder=likeness)
    assert Cascade((MILD, fooler)).judges() == (likeness, None)
    assert Cascade((fooler, bae)).judges() == (likeness, guesser)
    assert Cascade((MILD,)).judges() == (None, None)
    other = Likeness()
    other.digest = "other"
    with pytest.raises(InputError, match="differ in encoder"):
        Cascade((fooler, BAE(masked_lm=guesser, wordnet=Words(), encoder=other)))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((), "at least 1"),
        (("deepwordbugs",), "did you mean 'deepwordbug'"),
        (("word_swap",), "word_swap in a cascade needs neighbours"),
        (("cascade",), "unknown member 'cascade'"),
        (("embedding_pgd",), "unknown member 'embedding_pgd'"),
        ((EmbeddingPGD(radii=(1.0,)),), "end in a changed text"),
        ((Cascade((MILD,)),), "end in a changed text"),
    ],
)
def test_members_that_cannot_be_are_refused(members, message):
    assert "cascade" in ATTACKS
    with pytest.raises(InputError, match=message):
        Cascade(members)


def test_a_limit_below_zero_is_refused():
    with pytest.raises(InputError, match="allowed"):
        Cascade((MILD,), query_limit=-1)
