"""Rewinding puts everything back, from a copy that training cannot reach."""

import pytest
import torch
from tests.contracts.plain import changes, facts_of, unusual_flags_
from tests.toys import TOYS, same_state, state_of, toy_batches, toy_gpt2_lm

from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.schedule import Constant
from hardtack.training.adversarial import Clean
from hardtack.training.loop import fit_steps
from hardtack.training.snapshot import Snapshot


def train_(model: torch.nn.Module) -> None:
    """Three steps in place, with weights, moments and batch-norm statistics moving."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    batches = toy_batches(model, examples=12, size=4)
    for _ in fit_steps(model, batches, Clean(), optimizer, total=3, lr=Constant(0.1), run=Run.nowhere()):
        pass


@pytest.mark.parametrize("toy", TOYS)
def test_restores_everything_bit_for_bit(toy):
    model = unusual_flags_(TOYS[toy]())
    before, kept = facts_of(model), Snapshot(model)
    for parameter in model.parameters():
        parameter.requires_grad_()
    train_(model)
    model.train()
    moved = state_of(model)
    unmoved = [name for name, _ in model.named_parameters() if torch.equal(moved[name], before.state[name])]
    assert unmoved == []
    if toy == "conv":
        assert not torch.equal(moved["norms.0.running_mean"], before.state["norms.0.running_mean"])
        assert moved["norms.0.num_batches_tracked"] == before.state["norms.0.num_batches_tracked"] + 3
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    kept.restore_(model)
    assert changes(model, before) == []


def test_steps_in_place_do_not_move_the_copy():
    model = TOYS["conv"]()
    before, kept = state_of(model), Snapshot(model)
    train_(model)
    assert all(torch.equal(kept.tensors[name], before[name]) for name in before)
    kept.restore_(model)
    train_(model)  # the second training must not write into what was restored from
    assert all(torch.equal(kept.tensors[name], before[name]) for name in before)
    kept.restore_(model)
    assert same_state(model, before)


def test_tied_weights_stay_tied():
    model = toy_gpt2_lm()
    before, kept = state_of(model), Snapshot(model)
    assert model.lm_head.weight is model.transformer.wte.weight
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    kept.restore_(model)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert same_state(model, before)


def test_without_weights_only_buffers_and_flags_come_back():
    model = unusual_flags_(TOYS["conv"]())
    before, kept = facts_of(model), Snapshot(model, weights=False)
    names = [name for name, _ in model.named_parameters()]
    assert set(kept.tensors) == {name for name, _ in model.named_buffers()}
    train_(model)
    model.train()
    moved = state_of(model)
    kept.restore_(model)
    now = facts_of(model)
    assert (now.training, now.trainable) == (before.training, before.trainable)
    for name, value in now.state.items():
        assert torch.equal(value, moved[name] if name in names else before.state[name]), name


def test_a_model_that_lost_a_tensor_is_an_error():
    model = TOYS["conv"]()
    kept = Snapshot(model)
    del model.head
    with pytest.raises(KeyError, match=r"head\.weight"):
        kept.restore_(model)


def test_prunable_views_stay_valid():
    model = TOYS["bert"]()
    tensors, kept = Prunable.of(model).tensors(model), Snapshot(model)
    train_(model)
    kept.restore_(model)
    assert all(model.base_model.get_parameter(name) is tensor for name, tensor in tensors.items())
