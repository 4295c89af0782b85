"""A model whose perturbations can be worked out by hand."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from hardtack.runs import generator
from hardtack.tasks.task import Batch


class Bag(nn.Module):
    """Logits are a linear map of the sum of the unmasked embeddings: everything can be done by hand."""

    def __init__(self, words: Tensor, classes: Tensor):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(words, freeze=False)
        self.classes = nn.Parameter(classes)

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask):
        summed = (self.words(input_ids) * attention_mask[:, :, None]).sum(1)  # [N, D]
        return SimpleNamespace(logits=summed @ self.classes.T)


def bag_batch(lengths: tuple[int, ...], ids: tuple[int, ...], width: int | None = None) -> Batch:
    width = width or max(lengths)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    words = torch.tensor([[(7 * i + column) % 5 + 1 for column in range(width)] for i in ids]) * mask
    return Batch(
        {"input_ids": words, "attention_mask": mask},
        torch.tensor([i % 2 for i in ids]),
        torch.tensor(ids),
        {},
    )


def bag() -> Bag:
    rng = generator(0, "bag")
    return Bag(torch.randn(6, 3, generator=rng), torch.randn(2, 3, generator=rng))
