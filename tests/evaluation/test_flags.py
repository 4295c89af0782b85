import torch

from hardtack.evaluation import flags
from hardtack.evaluation.attacks import Outcome
from hardtack.evaluation.victim import Victim
from hardtack.tasks.task import Example


def examples(n, classes=2):
    return [Example(f"test-{i}", (f"text {i}",), i % classes) for i in range(n)]


class Soft(torch.nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.out = torch.tensor(logits)

    def forward(self, input_ids, attention_mask):
        return self.out[: len(input_ids)]


def test_every_flag_has_its_paragraph():
    for name, text in flags.FLAGS.items():
        assert text.startswith("Raised if "), name
        assert " Why: " in text, name
        assert " What to do: " in text, name
        assert "\n" not in text


def test_few_examples():
    assert flags.few_examples(examples(99)) == ("few-examples",)
    assert flags.few_examples(examples(100)) == ()


def test_one_class():
    assert flags.one_class(examples(5, classes=1)) == ("one-class",)
    assert flags.one_class(examples(5)) == ()


def test_nothing_attacked():
    missed, held = Outcome("a", "missed", 1, ("a",), None), Outcome("b", "held", 1, ("b",), None)
    assert flags.nothing_attacked([missed]) == ("nothing-attacked",)
    assert flags.nothing_attacked([missed, held]) == ()


def test_training_mode(toys):
    victim = toys.bert()
    assert flags.training_mode(victim) == ()
    victim.model.train()
    assert flags.training_mode(Victim(victim.model, victim.encoder)) == ("training-mode",)


def test_probabilities(toys):
    encoder = toys.BagEncoder({})
    for rows, raised in [
        ([[0.25, 0.75], [1.0, 0.0]], ("probabilities",)),
        ([[0.25, 0.75], [0.5, 0.6]], ()),
        ([[0.25, 0.75], [1.5, -0.5]], ()),
    ]:
        victim = Victim(Soft(rows), encoder)
        assert flags.probabilities(victim) == ()  # nothing seen yet
        victim.logits([("a",), ("b",)])
        assert flags.probabilities(victim) == raised


def test_random_output():
    assert flags.random_output(torch.zeros(2, 2), torch.full((2, 2), 1e-6)) == ()
    assert flags.random_output(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [0.0, 0.1]])) == (
        "random-output",
    )


class Wordless:
    """An encoder without tokens of its own, as GPT-2's is."""

    pad_id = 7

    def __call__(self, texts):
        lengths = [len(text[0].split()) for text in texts]
        return [{"input_ids": [1] * n, "attention_mask": [1] * n} for n in lengths]


def test_text_without_tokens():
    victim = Victim(Soft([[0.0, 1.0], [2.0, 0.0]]), Wordless())
    victim.logits([("a",), ("b c",)])
    assert flags.text_without_tokens(victim) == ()
    assert victim.logits([("a b",), ("",)]).shape == (2, 2)
    assert flags.text_without_tokens(victim) == ("text-without-tokens",)
    assert victim.encode([("",)]) == [{"input_ids": [7], "attention_mask": [1]}]


def test_a_tenth_of_vanished_gradients_is_enough():
    largest = torch.ones(20)
    largest[0] = 0
    assert flags.vanishing_gradients(largest) == ()
    largest[1] = 1e-15
    assert flags.vanishing_gradients(largest) == ("vanishing-gradients",)
    assert flags.vanishing_gradients(largest[:0]) == ()


def test_untrained_head():
    assert flags.untrained_head(True) == ("untrained-head",)
    assert flags.untrained_head(False) == ()


def test_train_test_overlap():
    train = [("A good  film",), ("bad",)]
    assert flags.train_test_overlap(train, [("a good film ",)]) == ("train-test-overlap",)
    assert flags.train_test_overlap(train, [("good film",)]) == ()
    assert flags.train_test_overlap([("a", "b")], [("a b",)]) == ()


def test_truncated(toys):
    encoder = toys.bert(max_length=6).encoder
    assert flags.truncated([("film",), ("film film film film film",)], encoder, 6) == ("truncated",)
    assert flags.truncated([("film film film",)], encoder, 6) == ()
    assert flags.truncated([], encoder, 6) == ()


def test_test_read_again():
    assert flags.read_again("a", []) == ()
    assert flags.read_again("a", ["a"]) == ()
    assert flags.read_again("a", ["a", "b"]) == ("test-read-again",)
