"""Tickets of toy models, for the tests of tickets and of their files."""

import json

import torch

from hardtack.prunable import Prunable
from hardtack.ticket import Base, Ticket


def drawn(model, granularity=("weight",), share=0.4, seed=0, **origin):
    """A random ticket of this model in which each site keeps its first unit and loses its last."""
    view = Prunable.of(model, granularity)
    rng = torch.Generator().manual_seed(seed)
    masks = {site.name: torch.rand(site.units, generator=rng) >= share for site in view.sites}
    for mask in masks.values():
        mask[0], mask[-1] = True, False
    return Ticket.of(Base.of(model, "toy", head_seed=3), view, masks, **origin)


def same_masks(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def edited(folder, **changes):
    record = json.loads((folder / "ticket.json").read_text())
    (folder / "ticket.json").write_text(json.dumps({**record, **changes}))


def random_masks(view):
    """Cut other units, and another number of them, from each site; at least one goes and one stays."""
    masks = {site.name: torch.rand(site.units) < 0.6 for site in view.sites}
    for number, mask in enumerate(masks.values()):
        mask[number % 2 - 1], mask[number % 2] = True, False
    return masks
