"""The running hidden states of all batches, dense and sparse: in memory, or in files of the run's scratch."""

import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import overload

from torch import Tensor

from hardtack.methods.blocks import Blocks
from hardtack.runs import Run

MMAP_THRESHOLD = -3
"""The number of that setting in glibc's malloc.h."""
ALONE = 2**20
"""Bytes from which on a tensor of a streamed search has pages of its own."""
TOGETHER = 2**25
"""The same afterwards: as far as glibc lets it grow by itself, which it does not do again once it is set."""


class Side(Sequence[Tensor]):
    """One path's states in a file that is read (mapped, where it lies on a CPU) whenever one is asked for."""

    def __init__(self, stored: Mapping[str, Tensor], path: str, length: int, like: Tensor):
        self.stored, self.path, self.length, self.device = stored, path, length, like.device

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self.length))]
        if not 0 <= index < self.length:
            raise IndexError(index)
        return self.stored[f"{self.path} {index}"].to(self.device)


def record_(blocks: Blocks, run: Run) -> None:
    """Record all batches and keep their states before the first block: on disk for a streamed model."""
    count = len(blocks.samples)
    if blocks.weights is None:
        blocks.start = [blocks.record(batch) for batch in range(count)]
        return
    names = [f"start {batch}" for batch in range(count)]
    stored = run.stream("start", names, ((name, blocks.record(batch)) for batch, name in enumerate(names)))
    blocks.start = Side(stored, "start", count, blocks.first)


@dataclass
class States:
    """Both paths' states before a stage.

    Attributes:
        dense: of the dense model, a batch each.
        sparse: of the model pruned so far.
        done: how many stages they have passed.
    """

    dense: Sequence[Tensor]
    sparse: Sequence[Tensor]
    done: int = 0

    @classmethod
    def begun(cls, blocks: Blocks, run: Run, done: int) -> "States":
        """Return the states after so many stages, as they were kept; at the start both paths are one."""
        count = len(blocks.samples)
        if blocks.weights is not None:
            if done == 0:
                return cls(blocks.start, blocks.start)
            stored = run.stored(f"states-{done}", _names(count))
            dense, sparse = (Side(stored, path, count, blocks.first) for path in ("dense", "sparse"))
            return cls(dense, sparse, done)
        if done == 0:
            return cls([*blocks.start], [*blocks.start])
        kept = run.kept(f"states-{done}")
        assert kept is not None, done
        held = {name: tensor.to(blocks.first.device) for name, tensor in kept[0].items()}
        dense, sparse = ([held[f"{path} {n}"] for n in range(count)] for path in ("dense", "sparse"))
        return cls(dense, sparse, done)

    def advance_(self, blocks: Blocks, run: Run, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take the states after the next stage as they come; the old ones are kept too until `settle_`."""
        count, name = len(blocks.samples), f"states-{self.done + 1}"
        if blocks.weights is not None:
            stored = run.stream(name, _names(count), _named(pairs))
            self.dense, self.sparse = (Side(stored, p, count, blocks.first) for p in ("dense", "sparse"))
        else:
            assert isinstance(self.dense, list)
            assert isinstance(self.sparse, list)
            for batch, (y, y_) in enumerate(pairs):  # in place: the next pair comes from the next states
                self.dense[batch], self.sparse[batch] = y, y_
            sides = zip(self.dense, self.sparse, strict=True)
            run.keep(name, dict(_named(sides)))
        self.done += 1

    def settle_(self, run: Run) -> None:
        """Drop the states before these: what the stage came to is kept."""
        run.drop(f"states-{self.done - 1}")


@contextmanager
def giving_back() -> Iterator[None]:
    """Return freed tensors to the system at once for a while: glibc keeps more of them than a block."""
    _threshold_(ALONE)
    try:
        yield
    finally:
        _threshold_(TOGETHER)


def _threshold_(size: int) -> None:
    with suppress(AttributeError, OSError, TypeError):  # other C libraries have no such function
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, size)


def _names(count: int) -> list[str]:
    return [f"{path} {batch}" for batch in range(count) for path in ("dense", "sparse")]


def _named(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for batch, (dense, sparse) in enumerate(pairs):
        yield f"dense {batch}", dense
        yield f"sparse {batch}", sparse
