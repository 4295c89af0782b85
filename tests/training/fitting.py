"""What the tests of the loop share: models without dropout, optimisers, one way to train, a ticket."""

import torch
from tests.toys import toy_batches
from torch import nn

from hardtack.methods import METHODS
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.schedule import WarmupDecay
from hardtack.select import Sparsity
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Clean
from hardtack.training.loop import fit_steps

TOTAL = 6


def without_dropout_(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    for module in model.modules():
        if isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = 0.0
    return model


def adamw(model: nn.Module, **settings) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), **{"lr": 1.0, "weight_decay": 0.01, **settings})


def train(model: nn.Module, run: Run | None = None, objective=None, optimizer=None, **settings) -> list:
    """Run the whole loop with the settings that most tests share."""
    batches = toy_batches(model, examples=20, size=4)
    settings = {"total": TOTAL, "lr": WarmupDecay(0.01, 0.4), **settings}
    steps = fit_steps(
        model, batches, objective or Clean(), optimizer or adamw(model), run=run or Run.nowhere(), **settings
    )
    return list(steps)


def half(model: nn.Module, sparsity: float = 0.5) -> Ticket:
    """A ticket of the model that keeps a random half of its weights."""
    view = Prunable.of(model)
    method = METHODS["random"](sparsities=(Sparsity(fraction=sparsity),))
    (ticket,) = method.search(model, Base.of(model), view, None, None, Run.nowhere(7))
    return ticket
