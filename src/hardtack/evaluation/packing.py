"""Linear layers whose weights are laid out once for the processor, while a model only answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

MOST = 2**31
"""Bytes of weights beyond which nothing is packed: packed weights stand in memory beside the model's own."""

Pack = Callable[[Tensor], Tensor]
Product = Callable[[Tensor, Tensor, Tensor | None, str, list[float], str], Tensor]


class Packed:
    """The plain linear layers of a model on a CPU, with weights in the order in which oneDNN reads them.

    PyTorch hands a product in float32 to another library, which lays the weights out anew each time. Packed
    once, products take less time, small ones above all; results differ by rounding. The packed form is
    PyTorch's own, made for its compiler: where a version lacks it, and for other devices and types, the
    layers stay as they are.

    Args:
        model: stays plain; its layers answer in the packed form inside `using` alone. Its weights must not
            change in the meantime.
    """

    def __init__(self, model: nn.Module):
        self.layers: dict[nn.Linear, Callable[[Tensor], Tensor]] = {}
        known = _operators()
        linear = [module for module in model.modules() if type(module) is nn.Linear and _fits(module)]
        if known is None or sum(4 * module.weight.numel() for module in linear) > MOST:
            return
        pack, product = known
        with torch.no_grad():
            for module in linear:
                self.layers[module] = partial(_linear, product, pack(module.weight.detach()), module.bias)

    @contextmanager
    def using(self) -> Iterator[None]:
        """Let the layers answer in the packed form for a while."""
        try:
            for module, forward in self.layers.items():
                module.forward = forward  # type: ignore[assignment]
            yield
        finally:
            for module in self.layers:
                module.__dict__.pop("forward", None)


def _linear(product: Product, weight: Tensor, bias: Tensor | None, input: Tensor) -> Tensor:
    return product(input, weight, bias, "none", [], "")


def _fits(module: nn.Linear) -> bool:
    """Say whether a layer is what the packed product takes: nothing of it is replaced or watched."""
    weight = module.__dict__["_parameters"].get("weight")
    if weight is None or weight.device.type != "cpu" or weight.dtype != torch.float32 or not weight.numel():
        return False
    return "forward" not in module.__dict__ and type(weight) is nn.Parameter


def _operators() -> tuple[Pack, Product] | None:
    """Return what packs a weight [out, in] and what multiplies by it, where this PyTorch has both."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return None
