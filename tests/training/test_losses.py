"""Per-example losses against hand arithmetic."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from hardtack.errors import InputError
from hardtack.tasks.task import Batch
from hardtack.training.losses import Distillation, cross_entropy


def batch_of(teacher, labels=(0,)) -> Batch:
    labels = torch.tensor(labels)
    return Batch({}, labels, torch.arange(len(labels)), {"teacher": torch.tensor(teacher)})


def test_distillation_against_hand_arithmetic():
    # T = 2. The teacher's (2 ln 3, 0) becomes (3/4, 1/4), the student's (0, 0) is (1/2, 1/2). Divergence:
    # 3/4 ln(3/2) + 1/4 ln(1/2). Cross-entropy: ln 2. Weight 1/4: 3/4 ln 2 + 1/4 * 4 * divergence.
    apart = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    expected = 0.75 * math.log(2) + 0.25 * 4 * apart
    loss = Distillation(weight=0.25, temperature=2.0)
    found = loss(torch.zeros(1, 2), batch_of([[2 * math.log(3), 0.0]]))
    assert found.tolist() == pytest.approx([expected])
    # Its slope at the first logit: 3/4 (1/2 - 1) + 1/4 * T (1/2 - 3/4).
    logits = torch.zeros(1, 2, requires_grad=True)
    loss(logits, batch_of([[2 * math.log(3), 0.0]])).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].item() == pytest.approx(0.75 * -0.5 + 0.25 * 2 * -0.25)


def test_a_weight_of_one_leaves_labels_out():
    loss, logits = Distillation(weight=1.0), torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    one, other = (loss(logits, batch_of([[0.0, 3.0], [1.0, 2.0]], labels)) for labels in ((0, 1), (1, 0)))
    assert torch.equal(one, other)


def test_the_hard_part_may_be_another_loss():
    logits, batch = torch.tensor([[1.0, -2.0]]), batch_of([[1.0, -2.0]])
    doubled = Distillation(weight=0.5, hard=lambda z, b: 2 * cross_entropy(z, b))
    assert doubled(logits, batch) == pytest.approx(cross_entropy(logits, batch))  # teacher = student: 0 apart


def test_half_precision_logits_are_compared_in_float32():
    loss = Distillation()(torch.zeros(1, 2, dtype=torch.bfloat16), batch_of([[0.3, 0.0]]))
    assert loss.dtype == torch.float32


@given(
    st.lists(st.tuples(*[st.floats(-8, 8)] * 4), min_size=1, max_size=5),
    st.floats(0.01, 1),
    st.floats(0.2, 20),
)
def test_distillation_is_never_below_its_hard_part_and_per_example(rows, weight, temperature):
    student = torch.tensor([row[:2] for row in rows])
    teacher = torch.tensor([row[2:] for row in rows])
    batch = batch_of(teacher.tolist(), [0] * len(rows))
    loss = Distillation(weight, temperature)
    found = loss(student, batch)
    assert found.shape == (len(rows),)
    assert (found >= (1 - weight) * cross_entropy(student, batch) - 1e-3).all()
    alone = loss(student[:1], batch_of(teacher[:1].tolist()))
    torch.testing.assert_close(alone, found[:1])
    agreed = loss(teacher, batch)
    hard = functional.cross_entropy(teacher, batch.labels, reduction="none")
    torch.testing.assert_close(agreed, (1 - weight) * hard, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [{"weight": 0.0}, {"weight": 1.1}, {"weight": math.nan}, {"temperature": 0.0}, {"temperature": math.inf}],
)
def test_settings_out_of_range_are_refused_in_one_line(wrong):
    with pytest.raises(InputError, match=r"allowed: weight above 0 to 1, temperature above 0, finite$"):
        Distillation(**wrong)
