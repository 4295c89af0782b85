"""Batches of token lists of similar length: planned by cost, padded, and halved where memory runs out."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Answer = TypeVar("Answer")
Row = Mapping[str, Sequence[int]]  # what an encoder makes of one text: input_ids, attention_mask, ...


class Sheaf(NamedTuple):
    """Token lists of similar length that go through a model together."""

    positions: np.ndarray  # [b] in the list that was planned
    rows: list[Row]  # longest first
    width: int  # length of the longest


def plan(rows: Sequence[Row], *, budget: int, price: int) -> list[Sheaf]:
    """Cut token lists into batches, longest first, so that padding and number of batches cost least together.

    The lists are sorted by length (equal ones keep their order) and cut into runs of neighbouring lengths.
    Among all such cuts the one is taken whose sum of padded tokens plus `price` per batch is least. The plan
    depends on the lengths alone, so that a resumed attack finds the same batches.

    Args:
        rows: what the encoder made of the texts.
        budget: most tokens in a batch, padding included; a list that is longer goes alone.
        price: what one more batch costs, in tokens.
    """
    if not rows:
        return []
    lengths = np.array([max(1, len(row["input_ids"])) for row in rows])
    order = np.argsort(-lengths, kind="stable")
    widths, counts = np.unique(-lengths, return_counts=True)
    widths = -widths  # descending
    most = np.maximum(1, budget // widths)
    before = np.concatenate(([0], np.cumsum(counts)))
    # least[j]: the cost of the j longest lengths; cut[j]: where the last run of that solution begins.
    least, cut = np.zeros(len(widths) + 1), np.zeros(len(widths) + 1, dtype=int)
    for j in range(1, len(widths) + 1):
        inside = before[j] - before[:j]
        costs = least[:j] + inside * widths[:j] + price * np.ceil(inside / most[:j])
        cut[j] = int(costs.argmin())
        least[j] = costs[cut[j]]
    bounds = [len(widths)]
    while bounds[-1]:
        bounds.append(int(cut[bounds[-1]]))
    sheaves = []
    for start, end in zip(bounds[:0:-1], bounds[-2::-1], strict=True):
        run = order[before[start] : before[end]]
        for positions in np.array_split(run, -(-len(run) // most[start])):
            sheaves.append(Sheaf(positions, [rows[i] for i in positions], int(lengths[positions[0]])))
    return sheaves


def padded(sheaf: Sheaf, pad: int, device: torch.device) -> dict[str, Tensor]:
    """Return a batch's inputs, int64 [b, width], short rows filled with `pad` under a zero attention mask."""
    inputs = {}
    for key in sheaf.rows[0]:
        if len(sheaf.rows[-1][key]) == sheaf.width:  # the last is the shortest
            values = np.array([row[key] for row in sheaf.rows], dtype=np.int64)
        else:
            filling = pad if key == "input_ids" else 0
            values = np.full((len(sheaf.rows), sheaf.width), filling, dtype=np.int64)
            for target, row in zip(values, sheaf.rows, strict=True):
                target[: len(row[key])] = row[key]
        inputs[key] = torch.from_numpy(values).to(device)
    return inputs


class Halving:
    """Runs batches through a model; one that its device has no memory for is halved and tried again.

    The size that was too large is remembered, so that later batches are halved before they fail. How a batch
    is cut moves logits by rounding errors alone; plans and recorded answers are about whole batches and stay.
    """

    def __init__(self) -> None:
        self.too_many: int | None = None  # padded tokens that once did not fit

    def __call__(self, forward: Callable[[Sheaf], Answer], sheaf: Sheaf) -> list[Answer]:
        """Return the forward's answers to the parts of a batch, in the order of its rows."""
        done, waiting = [], [sheaf]
        while waiting:
            part = waiting.pop()
            size = len(part.rows) * part.width
            if len(part.rows) == 1 or self.too_many is None or size < self.too_many:
                try:
                    done.append(forward(part))
                    continue
                except Exception as error:
                    if not out_of_memory(error) or len(part.rows) == 1:
                        raise
                # Outside the handler: while the error lives, so do the tensors of the failed pass.
                self.too_many = size
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            middle = (len(part.rows) + 1) // 2
            waiting += [_part(part, slice(middle, None)), _part(part, slice(middle))]
        return done


def _part(sheaf: Sheaf, which: slice) -> Sheaf:
    rows = sheaf.rows[which]
    return Sheaf(sheaf.positions[which], rows, max(1, len(rows[0]["input_ids"])))


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("out of memory", "can't allocate memory", "not enough memory")
    )
