"""Reading a ticket's files: sizes, names and types are checked first, and nothing is executed."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hardtack.errors import InputError

FORMAT = 1
MAX_JSON_BYTES = 16 * 2**20


class Packed(Mapping[str, Tensor]):
    """Masks at one bit a unit, as they lie on disk; reading one unpacks it into bools, anew each time."""

    def __init__(self, bits: Mapping[str, Tensor], units: Mapping[str, int]):
        self.bits, self.units = bits, units

    def __getitem__(self, name: str) -> Tensor:
        bools = np.unpackbits(self.bits[name].numpy(), count=self.units[name])
        return torch.from_numpy(bools).view(torch.bool)

    def __iter__(self) -> Iterator[str]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)


def read_record(folder: Path) -> dict[str, Any]:
    """Read a ticket's JSON record after checking its size and format."""
    path = folder / "ticket.json"
    if not path.is_file():
        raise InputError(f"{folder} is no ticket: it has no ticket.json")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes; allowed: {MAX_JSON_BYTES}")
    try:
        record = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    found = record.get("format") if isinstance(record, dict) else type(record).__name__
    if found != FORMAT:
        raise InputError(f"{path} has ticket format {found!r}; this version reads {FORMAT}")
    return record


def read_arrays(path: Path, shapes: Mapping[str, tuple[int, ...]] | None, dtype: str) -> dict[str, Tensor]:
    """Read tensors after checking names, types and shapes against the declared ones and the file's size."""
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        with safe_open(path, framework="pt") as stream:
            names = set(stream.keys())
            if shapes is not None and (odd := names ^ shapes.keys()):
                raise InputError(f"{path} holds other sites than ticket.json names: {min(odd)}")
            for name in names:
                part = stream.get_slice(name)
                shape = tuple(part.get_shape())
                if part.get_dtype() != dtype or (shapes is not None and shape != shapes[name]):
                    raise InputError(
                        f"{path}: {name} is {part.get_dtype()} {shape}, declared {dtype} "
                        f"{shapes[name] if shapes else 'of any shape'}"
                    )
            return {name: stream.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file: {error}") from None
