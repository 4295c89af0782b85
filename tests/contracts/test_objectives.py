"""What every objective must do, and what each of them computes, against references written here."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.bag import Bag, bag, bag_batch
from tests.contracts.plain import changes, facts_of, hooks_of
from tests.toys import TOYS, toy_batches
from tests.zoo import IMAGES, TEXTS, ZOO
from torch import Tensor, nn
from torch.nn import functional

import hardtack.training.adversarial as adversarial
from hardtack.errors import InputError
from hardtack.runs import Run, generator
from hardtack.tasks.task import Batch
from hardtack.training.adversarial import OBJECTIVES, PGD, Clean, FreeLB
from hardtack.training.losses import cross_entropy

SETTINGS = {
    "clean": Clean(),
    "freelb": FreeLB(steps=3, step_size=0.4, start=0.3),
    "freelb bounded": FreeLB(steps=3, step_size=0.4, start=0.3, radius=0.5),
    "pgd": PGD(steps=2, step_size=0.4, start=0.3, radius=0.5),
    "pgd unbounded": PGD(steps=2, step_size=0.4, start=0.3, radius=0.0),
}
"""Steps that are large against the toys' embeddings, so that a wrong one shows."""
ADVERSARIAL = [name for name in SETTINGS if name != "clean"]


def stream(seed: int = 5, step: int = 2):
    run = Run.nowhere(seed)
    return lambda label, example=None: run.rng(label, step, example)


def drive(objective, model: nn.Module, batch: Batch, seed: int = 5) -> list[float]:
    """Do what the loop does: a backward for each loss before the next one is asked for."""
    losses = []
    for loss in objective(model, batch, 0.0, stream(seed)):
        loss.backward()
        losses.append(float(loss.detach()))
    return losses


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def first_batch(model: nn.Module, pairs: bool = False, size: int = 5) -> Batch:
    return toy_batches(model, examples=10, size=size, pairs=pairs).at(0)


# ------------------------------------------------------------------------------------ contracts


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_says_what_it_is(name):
    made = OBJECTIVES[name]
    assert made.name == name
    assert (made.__doc__ or "").splitlines()[0].endswith(".")
    assert made() == made()
    for field in dataclasses.fields(made):
        assert field.metadata["help"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made().loss = None


def test_every_objective_of_the_table_is_tested_here():
    assert {objective.name for objective in SETTINGS.values()} == set(OBJECTIVES)


@pytest.mark.parametrize("toy", TEXTS)
@pytest.mark.parametrize("name", SETTINGS)
def test_yields_scalars_with_a_graph_and_leaves_nothing_on_the_model(name, toy):
    objective, model = SETTINGS[name], ZOO[toy]()
    before, forwards = facts_of(model), []
    handle = model.register_forward_hook(lambda *_: forwards.append(1))
    losses = objective(model, first_batch(model), 0.0, stream())
    count = 0
    for loss in losses:
        assert loss.shape == ()
        assert loss.grad_fn is not None
        assert len(hooks_of(model)) == 1  # the one above
        loss.backward()
        count += 1
    assert count == (objective.steps if isinstance(objective, FreeLB) else 1)
    assert objective.passes == len(forwards)
    handle.remove()
    model.zero_grad()
    assert changes(model, before) == []


@pytest.mark.parametrize("name", SETTINGS)
def test_leaves_nothing_when_it_is_closed_early_or_the_model_fails(name):
    model = TOYS["bert"]()
    before, batch = facts_of(model), first_batch(model)
    losses = SETTINGS[name](model, batch, 0.0, stream())
    next(losses)
    losses.close()
    assert changes(model, before) == []
    broken = batch._replace(inputs={**batch.inputs, "token_type_ids": batch.inputs["token_type_ids"] + 9})
    with pytest.raises(IndexError):
        next(SETTINGS[name](model, broken, 0.0, stream()))
    assert changes(model, before) == []


@pytest.mark.parametrize("name", SETTINGS)
def test_the_model_gets_the_batch_as_it_is_and_no_labels(name):
    model = TOYS["bert"]()
    batch = first_batch(model, pairs=True)
    assert set(batch.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert batch.inputs["token_type_ids"].any()
    assert not batch.inputs["attention_mask"].all()
    seen = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    drive(SETTINGS[name], model, batch)
    assert len(seen) == SETTINGS[name].passes
    for args, kwargs in seen:
        assert args == ()
        assert kwargs.keys() == batch.inputs.keys()
        assert all(torch.equal(kwargs[key], batch.inputs[key]) for key in kwargs)


@pytest.mark.parametrize("name", SETTINGS)
def test_token_types_and_attention_mask_change_the_loss(name):
    model = TOYS["bert"]()
    batch = first_batch(model, pairs=True)
    losses = drive(SETTINGS[name], model, batch)
    for key in ("token_type_ids", "attention_mask"):
        other = batch._replace(inputs={**batch.inputs, key: 1 - batch.inputs[key]})
        assert drive(SETTINGS[name], model, other) != losses, key


@pytest.mark.parametrize("toy", TEXTS)
@pytest.mark.parametrize("name", SETTINGS)
def test_losses_are_a_function_of_the_stream(name, toy):
    model = ZOO[toy]()
    batch = first_batch(model)
    losses = drive(SETTINGS[name], model, batch, seed=5)
    assert drive(SETTINGS[name], model, batch, seed=5) == losses
    assert (drive(SETTINGS[name], model, batch, seed=6) == losses) == (name == "clean")


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_an_attack_raises_the_loss(name):
    model = TOYS["bert"]()
    batch = first_batch(model)
    (clean,) = drive(Clean(), model, batch)
    if name.startswith("pgd"):
        assert drive(SETTINGS[name], model, batch)[0] > clean
    else:
        first, *_, last = drive(SETTINGS[name], model, batch)
        assert last > first


def test_the_loss_is_per_example_and_exchangeable():
    def weighted(logits: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(logits, batch) * batch.extra["weight"]

    model = TOYS["bert"]()
    batch = first_batch(model)
    batch = batch._replace(extra={"weight": torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0])})
    one = batch._replace(
        inputs={key: value[:1] for key, value in batch.inputs.items()},
        labels=batch.labels[:1],
        ids=batch.ids[:1],
    )
    for objective in SETTINGS.values():
        losses = drive(dataclasses.replace(objective, loss=weighted), model, batch)
        alone = drive(objective, model, one)
        assert losses == pytest.approx([2 * loss / 5 for loss in alone], rel=1e-4)


CLASSIFIERS = {
    "conv": "ToyConv",
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "resnet": "ResNetForImageClassification",
    "resnet-bottleneck": "ResNetForImageClassification",
    "convnext": "ConvNextForImageClassification",
}


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "clean"])
def test_models_without_word_embeddings_are_refused_in_one_line(name):
    found = {}
    for toy in IMAGES:
        model = ZOO[toy]()
        with pytest.raises(InputError) as error:
            next(OBJECTIVES[name]()(model, toy_batches(model).at(0), 0.0, stream()))
        found[toy] = str(error.value)
    assert found == {
        toy: f"{model} has no word embeddings to perturb; allowed objective: clean"
        for toy, model in CLASSIFIERS.items()
    }


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "clean"])
@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("steps", 0, "1 or more"),
        ("steps", -2, "1 or more"),
        ("step_size", -0.1, "0 or more, finite"),
        ("step_size", math.nan, "0 or more, finite"),
        ("start", -1.0, "0 or more, finite"),
        ("start", math.inf, "0 or more, finite"),
        ("radius", -0.5, "0 or more, finite"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(name, field, value, allowed):
    with pytest.raises(InputError) as error:
        OBJECTIVES[name](**{field: value})
    assert str(error.value) == f"{name} {field} {value} is not allowed; allowed: {allowed}"


# ------------------------------------------------------------------- references, without any hook


class Reference:
    """The model as a function of its parameters and of delta: each token gets a vocabulary entry of its own.

    Token (n, l) becomes id pad + 1 + n * L + l, and that row of the embeddings is its word's plus delta:
    no hook, no inputs_embeds. Padding keeps its id, because families derive masks and positions from it.
    """

    def __init__(self, model: nn.Module, batch: Batch):
        self.model, self.batch = model, batch
        self.tokens = batch.inputs["attention_mask"].bool()
        self.pad = int(model.config.pad_token_id)
        self.scale = float(
            getattr(model.get_input_embeddings(), "embed_scale", 1.0)
        )  # Gemma's, in the lookup
        self.own = torch.arange(self.tokens.numel()).view(self.tokens.shape) + self.pad + 1
        lookup = model.get_input_embeddings().weight
        (self.lookup,) = [name for name, p in model.named_parameters() if p is lookup]
        self.parameters = dict(model.named_parameters())

    def loss(self, delta: Tensor) -> Tensor:
        words = self.parameters[self.lookup]
        rows = words[self.batch.inputs["input_ids"]] + delta / self.scale  # [N, L, D]
        table = torch.cat([words[: self.pad + 1], rows.flatten(0, 1)])
        inputs = {**self.batch.inputs, "input_ids": self.own.where(self.tokens, self.pad)}
        out = torch.func.functional_call(self.model, {**self.parameters, self.lookup: table}, (), inputs)
        return functional.cross_entropy(out.logits, self.batch.labels)

    def start(self, size: float, seed: int = 5, step: int = 2) -> Tensor:
        width = self.parameters[self.lookup].shape[1]
        delta = torch.zeros(*self.tokens.shape, width)
        for row, example in enumerate(self.batch.ids.tolist()):
            length = int(self.tokens[row].sum())
            u = torch.rand(length, width, generator=generator(seed, "delta", step, example))
            delta[row, :length] = (2 * u - 1) * size / math.sqrt(length * width)
        return delta


def bounded(delta: Tensor, radius: float) -> Tensor:
    if radius == 0:
        return delta
    return torch.stack([row * min(1.0, radius / max(float(row.norm()), 1e-12)) for row in delta])


def moved(delta: Tensor, gradient: Tensor, step: float) -> Tensor:
    return torch.stack(
        [row + step * g / max(float(g.norm()), 1e-8) for row, g in zip(delta, gradient, strict=True)]
    )


@pytest.mark.parametrize("toy", TEXTS)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_losses_and_gradients_equal_the_reference(name, toy):
    objective, model = SETTINGS[name], ZOO[toy]()
    batch = first_batch(model)
    reference = Reference(model, batch)
    delta, expected = reference.start(objective.start), []
    total = dict.fromkeys(reference.parameters, 0.0)
    inner = objective.steps if isinstance(objective, PGD) else 0
    outer = 1 if isinstance(objective, PGD) else objective.steps
    for _ in range(inner):
        delta = bounded(delta, objective.radius).requires_grad_()
        (slope,) = torch.autograd.grad(reference.loss(delta), delta)
        delta = moved(delta.detach(), slope, objective.step_size)
    for _ in range(outer):
        delta = bounded(delta, objective.radius).requires_grad_()
        loss = reference.loss(delta) / outer
        slope, *found = torch.autograd.grad(loss, [delta, *reference.parameters.values()])
        for key, gradient in zip(total, found, strict=True):
            total[key] = total[key] + gradient
        expected.append(float(loss.detach()))
        delta = moved(delta.detach(), slope, objective.step_size)
    assert drive(objective, model, batch) == pytest.approx(expected, rel=1e-4)
    found = gradients(model)
    scale = max(float(gradient.abs().max()) for gradient in total.values())
    for key, gradient in total.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-4 * scale, msg=key)


@pytest.mark.parametrize("toy", TEXTS)
def test_freelb_of_one_clean_step_is_clean_to_the_bit(toy):
    one, other = ZOO[toy](), ZOO[toy]()
    batch = first_batch(one)
    assert drive(FreeLB(steps=1, start=0.0), one, batch) == drive(Clean(), other, batch)
    found, expected = gradients(one), gradients(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


# ----------------------------------------------------------------------------- the perturbation


@pytest.fixture
def deltas(monkeypatch):
    """Collects every perturbation that an objective adds."""
    seen = []
    add = adversarial.added_to_embeddings

    def spy(model, delta):
        seen.append(delta.detach().clone())
        return add(model, delta)

    monkeypatch.setattr(adversarial, "added_to_embeddings", spy)
    return seen


def test_one_step_on_a_linear_model_against_hand_arithmetic():
    # Words (1, 0) and (0, 1), classes (1, 0) and (-1, 0), label 0: z = (s, -s) with s the sum's first
    # coordinate, 1 at the start. The loss is log(1 + exp(-2 s)), and its slope at each token is (-2 p1, 0):
    # over two tokens the unit direction is (-1/sqrt 2, 0) each, so a step of eta takes sqrt(2) eta from s.
    model = Bag(torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    inputs = {"input_ids": torch.tensor([[1, 2, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    batch = Batch(inputs, torch.tensor([0]), torch.tensor([0]), {})
    eta = 0.1
    clean, stepped = math.log1p(math.exp(-2)), math.log1p(math.exp(-2 * (1 - math.sqrt(2) * eta)))
    assert drive(Clean(), model, batch) == pytest.approx([clean])
    assert drive(PGD(steps=1, step_size=eta, start=0.0, radius=0.0), model, batch) == pytest.approx([stepped])
    halves = drive(FreeLB(steps=2, step_size=eta, start=0.0), model, batch)
    assert halves == pytest.approx([clean / 2, stepped / 2])
    # Projected to half the step: half the way. And the direction does not change along it, so steps add up.
    half = math.log1p(math.exp(-2 * (1 - math.sqrt(2) * eta / 2)))
    assert drive(PGD(steps=1, step_size=eta, start=0.0, radius=eta / 2), model, batch) == pytest.approx(
        [half]
    )
    twice = math.log1p(math.exp(-2 * (1 - 2 * math.sqrt(2) * eta)))
    assert drive(PGD(steps=2, step_size=eta, start=0.0, radius=0.0), model, batch) == pytest.approx([twice])


@given(
    steps=st.integers(1, 4),
    step_size=st.floats(0, 5),
    start=st.floats(0, 5),
    radius=st.floats(0.01, 2),
    name=st.sampled_from(["freelb", "pgd"]),
)
def test_every_perturbed_point_is_inside_its_ball_and_off_the_padding(steps, step_size, start, radius, name):
    seen = []
    add = adversarial.added_to_embeddings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            adversarial, "added_to_embeddings", lambda model, d: (seen.append(d.detach()), add(model, d))[1]
        )
        objective = OBJECTIVES[name](steps=steps, step_size=step_size, start=start, radius=radius)
        batch = bag_batch((4, 1, 2), (3, 8, 0))
        drive(objective, bag(), batch)
    assert len(seen) == objective.passes
    for delta in seen:
        assert (delta.flatten(1).norm(dim=1) <= radius * (1 + 1e-5)).all()
        assert (delta[batch.inputs["attention_mask"] == 0] == 0).all()


def test_without_a_radius_pgd_may_leave_the_ball(deltas):
    drive(PGD(steps=3, step_size=1.0, start=0.0, radius=0.0), bag(), bag_batch((4, 2), (3, 8)))
    assert deltas[-1].flatten(1).norm(dim=1) == pytest.approx(torch.tensor([3.0, 3.0]), rel=1e-4)


@pytest.mark.parametrize("name", ["freelb", "pgd"])
def test_a_perturbation_depends_on_neither_the_other_examples_nor_the_padding(name, deltas):
    objective = OBJECTIVES[name](steps=3, step_size=0.4, start=0.3)
    together, alone = bag_batch((4, 2, 3), (3, 8, 5)), bag_batch((2,), (8,))
    drive(objective, bag(), together)
    whole = list(deltas)
    deltas.clear()
    drive(objective, bag(), alone)
    assert len(deltas) == len(whole) == objective.passes
    assert torch.equal(whole[0][1, :2], deltas[0][0])  # the start, to the bit
    for one, other in zip(whole, deltas, strict=True):
        torch.testing.assert_close(one[1, :2], other[0])
