"""The toys themselves: what other tests lean on."""

import pytest
import torch

from tests.toys import TEXT, TOYS, VOCABULARY, is_text, logits_of, toy_batches, toy_inputs, toy_task


@pytest.mark.parametrize("name", TOYS)
def test_logits_spread_by_at_least_one(name):
    model = TOYS[name]()
    deviation = logits_of(model, toy_inputs(model, count=256)).std(0)
    assert deviation.min() >= 1, deviation
    assert deviation.max() < 10, deviation


@pytest.mark.parametrize("name", TEXT)
def test_sizes_are_pairwise_different(name):
    config = TOYS[name]().config
    heads, hidden = config.num_attention_heads, config.hidden_size
    inner = (
        getattr(config, "n_inner", None) or getattr(config, "hidden_dim", None) or config.intermediate_size
    )
    sizes = [
        heads,
        hidden,
        hidden // heads,
        inner,
        config.num_hidden_layers,
        config.max_position_embeddings,
        len(VOCABULARY),
    ]
    assert len(set(sizes)) == len(sizes), sizes


@pytest.mark.parametrize("name", TOYS)
def test_every_parameter_moves_the_logits_and_dropout_is_on(name):
    model = TOYS[name]()
    inputs = toy_inputs(model, count=64)
    clean = logits_of(model, inputs)
    model.train()
    model(**inputs).logits.pow(2).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert not torch.allclose(logits_of(model, inputs), clean)


@pytest.mark.parametrize("name", TOYS)
def test_batches_fit_their_model_and_come_back_for_any_step(name):
    model = TOYS[name]()
    batches = toy_batches(model, examples=20, size=8)
    assert len(batches) == 3
    steps = [batches.at(step) for step in range(6)]
    assert sorted(torch.cat([batch.ids for batch in steps[:3]]).tolist()) == list(range(20))
    assert torch.equal(batches.at(1).ids, steps[1].ids)
    for batch in batches.in_order():
        assert logits_of(model, batch.inputs).shape == (len(batch.labels), 2)
    assert ("token_type_ids" in batch.inputs) == (name in ("bert", "albert", "gpt2", "roberta"))
    assert is_text(model) == ("input_ids" in batch.inputs)


def test_task_is_balanced():
    task = toy_task()
    assert [int(table.labels.sum()) * 2 for table in task.splits.values()] == [48, 16, 24]
