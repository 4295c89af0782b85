"""The loop against a plain one written here, its clipping and holding, its randomness, its flags."""

import math
from types import SimpleNamespace

import pytest
import torch
from tests.toys import TOYS, same_state, state_of, toy_batches
from tests.training.fitting import TOTAL, adamw, half, train, without_dropout_
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.schedule import Constant, WarmupDecay
from hardtack.tasks.task import Batch
from hardtack.training.adversarial import PGD, Clean, FreeLB
from hardtack.training.loop import Unclipped, fit_steps

# --------------------------------------------------------------------------- against a plain loop


@pytest.mark.parametrize("toy", ["bert", "gpt2", "conv"])
def test_equals_a_plain_loop_to_the_bit(toy):
    model, plain = (without_dropout_(TOYS[toy]()) for _ in range(2))
    batches, rates = toy_batches(plain, examples=20, size=4), WarmupDecay(0.01, 0.4)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1.0, weight_decay=0.01)
    losses, norms = [], []
    plain.train()
    for step in range(TOTAL):
        for group in optimizer.param_groups:
            group["lr"] = rates(step / TOTAL)
        batch = batches.at(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(
            plain(**batch.inputs).logits, batch.labels, reduction="none"
        ).mean()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(plain.parameters(), 1.0)))
        losses.append(loss.item())
        optimizer.step()
    steps = train(model)
    assert [step.index for step in steps] == list(range(TOTAL))
    assert [step.loss for step in steps] == losses
    assert [step.grad_norm for step in steps] == norms
    assert max(norms) > 1, "the clip was never needed"
    assert same_state(model, state_of(plain))


@pytest.mark.parametrize("objective", [FreeLB(steps=3), PGD(steps=2)], ids=["freelb", "pgd"])
def test_equals_a_plain_loop_over_an_objective(objective):
    model, plain = (without_dropout_(TOYS["bert"]()) for _ in range(2))
    batches, run, optimizer = toy_batches(plain, examples=20, size=4), Run.nowhere(4), adamw(plain, lr=0.01)
    losses = []
    plain.train()
    for step in range(3):
        optimizer.zero_grad()
        losses.append(0.0)
        for loss in objective(
            plain, batches.at(step), 0.0, lambda label, example, step=step: run.rng(label, step, example)
        ):
            loss.backward()
            losses[-1] += loss.item()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
    steps = train(model, Run.nowhere(4), objective, total=3, lr=Constant(0.01))
    assert [step.loss for step in steps] == losses
    assert same_state(model, state_of(plain))


def test_rates_and_progress_of_each_step():
    model, batches = TOYS["bert"](), toy_batches(TOYS["bert"](), size=4)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1]},
            {"params": [p for p in model.parameters() if p.dim() < 2]},
        ]
    )
    seen = []
    ticks = []
    run = Run.nowhere(watch=lambda *tick: ticks.append(tick))
    for step in fit_steps(
        model, batches, Clean(), optimizer, total=5, lr=WarmupDecay(0.2, 0.4), run=run, label="trying"
    ):
        seen.append((step.progress, *(group["lr"] for group in optimizer.param_groups)))
    # Up to 0.2 over 0.4 of the time, then down over the remaining 0.6.
    expected = [(0.0, 0.0), (0.2, 0.1), (0.4, 0.2), (0.6, 0.2 * 2 / 3), (0.8, 0.2 / 3)]
    assert seen == [pytest.approx((progress, rate, rate)) for progress, rate in expected]
    assert ticks == [("trying", done, 5) for done in range(1, 6)]


def test_only_the_first_step_of_a_warmup_stands_still():
    model = TOYS["bert"]()
    before = state_of(model)
    for step in fit_steps(
        model, toy_batches(model), Clean(), adamw(model), total=4, lr=WarmupDecay(0.1, 0.5), run=Run.nowhere()
    ):
        assert same_state(model, before) == (step.index == 0)


# ------------------------------------------------------------------- a model of one number, by hand


class One(nn.Module):
    """One number; the objectives below give it whatever gradient they like."""

    def __init__(self, value: float = 1.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value]))
        self.frozen = nn.Parameter(torch.tensor([5.0]), requires_grad=False)

    def forward(self, factor: Tensor):
        return SimpleNamespace(logits=self.w * factor)


class Same:
    """The same batch at every step."""

    def __init__(self, **inputs):
        self.batch = Batch(
            {name: torch.tensor([value]) for name, value in inputs.items()},
            torch.tensor([0]),
            torch.tensor([0]),
            {},
        )

    def at(self, step: int) -> Batch:
        return self.batch


def sloped(task: float, price: float | None = None):
    def objective(model, batch, progress, rng):
        yield (task * model.w).sum()
        if price is not None:
            yield Unclipped((price * model.w).sum())

    return objective


@pytest.mark.parametrize(
    ("task", "price", "clip", "gradient"),
    [
        (3.0, 0.5, 1.0, 1.5),  # clipped to 1, and the price's 0.5 after it
        (3.0, 4.0, 1.0, 5.0),  # the price is never clipped
        (-3.0, 0.5, 2.0, -1.5),
        (0.5, 0.25, 1.0, 0.75),  # nothing to clip
        (3.0, 0.5, 0.0, 3.5),  # clipping off
        (3.0, None, 1.0, 1.0),
    ],
)
def test_an_unclipped_loss_is_added_after_the_clip(task, price, clip, gradient):
    model = One()
    optimizer = torch.optim.SGD([model.w], lr=1.0)
    (step,) = fit_steps(
        model,
        Same(factor=1.0),
        sloped(task, price),
        optimizer,
        total=1,
        lr=Constant(0.1),
        run=Run.nowhere(),
        clip=clip,
    )
    assert float(model.w.detach()) == pytest.approx(1 - 0.1 * gradient, rel=1e-6)
    assert step.grad_norm == pytest.approx(abs(task))
    assert step.loss == pytest.approx(task + (price or 0.0))
    assert float(model.frozen) == 5.0


def test_losses_of_a_step_add_up_before_the_clip():
    def objective(model, batch, progress, rng):
        for _ in range(4):
            yield (0.5 * model.w).sum()

    model = One()
    optimizer = torch.optim.SGD([model.w], lr=1.0)
    (step,) = fit_steps(
        model, Same(factor=1.0), objective, optimizer, total=1, lr=Constant(0.1), run=Run.nowhere(), clip=1.0
    )
    assert step.grad_norm == pytest.approx(2.0)
    assert float(model.w.detach()) == pytest.approx(0.9)


def test_gradients_from_before_are_dropped():
    model = One()
    model.w.grad = torch.tensor([100.0])
    optimizer = torch.optim.SGD([model.w], lr=1.0)
    (step,) = fit_steps(
        model, Same(factor=1.0), sloped(1.0), optimizer, total=1, lr=Constant(0.1), run=Run.nowhere()
    )
    assert step.grad_norm == pytest.approx(1.0)
    assert model.w.grad is None


# ----------------------------------------------------------------------------- clipping and holding


def task_gradients(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    Clean()(model, batch, 0.0, None).__next__().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def norm_of(gradients) -> float:
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def test_the_norm_is_that_of_live_and_trained_weights_alone():
    model = without_dropout_(TOYS["bert"]())
    ticket = half(model)
    masks = {f"bert.{name}": mask for name, mask in Prunable.of(model).spread(ticket.masks).items()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("embeddings" not in name)
    trained = [
        p for name, p in model.named_parameters() if "LayerNorm" not in name
    ]  # the frozen ones among them
    batch = toy_batches(model, examples=20, size=4).at(0)
    copy = without_dropout_(TOYS["bert"]())
    ticket.hold_(copy)
    gradients = task_gradients(copy, batch)
    live = {
        name: gradient * masks.get(name, 1)
        for name, gradient in gradients.items()
        if "embeddings" not in name and "LayerNorm" not in name
    }
    assert norm_of(live.values()) < 0.9 * norm_of(gradients.values())
    (step,) = train(model, optimizer=torch.optim.SGD(trained, lr=1.0), hold=ticket, total=1, lr=Constant(0.0))
    assert step.grad_norm == pytest.approx(norm_of(live.values()), rel=1e-5)


def test_clipping_leaves_the_whole_bound_to_live_weights():
    model, copy = (without_dropout_(TOYS["bert"]()) for _ in range(2))
    ticket = half(model, 0.9)
    ticket.hold_(copy)
    before = state_of(copy)
    (step,) = train(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        hold=ticket,
        total=1,
        lr=Constant(1.0),
        clip=0.5,
    )
    assert step.grad_norm > 0.5
    moved = norm_of([p.detach() - before[name] for name, p in model.named_parameters()])
    assert moved == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("toy", ["bert", "albert", "gpt2", "conv"])
def test_held_weights_stay_zero_through_decay_and_momentum(toy):
    model = TOYS[toy]()
    ticket, before = half(model), state_of(model)
    view = Prunable.of(model)
    masks, tensors = view.spread(ticket.masks), view.tensors(model)
    optimizer = adamw(model, weight_decay=0.3)
    batches = toy_batches(model, examples=20, size=4)
    for _ in fit_steps(
        model, batches, Clean(), optimizer, total=4, lr=Constant(0.01), run=Run.nowhere(), hold=ticket
    ):
        for name, mask in masks.items():
            assert torch.equal(tensors[name] != 0, mask), name
            assert not optimizer.state[tensors[name]]["exp_avg"][~mask].any()
    now = state_of(model)
    assert all(not torch.equal(now[name], before[name]) for name, _ in model.named_parameters())


def test_a_ticket_of_another_model_is_refused_before_anything_moves():
    model = TOYS["bert"]()
    before = state_of(model)
    with pytest.raises(InputError, match="ticket does not fit"):
        train(model, hold=half(TOYS["albert"]()))
    assert same_state(model, before)


def test_weights_that_are_not_trained_collect_no_gradients():
    model = TOYS["bert"]()
    before = state_of(model)
    head = list(model.classifier.parameters())
    grown = []
    for _ in fit_steps(
        model,
        toy_batches(model),
        Clean(),
        torch.optim.AdamW(head),
        total=3,
        lr=Constant(0.1),
        run=Run.nowhere(),
    ):
        grown += [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert grown == []
    now = state_of(model)
    changed = {name for name in now if not torch.equal(now[name], before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


# --------------------------------------------------------------------------------------- randomness


@pytest.mark.parametrize("objective", [Clean(), FreeLB(steps=2)], ids=["clean", "freelb"])
def test_runs_of_one_seed_are_equal_whatever_the_caller_does(objective):
    models = [TOYS["bert"]() for _ in range(3)]
    for number, model in enumerate(models):
        batches, run = toy_batches(model, examples=20, size=4), Run.nowhere(int(number == 2))
        for _ in fit_steps(model, batches, objective, adamw(model), total=3, lr=Constant(0.01), run=run):
            if number == 1:
                torch.manual_seed(99)
                torch.rand(7)
                model.eval()
                model(**batches.at(0).inputs)
    assert same_state(models[1], state_of(models[0]))
    assert not same_state(models[2], state_of(models[0])), "dropout does not depend on the seed"


def test_dropout_differs_between_steps_and_between_passes_of_a_step():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))
            self.dropout = nn.Dropout(0.5)

        def forward(self, factor):
            seen.append(self.dropout(torch.ones(64)))
            return self.w * factor

    def twice(model, batch, progress, rng):
        yield model(**batch.inputs).sum()
        yield model(**batch.inputs).sum()

    seen: list[Tensor] = []
    model = Noisy()
    list(
        fit_steps(
            model,
            Same(factor=1.0),
            twice,
            torch.optim.SGD(model.parameters()),
            total=3,
            lr=Constant(0.1),
            run=Run.nowhere(),
        )
    )
    assert len({tuple(mask.tolist()) for mask in seen}) == 6


@pytest.mark.parametrize(
    "objective", [Clean(), FreeLB(steps=2), PGD(steps=1)], ids=["clean", "freelb", "pgd"]
)
def test_torch_s_own_stream_is_untouched(objective):
    model = TOYS["bert"]()
    before = torch.get_rng_state()
    for _ in fit_steps(
        model, toy_batches(model), objective, adamw(model), total=2, lr=Constant(0.01), run=Run.nowhere()
    ):
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


# -------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize("moment", range(4))
def test_flags_come_back_when_the_caller_stops(moment):
    model = TOYS["bert"]()
    for number, module in enumerate(model.modules()):
        module.training = number % 3 == 1
    flags = [module.training for module in model.modules()]
    steps = fit_steps(
        model, toy_batches(model), Clean(), adamw(model), total=4, lr=Constant(0.01), run=Run.nowhere()
    )
    for step in steps:
        assert all(module.training for module in model.modules())
        if step.index == moment:
            break
    steps.close()
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


def test_flags_come_back_after_an_exception():
    def broken(model, batch, progress, rng):
        yield model(**batch.inputs).logits.sum()
        raise OSError("no more")

    model = TOYS["bert"]()
    with pytest.raises(OSError, match="no more"):
        train(model, objective=broken)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
