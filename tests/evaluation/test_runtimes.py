import shutil

import pytest
import torch

from hardtack.errors import InputError
from hardtack.evaluation import runtimes
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.robust import attack_all
from hardtack.evaluation.runtimes import RUNTIMES, WORTH, OnnxRuntime, OpenVino, fastest_runtime
from hardtack.evaluation.victim import Eager, Victim
from hardtack.exports.onnx import to_onnx
from hardtack.runs import Run
from hardtack.tasks.task import Example

WORDS = "good film bad plot filming a badly good . plots , goods film".split()
TEXTS = [(" ".join(WORDS[k % 7 :: 1 + k % 3]),) for k in range(21)]


@pytest.fixture(scope="module")
def converted(toys, tmp_path_factory):
    """A victim over a small real BERT, and the ONNX file of its model."""
    victim = toys.bert(batch_size=8)
    rows = victim.encode(TEXTS[:3])
    width = max(len(row["input_ids"]) for row in rows)
    inputs = {
        key: torch.tensor([[*row[key], *[0] * (width - len(row[key]))] for row in rows]) for key in rows[0]
    }
    file = tmp_path_factory.mktemp("victim") / "victim.onnx"
    to_onnx(victim.model, file, inputs=inputs)
    return victim, file


def vocabulary(victim):
    return victim.model.config.vocab_size


def copies(file):
    """A conversion that costs nothing: it copies what was converted before."""

    def convert(model, target, *, inputs):
        assert {value.shape for value in inputs.values()} == {inputs["input_ids"].shape}
        shutil.copy(file, target)
        return 0.0

    return convert


@pytest.mark.parametrize("make", RUNTIMES.values(), ids=RUNTIMES)
def test_a_runtime_answers_as_the_model_does(converted, make):
    victim, file = converted
    fast = Victim(victim.model, victim.encoder, 2, runtime=make(file, vocabulary=vocabulary(victim)))
    expected = victim.logits(TEXTS)
    assert torch.allclose(fast.logits(TEXTS), expected, atol=1e-5)
    assert fast.logits(TEXTS[:1]).shape == (1, 2)
    assert expected.std() > 0.1
    package, version = fast.runtime.name.split()
    assert RUNTIMES[package] is make
    assert version[0].isdigit()


@pytest.mark.parametrize("make", RUNTIMES.values(), ids=RUNTIMES)
def test_an_answer_stays_what_it_was_when_the_next_one_comes(converted, make):
    victim, file = converted
    runtime = make(file, vocabulary=vocabulary(victim))
    inputs = {key: torch.tensor([row]) for key, row in victim.encode(TEXTS[:1])[0].items()}
    first = runtime(inputs)
    kept = first.clone()
    runtime({**inputs, "input_ids": inputs["input_ids"].flip(1)})
    assert torch.equal(first, kept)


@pytest.mark.parametrize("make", RUNTIMES.values(), ids=RUNTIMES)
def test_a_token_that_the_model_does_not_know_is_refused(converted, make):
    victim, file = converted
    runtime = make(file, vocabulary=vocabulary(victim))
    beyond = vocabulary(victim)
    foreign = Victim(
        victim.model,
        lambda texts: [{key: [k] * 3 for key, k in zip(keys, (beyond, 0, 1), strict=True)} for _ in texts],
        runtime=runtime,
    )
    keys = ("input_ids", "token_type_ids", "attention_mask")
    with pytest.raises(InputError, match="fails on the text 'a'"):
        foreign.logits([("a",)])


def test_runtimes_have_torchs_threads_and_full_precision(converted):
    _victim, file = converted
    session = OnnxRuntime(file, vocabulary=1)._session
    assert session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    compiled = OpenVino(file, vocabulary=1)._ask.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


# ------------------------------------------------------------------ which one


def chosen(victim, convert, work=10.0 * WORTH, **more):
    return fastest_runtime(victim.model, victim.encoder, TEXTS, convert=convert, work_flops=work, **more)


def test_the_fastest_that_is_installed_is_taken(converted, monkeypatch, tmp_path):
    victim, file = converted
    names = []
    for absent in ((), ("openvino",), ("openvino", "onnxruntime")):
        monkeypatch.setattr(
            runtimes, "find_spec", lambda name, absent=absent: None if name in absent else name
        )
        runtime, why = chosen(victim, copies(file), scratch=tmp_path)
        names.append(runtime.name.split()[0])
        assert not list(tmp_path.iterdir())
        fast = Victim(victim.model, victim.encoder, runtime=runtime)  # the file is gone, its weights are not
        assert torch.allclose(fast.logits(TEXTS), victim.logits(TEXTS), atol=1e-5)
    assert names == ["openvino", "onnxruntime", "torch"]
    assert why == "none of openvino, onnxruntime is installed"


def test_little_work_is_left_to_the_model(converted):
    victim, _file = converted
    runtime, why = chosen(victim, None, work=0.5 * WORTH)
    assert isinstance(runtime, Eager)
    assert why == "about 5e+12 operations; a conversion pays from 1e+13 on"


def test_what_cannot_be_converted_is_left_to_the_model(converted, toys):
    victim, _file = converted

    def refuse(model, target, *, inputs):
        raise InputError("no")

    assert chosen(victim, refuse).why == "no"
    assert chosen(toys.bag({"good": 1.0}), refuse).why == "BagModel has no get_input_embeddings"


def test_another_models_answers_are_not_taken(converted, toys):
    _victim, file = converted
    other = toys.bert(seed=2)
    runtime, why = chosen(other, copies(file))
    assert isinstance(runtime, Eager)
    assert why.count("texts differently, logits differ by up to") == 2
    assert "openvino" in why
    assert "onnxruntime" in why


def test_logits_have_to_be_close_even_where_predictions_agree(converted):
    victim, file = converted
    with torch.no_grad():
        victim.model.classifier.bias += 0.01  # of both classes
    try:
        runtime, why = chosen(victim, copies(file))
    finally:
        with torch.no_grad():
            victim.model.classifier.bias -= 0.01
    assert isinstance(runtime, Eager)
    assert "predicts 0 of 21 texts differently, logits differ by up to 0.01" in why


def test_a_runtime_that_fails_is_passed_over(converted):
    victim, _file = converted

    def damaged(model, target, *, inputs):
        target.write_bytes(b"no graph")
        return 0.0

    runtime, why = chosen(victim, damaged)
    assert isinstance(runtime, Eager)
    assert why.startswith("OpenVino fails: ")
    assert "OnnxRuntime fails: " in why
    assert "\n" not in why


# ------------------------------------------------------------------ under attack

EXAMPLES = [Example(f"{k}", text, k % 2) for k, text in enumerate(TEXTS)]


def test_verdicts_are_the_same_whatever_computes_them_and_beside_whom(converted):
    victim, file = converted
    ways = [Eager(victim.model), *(make(file, vocabulary=vocabulary(victim)) for make in RUNTIMES.values())]
    found = {}
    for runtime in ways:
        for batch_size, window in ((8, 256), (64, 256), (8, 1)):
            asked = Victim(victim.model, victim.encoder, batch_size, runtime=runtime)
            outcomes = attack_all(DeepWordBug(), EXAMPLES, asked, Run.nowhere(3), window=window)
            found[runtime.name, batch_size, window] = outcomes
    first = found[ways[0].name, 8, 256]
    assert {outcome.status for outcome in first} == {"missed", "held", "fell"}
    for way, outcomes in found.items():  # at most one in 200 may differ
        assert [outcome.id for outcome, own in zip(outcomes, first, strict=True) if outcome != own] == [], way


def test_recorded_answers_of_another_runtime_are_not_taken_up(converted, tmp_path):
    victim, file = converted

    def attacked(runtime, fail_at=None):
        asked, calls = Victim(victim.model, victim.encoder, 2, runtime=runtime), 0
        inner = runtime.__call__

        class Killed:
            name = runtime.name

            def __call__(self, inputs):
                nonlocal calls
                calls += 1
                if calls == fail_at:
                    raise KeyboardInterrupt
                return inner(inputs)

        asked.runtime = Killed()
        attack_all(DeepWordBug(), EXAMPLES, asked, Run("r", 5, tmp_path))
        return calls

    eager, fast = Eager(victim.model), OnnxRuntime(file, vocabulary=vocabulary(victim))
    whole = attacked(eager)
    for path in (tmp_path / "scratch").iterdir():
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        attacked(eager, fail_at=whole - 2)
    assert attacked(fast) == whole
    assert attacked(eager) == 3  # its own answers were kept and are taken up
