"""Running a model block by block must give what running it whole gives, for every family."""

import contextlib

import pytest
import torch
from tests.contracts.plain import changes, facts_of, unusual_flags_
from tests.toys import TOYS, logits_of, toy_batches
from tests.zoo import IMAGES, ZOO

from hardtack.errors import InputError
from hardtack.methods.blocks import Blocks
from hardtack.methods.known import Known
from hardtack.methods.parts import Sample
from hardtack.methods.states import record_
from hardtack.modes import evaluation_mode
from hardtack.prunable import Prunable, base_of
from hardtack.runs import Run
from hardtack.tasks.task import Batch

BLOCKED = [
    name
    for name in ZOO
    if name not in ("albert", "deberta-v2", "squeezebert", "conv", "resnet", "resnet-bottleneck", "convnext")
]


def walk(toy: str, examples: int = 10, size: int = 4) -> tuple[torch.nn.Module, Blocks, list[Batch]]:
    model = ZOO[toy]()
    batches = list(toy_batches(model, examples=examples, size=size).in_order())
    blocks = Blocks.of(model, [Sample(batch) for batch in batches])
    record_(blocks, Run.nowhere())
    return model, blocks, batches


@torch.no_grad()
@pytest.mark.parametrize("toy", BLOCKED)
def test_run_apart_a_model_gives_the_logits_of_the_whole(toy):
    model, blocks, batches = walk(toy)
    before = facts_of(model)
    states = list(blocks.start)
    for stage in blocks.stages(Prunable.of(model)):
        states = [blocks.run(stage, number, state, {}) for number, state in enumerate(states)]
    for logits, batch in zip(states, batches, strict=True):
        assert torch.equal(logits, logits_of(model, batch.inputs))
    assert changes(model, before) == []


@torch.no_grad()
@pytest.mark.parametrize("toy", BLOCKED)
def test_every_prunable_matrix_is_reached_once_with_its_true_inputs(toy):
    model, blocks, batches = walk(toy)
    view = Prunable.of(model)
    seen: dict[str, list[torch.Tensor]] = {}
    handles = [
        base_of(model).get_submodule(site.name.removesuffix(".weight")).register_forward_pre_hook(
            lambda module, args, name=site.name: seen.setdefault(name, []).append(args[0].clone())
        )
        for site in view.sites
    ]  # fmt: skip
    model(**batches[0].inputs)
    for handle in handles:
        handle.remove()
    reached = []
    state = blocks.start[0]
    for stage in blocks.stages(view):
        for group, found in zip(stage.groups, blocks.inputs(stage, stage.groups, 0, state, {}), strict=True):
            for matrix in group.matrices:
                if matrix.pruned:
                    reached.append(matrix.name)
                    assert group.calls == len(seen[matrix.name])
                    expected = torch.cat([blocks.rows(x, 0) for x in seen[matrix.name]])
                    assert torch.equal(found, expected), matrix.name
        state = blocks.run(stage, 0, state, {})
    assert sorted(reached) == sorted(site.name for site in view.sites)


def test_queries_keys_and_values_share_their_inputs():
    """K10: one Gram matrix for each distinct input."""
    model, blocks, _ = walk("bert")
    first = next(blocks.stages(Prunable.of(model)))
    assert [len(group.matrices) for group in first.groups] == [3, 1, 1, 1]
    model, blocks, _ = walk("llama")
    first = next(blocks.stages(Prunable.of(model)))
    assert [len(group.matrices) for group in first.groups] == [3, 1, 2, 1]


def test_padding_is_left_out_by_each_batch_s_own_mask():
    """K2 and K3: batches have different lengths, and no row of padding enters."""
    model, blocks, batches = walk("bert", examples=12)
    stage = next(blocks.stages(Prunable.of(model)))
    lengths = [int(batch.inputs["attention_mask"].sum()) for batch in batches]
    assert len({batch.inputs["input_ids"].shape for batch in batches}) > 1
    assert any(not batch.inputs["attention_mask"].all() for batch in batches)
    for number, length in enumerate(lengths):
        for rows in blocks.inputs(stage, stage.groups, number, blocks.start[number], {}):
            assert len(rows) == length


@torch.no_grad()
def test_replaced_weights_count_for_a_call_and_leave_the_model_alone():
    model, blocks, _ = walk("gpt2")
    before = facts_of(model)
    stage = next(blocks.stages(Prunable.of(model)))
    name = "mlp.c_proj.weight"
    zeros = {name: torch.zeros_like(stage.root.get_parameter(name))}
    plain = blocks.run(stage, 0, blocks.start[0], {})
    assert not torch.equal(blocks.run(stage, 0, blocks.start[0], zeros), plain)
    assert torch.equal(blocks.run(stage, 0, blocks.start[0], {}), plain)
    assert changes(model, before) == []


def test_plain_after_a_block_fails():
    model, blocks, _ = walk("bert")
    before = facts_of(model)
    stage = next(blocks.stages(Prunable.of(model)))
    with pytest.raises(RuntimeError):
        blocks.inputs(stage, stage.groups, 0, torch.ones(1, 2, 3), {})
    assert changes(model, before) == []


@pytest.mark.parametrize("toy", TOYS)
def test_flags_come_back_after_evaluation_mode(toy):
    model = unusual_flags_(TOYS[toy]())
    before = facts_of(model)
    inside = []
    with contextlib.suppress(KeyboardInterrupt), evaluation_mode(model):
        inside = [module.training for module in model.modules()]
        raise KeyboardInterrupt
    assert inside
    assert not any(inside)
    assert changes(model, before) == []


@pytest.mark.parametrize("toy", sorted(set(ZOO) - set(BLOCKED)))
def test_a_model_without_blocks_of_its_own_is_refused_in_one_line(toy):
    with pytest.raises(InputError) as caught:
        walk(toy)
    assert "\n" not in str(caught.value)
    assert type(base_of(ZOO[toy]())).__name__ in str(caught.value)
    assert toy in ("albert", "deberta-v2", "squeezebert") or toy in IMAGES


@torch.no_grad()
@pytest.mark.parametrize("toy", ["bert", "gpt2", "llama", "vit"])
def test_what_finished_matrices_gave_is_not_multiplied_again(toy):
    model, blocks, _ = walk(toy)
    stage = next(blocks.stages(Prunable.of(model)))
    first, *others = stage.groups
    weights = {
        f"{m.module}.weight": 2 * stage.root.get_parameter(f"{m.module}.weight") for m in first.matrices
    }
    plain = blocks.run(stage, 1, blocks.start[1], weights)
    known = Known()
    for wanted in others:  # each pass ends at its group; the first makes what the later ones know
        direct, found = (
            blocks.inputs(stage, [wanted], 1, blocks.start[1], weights, how) for how in (None, known)
        )
        assert torch.equal(*direct, *found)
    zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    assert torch.equal(blocks.run(stage, 1, blocks.start[1], zeros, known), plain)
    known.forget_(1)
    assert not torch.equal(blocks.run(stage, 1, blocks.start[1], zeros, known), plain)
    modules = [stage.root.get_submodule(m.module) for m in first.matrices]
    assert all("forward" not in module.__dict__ for module in modules)
