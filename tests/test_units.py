"""What a unit is: cutting it by hand and scaling its output say the same as its slices and its exit."""

import importlib

import pytest
import torch

from hardtack.families import FAMILIES
from hardtack.prunable import Prunable, base_of
from tests.toys import STRUCTURED, TOYS, logits_of, same_state, state_of, toy_inputs

KINDS = ("head", "neuron")


def full(view, value=True):
    return {site.name: torch.full((site.units,), value) for site in view.sites}


VIEWS = {name: Prunable.of(TOYS[name](), KINDS) for name in STRUCTURED}

# ------------------------------------------------------------------------------------ what a unit is


def scaled_heads(monkeypatch, name, model, factors):
    """Scale each head's output inside the attention function itself; layers are counted by the calls."""
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    original, calls = module.eager_attention_forward, []
    model.set_attn_implementation("eager")

    def scaled(*arguments, **options):
        out, weights = original(*arguments, **options)  # [N, L, heads, width]
        layer = len(calls) % len(factors)
        calls.append(layer)
        return out * factors[layer][:, None], weights

    monkeypatch.setattr(module, "eager_attention_forward", scaled)
    return calls


def scaled_neurons(model, name, factors):
    """Scale each neuron's activation before the second matrix of its feed-forward block."""
    out = FAMILIES[name].ffn_out
    blocks = [m for n, m in base_of(model).named_modules() if n.endswith(f".{out}") and "attention" not in n]
    assert len(blocks) == len(factors)
    for block, factor in zip(blocks, factors, strict=True):
        block.register_forward_pre_hook(lambda _, inputs, factor=factor: (inputs[0] * factor,))


def by_hand(monkeypatch, name, kind, coefficients):
    """Logits of the toy whose units' outputs are scaled by hand, and those of the untouched toy."""
    model = TOYS[name]()
    inputs = toy_inputs(model)
    clean = logits_of(model, inputs)
    if kind == "head":
        calls = scaled_heads(monkeypatch, name, model, coefficients)
    else:
        scaled_neurons(model, name, coefficients)
    scaled = logits_of(model, inputs)
    if kind == "head":
        assert len(calls) == model.config.num_hidden_layers
    return inputs, scaled, clean


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRUCTURED)
def test_factors_scale_a_units_output(monkeypatch, name, kind):
    view = Prunable.of(TOYS[name](), (kind,))
    coefficients = {site.name: torch.rand(site.units) * 2 for site in view.sites}
    inputs, wanted, clean = by_hand(monkeypatch, name, kind, list(coefficients.values()))
    model = TOYS[name]()
    with torch.no_grad():
        tensors = view.tensors(model)
        for param, factor in view.factors(coefficients).items():
            tensors[param].mul_(factor)
    assert torch.allclose(logits_of(model, inputs), wanted, atol=2e-5)
    assert not torch.allclose(clean, wanted, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STRUCTURED)
def test_zeroed_slices_remove_a_unit(monkeypatch, name, kind):
    """All slices of a unit at zero equal a unit whose output is zero: nothing of another unit was hit."""
    view = Prunable.of(TOYS[name](), (kind,))
    masks = {site.name: torch.rand(site.units) < 0.6 for site in view.sites}
    for mask in masks.values():
        mask[0], mask[-1] = False, True
    inputs, wanted, clean = by_hand(monkeypatch, name, kind, [mask.float() for mask in masks.values()])
    model = TOYS[name]()
    with torch.no_grad():
        tensors = view.tensors(model)
        for param, mask in view.spread(masks).items():
            tensors[param].mul_(mask)
    assert torch.allclose(logits_of(model, inputs), wanted, atol=2e-5)
    assert not torch.allclose(clean, wanted, atol=0.1)


@pytest.mark.parametrize("name", TOYS)
def test_factors_of_weights_are_the_coefficients(name):
    view = Prunable.of(TOYS[name]())
    coefficients = {site.name: torch.rand(site.units) for site in view.sites}
    for param, factor in view.factors(coefficients).items():
        assert torch.equal(factor, coefficients[param].view(view.shapes[param]))


@pytest.mark.parametrize("name", STRUCTURED)
def test_gradients_of_factors_are_sums_over_the_exit(name):
    view = Prunable.of(TOYS[name](), KINDS)
    coefficients = {site.name: torch.rand(site.units, requires_grad=True) for site in view.sites}
    values = {param: torch.randn(shape) for param, shape in view.shapes.items()}
    sum((factor * values[param]).sum() for param, factor in view.factors(coefficients).items()).backward()
    for site in view.sites:
        param, dim, index = site.exit
        along = values[param].sum(1 - dim)
        assert torch.allclose(coefficients[site.name].grad, along[index].sum(1), atol=1e-4)


def test_factors_of_two_kinds_multiply():
    model = TOYS["bert"]()
    view = Prunable.of(model, ("weight", "head"))
    coefficients = {site.name: torch.rand(site.units) for site in view.sites}
    factor = view.factors(coefficients)["encoder.layer.0.attention.output.dense.weight"]
    weights = coefficients["encoder.layer.0.attention.output.dense.weight"].view(24, 24)
    heads = coefficients["encoder.layer.0.heads"].repeat_interleave(8)
    assert torch.allclose(factor, weights * heads[None, :])


@pytest.mark.parametrize("name", TOYS)
def test_looking_changes_nothing(name):
    model = TOYS[name]()
    before = state_of(model)
    view = Prunable.of(model)
    view.spread(full(view))
    view.factors(full(view, 0.5))
    assert same_state(model, before)
