"""Writing files so that neither a kill nor a full disk leaves half of one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


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
    """Write tensors and a little JSON atomically as a safetensors file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(held, temporary, metadata={"json": json.dumps(metadata)})
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
