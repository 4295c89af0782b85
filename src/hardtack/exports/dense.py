"""Export as a dense model: zeros stay in place as zeros; any program opens it, and none runs it faster."""

from pathlib import Path
from typing import Any

from hardtack.exports.checked import ORDINARY, answers, sample, write
from hardtack.loading import Loaded
from hardtack.ticket import Ticket


def to_dense(loaded: Loaded, ticket: Ticket, folder: Path) -> dict[str, Any]:
    """Write the model with its zeros baked in.

    Args:
        loaded: the model, whose removed units or weights are zero.
        ticket: what says which they are.
        folder: an empty folder.
    """
    difference = write(loaded, folder, answers(loaded.model, sample(loaded.model)))
    form = "an ordinary transformers folder; removed weights are zeros"
    return {"form": form, "opens": ORDINARY, "difference": difference}
