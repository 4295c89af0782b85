"""What matrices gave in earlier passes of a block, so that later ones need not multiply again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from torch import Tensor, nn


class Known:
    """What a stage's matrices give in each batch, so that no pass multiplies again what an earlier one did.

    Good for one stage and one path, and for matrices whose weights stay as they are: the pruned ones.
    """

    def __init__(self) -> None:
        self._outputs: dict[tuple[int, str], list[Tensor]] = {}

    @contextmanager
    def answering(self, root: nn.Module, batch: int, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Let the modules of these weights give what they gave before, and note what they give anew."""
        modules = {name: root.get_submodule(name) for name in (key.rpartition(".")[0] for key in weights)}
        try:
            for name, module in modules.items():
                calls = self._outputs.setdefault((batch, name), [])
                module.forward = partial(_known_or_new, module.forward, calls, count())
            yield
        finally:
            for module in modules.values():
                module.__dict__.pop("forward", None)

    def forget_(self, batch: int) -> None:
        """Drop a batch that no pass is left for."""
        for key in [key for key in self._outputs if key[0] == batch]:
            del self._outputs[key]


def _known_or_new(
    forward: Callable[..., Tensor], calls: list[Tensor], numbers: Iterator[int], *args: Any
) -> Tensor:
    if (number := next(numbers)) == len(calls):  # a pass that ended early knows fewer calls than there are
        calls.append(forward(*args))
    return calls[number]


class Paths(NamedTuple):
    """What is known of a stage's matrices on both paths."""

    dense: Known
    sparse: Known

    @classmethod
    def new(cls) -> "Paths":
        """Return paths of which nothing is known yet."""
        return cls(Known(), Known())
