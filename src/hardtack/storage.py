"""Writing files so that neither a kill nor a full disk leaves half of one."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
"""What a safetensors header calls the types that are written here."""


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part, even after a kill."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: Any) -> None:
    """Write tensors and a little JSON atomically as a safetensors file, and take one at a time for that."""
    # Wider types first: readers take a tensor's bytes in place, which have to be aligned.
    names = list(tensors)
    if not isinstance(tensors, Stored):
        names.sort(key=lambda name: -tensors[name].element_size())
    stream_tensors(path, names, ((name, tensors[name]) for name in names), **metadata)


def stream_tensors(
    path: Path, names: Iterable[str], tensors: Iterable[tuple[str, Tensor]], **metadata: Any
) -> None:
    """Write tensors as they come, atomically, as a safetensors file: only one at a time is held."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_tensors(temporary, names, tensors, **metadata)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(
    path: Path, names: Iterable[str], tensors: Iterable[tuple[str, Tensor]], **metadata: Any
) -> None:
    """Write a safetensors file in place, one tensor after the other.

    The library's own writer wants all of them at once, and copies them. Here the header's room is left free
    first: its size is bounded by the names.

    Args:
        path: the file.
        names: of the tensors, all of them; they bound the header.
        tensors: name and tensor, those of wider types first.
        metadata: JSON kept beside them.
    """
    described = {"json": json.dumps(metadata)} if metadata else {}
    room = len(json.dumps(described)) + sum(len(json.dumps(name)) + 112 for name in names) + 64
    room += -room % 8
    header: dict[str, Any] = {"__metadata__": described} if described else {}
    with open(path, "wb") as stream:
        stream.seek(8 + room)
        end = 0
        for name, tensor in tensors:
            held = tensor.detach().cpu().contiguous()
            begin, end = end, end + held.numel() * held.element_size()
            shape, where = list(held.shape), [begin, end]
            header[name] = {"dtype": DTYPES[held.dtype], "shape": shape, "data_offsets": where}
            if held.numel():
                stream.write(held.reshape(-1).view(torch.uint8).numpy().data)
        text = json.dumps(header, separators=(",", ":")).encode()
        assert len(text) <= room, "the header has outgrown its room"
        stream.seek(0)
        stream.write(room.to_bytes(8, "little") + text.ljust(room))


class Stored(Mapping[str, Tensor]):
    """Tensors in safetensors files, read from there whenever one is asked for: none is held.

    Args:
        places: name -> the file that holds it and what it is called there.
        floats: what numbers with a point become; by default they stay as they are.
    """

    def __init__(self, places: Mapping[str, tuple[Path, str]], floats: torch.dtype | None = None):
        self.places, self.floats = dict(places), floats

    def __getitem__(self, name: str) -> Tensor:
        path, inside = self.places[name]
        with safe_open(path, framework="pt") as stream:
            tensor = stream.get_tensor(inside)
        return tensor.to(self.floats) if self.floats and tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote."""
    with safe_open(path, framework="pt") as stream:
        metadata = json.loads((stream.metadata() or {}).get("json", "{}"))
        names = list(stream.keys())
        return {name: stream.get_tensor(name) for name in names}, metadata


def append(path: Path, line: bytes) -> None:
    """Append a line as a whole: where the disk is full, what fitted of it is cut off again."""
    with open(path, "ab", buffering=0) as stream:
        before = stream.tell()
        try:
            while line:
                line = line[stream.write(line) :]
        except OSError:
            stream.truncate(before)
            raise
