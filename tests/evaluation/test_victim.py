import math

import pytest
import torch
from tests.toys import padless_tokenizer, toy_gpt2

from hardtack.errors import InputError
from hardtack.evaluation.victim import Victim, evaluating
from hardtack.tasks.text import Encoder

TEXTS = [("good film",), ("a",), ("bad plot . " * 3,), ("film",), ("good good good plot",)]


class Fixed(torch.nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, input_ids, attention_mask):
        return self.rows[: len(input_ids)]


def test_logits_are_those_of_the_texts_one_by_one_in_their_order(toys):
    victim = toys.bert(batch_size=2)
    expected = torch.cat([victim.logits([text]) for text in TEXTS])
    assert torch.allclose(victim.logits(TEXTS), expected, atol=1e-5)
    assert expected.std() > 0.1
    assert expected.dtype == torch.float32
    assert victim.logits([]).shape == (0, 2)


def test_logits_equal_those_of_a_plain_forward(toys):
    victim = toys.bert()
    row = victim.encoder(TEXTS[:1])[0]
    with torch.no_grad():
        plain = victim.model(**{key: torch.tensor([ids]) for key, ids in row.items()}).logits
    assert torch.allclose(victim.logits(TEXTS[:1]), plain, atol=1e-6)


def test_batches_hold_their_token_budget(toys):
    victim = toys.bag({"x": 1.0}, batch_size=2)  # 64 tokens a batch
    lengths = [1, 1, 1, 2, 3, 30, 29, 70, 8, 8, 8, 8, 8, 8, 8, 8]
    sheaves = victim.plan(victim.encode([("x " * (n - 1),) for n in lengths]))
    assert sorted(i for s in sheaves for i in s.positions) == list(range(len(lengths)))
    for s in sheaves:
        assert len(s.rows) * s.width <= 64 or len(s.rows) == 1
    assert [len(s.rows) for s in sheaves] == [1, 2, 8, 5]


def test_what_was_computed_is_counted(toys):
    victim = toys.bag({"x": 1.0}, batch_size=2)
    victim.logits([("x x x x x x x",), ("x x x x x x x x",), ("",)])
    assert (victim.forwards.texts, victim.forwards.batches) == (3, 1)  # 9 tokens more are less than a batch
    assert (victim.forwards.tokens, victim.forwards.padded_tokens) == (8 + 9 + 1, 9 + 9 + 9)


def test_every_module_gets_its_own_mode_back(toys):
    model = toys.bert().model
    model.train()
    model.classifier.eval()
    modes = [module.training for module in model.modules()]
    victim = Victim(model, toys.bert().encoder, 4)
    assert victim.met_in_training_mode
    assert torch.equal(victim.logits(TEXTS), victim.logits(TEXTS))  # dropout is off
    assert [module.training for module in model.modules()] == modes
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_logits_that_are_no_numbers_are_refused(toys, value, word):
    victim = Victim(Fixed([[0.0, value], [0.0, 1.0]]), toys.BagEncoder({}))
    with pytest.raises(InputError, match=f"gives {word} logits for 1 of 2 texts"):
        victim.logits([("a",), ("b",)])


def test_wrong_widths_and_shapes_are_refused(toys):
    encoder = toys.BagEncoder({})
    with pytest.raises(InputError, match="3 classes; 2 are expected"):
        Victim(Fixed([[0.0, 1.0, 2.0]]), encoder, classes=2).logits([("a",)])
    with pytest.raises(InputError, match=r"shape \(1,\)"):
        Victim(Fixed([0.0]), encoder).logits([("a",)])
    with pytest.raises(InputError, match="batch size 0"):
        Victim(Fixed([[0.0, 1.0]]), encoder, 0)


def test_the_text_that_a_model_fails_on_is_named(toys):
    victim = toys.bag({"x": 1.0})

    class Fragile(type(victim.model)):
        def forward(self, input_ids, attention_mask):
            if (input_ids[:, 1:].sum(dim=1) == 0).any():
                raise ValueError("no words\nin a text")
            return super().forward(input_ids, attention_mask)

    fragile = Victim(Fragile({"x": 1.0}).eval(), victim.encoder)
    assert fragile.logits([("x",), ("x x",)]).shape == (2, 2)
    with pytest.raises(InputError) as refused:
        fragile.logits([("x",), ("",), ("x x",)])
    assert str(refused.value) == "the attacked model fails on the text '': ValueError: no words"
    assert isinstance(refused.value.__cause__, ValueError)
    with pytest.raises(InputError, match="fails on the text '! !"):
        fragile.logits([("x " * 9,), ("! " * 99,)])


def test_a_model_that_fails_on_a_batch_but_on_no_text_alone_is_refused_too(toys):
    class Lonely(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            if len(input_ids) > 1:
                raise RuntimeError("one at a time")
            return torch.zeros(1, 2)

    with pytest.raises(InputError, match="RuntimeError: one at a time"):
        Victim(Lonely(), toys.BagEncoder({})).logits([("a",), ("b",)])


def test_a_real_decoder_is_asked_about_an_empty_text():
    model = toy_gpt2()
    model.config.pad_token_id = 3  # the end token, as loading sets it for a tokenizer without a padding one
    victim = Victim(model, Encoder.of(padless_tokenizer(), model, 24))
    texts = [("good film",), ("",), ("bad",)]
    logits = victim.logits(texts)
    assert logits.isfinite().all()
    assert torch.allclose(logits, torch.cat([victim.logits([text]) for text in texts]), atol=1e-5)
    assert victim.met_without_tokens


def test_modes_come_back_after_an_error(toys):
    model = toys.bert().model.train()
    victim = Victim(model, lambda texts: [{"input_ids": [10**6]} for _ in texts])
    with pytest.raises(InputError, match="fails on the text 'a': IndexError: index out of range"):
        victim.logits([("a",)])
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()
