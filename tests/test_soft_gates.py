"""Soft coefficients in a model: 1 changes nothing, 0 removes a unit, and weights are trained beside them."""

import copy

import pytest
import torch
from torch.func import functional_call

from hardtack.gates import SoftGates, gated
from hardtack.prunable import Prunable, base_of
from tests.toys import logits_of, same_state, state_of, toy_inputs
from tests.zoo import UNITS, ZOO

ALL = [(name, kinds) for name, kinds in UNITS.items()]


def gates_of(model, kinds, spread=0.0):
    gates = SoftGates(Prunable.of(model, kinds))
    with torch.no_grad():
        for offset in gates.parameters():
            offset.add_(torch.randn(offset.shape) * spread)
    return gates


@pytest.mark.parametrize(("name", "kinds"), ALL)
def test_coefficients_of_1_leave_logits_and_of_0_remove_units(name, kinds):
    """Checks 1 and 2, against the weights that a ticket would zero."""
    model = ZOO[name]()
    inputs, before = toy_inputs(model), state_of(model)
    clean = logits_of(model, inputs)
    gates = gates_of(model, kinds)
    masks = {site.name: torch.rand(site.units) < 0.6 for site in gates.view.sites}
    for mask in masks.values():
        mask[0], mask[-1] = True, False
    with gated(model, gates):
        assert torch.equal(logits_of(model, inputs), clean)
        with torch.no_grad():
            for site, offset in gates.offsets.items():
                offset.copy_(masks[site].float() - 1)
        without = logits_of(model, inputs)
    assert same_state(model, before)
    tensors = gates.view.tensors(model)
    with torch.no_grad():
        for param, mask in gates.view.spread(masks).items():
            tensors[param].mul_(mask)
    assert torch.allclose(without, logits_of(model, inputs), atol=1e-4)
    assert not torch.allclose(without, clean, atol=0.1)


@pytest.mark.parametrize(("name", "kinds"), ALL)
def test_weights_and_coefficients_receive_torchs_own_gradients(name, kinds):
    model = ZOO[name]().train()
    frozen = next(model.parameters()).requires_grad_(False)
    inputs, twin = toy_inputs(model), copy.deepcopy(model)
    gates = gates_of(model, kinds, 0.3)
    with gated(model, gates):
        torch.manual_seed(0)
        model(**inputs).logits.square().sum().backward()
    assert frozen.grad is None
    assert not frozen.requires_grad
    found = [offset.grad.clone() for offset in gates.parameters()]
    for offset in gates.parameters():
        offset.grad = None

    inner = base_of(twin)
    prefix = next((f"{n}." for n, module in twin.named_modules() if module is inner and n), "")
    tensors = gates.view.tensors(twin)
    products = {prefix + n: tensors[n] * f for n, f in gates.view.factors(gates.expected()).items()}
    torch.manual_seed(0)
    functional_call(twin, products, kwargs=inputs, tie_weights=True).logits.square().sum().backward()
    assert all(
        torch.allclose(one, other.grad, rtol=1e-4, atol=1e-3)
        for one, other in zip(found, gates.parameters(), strict=True)
    )
    for (param, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), param
        assert mine.grad is None or torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-3), param


def test_the_mean_size_is_over_all_units_of_a_kind_and_small_moves_are_ranked():
    gates = gates_of(ZOO["bert"](), ("head", "neuron"))
    with torch.no_grad():
        gates.offsets["encoder.layer.0.heads"].copy_(torch.tensor([0.5, -1.5, -3.0]))  # c = 1.5, -0.5, -2
        gates.offsets["encoder.layer.1.heads"].copy_(torch.tensor([1e-9, 2e-9, 0.0]))
    size = gates.mean_size("head")
    assert size.item() == pytest.approx((1.5 + 0.5 + 2 + 3) / 6)
    assert gates.mean_size("neuron").item() == 1.0
    size.backward()
    assert gates.offsets["encoder.layer.0.heads"].grad.tolist() == pytest.approx([1 / 6, -1 / 6, -1 / 6])
    tiny = gates.offsets["encoder.layer.1.heads"]
    assert (1 + tiny).unique().numel() == 1  # in float32 they would tie as c
    assert tiny.unique().numel() == 3
