import pytest
import torch
from tests.evaluation.attacks.fakes import WEIGHTS, linear

from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import Ascent, Flips
from hardtack.evaluation.gradients import WhiteBox


def test_the_estimate_is_exact_where_the_model_is_linear():
    # Exchanging a for b moves the odds of class 1 by weight(b) - weight(a); of class 0 by the opposite.
    box = WhiteBox(linear())
    text = ("a Good film , plot",)
    (up, down) = box.flips(
        [
            Flips(text, 1, ((0, 2, 6), (0, 14, 18)), ((), ("film", "zebra", "Plot")), 3),
            Flips(text, 0, ((0, 2, 6),), (("fine", "great"),), 9),
        ]
    )
    assert up == [
        [("mess", 4.5), ("dull", 3.5), ("slow", 2.9)],
        [("film", pytest.approx(-0.7))],  # no token of its own, or the word that stands there: not offered
    ]
    assert down == [[("great", pytest.approx(0.2)), ("fine", pytest.approx(-0.5))]]


def test_in_pairs_a_span_is_found_in_its_own_column():
    box = WhiteBox(linear())
    ((first, second),) = box.flips(
        [Flips(("good", "a plot"), 1, ((0, 0, 4), (1, 2, 6)), (("fine",), ("mess",)), 1)]
    )
    assert (first, second) == ([("fine", pytest.approx(0.5))], [("mess", pytest.approx(2.3))])


def test_spans_that_are_no_single_token_have_no_flips():
    box = WhiteBox(linear())
    far = " ".join(["good"] * 70)  # the tokenizer stops at 64
    asks = [
        Flips(("good film",), 1, ((0, 0, 9), (0, 1, 4)), ((), ()), 2),
        Flips((far,), 1, ((0, 345, 349),), ((),), 2),
    ]
    assert box.flips(asks) == [[[], []], [[]]]


def test_an_estimate_on_bert_is_the_slope_of_the_log_odds(toys):
    victim = toys.bert()
    box, text = WhiteBox(victim), ("good film bad",)
    ((flips,),) = box.flips([Flips(text, 0, ((0, 5, 9),), (("plot", "bad"),), 2)])
    row = victim.encode([text])[0]
    inputs = {key: torch.tensor([ids]) for key, ids in row.items()}
    table, place = (
        victim.model.get_input_embeddings().weight.detach(),
        row["input_ids"].index(box.vocabulary["film"]),
    )
    for word, fall in flips:
        moved = torch.zeros(1, len(row["input_ids"]), table.shape[1])
        moved[0, place] = (table[box.vocabulary[word]] - table[box.vocabulary["film"]]) * 1e-3
        before, after = (box._forward(inputs, delta).double()[0] for delta in (-moved, moved))
        slope = ((before[0] - before[1]) - (after[0] - after[1])).item() / 2e-3
        assert slope == pytest.approx(fall, abs=2e-2)
        assert abs(fall) > 0.05


def test_an_ascent_stays_in_its_ball_and_reaches_its_border():
    # 4 tokens; the gradient of the odds is -1 at the first entry of each, norm 2: radius r takes 2 r away.
    victim = linear(bias=-1.0)
    asks = [Ascent(("good film a is",), 1, radius, 20, radius / 4, 5) for radius in (0.25, 1.0)]
    for ask, trail in zip(asks, WhiteBox(victim).ascents(asks), strict=True):
        assert trail.shape == (21, 2)
        odds = trail[:, 1] - trail[:, 0]
        assert (odds >= 1.5 - 2 * ask.radius - 1e-4).all()
        assert odds[-1].item() == pytest.approx(1.5 - 2 * ask.radius, abs=1e-2 * ask.radius)
    assert victim.forwards.texts == 2 * 21


def test_ascents_do_not_depend_on_their_company(toys):
    victim = toys.bert(batch_size=8)
    asks = [
        Ascent((text,), i % 2, 0.5, 3, 0.125, i) for i, text in enumerate(["good film", "bad", "plot " * 9])
    ]
    together = WhiteBox(victim).ascents(asks)
    for ask, trail in zip(asks, together, strict=True):
        (alone,) = WhiteBox(victim).ascents([ask])
        assert torch.allclose(alone, trail, atol=2e-4)


def test_every_module_gets_its_own_mode_back(toys):
    victim = toys.bert()
    victim.model.train()
    WhiteBox(victim).ascents([Ascent(("good",), 0, 0.1, 1, 0.1, 0)])
    assert victim.model.training
    assert all(parameter.grad is None for parameter in victim.model.parameters())


def test_a_label_beyond_the_classes_and_a_slow_tokenizer_are_refused(toys):
    with pytest.raises(InputError, match="the label 2; the model's classes are 0 to 1"):
        WhiteBox(toys.bert()).ascents([Ascent(("good",), 2, 0.1, 1, 0.1, 0)])
    victim = linear(WEIGHTS)
    victim.encoder.tokenizer = None
    with pytest.raises(InputError, match="a fast tokenizer"):
        WhiteBox(victim).flips([Flips(("good",), 1, ((0, 0, 4),), ((),), 1)])
