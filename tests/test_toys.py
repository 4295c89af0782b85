"""The toys themselves: what other tests lean on."""

import pytest
import torch

from tests.toys import VOCABULARY, is_text, logits_of, toy_batches, toy_inputs, toy_task
from tests.zoo import IMAGES, TEXTS, ZOO


@pytest.mark.parametrize("name", ZOO)
def test_logits_spread_by_at_least_one(name):
    model = ZOO[name]()
    deviation = logits_of(model, toy_inputs(model, count=256)).std(0)
    assert deviation.min() >= 1, deviation
    assert deviation.max() < 10, deviation


SIZES = {
    "heads": ("num_attention_heads",),
    "key heads": ("num_key_value_heads",),
    "hidden": ("hidden_size",),
    "embedding": ("embedding_size",),
    "layers": ("num_hidden_layers",),
    "inner": ("n_inner", "hidden_dim", "intermediate_size"),
    "positions": ("max_position_embeddings",),
    "picture": ("image_size",),
    "patch": ("patch_size",),
}


@pytest.mark.parametrize("name", [name for name in ZOO if name != "conv"])
def test_sizes_are_pairwise_different(name):
    config, found = ZOO[name]().config, {}
    for size, names in SIZES.items():
        found[size] = next(filter(None, (getattr(config, each, None) for each in names)), None)
    if found["heads"]:
        found["width"] = getattr(config, "head_dim", None) or found["hidden"] // found["heads"]
    if name in TEXTS:
        found["vocabulary"] = len(VOCABULARY)
    if found["embedding"] == found["hidden"]:  # most families embed as wide as their layers are
        del found["embedding"]
    sizes = [*filter(None, found.values()), *getattr(config, "hidden_sizes", ())]
    assert len(set(sizes)) == len(sizes) > 2, found


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_moves_the_logits_and_dropout_is_on(name):
    model = ZOO[name]()
    inputs = toy_inputs(model, count=64)
    clean = logits_of(model, inputs)
    model.train()
    model(**inputs).logits.pow(2).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert not torch.allclose(logits_of(model, inputs), clean)


@pytest.mark.parametrize("name", ZOO)
def test_batches_fit_their_model_and_come_back_for_any_step(name):
    model = ZOO[name]()
    batches = toy_batches(model, examples=20, size=8)
    assert len(batches) == 3
    steps = [batches.at(step) for step in range(6)]
    assert sorted(torch.cat([batch.ids for batch in steps[:3]]).tolist()) == list(range(20))
    assert torch.equal(batches.at(1).ids, steps[1].ids)
    for batch in batches.in_order():
        assert logits_of(model, batch.inputs).shape == (len(batch.labels), 2)
    assert is_text(model) == ("input_ids" in batch.inputs) == (name not in IMAGES)


def test_task_is_balanced():
    task = toy_task()
    assert [int(table.labels.sum()) * 2 for table in task.splits.values()] == [48, 16, 24]
