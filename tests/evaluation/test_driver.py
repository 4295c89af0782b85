"""The driver beyond lockstep: equal tokens, judges, batch sizes, memory, and what of it survives a kill."""

import numpy as np
import pytest
import torch
from tests.evaluation.tiny import save_encoder, save_filler

from hardtack.errors import InputError
from hardtack.evaluation import robust
from hardtack.evaluation.attacks import Outcome
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.attacks.protocol import Fill, Judges, Ledger, Similar, predicted
from hardtack.evaluation.attacks.word_swap import WordSwap
from hardtack.evaluation.attacks.words import changeable_words, rewrite
from hardtack.evaluation.constraints import similar_enough
from hardtack.evaluation.judges import MaskedFiller, SentenceEncoder
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Clock, Run
from hardtack.tasks.task import Example

WEIGHTS = {"good": 2.0, "film": 0.5, "bad": -2.0, "plot": -0.3, "story": 0.4}
TABLE = {
    "good": ["story", "plot"],
    "bad": ["plot", "good"],
    "film": ["plot", "story"],
    "plot": ["film", "good"],
}
WORDS = ["good", "film", "bad", "plot", "the", "here"]


def some(n, seed=0, words=WORDS):
    rng = np.random.default_rng(seed)
    texts = [(" ".join(rng.choice(words, rng.integers(1, 9))),) for _ in range(n)]
    return [Example(f"test-{i}", text, int(rng.integers(2))) for i, text in enumerate(texts)]


class Scripted:
    """An attack that asks the same lists of texts about every example."""

    name = "scripted"

    def __init__(self, *lists):
        self.lists = lists

    def settings(self):
        return {}

    def attack(self, example, rng):
        seen = [(yield [example.text])]
        for texts in self.lists:
            seen.append((yield texts))
        status = "held" if predicted(seen[0][0]) == example.label else "missed"
        return Outcome(example.id, status, 0, example.text, None)


# ------------------------------------------------------------------ equal tokens


def test_texts_with_equal_tokens_pass_through_the_model_once_and_count_apart(toys):
    # To this victim unknown words are one token, and case does not count.
    lists = [[("good a",), ("good b",), ("GOOD c",)], [("good d",), ("film",)]]
    victim = toys.bag(WEIGHTS)
    examples = [Example("x", ("good",), 1), Example("y", ("Good",), 1)]
    outcomes = attack_all(Scripted(*lists), examples, victim, Run.nowhere())
    assert [outcome.queries for outcome in outcomes] == [6, 6]
    assert victim.forwards.texts == 3  # good; good and an unknown word; film
    assert len(victim.encoder.asked) == 7  # "good", "Good", and each other text once for both examples


def test_what_truncation_hides_is_not_asked_again(toys):
    victim = toys.bert(max_length=6)
    beyond = [("a b c d " + end,) for end in ("e", "f", "g h")]
    (outcome,) = attack_all(Scripted(beyond), [Example("x", ("a b c d",), 0)], victim, Run.nowhere())
    assert (outcome.queries, victim.forwards.texts) == (4, 1)


def test_columns_that_join_to_the_same_words_are_kept_apart(toys):
    seen = []

    class Look(Scripted):
        def attack(self, example, rng):
            seen.append((yield [example.text]))
            seen.append((yield [("a b", "c"), ("a", "b c")]))
            return Outcome(example.id, "held", 0, example.text, None)

    victim = toys.bert()
    label = int(victim.logits([("a b", "c")])[0].argmax())
    attack_all(Look(), [Example("x", ("a b", "c"), label)], victim, Run.nowhere())
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[1][0], seen[1][1])


@pytest.mark.parametrize("attack", [DeepWordBug(), WordSwap(TABLE), DeepWordBug(query_limit=7)])
def test_what_examples_share_changes_no_outcome_and_no_count(toys, monkeypatch, attack):
    examples = some(40)
    alone = [attack_all(attack, [example], toys.bag(WEIGHTS), Run.nowhere(3))[0] for example in examples]
    shared = toys.bag(WEIGHTS)
    assert attack_all(attack, examples, shared, Run.nowhere(3)) == alone
    forgetful = toys.bag(WEIGHTS)
    monkeypatch.setattr(robust, "REMEMBERED", 3)
    assert attack_all(attack, examples, forgetful, Run.nowhere(3)) == alone
    assert shared.forwards.texts < forgetful.forwards.texts <= sum(outcome.queries for outcome in alone)


def test_batch_sizes_change_no_verdict_of_a_real_model(toys):
    examples = some(60, seed=4)
    few, many = (attack_all(DeepWordBug(), examples, toys.bert(batch_size=n), Run.nowhere()) for n in (1, 64))
    assert few == many
    assert {outcome.status for outcome in few} == {"missed", "held", "fell"}


def test_memory_that_runs_out_changes_no_outcome_of_a_real_model(toys):
    examples = some(30, seed=5)
    victim, small = toys.bert(batch_size=64), toys.bert(batch_size=64)
    inner = small.model.forward

    def forward(input_ids, **more):
        if input_ids.numel() > 50:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return inner(input_ids=input_ids, **more)

    small.model.forward = forward
    assert attack_all(DeepWordBug(), examples, small, Run.nowhere()) == attack_all(
        DeepWordBug(), examples, victim, Run.nowhere()
    )
    assert small.forwards.texts == victim.forwards.texts
    assert small.forwards.batches > victim.forwards.batches
    assert small.halving.too_many is not None


# ------------------------------------------------------------------ judges


class Asking:
    """Replaces words by what the filler offers and the encoder allows; counts its judges' calls."""

    name = "asking"

    def __init__(self, encoder, filler, least=0.9):
        self.encoder, self.filler, self.least = encoder, filler, least
        self.calls = []

    def settings(self):
        return {"least": self.least}

    def judges(self):
        return Judges(self, self)

    def similar(self, asks):
        self.calls.append(("similar", len(asks)))
        return self.encoder.similar(asks)

    def fill(self, asks):
        self.calls.append(("fill", len(asks)))
        return self.filler.fill(asks)

    def attack(self, example, rng):
        ledger = Ledger(0)
        logits = yield ledger.afford([example.text])
        if predicted(logits[0]) != example.label:
            return ledger.outcome(example, "missed")
        words = changeable_words(example.text, "all")
        for i, word in enumerate(words):
            filled = yield Fill(example.text, word.column, word.start, word.end, top=4)
            assert all(isinstance(other, str) and isinstance(score, float) for other, score in filled)
            texts = [rewrite(example.text, words, {i: other}) for other, _ in filled]
            cosines = yield from similar_enough(example.text, texts, self.least)
            texts = [text for text, cosine in zip(texts, cosines, strict=True) if cosine is not None]
            candidates = ledger.afford(texts)
            if not candidates:
                continue
            logits = yield candidates
            for text, row in zip(candidates, logits, strict=True):
                if predicted(row) != example.label:
                    return ledger.outcome(example, "fell", text)
        return ledger.outcome(example, "held")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judges")
    return save_encoder(folder / "encoder"), save_filler(folder / "filler")


@pytest.fixture
def asking(models):
    return Asking(SentenceEncoder(models[0]), MaskedFiller(models[1]))


def test_judges_answer_all_live_examples_in_one_call_a_round(toys, asking):
    examples = some(20)
    victim = toys.bag(WEIGHTS)
    together = attack_all(asking, examples, victim, Run.nowhere())
    first = asking.calls[0]
    right = sum(outcome.status != "missed" for outcome in together)
    assert first == ("fill", right)
    rounds = 1 + 3 * max(len(example.text[0].split()) for example in examples)
    assert len(asking.calls) <= rounds
    assert together == [attack_all(asking, [e], toys.bag(WEIGHTS), Run.nowhere())[0] for e in examples]
    assert {outcome.status for outcome in together} == {"missed", "held", "fell"}


def test_questions_to_judges_are_no_queries(toys, models):
    class Curious(Scripted):
        def judges(self):
            return Judges(encoder=SentenceEncoder(models[0]))

        def attack(self, example, rng):
            logits = yield [example.text]
            cosines = yield Similar(example.text, (("film",), example.text))
            assert cosines[1] == 1.0
            assert cosines.dtype == torch.float64
            status = "held" if predicted(logits[0]) == example.label else "missed"
            return Outcome(example.id, status, 9, example.text, None)

    (outcome,) = attack_all(Curious(), [Example("x", ("good",), 1)], toys.bag(WEIGHTS), Run.nowhere())
    assert outcome.queries == 1


@pytest.mark.parametrize(
    "question", [Similar(("a",), (("b",),)), Fill(("a",), 0, 0, 1, top=1)], ids=["s", "f"]
)
def test_an_attack_that_asks_a_judge_it_does_not_bring_is_wrong(toys, question):
    with pytest.raises(TypeError, match=r"asks for .* and has no .* in its judges"):
        attack_all(Scripted(question), [Example("x", ("good",), 1)], toys.bag(WEIGHTS), Run.nowhere())


class Still(Clock):
    """A clock that stands, so that equal answers are equal bytes."""

    def seconds(self) -> float:
        return 1.0


def test_killed_anywhere_an_attack_with_judges_goes_on_and_asks_nobody_twice(toys, models, tmp_path_factory):
    def run(content=None, name=None):
        folder = tmp_path_factory.mktemp("judged")
        if content is not None:
            (folder / "scratch").mkdir()
            (folder / "scratch" / name).write_bytes(content)
        attack = Asking(SentenceEncoder(models[0]), MaskedFiller(models[1]))
        victim = toys.bert(batch_size=1)
        outcomes = attack_all(attack, some(10, seed=2), victim, Run("r", 5, folder, clock=Still()), window=4)
        (file,) = (folder / "scratch").iterdir()
        return outcomes, file.read_bytes(), file.name, victim.forwards.batches, len(attack.calls)

    outcomes, whole, name, batches, calls = run()
    assert batches > 5
    assert calls > 10
    assert {outcome.status for outcome in outcomes} >= {"held", "fell"}
    previous = (batches, calls)
    for size in [0, 40, *sorted(np.random.default_rng(0).integers(60, len(whole), 4)), len(whole)]:
        again, bytes_again, _, *asked = run(whole[: int(size)], name)
        assert again == outcomes
        assert bytes_again == whole
        assert asked[0] <= previous[0]
        assert asked[1] <= previous[1]
        previous = asked
    assert previous == [0, 0]
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0x55
    again, bytes_again, *_ = run(bytes(damaged), name)
    assert (again, bytes_again) == (outcomes, whole)


# ------------------------------------------------------------------ strange texts

STRANGE = {
    "emoji": "good \U0001f600\U0001f3fd film \U0001f469‍\U0001f469‍\U0001f467",
    "ten thousand words": "good film " + "the and of to " * 2500,
    "right to left": "الفيلم جيد جدا והסרט good טוב מאוד",
    "punctuation": "?!... --- ,,, ((( )))",
    "empty": "",
    "blanks": " \t\n ",
    "no space": "x" * 3000,
}


@pytest.mark.parametrize(
    "attack", [DeepWordBug(query_limit=40), WordSwap(TABLE, query_limit=40)], ids=["d", "w"]
)
@pytest.mark.parametrize("kind", STRANGE)
def test_strange_texts_are_attacked_like_any_other(toys, attack, kind):
    text = (STRANGE[kind],)
    victim = toys.bert()
    label = int(victim.logits([text])[0].argmax())
    for given, statuses in ((label, {"held", "fell"}), (1 - label, {"missed"})):
        (outcome,) = attack_all(attack, [Example("x", text, given)], victim, Run.nowhere())
        assert outcome.status in statuses
        assert 1 <= outcome.queries <= 40
        if outcome.adversarial is not None:
            assert outcome.adversarial != text


def test_strange_texts_in_one_attack_with_plain_ones_change_nothing(toys):
    strange = [Example(f"s-{i}", (text,), i % 2) for i, text in enumerate(STRANGE.values())]
    examples = some(8) + strange
    attack = DeepWordBug(query_limit=30)
    together = attack_all(attack, examples, toys.bert(), Run.nowhere())
    assert together == [attack_all(attack, [example], toys.bert(), Run.nowhere())[0] for example in examples]


def test_half_a_character_is_refused_by_its_name(toys):
    with pytest.raises(InputError, match=r"the text 'good \\ud83d film' holds half a character"):
        attack_all(DeepWordBug(), [Example("x", ("good \ud83d film",), 0)], toys.bert(), Run.nowhere())
