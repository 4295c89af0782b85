"""What the loop computes in, and that every toy learns with it."""

import pytest
import torch
from tests.toys import TOYS, is_text, same_state, state_of
from tests.training.fitting import train, without_dropout_

from hardtack.errors import InputError
from hardtack.schedule import Constant
from hardtack.training.adversarial import PGD, Clean, FreeLB


def test_fp16_is_refused_with_the_reason():
    with pytest.raises(InputError) as error:
        train(TOYS["bert"](), precision="fp16")
    reason = "its scaled gradients overflow the perturbations"
    assert str(error.value) == f"precision 'fp16' is not allowed ({reason}); allowed: fp32, bf16"
    with pytest.raises(InputError) as error:
        train(TOYS["bert"](), precision="int8")
    assert str(error.value) == "precision 'int8' is not allowed; allowed: fp32, bf16"


@pytest.mark.parametrize(
    "objective", [Clean(), FreeLB(steps=2), PGD(steps=1)], ids=["clean", "freelb", "pgd"]
)
def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(objective):
    model, full = TOYS["bert"](), TOYS["bert"]()
    kinds = []
    model.classifier.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    steps = train(model, objective=objective, precision="bf16", total=3)
    expected = train(full, objective=objective, precision="fp32", total=3)  # both in one process
    assert set(kinds) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in expected], rel=0.1, abs=0.05)
    assert not same_state(model, state_of(full))


@pytest.mark.parametrize("toy", TOYS)
def test_every_toy_learns(toy):
    model = without_dropout_(TOYS[toy]())
    objective = FreeLB(steps=2) if is_text(model) else Clean()
    steps = train(model, objective=objective, total=15, lr=Constant(3e-3))
    assert sum(step.loss for step in steps[-5:]) < 0.8 * sum(step.loss for step in steps[:5])
