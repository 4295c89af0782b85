"""Perturbations of embeddings: pure tensor functions shared by adversarial training and attacks.

Tensors are [N, L, D] (example, token, dimension) with a token mask [N, L] (True = real token). Norms are
Frobenius norms over all tokens of one sentence, as in FreeLB (Zhu et al. 2020) and in the robust-ticket paper
(Zheng et al. 2022, eq. 6-8).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def random_start(
    tokens: Tensor, width: int, size: float, stream: Callable[[int], torch.Generator], ids: Tensor
) -> Tensor:
    """Draw delta ~ U(-1, 1) * size / sqrt(length * width) for each example, zero on padding.

    Each example has a stream of its own (keyed by its id), so its start depends neither on the other examples
    of the batch nor on how long the batch is padded. The expected norm is near size / sqrt(3).

    Args:
        tokens: bool [N, L], True at real tokens.
        width: embedding dimension D.
        size: eps0; 0 starts at the clean point.
        stream: example id -> generator.
        ids: int [N], the examples' ids.
    """
    counts = tokens.sum(1)
    delta = torch.zeros(*tokens.shape, width)
    for row, example in enumerate(ids.tolist()):
        length = int(counts[row])
        if length == 0:
            continue  # a decoder's tokenizer makes nothing of a blank text
        drawn = torch.rand(length, width, generator=stream(example))
        delta[row][tokens[row].cpu()] = (drawn * 2 - 1) * (size / (length * width) ** 0.5)
    return delta.to(tokens.device)


def norms(delta: Tensor) -> Tensor:
    """Return the Frobenius norm of each sentence's perturbation, [N, 1, 1]."""
    return delta.flatten(1).norm(dim=1)[:, None, None]


def ascend(delta: Tensor, gradient: Tensor, step: float) -> Tensor:
    """Move each sentence's delta by `step` along its gradient's direction (norm over the whole sentence)."""
    return delta + step * gradient / norms(gradient).clamp_min(1e-8)


def project(delta: Tensor, radius: float) -> Tensor:
    """Shrink each sentence's delta to a norm of at most `radius`; 0 means no bound."""
    if radius == 0:
        return delta
    return delta * (radius / norms(delta).clamp_min(1e-12)).clamp_max(1.0)


@contextmanager
def added_to_embeddings(model: nn.Module, delta: Tensor) -> Iterator[None]:
    """Add `delta` to the word-embedding lookup of every forward inside the block.

    A hook on the lookup, not `inputs_embeds`: the model still sees its input ids, so token types, padding,
    position ids (which some families derive from the ids) and a decoder's last-token pooling stay right.
    Only the first lookup of a forward gets it, because GPT-2 looks its token types up in the same table.
    """
    lookup: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    waiting = [True]

    def arm(module: nn.Module, inputs: object) -> None:
        waiting[:] = [True]

    def add(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output + delta.to(output.dtype) if waiting and waiting.pop() else output

    handles = [model.register_forward_pre_hook(arm), lookup.register_forward_hook(add)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
