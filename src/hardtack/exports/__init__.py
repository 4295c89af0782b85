"""Ordinary models out of tickets: one file each, one line in this table each.

An export gets a model whose removed units are zero (a ticket applied to its base, or a retrained model) and
the ticket; it writes the model's files into an empty folder, checks that what it wrote answers as the model
did, and says what it made.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardtack.exports.dense import to_dense
from hardtack.exports.programs import to_onnx_folder, to_onnx_int8, to_openvino
from hardtack.exports.shrink import to_shrink
from hardtack.loading import Loaded
from hardtack.ticket import Ticket

EXPORTS: dict[str, Callable[[Loaded, Ticket, Path], dict[str, Any]]] = {
    "shrink": to_shrink,
    "dense": to_dense,
    "onnx": to_onnx_folder,
    "onnx-int8": to_onnx_int8,
    "openvino": to_openvino,
}
"""Name -> what writes it; its result holds at least `form`, a sentence, `opens`, Python that opens it (with
{name} for the folder), and `difference`, the largest one of any logit."""
