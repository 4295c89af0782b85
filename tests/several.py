"""Starts several processes that belong together, as a launcher does, and says how each of them ended.

    python tests/several.py COUNT WORD...

runs COUNT copies of `python WORD...`; all are in this process's group, so that one signal reaches them all.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Ended(NamedTuple):
    """How one process ended."""

    code: int
    out: str
    err: str


def environments(count: int) -> list[dict[str, str]]:
    """Return what torchrun would set for each process: who it is and where all meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MASTER_ADDR": "127.0.0.1"}
    shared["PYTHONPATH"] = str(ROOT)  # what is started imports tests.toys
    shared |= {"MASTER_PORT": str(port), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def several(count: int, *words: str | Path, timeout: float = 250.0) -> list[Ended]:
    """Run `python WORDS` as that many processes, without a launcher that would kill one for another's end.

    Raises:
        subprocess.TimeoutExpired: when one of them does not end by itself.
    """
    until = time.monotonic() + timeout
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments(count)
    ]
    try:
        said = [process.communicate(timeout=until - time.monotonic()) for process in started]
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
    return [Ended(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


def main(words: Sequence[str]) -> int:
    ended = several(int(words[0]), *words[1:], timeout=500)
    for rank, one in enumerate(ended):
        print(f"--- process {rank}: {one.code}", one.out, one.err, sep="\n")
    return max(one.code for one in ended)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
