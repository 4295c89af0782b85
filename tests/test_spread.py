"""Masks and values spread over tensors and pooled over units, against brute force."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardtack.prunable import Prunable, base_of
from tests.zoo import UNITS, ZOO


def full(view, value=True):
    return {site.name: torch.full((site.units,), value) for site in view.sites}


VIEWS = {name: Prunable.of(ZOO[name](), kinds) for name, kinds in UNITS.items()}


def brute_force(view, site, unit):
    """Yield (parameter, bool of its shape) for each tensor that a unit of a site has a part in."""
    for param, dim, index in site.slices:
        part = torch.zeros(view.shapes[param], dtype=torch.bool)
        if index is None:
            part.view(-1)[unit] = True
        else:
            for position in index[unit].tolist():
                part.select(dim, position).fill_(True)
        yield param, part


@pytest.mark.parametrize(
    ("name", "kinds"),
    [(name, kinds) for name, both in UNITS.items() for kinds in {both, *((kind,) for kind in both)}],
)
def test_spread_equals_brute_force(name, kinds):
    view = Prunable.of(ZOO[name](), kinds)
    masks = {site.name: torch.rand(site.units) < 0.6 for site in view.sites}
    wanted = {param: torch.ones(shape, dtype=torch.bool) for param, shape in view.shapes.items()}
    for site in view.sites:
        for unit in (~masks[site.name]).nonzero().flatten().tolist():
            for param, part in brute_force(view, site, unit):
                wanted[param] &= ~part
    spread = view.spread(masks)
    assert spread.keys() == wanted.keys()
    assert all(torch.equal(spread[param], wanted[param]) for param in wanted)
    assert all(mask.dtype == torch.bool and mask.is_contiguous() for mask in spread.values())


@pytest.mark.parametrize("name", ZOO)
def test_spread_of_weights_is_the_mask_in_the_tensors_shape(name):
    model = ZOO[name]()
    view = Prunable.of(model)
    masks = {site.name: torch.rand(site.units) < 0.5 for site in view.sites}
    for param, mask in view.spread(masks).items():
        assert torch.equal(mask.flatten(), masks[param])
        assert mask.shape == dict(base_of(model).named_parameters())[param].shape


def test_spread_of_two_kinds_is_their_intersection():
    model = ZOO["gpt2"]()
    both = Prunable.of(model, ("weight", "head"))
    masks = {site.name: torch.rand(site.units) < 0.7 for site in both.sites}
    parts = [Prunable.of(model, (kind,)).spread(masks) for kind in ("weight", "head")]
    for param, mask in both.spread(masks).items():
        wanted = torch.stack([part[param] for part in parts if param in part]).all(0)
        assert torch.equal(mask, wanted)


@pytest.mark.parametrize("name", UNITS)
def test_pooled_equals_brute_force(name):
    view = VIEWS[name]
    values = {param: torch.randn(shape, dtype=torch.float64) for param, shape in view.shapes.items()}
    pooled = view.pooled(values)
    for site in view.sites:
        assert pooled[site.name].shape == (site.units,)
        for unit in {0, 1, site.units - 1}:
            wanted = sum(values[param][part].sum() for param, part in brute_force(view, site, unit))
            assert float(pooled[site.name][unit]) == pytest.approx(float(wanted), abs=1e-9)


@pytest.mark.parametrize("name", ZOO)
def test_pooled_weights_are_the_values_themselves(name):
    view = Prunable.of(ZOO[name]())
    values = {param: torch.randn(shape) for param, shape in view.shapes.items()}
    assert all(torch.equal(pooled, values[site].flatten()) for site, pooled in view.pooled(values).items())


@pytest.mark.parametrize("name", UNITS)
def test_units_of_a_kind_cover_their_tensors_once(name):
    """Summing ones over all units counts every element of q, k, v, o (and of the feed-forward block) once."""
    for kind in UNITS[name]:
        view = Prunable.of(ZOO[name](), (kind,))
        ones = {param: torch.ones(shape) for param, shape in view.shapes.items()}
        total = sum(float(pooled.sum()) for pooled in view.pooled(ones).values())
        twice = {"resnet-bottleneck": 144 + 2 * 441}.get(name, 0)  # the middle one has both rows and inputs
        assert total == sum(shape.numel() for shape in view.shapes.values()) + twice


@given(st.integers(0, 10_000), st.sampled_from(sorted(UNITS)))
def test_pooled_and_spread_agree(seed, name):
    """What spread removes for one unit is exactly what pooled sums up for it."""
    view = VIEWS[name]
    rng = torch.Generator().manual_seed(seed)
    values = {param: torch.rand(shape, generator=rng).double() for param, shape in view.shapes.items()}
    site = view.sites[int(torch.randint(len(view.sites), (), generator=rng))]
    unit = int(torch.randint(site.units, (), generator=rng))
    masks = full(view)
    masks[site.name][unit] = False
    removed = sum(float(values[param][~mask].sum()) for param, mask in view.spread(masks).items())
    assert removed == pytest.approx(float(view.pooled(values)[site.name][unit]))
