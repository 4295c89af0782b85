"""A teacher's answers go into any objective."""

import dataclasses

import pytest
import torch
from tests.contracts.test_objectives import SETTINGS, drive, first_batch, gradients
from tests.toys import TOYS

from hardtack.training.losses import Distillation


@pytest.mark.parametrize("name", SETTINGS)
def test_a_distillation_goes_into_every_objective_and_trains_the_student_only(name):
    student, teacher = TOYS["bert"](), TOYS["bert"](seed=1)
    batch = first_batch(student)
    with torch.no_grad():
        soft = teacher.eval()(**batch.inputs).logits
    answers = soft.clone().requires_grad_()
    batch = batch._replace(extra={"teacher": answers})
    objective = SETTINGS[name]
    mixed = dataclasses.replace(objective, loss=Distillation(0.25, 3.0, hard=objective.loss))
    assert mixed.passes == objective.passes
    losses = drive(mixed, student, batch)
    assert answers.grad is None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(bool(found.isfinite().all()) for found in gradients(student).values())
    assert drive(objective, student, batch) != losses
    other = batch._replace(extra={"teacher": soft.flip(1)})
    assert drive(mixed, student, other) != losses
