"""Random pruning is uniform, nested, and knows nothing but its seed."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from tests.toys import TOYS
from torch import nn

from hardtack.methods.random import Random
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.ticket import Base, Ticket


def search(
    model: nn.Module, *wanted: float, seed: int = 0, kinds=("weight",), scope="global"
) -> list[Ticket]:
    method = Random(sparsities=tuple(Sparsity(fraction=value) for value in wanted), scope=scope)
    view = Prunable.of(model, kinds)
    return list(method.search(model, Base("", ""), view, None, None, Run.nowhere(seed)))


def joined(ticket: Ticket) -> np.ndarray:
    return torch.cat(list(ticket.masks.values())).numpy()


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 5))


@pytest.mark.parametrize("scope", ["global", "site"])
def test_every_unit_goes_equally_often(scope):
    draws, model = 400, small()
    gone = np.stack([~joined(search(model, 0.3, seed=seed, scope=scope)[0]) for seed in range(draws)])
    assert (gone.sum(1) == 12).all()
    expected = np.full(40, draws * 0.3)
    # Counts of draws without replacement vary less than the test assumes: it rejects less often than it says.
    assert stats.chisquare(gone.sum(0), expected).pvalue > 0.01
    # And units go independently: pairs meet as often as in draws of 12 of 40, or of 6 of 20 twice.
    together = (gone[:, :, None] & gone[:, None, :]).mean(0)
    within, across = together[:20, :20][np.triu_indices(20, 1)], together[:20, 20:].flatten()
    shares = (12 * 11 / (40 * 39),) * 2 if scope == "global" else (6 * 5 / (20 * 19), 0.3 * 0.3)
    for found, share in zip((within, across), shares, strict=True):
        assert found.mean() == pytest.approx(share, abs=0.003)
        assert found.max() < share + 5 * np.sqrt(share / draws)


def test_global_draws_spread_over_sites_by_chance_and_site_draws_evenly():
    model = small()
    counts = [int((~search(model, 0.3, seed=seed)[0].masks["0.weight"]).sum()) for seed in range(60)]
    assert len(set(counts)) > 3
    assert np.mean(counts) == pytest.approx(6, abs=0.7)
    even = [int((~search(model, 0.3, seed=s, scope="site")[0].masks["0.weight"]).sum()) for s in range(10)]
    assert set(even) == {6}


@pytest.mark.parametrize("toy", TOYS)
def test_tickets_of_one_seed_are_nested(toy):
    sparsities = (0.1, 0.3, 0.6, 0.9)
    tickets = [joined(ticket) for ticket in search(TOYS[toy](), *sparsities, seed=4)]
    for lower, higher in pairwise(tickets):
        assert (lower | ~higher).all()
    wanted = [ticket.origin["wanted"] for ticket in search(TOYS[toy](), 0.6, 0.1)]
    assert wanted == ["sparsity-0.6000", "sparsity-0.1000"], "in the order asked for"


def test_depends_on_the_seed_and_the_names_of_sites_alone():
    one, other = (
        search(TOYS["bert"](seed=seed), 0.5, kinds=("head", "neuron"), seed=3)[0] for seed in (0, 1)
    )
    assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)
    # Other kinds beside it, or a site left out, do not move a site's own order.
    alone = search(TOYS["bert"](), 0.5, kinds=("neuron",), seed=3)[0]
    assert all(torch.equal(alone.masks[name], one.masks[name]) for name in alone.masks)
    assert one.overlap(search(TOYS["bert"](), 0.5, kinds=("head", "neuron"), seed=5)[0]) < 1
