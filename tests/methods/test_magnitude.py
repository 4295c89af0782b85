"""Magnitude pruning on weights made by hand."""

import pytest
import torch
from tests.toys import TOYS
from torch import nn
from torch.nn.utils import prune

from hardtack.errors import InputError
from hardtack.methods.magnitude import Magnitude, magnitudes
from hardtack.prunable import Prunable, base_of
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.ticket import Base, Ticket


class Two(nn.Module):
    """Two small matrices whose weights are given."""

    def __init__(self, first: list[list[float]], second: list[list[float]]):
        super().__init__()
        for name, rows in (("a", first), ("b", second)):
            linear = nn.Linear(len(rows[0]), len(rows))
            linear.weight = nn.Parameter(torch.tensor(rows))
            setattr(self, name, linear)


def search(model: nn.Module, *wanted: float, kinds=("weight",), scope="global") -> list[Ticket]:
    method = Magnitude(sparsities=tuple(Sparsity(fraction=value) for value in wanted), scope=scope)
    return list(method.search(model, Base.of(model), Prunable.of(model, kinds), None, None, Run.nowhere()))


def kept(ticket: Ticket) -> dict[str, list[int]]:
    return {name: mask.int().tolist() for name, mask in ticket.masks.items()}


def test_global_scope_ranks_both_matrices_together():
    # |a|: .1 .5 .3 / .9 .2 .7   |b|: .4 .6 / .05 .8
    model = Two([[0.1, -0.5, 0.3], [-0.9, 0.2, 0.7]], [[0.4, 0.6], [-0.05, -0.8]])
    tenth, half, most = search(model, 0.1, 0.5, 0.7)
    assert kept(tenth) == {"a.weight": [1, 1, 1, 1, 1, 1], "b.weight": [1, 1, 0, 1]}
    assert kept(half) == {"a.weight": [0, 1, 0, 1, 0, 1], "b.weight": [0, 1, 0, 1]}
    assert kept(most) == {"a.weight": [0, 0, 0, 1, 0, 1], "b.weight": [0, 0, 0, 1]}


def test_site_and_row_scopes_cut_each_alike():
    model = Two([[0.1, -0.5, 0.3], [-0.9, 0.2, 0.7]], [[4.0, 6.0], [-5.0, -8.0]])
    (by_site,) = search(model, 0.5, scope="site")
    assert kept(by_site) == {"a.weight": [0, 1, 0, 1, 0, 1], "b.weight": [0, 1, 0, 1]}
    (by_row,) = search(model, 0.5, scope="row")  # round half up: two of three, one of two
    assert kept(by_row) == {"a.weight": [0, 1, 0, 1, 0, 0], "b.weight": [0, 1, 0, 1]}


def test_of_equals_the_later_goes_first():
    model = Two([[0.5, -0.5, 0.5], [0.5, 0.5, -0.5]], [[0.5, 0.5], [0.5, 0.5]])
    (ticket,) = search(model, 0.3, scope="site")
    assert kept(ticket) == {"a.weight": [1, 1, 1, 1, 0, 0], "b.weight": [1, 1, 1, 0]}


def test_tiny_and_neighbouring_weights_keep_their_order():
    near = [1.0, 1.0 + 2**-23, 1.0 + 2**-22]  # their squares round to the same or each other's float
    tiny = [1e-30, 3e-30, 2e-30]  # whose squares are all 0 in float32
    model = Two([tiny, near], [[5.0, 5.0], [5.0, 5.0]])
    one, four = search(model, 0.1, 0.4)
    assert kept(one)["a.weight"] == [0, 1, 1, 1, 1, 1]
    assert kept(four)["a.weight"] == [0, 0, 0, 0, 1, 1]


def test_a_matrix_that_would_be_emptied_is_named():
    with pytest.raises(InputError, match=r"empties a\.weight"):
        search(Two([[0.1, 0.1, 0.1], [0.1, 0.1, 0.1]], [[1.0, 1.0], [1.0, 1.0]]), 0.6)


@pytest.mark.parametrize("toy", TOYS)
def test_agrees_with_torch_s_own_global_magnitude_pruning(toy):
    model = TOYS[toy]()
    view = Prunable.of(model)
    (ticket,) = search(model, 0.2)
    names = list(view.tensors(model))
    modules = [base_of(model).get_submodule(name.removesuffix(".weight")) for name in names]
    prune.global_unstructured([(module, "weight") for module in modules], prune.L1Unstructured, amount=0.2)
    for name, module in zip(names, modules, strict=True):
        assert torch.equal(ticket.masks[name].view(module.weight_mask.shape), module.weight_mask.bool()), name


@torch.no_grad()
def test_a_head_s_magnitude_is_the_squared_norm_of_all_that_is_its_own():
    model = TOYS["bert"]()
    view = Prunable.of(model, ("head", "neuron"))
    found = magnitudes(view, model)
    for number, layer in enumerate(model.bert.encoder.layer):
        inner = layer.attention.self
        for head in range(3):
            rows = slice(8 * head, 8 * head + 8)
            parts = [
                part
                for module in (inner.query, inner.key, inner.value)
                for part in (module.weight[rows], module.bias[rows])
            ]
            parts.append(layer.attention.output.dense.weight[:, rows])
            expected = sum(float(part.square().sum()) for part in parts)
            assert float(found[f"encoder.layer.{number}.heads"][head]) == pytest.approx(expected, rel=1e-5)
        for neuron in (0, 17, 39):
            dense = layer.intermediate.dense
            expected = float(
                dense.weight[neuron].square().sum()
                + dense.bias[neuron].square()
                + layer.output.dense.weight[:, neuron].square().sum()
            )
            assert float(found[f"encoder.layer.{number}.neurons"][neuron]) == pytest.approx(
                expected, rel=1e-5
            )


@torch.no_grad()
def test_the_smallest_head_goes():
    model = TOYS["gpt2"]()
    attention = model.transformer.h[1].attn
    for third in range(3):  # fused q, k, v: head 2 has 12 columns in each third
        columns = slice(36 * third + 24, 36 * third + 36)
        attention.c_attn.weight[:, columns] *= 1e-3
        attention.c_attn.bias[columns] *= 1e-3
    attention.c_proj.weight[24:36] *= 1e-3
    (ticket,) = search(model, 1 / 6, kinds=("head",))
    assert kept(ticket) == {"h.0.heads": [1, 1, 1], "h.1.heads": [1, 1, 0]}
