"""What a unit is: scaling its output and really removing it, by hand, say the same as its exit and slices."""

import copy
import sys

import pytest
import torch
from torch import nn

from hardtack.prunable import Prunable, base_of
from tests.tickets import random_masks
from tests.toys import logits_of, same_state, state_of, toy_inputs
from tests.zoo import UNITS, ZOO, toy_of

CASES = [(name, kind) for name, kinds in UNITS.items() for kind in kinds]


def full(view, value=True):
    return {site.name: torch.full((site.units,), value) for site in view.sites}


def eager(name):
    """Make a toy with its attention written out, and inputs; Gemma 2 differs without its soft cap."""
    model = ZOO[name]()
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    return model, toy_inputs(model)


@torch.no_grad()
def multiplied_(model, view, factors):
    for param, factor in factors.items():
        view.tensors(model)[param].mul_(factor)
    return model


# ------------------------------------------------------------------------------------ scaled by hand

INLINE = {
    "mpnet": ".attn.o",
    "deberta-v2": ".attention.output.dense",
    "deberta-v3": ".attention.output.dense",
}
"""Where attention is no function of its own: the module that reads the heads' outputs, head after head."""
READERS = {
    ".output.dense": ("bert", "roberta", "xlm-roberta", "electra", "mpnet", "deberta-v2", "deberta-v3"),
    ".mlp.down_proj": ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    ".mlp.fc2": ("vit", "deit"),
    ".ffn.lin2": ("distilbert",),
    ".ffn_output": ("albert",),
    ".mlp.Wo": ("modernbert",),
    ".mlp.c_proj": ("gpt2",),
    ".pwconv2": ("convnext",),
}
FEEDFORWARD = {name: reader for reader, names in READERS.items() for name in names}
"""What reads the neurons' activations."""


def ending(model, end):
    return [
        m
        for n, m in base_of(model).named_modules()
        if n.endswith(end) and ("attention" in n) == ("att" in end)
    ]


def scale_inputs_(modules, factors):
    assert len(modules) == len(factors)
    for module, factor in zip(modules, factors, strict=True):
        inputs = module.weight.shape[1 if isinstance(module, nn.Linear) else 0]  # Conv1D stores [in, out]
        spread = factor.repeat_interleave(inputs // len(factor))
        module.register_forward_pre_hook(lambda _, inputs, spread=spread: (inputs[0] * spread, *inputs[1:]))


def scale_heads_(monkeypatch, model, factors):
    """Scale each head's output inside the attention function itself; layers are counted by the calls."""
    module, calls = sys.modules[type(base_of(model)).__module__], []
    original = module.eager_attention_forward

    def scaled(*arguments, **options):
        out, weights = original(*arguments, **options)  # [N, L, heads, width]
        factor = factors[len(calls) % len(factors)]
        calls.append(1)
        return out * factor.repeat_interleave(out.shape[2] // len(factor))[:, None], weights

    monkeypatch.setattr(module, "eager_attention_forward", scaled)
    return calls


def scale_channels_(model, factors):
    """Scale what each inner convolution of a block hands on, after its normalisation and activation."""
    blocks = [m for m in model.modules() if type(m).__name__ in ("ResNetBasicLayer", "ResNetBottleNeckLayer")]
    inner = [link for block in blocks for link in block.layer[:-1]]
    assert len(inner) == len(factors)
    for link, factor in zip(inner, factors, strict=True):
        link.register_forward_hook(lambda _, inputs, out, factor=factor: out * factor[:, None, None])


def by_hand(monkeypatch, name, kind, coefficients):
    """Return inputs, logits of the toy with its units' outputs scaled by hand, and the untouched toy's."""
    model, inputs = eager(name)
    clean, calls = logits_of(model, inputs), None
    if kind == "head" and name in INLINE:
        scale_inputs_(ending(model, INLINE[name]), coefficients)
    elif kind == "head":
        calls = scale_heads_(monkeypatch, model, coefficients)
    elif kind == "neuron":
        scale_inputs_(ending(model, FEEDFORWARD[name]), coefficients)
    else:
        scale_channels_(model, coefficients)
    scaled = logits_of(model, inputs)
    if calls is not None:
        monkeypatch.undo()
        assert len(calls) == model.config.num_hidden_layers
    return inputs, scaled, clean


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_factors_scale_a_units_output(monkeypatch, name, kind):
    view = Prunable.of(ZOO[name](), (kind,))
    coefficients = {site.name: torch.rand(site.units) * 2 for site in view.sites}
    inputs, wanted, clean = by_hand(monkeypatch, name, kind, list(coefficients.values()))
    model = multiplied_(eager(name)[0], view, view.factors(coefficients))
    assert torch.allclose(logits_of(model, inputs), wanted, atol=1e-4)
    assert not torch.allclose(clean, wanted, atol=0.1)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_zeroed_slices_remove_a_unit(monkeypatch, name, kind):
    """All slices of a unit at zero equal a unit whose output is zero: nothing of another unit was hit."""
    view = Prunable.of(ZOO[name](), (kind,))
    masks = random_masks(view)
    inputs, wanted, clean = by_hand(monkeypatch, name, kind, [mask.float() for mask in masks.values()])
    model = multiplied_(eager(name)[0], view, view.spread(masks))
    assert torch.allclose(logits_of(model, inputs), wanted, atol=1e-4)
    assert not torch.allclose(clean, wanted, atol=0.1)


# ------------------------------------------------------------------------------------ really removed


def cut_(model, view, masks):
    """Take the removed rows and columns out of the tensors, and tell the modules how many heads are left."""
    base = base_of(model)
    for param in view.pruned():
        module, attribute = base.get_submodule(param.rpartition(".")[0]), param.rpartition(".")[2]
        value = getattr(module, attribute).detach()
        for dim in range(value.dim()):
            gone = [
                s.index[~masks[t.name]].flatten()
                for t in view.sites
                for s in t.slices
                if s[:2] == (param, dim)
            ]
            left = torch.ones(value.shape[dim], dtype=torch.bool)
            left[torch.cat([torch.empty(0, dtype=torch.long), *gone])] = False
            value = value.index_select(dim, left.nonzero().flatten())
            if gone and dim == 0 and attribute == "weight" and isinstance(module, nn.BatchNorm2d):
                module.running_mean, module.running_var = module.running_mean[left], module.running_var[left]
        setattr(module, attribute, nn.Parameter(value))
        if hasattr(module, "nf"):  # transformers' Conv1D
            module.nf = value.shape[-1]
    for site in view.sites:
        if site.kind == "head":
            _fewer_heads_(base.get_submodule(site.name.removesuffix(".heads")), masks[site.name])


def _fewer_heads_(layer, mask):
    left = int(mask.sum())
    for module in layer.modules():
        if hasattr(module, "all_head_size"):  # MPNet
            module.all_head_size = left * module.attention_head_size
        if hasattr(module, "split_size"):  # GPT-2's fused matrix
            module.split_size = left * module.head_dim
        if hasattr(module, "num_attention_heads"):
            module.num_attention_heads = left
        if type(module).__name__ == "MPNetSelfAttention":  # the bias that all layers share has a row a head
            module.register_forward_pre_hook(lambda _, inputs: (*inputs[:2], inputs[2][:, mask]))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_masked_model_equals_one_without_the_units(name, kind):
    model, inputs = eager(name)
    clean, smaller, view = logits_of(model, inputs), copy.deepcopy(model), Prunable.of(model, (kind,))
    masks = random_masks(view)
    cut_(smaller, view, masks)
    gone = sum(int((~mask).sum()) for mask in view.spread(masks).values())
    assert sum(p.numel() for p in smaller.parameters()) == sum(p.numel() for p in model.parameters()) - gone
    masked = logits_of(multiplied_(model, view, view.spread(masks)), inputs)
    assert torch.allclose(masked, logits_of(smaller, inputs), atol=1e-4)
    assert not torch.allclose(masked, clean, atol=0.1)


def test_a_masked_decoder_equals_the_smaller_one_that_its_config_describes():
    """Cut by hand: the second of three key heads, the query heads that read it, 14 of 44 neurons."""
    model, inputs = eager("llama")
    view = Prunable.of(model, ("head", "neuron"))
    masks = full(view)
    for site in view.sites:
        masks[site.name][1 if site.kind == "head" else slice(14)] = False
    smaller = toy_of("llama", num_attention_heads=4, num_key_value_heads=2, intermediate_size=30)
    state, rest = model.state_dict(), {}
    for name, tensor in state.items():
        if "q_proj" in name:
            tensor = torch.cat([tensor[:20], tensor[40:]])
        elif "k_proj" in name or "v_proj" in name:
            tensor = torch.cat([tensor[:10], tensor[20:]])
        elif "o_proj.weight" in name:
            tensor = torch.cat([tensor[:, :20], tensor[:, 40:]], 1)
        elif "gate_proj" in name or "up_proj" in name:
            tensor = tensor[14:]
        elif "down_proj.weight" in name:
            tensor = tensor[:, 14:]
        rest[name] = tensor
    smaller.load_state_dict(rest)
    masked = logits_of(multiplied_(model, view, view.spread(masks)), inputs)
    assert torch.allclose(masked, logits_of(smaller, inputs), atol=1e-4)


# ------------------------------------------------------------------------------------ factors


@pytest.mark.parametrize("name", ZOO)
def test_factors_of_weights_are_the_coefficients(name):
    view = Prunable.of(ZOO[name]())
    coefficients = {site.name: torch.rand(site.units) for site in view.sites}
    for param, factor in view.factors(coefficients).items():
        assert torch.equal(factor, coefficients[param].view(view.shapes[param]))


@pytest.mark.parametrize("name", UNITS)
def test_gradients_of_factors_are_sums_over_the_exit(name):
    view = Prunable.of(ZOO[name](), UNITS[name])
    coefficients = {site.name: torch.rand(site.units, requires_grad=True) for site in view.sites}
    values = {param: torch.randn(shape) for param, shape in view.shapes.items()}
    sum((factor * values[param]).sum() for param, factor in view.factors(coefficients).items()).backward()
    for site in view.sites:
        param, dim, index = site.exit
        along = values[param].movedim(dim, 0).flatten(1).sum(1)
        assert torch.allclose(coefficients[site.name].grad, along[index].sum(1), atol=1e-4)


def test_factors_of_two_kinds_multiply():
    model = ZOO["bert"]()
    view = Prunable.of(model, ("weight", "head"))
    coefficients = {site.name: torch.rand(site.units) for site in view.sites}
    factor = view.factors(coefficients)["encoder.layer.0.attention.output.dense.weight"]
    weights = coefficients["encoder.layer.0.attention.output.dense.weight"].view(24, 24)
    heads = coefficients["encoder.layer.0.heads"].repeat_interleave(8)
    assert torch.allclose(factor, weights * heads[None, :])


@pytest.mark.parametrize("name", ZOO)
def test_looking_changes_nothing(name):
    model = ZOO[name]()
    before = state_of(model)
    view = Prunable.of(model)
    view.spread(full(view))
    view.factors(full(view, 0.5))
    assert same_state(model, before)
