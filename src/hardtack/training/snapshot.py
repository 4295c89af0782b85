"""Rewinding: a true copy of everything that training can change, put back bit for bit."""

import torch
from torch import Tensor, nn


class Snapshot:
    """A copy of a model's parameters, buffers and flags (training, requires_grad).

    The copy shares no memory with the model: the released code of one paper kept references, which moved with
    the weights and made its rewinding a no-op.

    Args:
        model: what is copied.
        weights: False leaves the parameters' values out, where they are frozen anyway.
    """

    def __init__(self, model: nn.Module, *, weights: bool = True):
        state = _state(model) if weights else dict(model.named_buffers())
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.training = {name: module.training for name, module in model.named_modules()}
        self.trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def restore_(self, model: nn.Module) -> None:
        """Put the model back to what it was, in place; gradients are dropped."""
        state = _state(model)
        for name, value in self.tensors.items():
            state[name].copy_(value)
        for name, module in model.named_modules():
            module.training = self.training[name]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.trainable[name])
            parameter.grad = None


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
