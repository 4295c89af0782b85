"""A small command for the kill tests: trains a toy classifier in a run folder, and continues there.

    python tests/training/killed_fit.py FOLDER STEPS PAUSE

Each step takes at least PAUSE seconds, so that there is a moment to be killed in.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from hardtack.runs import Run, generator
from hardtack.schedule import WarmupDecay
from hardtack.storage import save_tensors
from hardtack.tasks.task import Batch
from hardtack.training.adversarial import FreeLB
from hardtack.training.loop import fit_steps


class Bag(nn.Module):
    """Embeddings, dropout, batch norm and a head: everything that has a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 7)
        self.dropout = nn.Dropout(0.2)
        self.norm = nn.BatchNorm1d(7)
        self.head = nn.Linear(7, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator(0, "bag", example=str(tuple(parameter.shape))))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        words = self.dropout(self.words(input_ids)) * attention_mask[:, :, None]
        return SimpleNamespace(logits=self.head(self.norm(words.sum(1))))


class Sentences:
    """Batches drawn from the step's own stream."""

    def __init__(self, pause: float):
        self.pause = pause

    def at(self, step: int) -> Batch:
        time.sleep(self.pause)
        rng = generator(1, "sentences", step)
        words = torch.randint(1, 30, (8, 6), generator=rng)
        mask = (torch.arange(6) < torch.randint(1, 7, (8, 1), generator=rng)).long()
        return Batch({"input_ids": words * mask, "attention_mask": mask}, words[:, 0] % 2, words[:, 1], {})


def main(folder: Path, steps: int, pause: float) -> None:
    model = Bag()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    with Run.open(folder, "toy/seed-0", recipe={"steps": steps}, seed=0, save_seconds=0.05) as run:
        if run.finished():
            return
        began = time.monotonic()
        for step in fit_steps(
            model, Sentences(pause), FreeLB(steps=2), optimizer, total=steps, lr=WarmupDecay(0.01), run=run
        ):
            run.log(step=step.index, loss=step.loss, grad_norm=step.grad_norm)
        save_tensors(folder / "model.safetensors", model.state_dict())
        run.finish(folder=str(folder), seconds=time.monotonic() - began)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
