"""Keeps every answer of a model on disk, in asking order, so that a killed attack goes on where it was."""

import errno
import json
import os
import struct
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
import xxhash
from torch import Tensor

from hardtack.runs import Clock, Json, Run

_MAGIC = b"HTANSW02"
_HEADER = struct.Struct("<8s16sIQ")  # magic, binding, classes, checksum of what stands before it
_RECORD = struct.Struct("<cIdQ")  # kind, bytes of payload, seconds on the clock, checksum of all
_LOGITS, _JUDGED = b"L", b"J"


class Answers:
    """A file of model answers that is first read back and then written on.

    Layout, little-endian: a header that binds the file to one attack on one model (16-byte digest, number of
    classes), then one record a batch: its kind, its size, the seconds worked so far, a checksum, and what was
    answered: float32 logits [rows, C], or the judges' answers of one round as JSON. A record is written by
    one call, so a kill leaves at most one incomplete record at the end. A file that is bound to something
    else or has a damaged header is discarded; from the first record that does not fit, it is cut off and
    written anew. Whoever reads records back catches up with their clock.

    `replayed` counts the rows of logits read back; `redone_seconds` is how long the batch took that the
    killed process was in, the only work done twice.
    """

    def __init__(self, path: Path | None, binding: bytes, classes: int | None, *, clock: Clock | None = None):
        self._binding, self._classes, self._clock = binding, classes, clock or Clock()
        self._file = None
        self._replaying = False
        self._stopped: float | None = None
        self.replayed, self.redone_seconds = 0, 0.0
        if path is None:  # a run that keeps nothing
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a written record is in the operating system's hands and survives SIGKILL.
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        self._replaying = self._read_header()
        if not self._replaying:
            self._file.truncate(0)
            self._file.seek(0)

    def __enter__(self) -> "Answers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        if self._file is not None:
            self._file.close()

    def replay(self, rows: int) -> Tensor | None:
        """Return the next recorded batch, float32 [rows, C], or None: then, and from then on, the model is
        asked.
        """
        payload = self._next(_LOGITS, size=rows * (self._classes or 0) * 4)
        if payload is None:
            return None
        self.replayed += rows
        return torch.from_numpy(np.frombuffer(payload, "<f4").astype(np.float32).reshape(rows, -1))

    def replay_judged(self) -> Json | None:
        """Return what the judges answered in this round, or None: then, and from then on, they are asked."""
        payload = self._next(_JUDGED)
        return None if payload is None else json.loads(payload)

    def append(self, logits: Tensor) -> None:
        """Write one batch of answers, float32 [b, C]."""
        if self._file is None:
            return
        if self._stopped is not None:
            self.redone_seconds, self._stopped = time.perf_counter() - self._stopped, None
        if self._file.tell() == 0:
            self._classes = logits.shape[1]
            head = struct.pack("<8s16sI", _MAGIC, self._binding, self._classes)
            self._write(head + struct.pack("<Q", xxhash.xxh3_64_intdigest(head)))
        self._record(_LOGITS, logits.numpy().astype("<f4").tobytes())

    def append_judged(self, answers: Json) -> None:
        """Write what the judges answered in one round; JSON keeps every float64 exactly."""
        if self._file is None:
            return
        assert self._file.tell(), "an attack's first question is to the victim"
        self._record(_JUDGED, json.dumps(answers, separators=(",", ":")).encode())

    def log_resumption(self, run: Run, label: str) -> None:
        """Note in the run's log what was read back and what was done twice, if anything."""
        if self.replayed:
            redone = round(self.redone_seconds, 3)
            run.log(event="resumed", label=label, replayed=self.replayed, redone_seconds=redone)

    def _read_header(self) -> bool:
        assert self._file is not None
        header = self._file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return False
        magic, binding, classes, checksum = _HEADER.unpack(header)
        sound = magic == _MAGIC and checksum == xxhash.xxh3_64_intdigest(header[:-8])
        if not sound or binding != self._binding or self._classes not in (None, classes):
            return False
        self._classes = classes
        return True

    def _next(self, kind: bytes, *, size: int | None = None) -> bytes | None:
        """Return the next record's payload if it is sound and of this kind and size; else end the replay."""
        if self._file is None or not self._replaying:
            return None
        start = self._file.tell()
        head = self._file.read(_RECORD.size)
        if len(head) == _RECORD.size:
            found, length, seconds, checksum = _RECORD.unpack(head)
            if found == kind and size in (None, length):
                payload = self._file.read(length)
                if len(payload) == length and checksum == _checksum(kind, seconds, payload):
                    self._clock.catch_up(seconds)
                    return payload
        self._file.truncate(start)
        self._file.seek(start)
        self._replaying = False
        self._stopped = time.perf_counter() if self.replayed else None
        return None

    def _record(self, kind: bytes, payload: bytes) -> None:
        seconds = self._clock.seconds()
        self._write(_RECORD.pack(kind, len(payload), seconds, _checksum(kind, seconds, payload)) + payload)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)


def _checksum(kind: bytes, seconds: float, payload: bytes) -> int:
    return xxhash.xxh3_64_intdigest(kind + struct.pack("<d", seconds) + payload)
