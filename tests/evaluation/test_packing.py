"""Packed layers answer as plain ones do, only while they are used, and only where they can."""

import pytest
import torch
from tests.zoo import ZOO
from torch import nn

from hardtack.evaluation import packing
from hardtack.evaluation.packing import Packed
from hardtack.evaluation.victim import Eager, Victim


@pytest.mark.parametrize("toy", ["bert", "deberta-v3", "gpt2", "llama", "modernbert"])
def test_a_packed_model_answers_as_the_plain_one(toy):
    model = ZOO[toy]().eval()
    packed = Packed(model)
    ids = torch.randint(5, 20, (3, 7), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        plain = model(**inputs).logits
        with packed.using():
            fast = model(**inputs).logits
        again = model(**inputs).logits
    assert packed.layers
    assert torch.allclose(plain, fast, atol=1e-4)
    assert torch.equal(plain, again)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_layers_are_plain_again_after_an_error(toys):
    model = toys.bert().model
    packed = Packed(model)

    def interrupted():
        with packed.using():
            assert any("forward" in module.__dict__ for module in model.modules())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any("forward" in module.__dict__ for module in model.modules())


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def test_only_what_a_packed_product_computes_is_packed():
    watched, mixed = nn.Linear(3, 4), nn.Linear(3, 4)
    watched.forward = lambda input: input  # somebody else replaced it
    nn.utils.parametrizations.weight_norm(mixed)
    others = [Doubled(3, 4), nn.Linear(3, 4).double(), nn.Linear(3, 4, device="meta"), watched, mixed]
    plain = nn.Linear(3, 4, bias=False)
    assert list(Packed(nn.ModuleList([*others, plain])).layers) == [plain]


def test_what_does_not_fit_or_is_not_there_stays_plain(monkeypatch):
    model = nn.Sequential(nn.Linear(3, 4))
    monkeypatch.setattr(packing, "MOST", 4 * 12 - 1)
    assert not Packed(model).layers
    monkeypatch.setattr(packing, "MOST", 4 * 12)
    assert Packed(model).layers
    monkeypatch.setattr(packing, "_operators", lambda: None)
    assert not Packed(model).layers


def test_hooks_of_a_layer_see_every_pass(toys):
    victim = toys.bert()
    seen = []
    victim.model.classifier.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    Victim(victim.model, victim.encoder, runtime=Eager(victim.model)).logits([("good film",), ("bad",)])
    assert sum(seen) == 2
