import pytest
import torch
from torch import nn

from hardtack.cost import disk_bytes, forward_flops, hardware, latency_ms, parameters_kept, peak_memory_bytes
from tests.toys import TOYS, toy_inputs


class Two(nn.Module):
    """A linear layer of 3 inputs and 5 outputs, called by keyword."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x):
        return self.linear(x)


def test_zeros_are_not_kept_and_still_cost_operations():
    model, inputs = Two(), {"x": torch.ones(4, 3)}
    with torch.no_grad():
        model.linear.weight.fill_(1.0)
        model.linear.bias.fill_(1.0)
    assert parameters_kept(model) == 3 * 5 + 5
    assert forward_flops(model, inputs) == 2 * 4 * 3 * 5  # a multiply and an add for each weight and row
    with torch.no_grad():
        model.linear.weight[0] = 0.0
    assert parameters_kept(model) == 3 * 5 + 5 - 3
    assert forward_flops(model, inputs) == 2 * 4 * 3 * 5


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_attention_costs_the_same_operations_whoever_computes_it(name):
    model = TOYS[name]()
    inputs = toy_inputs(model, count=2)
    counts = []
    for how in ("eager", "sdpa"):
        model.set_attn_implementation(how)  # type: ignore[operator]
        counts.append(forward_flops(model, inputs))
    assert counts[0] == counts[1]


def test_bytes_of_a_folder_and_of_a_file(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "inner" / "b").write_bytes(b"123")
    assert (disk_bytes(tmp_path), disk_bytes(tmp_path / "a")) == (8, 5)


def test_measurements_are_positive_and_the_machine_has_a_name():
    assert latency_ms(Two(), {"x": torch.ones(1, 3)}, runs=3) > 0
    assert peak_memory_bytes() > 10**6
    assert {"system", "processor", "threads"} <= hardware().keys()
