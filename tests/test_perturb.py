import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hardtack.perturb import added_to_embeddings, ascend, norms, project, random_start
from hardtack.runs import generator
from tests.toys import logits_of, toy_inputs
from tests.zoo import TEXTS, ZOO

EPS0, ETA = 0.05, 0.03


def stream(example):
    return generator(7, "delta", 3, example)


def mask(*lengths, width=None):
    return torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]


def test_start_has_the_papers_norm():
    """Check 3 of the method's specification: the expected norm is near eps0 / sqrt(3) = 0.029."""
    delta = random_start(mask(*[20] * 300), 64, EPS0, stream, torch.arange(300))
    assert float(norms(delta).mean()) == pytest.approx(EPS0 / math.sqrt(3), rel=0.005)
    assert EPS0 / math.sqrt(3) == pytest.approx(0.029, abs=2e-4)
    assert float(norms(delta).max()) <= EPS0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 16), st.floats(0, 2))
def test_start_is_inside_its_box_and_zero_on_padding(lengths, width, size):
    tokens = mask(*lengths, width=10)
    delta = random_start(tokens, width, size, stream, torch.arange(len(lengths)))
    assert delta.shape == (len(lengths), 10, width)
    assert not delta[~tokens].any()
    for row, length in enumerate(lengths):
        assert float(delta[row].abs().max()) <= size / math.sqrt(length * width) * (1 + 1e-6)


def test_start_by_hand():
    drawn = torch.rand(2, 3, generator=stream(5))
    delta = random_start(mask(2, width=4), 3, 0.6, stream, torch.tensor([5]))
    assert torch.allclose(delta[0, :2], (2 * drawn - 1) * 0.6 / math.sqrt(6))


def test_start_of_an_example_depends_on_neither_its_batch_nor_its_padding():
    alone = random_start(mask(4), 8, EPS0, stream, torch.tensor([11]))
    among = random_start(mask(6, 4, 2, width=9), 8, EPS0, stream, torch.tensor([3, 11, 12]))
    assert torch.equal(alone[0, :4], among[1, :4])
    assert not torch.equal(among[0, :2], among[2, :2])


def test_start_with_tokens_on_the_right_follows_the_mask():
    right = random_start(mask(3, width=5).flip(1), 8, EPS0, stream, torch.tensor([1]))
    left = random_start(mask(3, width=5), 8, EPS0, stream, torch.tensor([1]))
    assert torch.equal(right[0, 2:], left[0, :3])
    assert not right[0, :2].any()


def test_start_of_a_text_without_tokens_is_zero():
    assert not random_start(mask(0, 2), 8, EPS0, stream, torch.arange(2))[0].any()


def test_start_of_size_zero_is_the_clean_point():
    assert not random_start(mask(3, 2), 8, 0.0, stream, torch.arange(2)).any()


def test_norms_are_over_all_tokens_of_a_sentence():
    delta = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 2.0], [2.0, 4.0]]])
    assert norms(delta).tolist() == [[[5.0]], [[5.0]]]


def test_ascend_by_hand():
    delta = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.5, 0.5]]])
    gradient = torch.tensor([[[3.0, 4.0]], [[0.0, -0.001]], [[0.0, 0.0]]])
    moved = ascend(delta, gradient, 0.1)
    assert torch.allclose(moved, torch.tensor([[[1.06, 0.08]], [[0.0, 0.9]], [[0.5, 0.5]]]))


def test_project_by_hand():
    delta = torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]], [[0.0, 0.0]]])
    assert torch.allclose(project(delta, 1.0), torch.tensor([[[0.6, 0.8]], [[0.3, 0.4]], [[0.0, 0.0]]]))
    assert project(delta, 0.0) is delta


@given(st.integers(0, 1000), st.floats(1e-3, 10))
def test_project_ends_inside_the_ball_and_moves_nothing_that_is_inside(seed, radius):
    delta = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(seed))
    inside = norms(delta).flatten() <= radius
    projected = project(delta, radius)
    assert float(norms(projected).max()) <= radius * (1 + 1e-6)
    assert torch.equal(projected[inside], delta[inside])


@given(st.integers(1, 6), st.integers(0, 1000))
def test_bound_after_the_ascent_steps(steps, seed):
    """Check 3: after K-1 updates the norm is at most eps0 + (K-1) * eta."""
    rng = torch.Generator().manual_seed(seed)
    delta = random_start(mask(5, 3), 8, EPS0, lambda example: rng, torch.arange(2))
    for _ in range(steps - 1):
        delta = ascend(delta, torch.randn(delta.shape, generator=rng), ETA)
    assert float(norms(delta).max()) <= EPS0 + (steps - 1) * ETA + 1e-6


# ------------------------------------------------------------------------------------ in a model


def hooks(model):
    return [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]


def delta_for(model, inputs, size=4.0):
    width = model.get_input_embeddings().weight.shape[1]
    tokens = inputs["attention_mask"].bool()
    return random_start(tokens, width, size, stream, torch.arange(len(tokens)))


@pytest.mark.parametrize("name", TEXTS)
def test_added_delta_equals_a_moved_embedding_table(name):
    """One token repeated: moving its row of the table is the same as adding delta at each of its places."""
    model = ZOO[name]()
    ids = torch.full((2, 4), 9)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    shift = torch.randn(model.get_input_embeddings().weight.shape[1])
    clean = logits_of(model, inputs)
    with added_to_embeddings(model, shift.expand(2, 4, -1)):
        hooked = logits_of(model, inputs)
    assert not torch.allclose(hooked, clean, atol=0.01)
    with torch.no_grad():
        lookup = model.get_input_embeddings()
        lookup.weight[9] += shift / getattr(lookup, "embed_scale", 1.0)  # Gemma's lookup multiplies by it
    assert torch.allclose(hooked, logits_of(model, inputs), atol=1e-5)


@pytest.mark.parametrize("name", TEXTS)
def test_a_zero_delta_changes_nothing_and_no_hook_stays(name):
    model = ZOO[name]()
    inputs = toy_inputs(model)
    clean = logits_of(model, inputs)
    with added_to_embeddings(model, delta_for(model, inputs, size=0.0)):
        assert torch.equal(logits_of(model, inputs), clean)
    with added_to_embeddings(model, delta_for(model, inputs)):
        assert not torch.allclose(logits_of(model, inputs), clean, atol=0.01)
    assert not hooks(model)
    assert torch.equal(logits_of(model, inputs), clean)


def test_no_hook_stays_after_an_exception():
    model = ZOO["bert"]()
    with pytest.raises(KeyError), added_to_embeddings(model, torch.zeros(1)):
        raise KeyError
    assert not hooks(model)


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2"])
def test_token_types_go_through(name):
    """The released code drops them; here a perturbed pair still differs from a perturbed single text."""
    model = ZOO[name]()
    inputs = toy_inputs(model)
    delta = delta_for(model, inputs)
    types = (torch.arange(inputs["input_ids"].shape[1]) >= 2).long().expand_as(inputs["input_ids"])
    with added_to_embeddings(model, delta):
        without, zero, paired = (
            logits_of(model, inputs | extra)
            for extra in ({}, {"token_type_ids": types * 0}, {"token_type_ids": types})
        )
    assert not torch.allclose(paired, zero, atol=0.01)
    if name != "gpt2":  # there type 0 is an embedding of its own, added only when types are given
        assert torch.equal(without, zero)


@pytest.mark.parametrize("name", TEXTS)
def test_masks_and_position_ids_go_through(name):
    """Perturbed logits of a row are the same alone and beside longer rows, padding included."""
    model = ZOO[name]()
    inputs = toy_inputs(model)
    delta = delta_for(model, inputs)
    with added_to_embeddings(model, delta):
        together = logits_of(model, inputs)
    for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        alone = {key: value[row : row + 1, :length] for key, value in inputs.items()}
        with added_to_embeddings(model, delta[row : row + 1, :length]):
            assert torch.allclose(logits_of(model, alone)[0], together[row], atol=1e-5)


def test_gradient_reaches_delta_and_not_the_padding_of_a_masked_model():
    model = ZOO["bert"]()
    inputs = toy_inputs(model)
    delta = delta_for(model, inputs).requires_grad_()
    with added_to_embeddings(model, delta):
        model(**inputs).logits.pow(2).sum().backward()
    tokens = inputs["attention_mask"].bool()
    assert delta.grad is not None
    assert (delta.grad[tokens].norm(dim=-1) > 0).all()
    assert not delta.grad[~tokens].any()


def test_delta_takes_the_type_of_the_lookup():
    lookup = nn.Embedding(4, 3, dtype=torch.bfloat16)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.lookup = lookup

        def get_input_embeddings(self):
            return self.lookup

        def forward(self, ids):
            return self.lookup(ids)

    model = Plain()
    with added_to_embeddings(model, torch.ones(1, 2, 3)):
        out = model(torch.tensor([[1, 2]]))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, lookup(torch.tensor([[1, 2]])) + 1)
