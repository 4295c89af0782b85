import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2LMHeadModel

from hardtack.errors import InputError
from hardtack.gates import BETA, EDGE, GAMMA, ZETA, HardConcreteGates, _hard_concrete, gated
from hardtack.prunable import Prunable, base_of
from tests.toys import STRUCTURED, TEXT, TOYS, logits_of, same_state, state_of, toy_gpt2_lm, toy_inputs

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


def many(score, units=1_000_000):
    """A million gates with one score."""
    gates = HardConcreteGates(Prunable.of(nn.Linear(1000, units // 1000, bias=False)))
    with torch.no_grad():
        gates.scores["weight"].fill_(score)
    return gates


# ------------------------------------------------------------------------------------ the distribution


def test_at_the_papers_start():
    """Check 1 of the method's specification: scores of ln 5."""
    gates = many(0.0)
    gates = HardConcreteGates(gates.view)  # opening 0.9
    (score,) = gates.parameters()
    assert torch.equal(score, torch.full_like(score, math.log(5)))
    assert gates.expected()["weight"].double().sub(0.9).abs().max() < 1e-7
    assert gates.expected_open().item() == pytest.approx(0.9611, abs=5e-5)
    drawn = gates.sampled()["weight"]
    assert float((drawn == 1).float().mean()) == pytest.approx(0.503, abs=0.002)
    assert float((drawn == 0).float().mean()) == pytest.approx(0.039, abs=0.001)
    assert float((drawn > 0).float().mean()) == pytest.approx(gates.expected_open().item(), abs=0.001)


@pytest.mark.parametrize(("score", "value"), [(20.0, 1.0), (-20.0, 0.0)])
def test_far_scores_give_exact_gates_and_no_gradient(score, value):
    """Check 2: exactly 1 or 0 over a million draws; a cut weight and its score have gradient 0."""
    gates = many(score)
    drawn = gates.sampled()["weight"]
    assert (drawn == value).all()
    assert (gates.expected()["weight"] == value).all()
    weight = torch.randn(1_000_000, requires_grad=True)
    (weight * drawn).square().sum().backward()
    assert not gates.scores["weight"].grad.any()
    assert weight.grad.any() == bool(value)


@given(st.floats(-4, 4))
def test_shares_of_exact_gates_follow_the_closed_form(score):
    """P(gate = 0) = sigmoid(beta ln(1/11) - log alpha), P(gate = 1) = 1 - sigmoid(beta ln 11 - log alpha)."""
    gates = many(score, units=20_000)
    gates.stream.manual_seed(1)
    drawn = gates.sampled()["weight"]
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    for share, wanted in (
        ((drawn == 0).double().mean(), sigmoid(BETA * math.log(-GAMMA / ZETA) - score)),
        ((drawn == 1).double().mean(), 1 - sigmoid(BETA * math.log((1 - GAMMA) / (ZETA - 1)) - score)),
        ((drawn > 0).double().mean(), gates.expected_open().item()),
    ):
        assert float(share) == pytest.approx(
            wanted, abs=5 * math.sqrt(max(wanted * (1 - wanted), 1e-4) / 20_000)
        )


def test_expected_open_by_hand_and_its_two_means():
    """R = sigmoid(log alpha + 1.5986), for one site of two gates and one of six."""
    view = Prunable.of(nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 3, bias=False)))
    gates = HardConcreteGates(view)
    shift = 1.5985971  # -2/3 ln(1/11)
    with torch.no_grad():
        gates.scores["0.weight"].copy_(torch.tensor([0.0, 1.0]))
        gates.scores["1.weight"].fill_(-2.0)
    small = torch.sigmoid(torch.tensor([0.0, 1.0]) + shift)
    large = torch.sigmoid(torch.full((6,), -2.0) + shift)
    sites, every = gates.expected_open(), gates.expected_open("gates")
    assert sites.item() == pytest.approx(float((small.mean() + large.mean()) / 2), abs=1e-6)
    assert every.item() == pytest.approx(float(torch.cat([small, large]).mean()), abs=1e-6)
    sites.backward()
    assert gates.scores["0.weight"].grad.tolist() == pytest.approx(
        (small * (1 - small) / 4).tolist(), abs=1e-7
    )
    assert gates.scores["1.weight"].grad.tolist() == pytest.approx(
        (large * (1 - large) / 12).tolist(), abs=1e-7
    )


@given(st.floats(0.01, 0.99))
def test_gates_open_where_they_are_told_to(opening):
    gates = HardConcreteGates(Prunable.of(nn.Linear(2, 2)), opening)
    assert gates.expected()["weight"].tolist() == pytest.approx([opening] * 4, abs=1e-6)


def test_the_exact_limits_of_the_deterministic_gate():
    """Exactly 0 below log alpha = -2.398 and exactly 1 above 2.398."""
    gates = HardConcreteGates(Prunable.of(nn.Linear(4, 1, bias=False)))
    with torch.no_grad():
        gates.scores["weight"].copy_(torch.tensor([-2.399, -2.397, 2.397, 2.399]))
    low, above, below, high = gates.expected()["weight"].tolist()
    assert (low, high) == (0.0, 1.0)
    assert 0 < above < 0.001
    assert 0.999 < below < 1


def test_ranking_scores_keep_their_order_where_gates_saturate():
    gates = HardConcreteGates(Prunable.of(nn.Linear(3, 1, bias=False)))
    with torch.no_grad():
        gates.scores["weight"].copy_(torch.tensor([30.0, 40.0, 35.0]))
    ranked = gates.log_odds()["weight"]
    assert ranked.tolist() == [30.0, 40.0, 35.0]
    assert torch.sigmoid(ranked).unique().numel() == 1
    ranked.zero_()
    assert gates.scores["weight"].tolist() == [30.0, 40.0, 35.0]


def test_sampling_follows_its_stream_and_changes_no_score():
    gates = gates_of(TOYS["bert"](), spread=1.0)
    before = gates.log_odds()
    drawn = []
    for seed in (1, 1, 2):
        gates.stream = torch.Generator().manual_seed(seed)
        drawn.append(torch.cat([gate.detach() for gate in gates.sampled().values()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], torch.cat([gate.detach() for gate in gates.sampled().values()])), (
        "next draw"
    )
    assert all(torch.equal(before[name], score) for name, score in gates.scores.items())


def test_scores_are_one_parameter_a_site_in_order():
    model = TOYS["albert"]()
    gates = gates_of(model, KINDS)
    assert list(gates.scores) == [site.name for site in gates.view.sites]
    assert [score.numel() for score in gates.parameters()] == [2, 36]
    assert all(isinstance(score, nn.Parameter) and score.requires_grad for score in gates.parameters())


# ------------------------------------------------------------------------------------ its gradient


def plain(score, noise):
    """Eq. 1-3 in ordinary operations, differentiated by torch; the noise is divided by beta already."""
    return torch.clamp(torch.sigmoid(noise + score / BETA) * (ZETA - GAMMA) + GAMMA, 0, 1)


def noise_of(size, seed, dtype=torch.float64):
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return drawn.clamp(EDGE, 1 - EDGE).logit() / BETA


@given(st.integers(0, 10_000), st.floats(0.1, 6), st.sampled_from([torch.float32, torch.float64]))
def test_value_and_gradient_equal_torchs_own_of_the_plain_formula(seed, spread, dtype):
    rng = torch.Generator().manual_seed(seed)
    ours = (torch.randn(200, generator=rng, dtype=dtype) * spread).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    noise, weights = noise_of(200, seed, dtype), torch.randn(200, generator=rng, dtype=dtype)
    gate, wanted = _hard_concrete(ours, noise.clone()), plain(theirs, noise)
    (gate * weights).sum().backward()
    (wanted * weights).sum().backward()
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert torch.allclose(gate, wanted, atol=tolerance, rtol=0)
    edge = (gate - wanted).abs().gt(0) & ((gate <= 0) | (gate >= 1) | (wanted <= 0) | (wanted >= 1))
    assert torch.allclose(ours.grad[~edge], theirs.grad[~edge], atol=10 * tolerance, rtol=0)
    assert edge.sum() <= 2


def test_gradcheck():
    score = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    noise = noise_of(61, 0)
    gate = plain(score.detach(), noise)
    assert ((gate > 0) & (gate < 1)).sum() > 15
    assert torch.autograd.gradcheck(lambda score: _hard_concrete(score, noise.clone()), (score,))


def test_a_second_derivative_is_refused():
    score = torch.zeros(3, requires_grad=True)
    gates = _hard_concrete(score, torch.zeros(3))
    (slope,) = torch.autograd.grad(gates.square().sum(), score, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


# ------------------------------------------------------------------------------------ in a model

CASES = [(name, ("weight",)) for name in TOYS] + [(name, KINDS) for name in STRUCTURED]
CASES += [("bert", ("weight", "head"))]


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
    model = TOYS[name]().train()
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
    model = TOYS[name]()
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
    model = TOYS[name]()
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
    model = TOYS[name]().train()
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
    twin = TOYS[name]().train()
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
    model = TOYS[name]()
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
        if name == "conv":
            return
        assert torch.equal(seeded(model, inputs), clean)

    if ending == "by an exception":
        with pytest.raises(KeyError):
            block()
    else:
        block()
    assert picture(model) == looks
    if name != "conv":  # its batch norm has seen a forward in training mode
        assert same_state(model, before)


def test_a_model_that_does_not_fit_is_refused_untouched():
    gates, other = gates_of(TOYS["bert"]()), TOYS["gpt2"]()
    before, looks = state_of(other), picture(other)
    with pytest.raises(InputError, match="does not fit"), gated(other, gates):
        pass
    assert picture(other) == looks
    assert same_state(other, before)


def test_gates_inside_gates_are_refused():
    model = TOYS["bert"]()
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
        model = TOYS[name]().train()
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


@pytest.mark.parametrize("name", TEXT)
def test_a_gated_model_is_a_plain_model_to_its_embedding_hook(name):
    """The adversary's gradient reaches the embeddings while all weights are frozen."""
    model = TOYS[name]().train()
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
