"""Per-example losses: logits [N, C] and a batch in, [N] out; objectives average them."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from hardtack.tasks.task import Batch

Loss = Callable[[Tensor, Batch], Tensor]


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return -log p(label) of each example in nats, [N], in float32 whatever the logits' precision."""
    return functional.cross_entropy(logits.float(), batch.labels, reduction="none")
