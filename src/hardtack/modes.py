"""The mode of a model's modules, borrowed for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode for a while and give each its own mode back.

    Gradients are left as they are: whoever wants none says which way (`torch.inference_mode`, or
    `torch.no_grad` where something follows the operations).
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
