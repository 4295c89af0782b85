"""What every attack of ATTACKS promises, whatever it does inside."""

import json
import re
from collections import defaultdict
from dataclasses import fields, replace

import pytest
import torch
from tests.evaluation.attacks.fakes import KINDS, NEAR, WEIGHTS, Guesser, Likeness, Words, cosine, linear

from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.attacks.pruthi import inner_edits
from hardtack.evaluation.attacks.textbugger import LOOK_ALIKES
from hardtack.evaluation.attacks.words import edit_distance, is_stop_word
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run, generator
from hardtack.tasks.task import Example

TABLE = {word: [other for other, _ in near] for word, near in NEAR.items()}
SWAP = ATTACKS["word_swap"](TABLE)
RESOURCES = {
    "vectors": Words(),
    "wordnet": Words(),
    "encoder": Likeness(),
    "masked_lm": Guesser(),
    "neighbours": None,
}
MORE = {
    "word_swap": {"neighbours": TABLE},
    "textbugger-minilm": {"min_similarity": 0.5},
    "embedding_swap": {"min_similarity": 0.5},
    "bert_attack": {"min_similarity": 0.5},
    "embedding_pgd": {"radii": (1.0,)},
    "cascade": {"members": (SWAP, "pruthi")},
}


def made(name, **settings):
    cls = ATTACKS[name]
    known = {f.name for f in fields(cls)}
    given = {key: value for key, value in RESOURCES.items() if key in known}
    return cls(**{**given, **MORE.get(name, {}), **settings})


every = pytest.mark.parametrize("name", list(ATTACKS))


def run(attack, examples, bias=0.0, seed=5, window=256):
    """Attack single texts and pairs, each kind together."""
    victim, outcomes = linear(bias=bias), {}
    for columns in (1, 2):
        some = [example for example in examples if len(example.text) == columns]
        if some:
            done = attack_all(attack, some, victim, Run.nowhere(seed), window=window)
            outcomes |= {outcome.id: outcome for outcome in done}
    return [outcomes[example.id] for example in examples], victim


SINGLE = (
    "good||  |... !? --|😀 good 👍🏽 film 👩‍👩‍👧|שלום good עולם film|مرحبا|好电影 good|GOOD FILM"
    "|good\tfilm\n\nplot|gооd|e\u0301le\u0300ve good|a\u200bb good|'good' film's well-made 10/10"
).split("|")
PAIRS = [("good film", "dull plot"), ("", "good"), ("good", ""), ("😀", "...")]
ODD = [*((text,) for text in SINGLE), ("x" * 300,), ("good " * 100,), *PAIRS]


@every
@pytest.mark.parametrize("label", [0, 1])
def test_odd_texts_get_an_outcome_each(name, label):
    examples = [Example(str(i), text, label) for i, text in enumerate(ODD)]
    outcomes, victim = run(made(name), examples, bias=-0.1)
    assert [(o.id, o.original) for o in outcomes] == [(e.id, e.text) for e in examples]
    for example, outcome in zip(examples, outcomes, strict=True):
        right = int(victim.logits([example.text])[0].argmax()) == label
        assert (outcome.status == "missed") == (not right)
        assert outcome.queries >= 1
        if outcome.adversarial is not None:
            assert outcome.status == "fell"
            assert int(victim.logits([outcome.adversarial])[0].argmax()) != label
            assert all(isinstance(column, str) for column in outcome.adversarial)
            assert len(outcome.adversarial) == len(example.text)


@every
def test_the_first_question_is_the_original_alone_and_a_wrong_one_ends_it(name):
    example = Example("x", ("good film",), 0)
    queries = made(name).attack(example, generator(0, "x"))
    assert next(queries) == [("good film",)]
    with pytest.raises(StopIteration) as stop:
        queries.send(torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert stop.value.value[:5] == ("x", "missed", 1, ("good film",), None)


@every
def test_what_is_drawn_is_drawn_before_the_first_question(name):
    # After it the stream may not move: two models that are compared then meet the same candidates.
    rng = generator(0, "x")
    queries = made(name).attack(Example("x", ("good film truly great plot",), 1), rng)
    ask, state = next(queries), rng.get_state()
    likeness, guesser = Likeness(), Guesser()
    try:
        while True:
            if isinstance(ask, list):
                answer = torch.tensor([[0.0, 3.0]] * len(ask), dtype=torch.float64)
            elif hasattr(ask, "candidates"):
                (answer,) = likeness.similar([ask])
            elif hasattr(ask, "masked"):
                (answer,) = guesser.fill([ask])
            elif hasattr(ask, "spans"):
                answer = [[("mess", 1.0)] for _ in ask.spans]
            else:
                answer = torch.tensor([[0.0, 3.0]], dtype=torch.float64)
            ask = queries.send(answer)
    except StopIteration as stop:
        outcome = stop.value
    assert outcome.status == "held"
    assert torch.equal(rng.get_state(), state)


@every
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_a_query_limit_is_honoured(name, limit):
    if name == "embedding_pgd":
        assert "query_limit" not in {f.name for f in fields(ATTACKS[name])}  # it asks one text
        return
    attack = made(name, query_limit=limit)
    examples = [Example(str(i), text, 1) for i, text in enumerate(ODD)]
    outcomes, _ = run(attack, examples, bias=1.0)
    assert max(o.queries for o in outcomes) <= limit
    free, _ = run(made(name), examples, bias=1.0)
    assert max(o.queries for o in free) > 7


@every
def test_same_seed_same_outcome_alone_or_in_company(name):
    examples = sentences(12, seed=1)
    together, _ = run(made(name), examples)
    again, _ = run(made(name), examples[::-1], window=3)
    assert together == again[::-1]


@every
def test_settings_are_json_and_cover_every_field(name):
    attack = made(name)
    settings = attack.settings()
    assert settings == json.loads(json.dumps(settings))
    assert settings["name"] == name == attack.name
    assert settings["version"] == attack.version
    assert {f.name for f in fields(attack)} <= set(settings)
    # Whatever changes a field changes what names the row.
    changed = {"query_limit": 3, "columns": "first", "min_similarity": 0.25, "max_words": 4, "steps": 3}
    for key, value in changed.items():
        if key in {f.name for f in fields(attack)}:
            assert replace(attack, **{key: value}).settings() != settings


@every
def test_every_field_is_explained(name):
    for field in fields(ATTACKS[name]):
        assert field.metadata["help"]


# ------------------------------------------------------------------ constraints on 1,000 sentences


def sentences(n, seed=0):
    """Sentences of two to six known words, each labelled as the victim without bias labels it."""
    rng, words = generator(seed, "sentences"), [*WEIGHTS, "Good", "GREAT", "unseen"]
    lengths = torch.randint(2, 7, (n,), generator=rng).tolist()
    picks = [torch.randint(len(words), (length,), generator=rng).tolist() for length in lengths]
    texts = [" ".join(words[k] for k in pick) for pick in picks]
    odds = [sum(WEIGHTS.get(word.lower(), 0.0) for word in text.split()) for text in texts]
    labels = [int(total > 0) for total in odds]
    return [
        Example(str(i), (text,), label) for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


def kin(word, other, verbs=True):
    """Whether two words of the fakes can be the same part of speech; what WordNet lacks counts as a noun."""
    a, b = (set(KINDS.get(w.lower(), "") or "n") for w in (word, other))
    a, b = ((k | set("nv") if verbs and k & set("nv") else k) for k in (a, b))
    return bool(a & b)


def typo(word, other, most=2):
    return edit_distance(word, other, most) <= most


def look_alike(word, other):
    pairs = zip(word, other, strict=True)
    return len(word) == len(other) and all(a == b or LOOK_ALIKES.get(a) == b for a, b in pairs)


def near(word, least=-1.0):
    return {other for other, cosine in NEAR.get(word.lower(), []) if cosine >= least}


# What may stand in a word's place (both as typed), and how many words may change.
MAY = {
    "deepwordbug": (lambda a, b: len(a) > 1 and typo(a, b), 99),
    "pruthi": (lambda a, b: len(a) > 3 and (a[0], a[-1]) == (b[0], b[-1]) and typo(a, b), 1),
    "textbugger-minilm": (lambda a, b: typo(a, b) or b.lower() in near(a), 99),
    "word_swap": (lambda a, b: b.lower() in near(a), 99),
    "pwws": (lambda a, b: b.lower() in near(a), 99),
    "textfooler-minilm": (lambda a, b: b.lower() in near(a, 0.5) and kin(a, b), 99),
    "bae-minilm": (lambda a, b: b.lower() in near(a) and kin(a, b), 99),
    "bert_attack": (lambda a, b: b.lower() in near(a), 3),
    "embedding_swap": (lambda a, b: b.lower() in near(a) and kin(a, b), 99),
    "hotflip": (lambda a, b: b.lower() in near(a, 0.8) and kin(a, b, verbs=False), 2),
    "embedding_pgd": (lambda a, b: False, 0),
    "cascade": (lambda a, b: b.lower() in near(a) or typo(a, b), 99),
}
SIMILAR = {"textbugger-minilm": 0.5, "embedding_swap": 0.5, "bert_attack": 0.5}


@every
@pytest.mark.parametrize("n", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_constraint_is_honoured_on_every_sentence(name, n):
    attack = made(name)
    examples = sentences(n)
    may, most = MAY[name]
    asked = defaultdict(set)
    victim = linear(batch_size=64)

    class Watched:
        """The attack, whose questions to the victim are noted by example."""

        def __getattr__(self, key):
            return getattr(attack, key)

        def attack(self, example, rng):
            inner, answer = attack.attack(example, rng), None
            while True:
                try:
                    ask = next(inner) if answer is None else inner.send(answer)
                except StopIteration as stop:
                    return stop.value
                if isinstance(ask, list):
                    asked[example.id].update(ask)
                answer = yield ask

    outcomes = attack_all(Watched(), examples, victim, Run.nowhere(5))
    held = {outcome.status for outcome in outcomes}
    assert held == {"held", "fell"}
    checked = 0
    for example, outcome in zip(examples, outcomes, strict=True):
        assert len(asked[example.id]) == outcome.queries
        before = example.text[0].split(" ")
        for (text,) in asked[example.id] - {example.text}:
            after = re.sub(r"\[(UNK|MASK)\]", "[HIDDEN]", text).split(" ")
            if "[HIDDEN]" in after or len(after) == len(before) - 1:
                rest = [word for word in after if word != "[HIDDEN]"]
                assert len(rest) == len(before) - 1
                continue  # a word is hidden, to see what it is worth
            checked += 1
            if len(after) > len(before):  # a space was inserted into a word
                assert name == "textbugger-minilm"
                after = joined(before, after)
            pairs = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
            assert 0 < len(pairs) <= most
            for a, b in pairs:
                assert not is_stop_word(a), (example.text, text)
                assert may(a, b), (example.text, text)
            if name in SIMILAR:
                assert round(cosine(example.text, (text,)), 4) >= SIMILAR[name]
    assert checked > n / 4 or name == "embedding_pgd"


def joined(before, after):
    """Put words that a space was inserted into together again, as one word with the space in it."""
    found, rest = [], list(after)
    for word in before:
        one = rest.pop(0)
        if one != word and rest and one + rest[0] == word:
            one = f"{one} {rest.pop(0)}"
        found.append(one)
    assert not rest
    return found


def test_the_list_of_edits_is_what_pruthi_may_do():
    edits = {edit for kind in inner_edits("great", generator(0, "x")) for edit in kind}
    assert all(MAY["pruthi"][0]("great", edit) for edit in edits)
    assert not MAY["pruthi"][0]("great", "freat")
