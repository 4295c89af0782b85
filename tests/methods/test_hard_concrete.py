"""Hard-concrete search against hand arithmetic, and the traps of the released code that it repairs."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.toys import TOYS, toy_batches
from torch import nn

import hardtack.methods.hard_concrete as module
from hardtack.errors import InputError
from hardtack.gates import _logistic
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.methods.search import Data
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.tasks.task import Batch
from hardtack.ticket import Base
from hardtack.training.adversarial import Clean, FreeLB

LN5 = math.log(5)
SHIFT = 2 / 3 * math.log(11)  # -beta log(-gamma / zeta), 1.5986


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


class Linear(nn.Module):
    """Linear maps beside each other whose outputs add up; no biases."""

    def __init__(self, *weights: torch.Tensor):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights)
        for linear, weight in zip(self.maps, weights, strict=True):
            linear.weight = nn.Parameter(weight.clone())

    def forward(self, x: torch.Tensor, **ignored: torch.Tensor):
        start, out = 0, 0.0
        for linear in self.maps:
            out = out + linear(x[:, start : start + linear.in_features])
            start += linear.in_features
        return SimpleNamespace(logits=out)


class Steps:
    """The same batch for a given number of steps an epoch."""

    def __init__(self, count: int, x: torch.Tensor, labels: torch.Tensor, **more: torch.Tensor):
        self.count = count
        self.batch = Batch({"x": x, **more}, labels, torch.arange(len(labels)), {})

    def __len__(self) -> int:
        return self.count

    def at(self, step: int) -> Batch:
        return self.batch


def search(model: nn.Module, data, run: Run, objective=None, wanted=("0.5",), **settings):
    method = HardConcrete(
        sparsities=tuple(Sparsity.parse(each) for each in wanted), **{"epochs": 1.0, **settings}
    )
    view = Prunable.of(model)
    return list(method.search(model, Base.of(model), view, Data(data, data), objective or Clean(), run))


@pytest.fixture
def steps_of(monkeypatch):
    """Collects each score's gradient as the optimiser meets it."""
    seen = []

    class Recorder(torch.optim.AdamW):
        def step(self, closure=None):
            seen.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Recorder)
    return seen


X = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.8, -1.5]])
LABELS = torch.tensor([0, 1])
W = torch.tensor([[0.7, -0.4, 1.1], [-0.2, 0.9, 0.6]])


class Zero:
    """An objective that is 0 and has no slope, so that only the price is left."""

    name = "zero"
    passes = 1

    def __call__(self, model, batch, progress, rng):
        yield 0.0 * model(**batch.inputs).logits.sum()


# ----------------------------------------------------------------------------------------- the price


@pytest.mark.parametrize("keys", [1, 3])
def test_t1_the_price_follows_progress_whatever_the_batch_is_made_of(keys, tmp_path):
    more = {f"key{number}": LABELS for number in range(keys - 1)}
    run = Run("search", 2, tmp_path)
    search(Linear(W), Steps(20, X, LABELS, **more), run, Zero(), lr=1e-12, weight_decay=0.0)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    # 0 up to a tenth, linear up to four tenths, then lambda = 0.5; times the open gates' share, 0.9611.
    ramp = [0, 0, 0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6] + [1] * 12
    assert losses == pytest.approx([0.5 * sigmoid(LN5 + SHIFT) * share for share in ramp], rel=1e-5)
    assert [line["open"] for line in lines] == pytest.approx([sigmoid(LN5 + SHIFT)] * 20, abs=1e-6)


@pytest.mark.parametrize(
    ("mean_of", "weights"), [("sites", (1 / 12, 1 / 4)), ("gates", (1 / 8, 1 / 8))], ids=["sites", "gates"]
)
def test_the_price_of_a_gate_depends_on_its_site_or_not(mean_of, weights, steps_of):
    model = Linear(W, torch.tensor([[0.5], [0.25]]))  # 6 gates and 2
    data, full = (
        Steps(1, torch.cat([X, torch.ones(2, 1)], 1), LABELS),
        {"price_begin": 0.0, "price_finish": 0.0},
    )
    search(model, data, Run.nowhere(), Zero(), ("0.1",), mean_of=mean_of, price=3.0, **full)
    ((first, second),) = steps_of
    open_ = sigmoid(LN5 + SHIFT)
    for found, weight in zip((first, second), weights, strict=True):
        assert found.tolist() == pytest.approx([3.0 * weight * open_ * (1 - open_)] * found.numel(), rel=1e-4)


# ---------------------------------------------------------------------------- one step, by hand


@pytest.mark.parametrize("clip", [0.01, 0.0])
def test_a_step_s_gradient_is_the_clipped_task_s_plus_the_unclipped_price_s(clip, steps_of, tmp_path):
    run = Run("search", 2, tmp_path)
    search(Linear(W), Steps(1, X, LABELS), run, clip=clip, price=0.7, price_begin=0.0, price_finish=0.0)
    seed = int(torch.randint(2**63 - 1, (1,), generator=run.rng("gates", 0)))
    soft = sigmoid(_logistic(6, seed).double().numpy() + LN5 / (2 / 3))
    stretched = soft * 1.2 - 0.1
    gate = np.clip(stretched, 0, 1)
    inside = (stretched > 0) & (stretched < 1)
    assert inside.any()
    assert not inside.all()
    w, x = W.double().numpy(), X.double().numpy()
    logits = x @ (w * gate.reshape(2, 3)).T
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(p[[0, 1], [0, 1]]).mean()
    toward = (p - np.eye(2)) / 2  # d loss / d logits
    task = (toward.T @ x * w).flatten() * 1.2 * soft * (1 - soft) / (2 / 3) * inside
    norm = np.sqrt((task**2).sum())
    open_ = sigmoid(LN5 + SHIFT)
    price = 0.7 * open_ * (1 - open_) / 6
    clipped = task * min(1.0, clip / norm) if clip else task
    ((found,),) = steps_of
    assert found.tolist() == pytest.approx((clipped + price).tolist(), rel=1e-4, abs=1e-9)
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert json.loads(line)["loss"] == pytest.approx(loss + 0.7 * open_, rel=1e-5)
    if clip:
        assert norm > 3 * clip


def test_t2_weights_are_frozen_collect_no_gradient_and_stay_out_of_the_norm(steps_of, tmp_path):
    model = TOYS["bert"]()
    before = model.state_dict()
    found = []

    class Watched:
        name = "watched"
        passes = 2

        def __call__(self, model, batch, progress, rng):
            for loss in FreeLB(steps=2)(model, batch, progress, rng):
                yield loss
                found.append([p.requires_grad or p.grad is not None for p in model.parameters()])

    batches = toy_batches(model, examples=12, size=4)
    search(model, batches, Run("search", 0, tmp_path), Watched(), price=0.0, clip=0.0)
    assert len(found) == 6
    assert not any(any(flags) for flags in found)
    norms = [json.loads(line)["grad_norm"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    own = [math.sqrt(sum(float(g.double().square().sum()) for g in grads)) for grads in steps_of]
    assert norms == pytest.approx(own, rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_each_pass_of_a_step_sees_another_sampled_network():
    found = []

    class Watched:
        name = "watched"
        passes = 3

        def __call__(self, model, batch, progress, rng):
            for loss in FreeLB(steps=3, step_size=0.0, start=0.0)(model, batch, progress, rng):
                found.append(loss.item())
                yield loss

    def losses(seed: int) -> list[float]:
        found.clear()
        model = TOYS["bert"]()
        for inner in model.modules():
            if isinstance(inner, nn.Dropout):
                inner.p = 0.0
        search(model, toy_batches(model, examples=4, size=4), Run.nowhere(seed), Watched(), wanted=("0.01",))
        return list(found)

    first = losses(0)
    assert len(set(first)) == 3
    assert losses(0) == first
    assert set(losses(1)).isdisjoint(first)


# --------------------------------------------------------------------------------- drawing the ticket


@pytest.fixture
def learned(monkeypatch):
    """Replaces the learning by given scores."""

    def arrange(*values: list[float]) -> None:
        def fit(model, batches, objective, optimizer, **settings):
            with torch.no_grad():
                for score, value in zip(optimizer.param_groups[0]["params"], values, strict=True):
                    score.copy_(torch.tensor(value))
            return iter(())

        monkeypatch.setattr(module, "fit_steps", fit)

    return arrange


def masks_of(ticket) -> list[list[int]]:
    return [mask.int().tolist() for mask in ticket.masks.values()]


def test_ranks_log_alpha_where_sigmoid_saturates(learned):
    high = [40.0, 20.0, 60.0, 30.0, 50.0, 25.0]
    assert torch.sigmoid(torch.tensor(high)).unique().numel() == 1
    learned(high)
    third, half = search(Linear(W), Steps(1, X, LABELS), Run.nowhere(), wanted=("0.3333", "0.5"))
    assert masks_of(third) == [[1, 0, 1, 1, 1, 0]]
    assert masks_of(half) == [[1, 0, 1, 0, 1, 0]]
    low = [-120.0, -110.0, -130.0, -150.0, -105.0, -140.0]
    assert torch.sigmoid(torch.tensor(low)).unique().numel() == 1
    learned(low)
    (half,) = search(Linear(W), Steps(1, X, LABELS), Run.nowhere())
    assert masks_of(half) == [[1, 1, 0, 0, 1, 0]]


def test_learned_keeps_what_the_deterministic_gates_leave_open(learned):
    # The gate is 0 up to sigmoid(log alpha) = 1/12, which is log alpha = -2.3979.
    learned([-2.4, -2.39, 0.0, 3.0, -5.0, -2.397])
    ticket, fixed = search(Linear(W), Steps(1, X, LABELS), Run.nowhere(), wanted=("learned", "0.5"))
    assert masks_of(ticket) == [[0, 1, 1, 1, 0, 1]]
    assert ticket.origin["wanted"] == "learned"
    assert masks_of(fixed) == [[0, 1, 1, 1, 0, 0]]


def test_learned_gates_that_close_nothing_or_all_are_errors(learned):
    learned([0.0] * 6)
    with pytest.raises(InputError, match="closed no gate"):
        search(Linear(W), Steps(1, X, LABELS), Run.nowhere(), wanted=("learned",))
    learned([-9.0] * 6)
    with pytest.raises(InputError, match=r"learned empties maps\.0\.weight"):
        search(Linear(W), Steps(1, X, LABELS), Run.nowhere(), wanted=("learned",))


def test_the_record_says_how_it_was_found():
    (ticket,) = search(Linear(W), Steps(4, X, LABELS), Run.nowhere(9), FreeOf(), price=0.25, mean_of="gates")
    assert ticket.origin["settings"]["price"] == 0.25
    assert ticket.origin["settings"]["mean_of"] == "gates"
    assert ticket.origin["objective"] == "free-of"
    assert ticket.origin["seed"] == 9
    assert 0.5 < ticket.origin["open"] < 1
    assert json.loads(json.dumps(ticket.origin)) == ticket.origin


class FreeOf(Zero):
    name = "free-of"


def test_learns_which_weights_matter():
    # Two of five inputs tell the class, the others are noise; all weights have the same size.
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(64, 5, generator=rng)
    labels = (x[:, 1] + x[:, 3] > 0).long()
    weight = torch.ones(2, 5)
    weight[0] = -1.0
    model = Linear(weight)
    (ticket,) = search(model, Steps(150, x, labels), Run.nowhere(), wanted=("0.6",), price=0.1)
    assert ticket.masks["maps.0.weight"].view(2, 5).int().tolist() == [[0, 1, 0, 1, 0]] * 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mean_of": "layers"}, "mean_of 'layers' does not exist; allowed: sites, gates"),
        ({"opening": 1.1}, "opening 1.1 is not allowed; allowed: -0.1 < opening < 1.1"),
        ({"opening": -0.1}, "opening -0.1 is not allowed; allowed: -0.1 < opening < 1.1"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(settings, words):
    with pytest.raises(InputError) as error:
        HardConcrete(**settings)
    assert str(error.value) == words


def test_a_search_that_closed_hardly_a_gate_says_so():
    model, data = Linear(torch.eye(4)), Steps(40, torch.eye(4), torch.arange(4))
    (idle,) = search(model, data, Run.nowhere(), price=0.0, lr=1e-6)
    (busy,) = search(model, data, Run.nowhere(), price=1000.0, lr=0.5)
    assert "ranking is mostly noise" in idle.origin["note"]
    assert "note" not in busy.origin
