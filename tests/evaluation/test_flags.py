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


# ------------------------------------------------------------------ gradients that mislead


class Line(torch.nn.Module):
    """Class 1 where the first coordinate is positive; the gradient is as `hide` leaves it."""

    def __init__(self, hide):
        super().__init__()
        self.hide = hide

    def forward(self, points):
        score = self.hide(points[:, 0])
        return torch.stack([-score, score], dim=1)


def rounded(x):
    return (x / 0.1).round() * 0.1  # its derivative is 0


def backwards(x):
    return 2 * x.detach() - x  # its value is x, its derivative -1


def descend(model, points, labels, *, radius, steps):
    """Return the accuracy after so many signed gradient steps, and the first gradients."""
    moved, first = points.clone(), None
    for _ in range(steps):
        moved.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(model(moved), labels)
        (gradient,) = torch.autograd.grad(loss, moved)
        first = gradient if first is None else first
        moved = (moved + radius / 5 * gradient.sign()).detach()
        moved = points + (moved - points).clamp(-radius, radius)
    return float((model(moved).argmax(dim=1) == labels).double().mean()), first


def shifts(model, points, labels, *, radius):
    """Return the accuracy after trying both ends of the first coordinate without any gradient."""
    ends = [model(points + torch.tensor([end, 0.0])).argmax(dim=1) == labels for end in (-radius, radius)]
    return float((ends[0] & ends[1]).double().mean())


def clouds():
    points = torch.linspace(-2, 2, 81)[:, None].repeat(1, 2) + 0.005
    return points, (points[:, 0] > 0.06).long()  # a few are wrong beforehand


def test_an_honest_model_raises_no_gradient_flag():
    points, labels = clouds()
    few, gradients = descend(Line(lambda x: x), points, labels, radius=1.0, steps=1)
    many, _ = descend(Line(lambda x: x), points, labels, radius=1.0, steps=20)
    sweep = {r: descend(Line(lambda x: x), points, labels, radius=r, steps=20)[0] for r in (0.5, 1.0, 9.0)}
    assert few > many > 0 == sweep[9.0]
    assert flags.vanishing_gradients(gradients) == ()
    assert flags.steps_do_not_help(few, many) == ()
    assert flags.weaker_white_box(many, shifts(Line(lambda x: x), points, labels, radius=1.0)) == ()
    assert flags.radius_does_not_reach_zero(sweep) == ()
    assert flags.radius_does_not_reach_zero({}) == ()


def test_a_model_without_gradients_raises_three():
    points, labels = clouds()
    accuracy, gradients = descend(Line(rounded), points, labels, radius=9.0, steps=20)
    assert flags.vanishing_gradients(gradients) == ("vanishing-gradients",)
    assert flags.radius_does_not_reach_zero({0.1: 0.9, 9.0: accuracy}) == ("radius-does-not-reach-zero",)
    black = shifts(Line(rounded), points, labels, radius=9.0)
    assert flags.weaker_white_box(accuracy, black) == ("weaker-white-box",)


def test_a_tenth_of_vanished_gradients_is_enough():
    gradients = torch.ones(20, 3, 2)
    gradients[0] = 0
    assert flags.vanishing_gradients(gradients) == ()
    gradients[1] = 1e-15
    assert flags.vanishing_gradients(gradients) == ("vanishing-gradients",)
    assert flags.vanishing_gradients(gradients[:0]) == ()


def test_a_model_whose_gradients_point_backwards_gets_better_with_steps():
    points, labels = clouds()
    few, _ = descend(Line(backwards), points, labels, radius=0.1, steps=1)
    many, _ = descend(Line(backwards), points, labels, radius=0.1, steps=20)
    assert flags.steps_do_not_help(few, many) == ("steps-do-not-help",)


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
