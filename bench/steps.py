"""What masks cost a training step: hard-concrete search and held retraining against the dense steps.

    python bench/steps.py [--pairs 12] [--batch 32] [--tokens 64]

Both sides use the same model, batch, objective and loop. The floor of a pass is its matrix products: 6
floating-point operations a weight and token. The gates add elementwise work per weight, independent of the
tokens, so their share falls as batches grow.
"""

import argparse
import sys
from collections.abc import Iterator

import torch

from hardtack.cost import hardware
from hardtack.gates import HardConcreteGates, gated
from hardtack.loading import load
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.schedule import Constant
from hardtack.select import Sparsity, draw
from hardtack.stages.demonstrating import embedded_model
from hardtack.tasks.task import Batch
from hardtack.ticket import Ticket
from hardtack.training.adversarial import Clean, FreeLB, Objective
from hardtack.training.loop import Unclipped, fit_steps
from pairs import interleaved, report


class OneBatch:
    """The same full-length batch at every step."""

    def __init__(self, batch: int, tokens: int):
        stream = torch.Generator().manual_seed(0)
        ids = torch.randint(1000, 20000, (batch, tokens), generator=stream)
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "token_type_ids": torch.zeros_like(ids),
        }
        labels = torch.randint(0, 2, (batch,), generator=stream)
        self.batch = Batch(inputs, labels, torch.arange(batch), {})

    def at(self, step: int) -> Batch:
        return self.batch


def stepper(
    model: torch.nn.Module, batches: OneBatch, objective: Objective, parameters, hold=None
) -> Iterator:
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    return fit_steps(
        model, batches, objective, optimizer, total=10**6, lr=Constant(1e-5), run=Run.nowhere(), hold=hold
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    print(hardware(), f"{args.batch} x {args.tokens} tokens, MiniLM, FreeLB K = 3")
    batches, freelb = OneBatch(args.batch, args.tokens), FreeLB(steps=3)
    labels = ("negative", "positive")

    dense = load(embedded_model(), labels)
    plain = stepper(dense.model, batches, freelb, dense.model.parameters())
    search = load(embedded_model(), labels)
    view = Prunable.of(search.model)
    gates = HardConcreteGates(view)

    def priced(model, batch, progress, rng):
        gates.stream = rng("gates")
        yield from freelb(model, batch, progress, rng)
        yield Unclipped(0.5 * gates.expected_open())

    with gated(search.model, gates):
        masked = stepper(search.model, batches, priced, gates.parameters())
        kept = report(
            "hard_concrete step / dense FreeLB step",
            interleaved(lambda: next(masked), lambda: next(plain), args.pairs),
            1.05,
        )
        masked.close()

    scores = {site.name: torch.rand(site.units) for site in view.sites}
    ticket = Ticket.of(search.base, view, draw(view, scores, Sparsity.parse(0.3)))
    clean = stepper(dense.model, batches, Clean(), dense.model.parameters())
    held = stepper(search.model, batches, Clean(), search.model.parameters(), ticket)
    kept &= report(
        "held retraining step / dense step",
        interleaved(lambda: next(held), lambda: next(clean), args.pairs),
        1.05,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
