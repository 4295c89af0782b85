"""Gates in a model: one draw a forward, and everything as it was afterwards."""

import copy

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from hardtack.errors import InputError
from hardtack.gates import HardConcreteGates, gated
from hardtack.prunable import Prunable, base_of
from tests.toys import logits_of, same_state, state_of, toy_gpt2_lm, toy_inputs
from tests.zoo import TEXTS, UNITS, ZOO

KINDS = ("head", "neuron")


def gates_of(model, granularity=("weight",), opening=0.9, spread=0.0, seed=5):
    """Gates of a model whose scores are spread around their opening and whose noise is keyed."""
    gates = HardConcreteGates(Prunable.of(model, granularity), opening)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for score in gates.parameters():
            score.add_(torch.randn(score.shape, generator=rng) * spread)
    gates.stream.manual_seed(seed)
    return gates


# ------------------------------------------------------------------------------------ in a model

CASES = [(name, ("weight",)) for name in ZOO] + list(UNITS.items())
CASES += [("bert", ("weight", "head"))]
NORMED = ("conv", "resnet", "resnet-bottleneck")
"""Batch norm: a forward in training mode moves its statistics."""


def masked_copy(model, view, gates):
    """A copy whose weights are multiplied by these gates for good, without the code under test's context."""
    twin = copy.deepcopy(model)
    tensors = view.tensors(twin)
    with torch.no_grad():
        for param, factor in view.factors(gates).items():
            tensors[param].mul_(factor)
    return twin


def seeded(model, inputs, seed=0):
    """Logits with the dropout of this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return logits_of(model, inputs)


@pytest.mark.parametrize(("name", "granularity"), CASES)
def test_a_forward_uses_one_draw_everywhere(name, granularity):
    """ALBERT's shared layer, too: a copy with the drawn gates multiplied in gives the same logits."""
    model = ZOO[name]().train()
    inputs = toy_inputs(model)
    gates = gates_of(model, granularity, spread=1.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # the two forwards below then see the same statistics
    wanted = []
    with torch.no_grad():
        for seed in range(3):
            wanted.append(seeded(masked_copy(model, gates.view, gates.sampled()), inputs, seed))
    gates.stream.manual_seed(5)
    with gated(model, gates):
        found = [seeded(model, inputs, seed) for seed in range(3)]
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=0.01)


@pytest.mark.parametrize(("name", "granularity"), CASES)
def test_evaluation_is_deterministic_and_draws_nothing(name, granularity):
    model = ZOO[name]()
    inputs = toy_inputs(model)
    gates = gates_of(model, granularity, spread=1.5)
    before = gates.stream.get_state()
    with torch.no_grad():
        wanted = logits_of(masked_copy(model, gates.view, gates.expected()), inputs)
    with gated(model, gates):
        found = [logits_of(model, inputs) for _ in range(2)]
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], wanted, atol=1e-5)
    assert torch.equal(gates.stream.get_state(), before)


@pytest.mark.parametrize(("name", "granularity"), CASES)
@pytest.mark.parametrize("training", [False, True])
def test_saturated_gates_equal_masked_weights(name, granularity, training):
    """Closed gates of heads and neurons remove what a ticket removes, biases of q, k and v included."""
    model = ZOO[name]()
    inputs = toy_inputs(model)
    clean = logits_of(model, inputs)
    gates = gates_of(model, granularity)
    masks = {site.name: torch.rand(site.units) < 0.7 for site in gates.view.sites}
    for mask in masks.values():
        mask[0], mask[-1] = True, False
    with torch.no_grad():
        for site, score in gates.scores.items():
            score.copy_(torch.where(masks[site], 20.0, -20.0))
    twin = copy.deepcopy(model)
    tensors = gates.view.tensors(twin)
    with torch.no_grad():
        for param, mask in gates.view.spread(masks).items():
            tensors[param].mul_(mask)
    with gated(model, gates):
        found = seeded(model.train(training), inputs)
    wanted = seeded(twin.train(training), inputs)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(wanted, clean, atol=0.1)


@pytest.mark.parametrize(("name", "granularity"), CASES)
def test_only_scores_receive_gradients_and_they_are_torchs_own(name, granularity):
    model = ZOO[name]().train()
    inputs = toy_inputs(model)
    gates = gates_of(model, granularity, spread=0.5)
    weights = [parameter.requires_grad for parameter in model.parameters()]
    with gated(model, gates):
        torch.manual_seed(0)
        model(**inputs).logits.square().sum().backward()
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == weights
    found = [score.grad.clone() for score in gates.parameters()]
    assert all(gradient.any() for gradient in found if len(gradient) > 3)  # three gates may all be open

    # The same through functional_call, which keeps tied and shared tensors tied.
    for score in gates.parameters():
        score.grad = None
    gates.stream.manual_seed(5)
    twin = ZOO[name]().train()
    tensors = gates.view.tensors(twin)
    prefix = next((f"{n}." for n, m in twin.named_modules() if m is base_of(twin) and n), "")
    products = {
        f"{prefix}{param}": tensors[param].detach() * factor
        for param, factor in gates.view.factors(gates.sampled()).items()
    }
    torch.manual_seed(0)
    torch.func.functional_call(twin, products, kwargs=inputs).logits.square().sum().backward()
    for gradient, score in zip(found, gates.parameters(), strict=True):
        assert torch.allclose(gradient, score.grad, atol=1e-4 * float(score.grad.abs().max()))


def picture(model):
    """Everything about a model that gates could disturb."""
    return {
        "order": [name for name, _ in model.named_parameters()],
        "identity": [id(parameter) for parameter in model.parameters()],
        "state": list(model.state_dict()),
        "grad flags": [parameter.requires_grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "registered": [list(module._parameters) for module in model.modules()],
    }


@pytest.mark.parametrize("ending", ["quietly", "by an exception", "without a forward"])
@pytest.mark.parametrize(("name", "granularity"), CASES)
def test_the_model_comes_back_as_it_was(name, granularity, ending):
    model = ZOO[name]()
    inputs = toy_inputs(model)
    for parameter in list(model.parameters())[::3]:
        parameter.requires_grad_(False)
    next(model.children()).train()
    before, looks = state_of(model), picture(model)
    clean = seeded(model, inputs)

    def block():
        with gated(model, gates_of(model, granularity)):
            if ending != "without a forward":
                logits_of(model, inputs)
            if ending == "by an exception":
                raise KeyError
        if name in NORMED:
            return
        assert torch.equal(seeded(model, inputs), clean)

    if ending == "by an exception":
        with pytest.raises(KeyError):
            block()
    else:
        block()
    assert picture(model) == looks
    if name not in NORMED:
        assert same_state(model, before)


def test_a_model_that_does_not_fit_is_refused_untouched():
    gates, other = gates_of(ZOO["bert"]()), ZOO["gpt2"]()
    before, looks = state_of(other), picture(other)
    with pytest.raises(InputError, match="does not fit"), gated(other, gates):
        pass
    assert picture(other) == looks
    assert same_state(other, before)


def test_gates_inside_gates_are_refused():
    model = ZOO["bert"]()
    looks, gates = picture(model), gates_of(model)
    with gated(model, gates):
        with pytest.raises(InputError, match="no such tensor"), gated(model, gates):
            pass
        logits_of(model, toy_inputs(model))
    assert picture(model) == looks


def test_a_weight_read_twice_in_a_forward_is_one_draw():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x):
            return self.inner.weight - self.inner.weight.clone() + 0 * self.inner(x)

    model = Twice().train()
    with gated(model, gates_of(model, spread=1.0)):
        assert not model(torch.ones(3, 3)).any()


def test_a_weight_that_two_modules_share_is_gated_in_both():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).train()
    model[1].weight = model[0].weight
    before = model[0].weight.detach().clone()
    gates = gates_of(model, spread=1.0)
    with gated(model, gates):
        model(torch.ones(1, 4))
        assert model[0].weight is model[1].weight
        assert not torch.equal(model[0].weight, before)
    assert model[0].weight is model[1].weight


@pytest.mark.parametrize("name", ["bert", "gpt2"])  # ALBERT does not support it
def test_gradient_checkpointing_recomputes_with_the_same_draw(name):
    gradients = []
    for checkpointing in (False, True):
        model = ZOO[name]().train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        gates = gates_of(model, spread=1.0)
        with gated(model, gates):
            torch.manual_seed(0)
            model(**toy_inputs(model)).logits.square().sum().backward()
        gradients.append(torch.cat([score.grad for score in gates.parameters()]))
    assert gradients[0].any()
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5 * float(gradients[0].abs().max()))


def test_tied_weights_stay_tied_and_can_be_saved(tmp_path):
    model = toy_gpt2_lm()
    inputs = toy_inputs(model)
    clean, before = logits_of(model, inputs), state_of(model)
    with gated(model.train(), gates_of(model, spread=1.0)):
        assert not torch.allclose(logits_of(model, inputs), clean, atol=0.1)
        assert model.lm_head.weight is model.transformer.wte.weight
    model.eval()
    assert model.lm_head.weight is model.transformer.wte.weight
    assert same_state(model, before)
    assert torch.equal(logits_of(model, inputs), clean)
    model.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert again.lm_head.weight is again.transformer.wte.weight
    assert torch.equal(logits_of(again, inputs), clean)


@pytest.mark.parametrize("name", TEXTS)
def test_a_gated_model_is_a_plain_model_to_its_embedding_hook(name):
    """The adversary's gradient reaches the embeddings while all weights are frozen."""
    model = ZOO[name]().train()
    inputs = toy_inputs(model)
    delta = torch.zeros(
        *inputs["input_ids"].shape, model.get_input_embeddings().weight.shape[1], requires_grad=True
    )
    handle = model.get_input_embeddings().register_forward_hook(lambda module, args, output: output + delta)
    with gated(model, gates_of(model)):
        model(**inputs).logits.square().sum().backward()
    handle.remove()
    assert delta.grad is not None
    assert delta.grad.any()
