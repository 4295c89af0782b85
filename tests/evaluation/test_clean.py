import math

import pytest
import torch

from hardtack.errors import InputError
from hardtack.evaluation.clean import predict
from hardtack.runs import Run
from hardtack.tasks.task import ACCURACY, Batches, Table

WEIGHTS = {"good": 2.0, "film": 0.5, "bad": -2.0}
TEXTS = [("good film",), ("bad",), ("film bad bad",), ("good",), ("film",)]
LABELS = [1, 0, 1, 1, 0]


def test_logits_and_labels_come_in_row_order(toys):
    victim = toys.bag(WEIGHTS)
    batches = Batches(Table.of(TEXTS, LABELS), victim.encoder, size=2)
    ticks = []
    run = Run.nowhere(watch=lambda *tick: ticks.append(tick))
    logits, labels = predict(victim.model, batches, run=run)
    assert logits.tolist() == [[0.0, 2.5], [0.0, -2.0], [0.0, -3.5], [0.0, 2.0], [0.0, 0.5]]
    assert labels.tolist() == LABELS
    assert ACCURACY(logits, labels) == 3 / 5  # rows 2 and 4 are wrong
    assert ticks == [("clean", 2, 5), ("clean", 4, 5), ("clean", 5, 5)]


def test_a_real_bert_predicts_what_its_victim_answers(toys):
    victim = toys.bert()
    victim.model.train()
    batches = Batches(Table.of(TEXTS, LABELS), victim.encoder, size=2)
    logits, _ = predict(victim.model, batches)
    assert victim.model.training
    assert torch.allclose(logits, victim.logits(TEXTS), atol=1e-5)


def test_ties_count_for_the_first_class():
    assert ACCURACY(torch.zeros(2, 3), torch.tensor([0, 1])) == 0.5


def test_nothing_and_nan_are_refused(toys):
    with pytest.raises(InputError, match="accuracy of no examples"):
        ACCURACY(torch.zeros(0, 2), torch.zeros(0))
    victim = toys.bag({"good": math.nan})
    with pytest.raises(InputError, match="the model gives NaN"):
        predict(victim.model, Batches(Table.of([("good",)], [1]), victim.encoder, size=2))
