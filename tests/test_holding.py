"""Pruned weights stay zero while the rest trains, whatever the optimiser does."""

import pytest
import torch

from hardtack.errors import InputError
from hardtack.prunable import base_of
from tests.tickets import drawn
from tests.toys import TOYS, same_state, state_of, toy_inputs

KINDS = ("head", "neuron")


# ------------------------------------------------------------------------------------ hold

OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.5),
    "sgd": lambda parameters: torch.optim.SGD(
        parameters, lr=0.001, momentum=0.9, weight_decay=0.1, nesterov=True
    ),
}


def pruned(model, ticket):
    """Every (parameter, mask of pruned positions), without the code under test's own handle."""
    spread = ticket.view(model).spread(ticket.masks)
    own = dict(base_of(model).named_parameters())
    return [(own[name], ~mask) for name, mask in spread.items()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("name", "granularity"), [("bert", KINDS), ("gpt2", ("weight",)), ("albert", ("weight",))]
)
def test_hold_keeps_zeros_through_weight_decay_and_momentum(name, granularity, optimizer):
    model = TOYS[name]().train()
    ticket = drawn(model, granularity)
    stepper = OPTIMIZERS[optimizer](model.parameters())
    model(**toy_inputs(model)).logits.sum().backward()
    stepper.step()  # unheld: the optimiser remembers a momentum for every weight
    held = ticket.hold_(model)
    live = state_of(model)
    for step in range(3):
        stepper.zero_grad()
        model(**toy_inputs(model, seed=step)).logits.pow(2).sum().backward()
        held.gradients_()
        assert all(not parameter.grad[mask].any() for parameter, mask in pruned(model, ticket))
        stepper.step()
        assert any(parameter[mask].any() for parameter, mask in pruned(model, ticket))  # decay, momentum
        held.weights_()
        assert all(not parameter[mask].any() for parameter, mask in pruned(model, ticket))
    assert not same_state(model, live)


def test_held_gradients_of_live_weights_are_untouched_and_missing_ones_stay_missing():
    model = TOYS["bert"]()
    ticket = drawn(model)
    held = ticket.hold_(model)
    held.gradients_()
    assert all(parameter.grad is None for parameter in model.parameters())
    model(**toy_inputs(model)).logits.sum().backward()
    model.bert.pooler.dense.weight.grad = None
    before = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    held.gradients_()
    assert model.bert.pooler.dense.weight.grad is None
    spread = ticket.view(model).spread(ticket.masks)
    for name, gradient in before.items():
        mask = spread.get(name.removeprefix("bert."), torch.tensor(True))
        assert torch.equal(model.get_parameter(name).grad, gradient * mask)


def test_hold_fits_a_model_that_has_moved_on_from_its_base():
    model = TOYS["bert"]()
    ticket = drawn(model)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.add_(1)
    ticket.hold_(model)
    assert all(not parameter[mask].any() for parameter, mask in pruned(model, ticket))


def test_hold_refuses_a_model_without_the_masks_tensors():
    with pytest.raises(InputError, match="ticket does not fit"):
        drawn(TOYS["bert"]()).hold_(TOYS["distilbert"]())
