import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.evaluation.attacks import ATTACKS, Outcome
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.attacks.word_swap import WordSwap
from hardtack.evaluation.robust import Rates, attack_all, rates
from hardtack.runs import Clock, Run
from hardtack.tasks.task import Example

WEIGHTS = {"good": 2.0, "fine": 1.5, "decent": 0.2, "film": 0.5, "bad": -2.0, "plot": -0.3, "movie": 0.1}
TABLE = {
    "good": ["fine", "decent"],
    "bad": ["plot", "film"],
    "film": ["movie", "plot"],
    "plot": ["film", "good"],
}
WORDS = ["good", "film", "bad", "plot", "the", "acting"]


def some(n, seed=0, pair=False):
    rng = np.random.default_rng(seed)
    line = lambda: " ".join(rng.choice(WORDS, rng.integers(1, 9)))  # noqa: E731
    texts = [(line(), line()) if pair else (line(),) for _ in range(n)]
    return [Example(f"test-{i}", text, int(rng.integers(2))) for i, text in enumerate(texts)]


def both_attacks():
    return [DeepWordBug(), WordSwap(TABLE)]


def test_the_list_of_attacks_is_by_name():
    assert {name: kind.name for name, kind in ATTACKS.items()} == {name: name for name in ATTACKS}
    assert list(ATTACKS)[:2] == ["deepwordbug", "pruthi"]


# ------------------------------------------------------------------ rates


def outcomes_of(missed, held, fell, queries=10):
    text = ("a",)
    return (
        [Outcome(f"m{i}", "missed", 1, text, None) for i in range(missed)]
        + [Outcome(f"h{i}", "held", queries, text, None) for i in range(held)]
        + [Outcome(f"f{i}", "fell", 2 * queries, text, ("b",)) for i in range(fell)]
    )


def test_rates_by_hand():
    # 2 missed, 3 held (10 queries each), 5 fell (20 each): 8 attacked, (30 + 100) / 8 queries.
    assert rates(outcomes_of(2, 3, 5)) == Rates(10, 2, 3, 5, 0.8, 0.3, 0.625, 16.25)


def test_rates_where_nothing_could_be_attacked():
    assert rates(outcomes_of(4, 0, 0)) == Rates(4, 4, 0, 0, 0.0, 0.0, None, None)
    with pytest.raises(InputError, match="no example"):
        rates([])


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_rates_fit_together(missed, held, fell):
    r = rates(outcomes_of(missed, held, fell))
    assert r.accuracy_under_attack == pytest.approx(r.clean_accuracy * (1 - r.attack_success_rate))
    assert r.missed + r.held + r.fell == r.examples


# ------------------------------------------------------------------ lockstep


@pytest.mark.parametrize("attack", both_attacks(), ids=lambda a: a.name)
@pytest.mark.parametrize("window", [1, 3, 256])
def test_lockstep_equals_one_at_a_time_in_any_order(toys, attack, window):
    examples = some(30)
    alone = [attack_all(attack, [example], toys.bag(WEIGHTS), Run.nowhere(7))[0] for example in examples]
    assert {outcome.status for outcome in alone} == {"missed", "held", "fell"}
    assert attack_all(attack, examples, toys.bag(WEIGHTS), Run.nowhere(7), window=window) == alone
    backwards = attack_all(attack, examples[::-1], toys.bag(WEIGHTS), Run.nowhere(7), window=window)
    assert backwards[::-1] == alone


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("attack", both_attacks(), ids=lambda a: a.name)
def test_a_real_bert_in_lockstep_equals_one_at_a_time(toys, attack, pair):
    examples, victim = some(12, seed=1, pair=pair), toys.bert()
    together = attack_all(attack, examples, victim, Run.nowhere())
    assert together == [attack_all(attack, [e], victim, Run.nowhere())[0] for e in examples]
    assert {outcome.status for outcome in together} == {"missed", "held", "fell"}
    for example, outcome in zip(examples, together, strict=True):
        right = int(victim.logits([example.text])[0].argmax()) == example.label
        assert (outcome.status == "missed") == (not right)
        if outcome.adversarial is not None:
            assert int(victim.logits([outcome.adversarial])[0].argmax()) != example.label


def test_another_seed_draws_other_edits(toys):
    found = {
        tuple(o.adversarial for o in attack_all(DeepWordBug(), some(9), toys.bag(WEIGHTS), Run.nowhere(seed)))
        for seed in range(3)
    }
    assert len(found) == 3


def test_window_is_kept_full_and_no_larger(toys):
    live, most = set(), []

    class Watched:
        name = "watched"

        def settings(self):
            return {}

        def attack(self, example, rng):
            live.add(example.id)
            try:
                for _ in range(1 + int(example.id[5:]) % 3):
                    most.append(len(live))
                    logits = yield [example.text]
                status = "held" if int(logits[0].argmax()) == example.label else "missed"
                return Outcome(example.id, status, 99, example.text, None)
            finally:
                live.discard(example.id)

    outcomes = attack_all(Watched(), some(10), toys.bag(WEIGHTS), Run.nowhere(), window=4)
    assert max(most) == 4
    assert not live
    assert [o.queries for o in outcomes] == [1] * 10  # a text asked again is not a query


def test_the_driver_refuses_a_claim_that_the_answers_contradict(toys):
    class Liar:
        name = "liar"

        def settings(self):
            return {}

        def attack(self, example, rng):
            yield [example.text]
            return Outcome(example.id, "held", 1, example.text, None)

    wrong = Example("x", ("bad",), 1)
    with pytest.raises(TypeError, match="contradicts"):
        attack_all(Liar(), [wrong], toys.bag(WEIGHTS), Run.nowhere())


def test_progress_reaches_the_total(toys):
    seen = []
    run = Run.nowhere(watch=lambda label, done, total: seen.append((label, done, total)))
    attack_all(DeepWordBug(), some(5), toys.bag(WEIGHTS), run)
    assert seen[0] == ("attack deepwordbug", 0, 5)
    assert seen[-1] == ("attack deepwordbug", 5, 5)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_bad_input_is_refused(toys):
    victim = toys.bag(WEIGHTS)
    with pytest.raises(InputError, match="no example"):
        attack_all(DeepWordBug(), [], victim, Run.nowhere())
    with pytest.raises(InputError, match="one id"):
        attack_all(DeepWordBug(), some(2)[:1] * 2, victim, Run.nowhere())
    with pytest.raises(InputError, match="window 0"):
        attack_all(DeepWordBug(), some(2), victim, Run.nowhere(), window=0)
    with pytest.raises(InputError, match="has the label 2; the model's classes are 0 to 1"):
        attack_all(DeepWordBug(), [Example("x", ("good",), 2)], victim, Run.nowhere())


# ------------------------------------------------------------------ killed and resumed


@pytest.fixture(scope="module", autouse=True)
def stopped_clock():
    """Files of answers hold the seconds worked so far; all else in them is the same in every run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "seconds", lambda self: 0.0)
        yield


@pytest.fixture(scope="module")
def recorded(toys, tmp_path_factory, stopped_clock):
    """One uninterrupted attack on a real BERT: its outcomes, the bytes of its answers, and its batches."""
    folder = tmp_path_factory.mktemp("whole")
    victim = toys.bert(batch_size=1)
    outcomes = attack_all(WordSwap(TABLE), some(14, seed=2), victim, Run("r", 5, folder), window=5)
    (file,) = (folder / "scratch").iterdir()
    return outcomes, file.name, file.read_bytes(), victim.forwards.batches


def resume(toys, tmp_path_factory, name, content):
    folder = tmp_path_factory.mktemp("resumed")
    (folder / "scratch").mkdir()
    (folder / "scratch" / name).write_bytes(content)
    victim = toys.bert(batch_size=1)
    outcomes = attack_all(WordSwap(TABLE), some(14, seed=2), victim, Run("r", 5, folder), window=5)
    return outcomes, (folder / "scratch" / name).read_bytes(), victim


def test_killed_anywhere_and_resumed_equals_uninterrupted(toys, tmp_path_factory, recorded):
    outcomes, name, whole, batches = recorded
    assert batches > 20
    assert {o.status for o in outcomes} == {"missed", "held", "fell"}
    rng = np.random.default_rng(0)
    previous = batches + 1
    for size in [0, 1, 35, 36, 37, *sorted(rng.integers(38, len(whole), 8)), len(whole) - 1, len(whole)]:
        again, bytes_again, victim = resume(toys, tmp_path_factory, name, whole[: int(size)])
        assert again == outcomes
        assert bytes_again == whole  # raw logits, batch for batch
        assert victim.forwards.batches <= previous  # the more was recorded, the less is asked again
        previous = victim.forwards.batches
    assert previous == 0


def test_a_damaged_byte_costs_only_what_follows_it(toys, tmp_path_factory, recorded):
    outcomes, name, whole, batches = recorded
    for place in (3, 20, 30, 40, len(whole) // 2, len(whole) - 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        again, bytes_again, victim = resume(toys, tmp_path_factory, name, bytes(damaged))
        assert again == outcomes
        assert bytes_again == whole
        assert 0 < victim.forwards.batches <= batches


def test_answers_of_another_attack_are_not_used(toys, tmp_path_factory, recorded):
    _, name, whole, _ = recorded
    for change in (
        {"seed": 6},
        {"id": "s"},
        {"query_limit": 3},
        {"examples": some(14, seed=3)},
        {"window": 6},
    ):
        folder = tmp_path_factory.mktemp("other")
        (folder / "scratch").mkdir()
        (folder / "scratch" / name).write_bytes(whole)
        attack = WordSwap(TABLE, query_limit=change.get("query_limit", 0))
        run = Run(change.get("id", "r"), change.get("seed", 5), folder)
        examples, window = change.get("examples", some(14, seed=2)), change.get("window", 5)
        victim = toys.bert(batch_size=1)
        got = attack_all(attack, examples, victim, run, window=window)
        fresh = toys.bert(batch_size=1)
        assert got == attack_all(attack, examples, fresh, Run.nowhere(run.seed), window=window)
        assert victim.forwards.batches == fresh.forwards.batches


def test_answers_with_another_number_of_classes_are_discarded(toys, tmp_path):
    examples = some(5)
    first = toys.bag(WEIGHTS)
    attack_all(DeepWordBug(), examples, first, Run("r", 0, tmp_path))
    second = toys.bag(WEIGHTS)
    second.classes = 3
    with pytest.raises(InputError, match="2 classes; 3 are expected"):
        attack_all(DeepWordBug(), examples, second, Run("r", 0, tmp_path))


@pytest.mark.parametrize("fail_at", [1, 2, 5, 9])
def test_interrupted_by_the_user_then_resumed(toys, tmp_path, fail_at):
    examples, attack = some(20), DeepWordBug()
    calm = toys.bag(WEIGHTS)
    expected = attack_all(attack, examples, calm, Run.nowhere())
    closed = itertools.count()

    class Counting(DeepWordBug):
        def attack(self, example, rng):
            try:
                return (yield from DeepWordBug.attack(self, example, rng))
            finally:
                next(closed)

    hasty = toys.bag(WEIGHTS)
    hasty.model.fail_at = fail_at
    with pytest.raises(KeyboardInterrupt):
        attack_all(Counting(), examples, hasty, Run("r", 0, tmp_path))
    assert next(closed) == len(examples)  # every generator was closed
    later = toys.bag(WEIGHTS)
    assert attack_all(attack, examples, later, Run("r", 0, tmp_path)) == expected
    assert later.forwards.batches == calm.forwards.batches - (fail_at - 1)
    assert later.rows_seen == calm.rows_seen  # what flags ask about is the same after a resume


def test_rows_and_settings_have_files_of_their_own(toys, tmp_path):
    run = Run("r", 0, tmp_path)
    for row in ("dense", "ticket"):
        attack_all(DeepWordBug(), some(3), toys.bag(WEIGHTS), run, row=row)
    attack_all(DeepWordBug(query_limit=3), some(3), toys.bag(WEIGHTS), run, row="ticket")
    names = [path.name.rsplit("-", 1)[0] for path in (tmp_path / "scratch").iterdir()]
    assert sorted(names) == ["attack-deepwordbug-dense"] + ["attack-deepwordbug-ticket"] * 2


def test_attacks_see_logits_rounded_to_a_ten_thousandth(toys):
    seen = []

    class Look:
        name = "look"

        def settings(self):
            return {}

        def attack(self, example, rng):
            logits = yield [example.text]
            seen.append(logits)
            empty = yield []
            seen.append(empty)
            return Outcome(example.id, "held", 1, example.text, None)

    attack_all(Look(), [Example("x", ("good",), 1)], toys.bag({"good": 1.23456}), Run.nowhere())
    assert torch.equal(seen[0], torch.tensor([[0.0, 1.2346]], dtype=torch.float64))
    assert seen[1].shape == (0, 2)
