import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hardtack.gates import BETA, EDGE, GAMMA, ZETA, HardConcreteGates, _hard_concrete
from hardtack.prunable import Prunable
from tests.toys import TOYS

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
