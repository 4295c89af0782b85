"""Raises doubts about an evaluation; what each flag means stands in `hardtack.doubts`."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from hardtack.doubts import FEW, FLAGS
from hardtack.evaluation.attacks.protocol import Outcome
from hardtack.evaluation.victim import Victim
from hardtack.tasks.task import Encode, Example

TINY = 1e-12  # a gradient without a larger entry is zero


def other_length(trained: int | None, evaluated: int) -> tuple[str, ...]:
    """Doubt a model that was trained at another maximum length (None where nobody says) in tokens."""
    return _flag("other-length", trained is not None and trained != evaluated)


def other_split(wanted: str, read: str) -> tuple[str, ...]:
    """Doubt a row that was read from another split than the one that was asked for."""
    return _flag("other-split", wanted != read)


def few_examples(examples: Sequence[Example]) -> tuple[str, ...]:
    """Doubt rates over fewer than a hundred attacked examples."""
    return _flag("few-examples", len(examples) < FEW)


def one_class(examples: Sequence[Example]) -> tuple[str, ...]:
    """Doubt rates over examples that all have one label."""
    return _flag("one-class", len({example.label for example in examples}) == 1)


def nothing_attacked(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Doubt an attack on examples that were all wrong before it."""
    return _flag("nothing-attacked", all(outcome.status == "missed" for outcome in outcomes))


def training_mode(victim: Victim) -> tuple[str, ...]:
    """Doubt a model that was handed over in training mode."""
    return _flag("training-mode", victim.met_in_training_mode)


def probabilities(victim: Victim) -> tuple[str, ...]:
    """Doubt a model all of whose outputs so far look like probabilities."""
    return _flag("probabilities", 0 < victim.rows_seen == victim.rows_like_probabilities)


def random_output(first: Tensor, second: Tensor) -> tuple[str, ...]:
    """Doubt a model whose two answers [n, C] to the same texts differ by more than 1e-4."""
    return _flag("random-output", bool(((first - second).abs() > 1e-4).any()))


def text_without_tokens(victim: Victim) -> tuple[str, ...]:
    """Doubt answers to texts of which the model saw nothing."""
    return _flag("text-without-tokens", victim.met_without_tokens)


def vanishing_gradients(largest: Tensor) -> tuple[str, ...]:
    """Doubt gradient attacks on examples of which a tenth or more have a gradient of zero.

    Args:
        largest: [n], the largest entry of each example's gradient.
    """
    return _flag("vanishing-gradients", len(largest) > 0 and float((largest < TINY).double().mean()) >= 0.1)


def steps_do_not_help(before: Tensor, after: Tensor) -> tuple[str, ...]:
    """Doubt a gradient attack after whose steps a tenth or more of the examples are no nearer to falling.

    Args:
        before: [n], the log odds of the true class at each start.
        after: [n], those after the last step.
    """
    return _flag("steps-do-not-help", len(before) > 0 and float((after >= before).double().mean()) >= 0.1)


def untrained_head(fresh: bool) -> tuple[str, ...]:
    """Doubt a model whose head was freshly initialised and never trained."""
    return _flag("untrained-head", fresh)


def train_test_overlap(
    train: Iterable[tuple[str, ...]], evaluated: Iterable[tuple[str, ...]]
) -> tuple[str, ...]:
    """Doubt an evaluation on texts that also stand in the training split."""
    known = {_folded(text) for text in train}
    return _flag("train-test-overlap", any(_folded(text) in known for text in evaluated))


def truncated(texts: Sequence[tuple[str, ...]], encoder: Encode, max_length: int) -> tuple[str, ...]:
    """Doubt an attack on texts of which the victim may not see the end."""
    longest = max((len(row["input_ids"]) for row in encoder(texts)), default=0)
    return _flag("truncated", longest >= max_length)


def read_again(settings: str, earlier: Iterable[str]) -> tuple[str, ...]:
    """Doubt a test row whose split was read before with other settings (each reading described by one
    string).
    """
    return _flag("test-read-again", any(other != settings for other in earlier))


def _flag(name: str, raised: bool) -> tuple[str, ...]:
    assert name in FLAGS, name
    return (name,) if raised else ()


def _folded(text: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" ".join(column.lower().split()) for column in text)
