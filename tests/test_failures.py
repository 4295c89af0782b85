"""What is the user's to mend gets one line; everything else is ours and gets none."""

import errno
import os

import pytest
import torch

from hardtack.errors import MEMORY, InputError, one_line


def test_wrong_input_is_said_in_one_line():
    assert one_line(InputError("task 'a\nb' is unknown")) == "task 'a b' is unknown"


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOTDIR]
)
def test_a_disk_or_folder_that_refuses_is_named(number):
    line = one_line(OSError(number, "Refused", "runs/x"))
    assert line == "Refused: 'runs/x'; nothing already written is lost"


def test_a_full_disk_is_recognised_through_a_library():
    class SafetensorError(Exception):
        pass

    for number in (errno.ENOSPC, errno.EFBIG, errno.EROFS):
        words = os.strerror(number)
        error = SafetensorError(f"Error while serializing: I/O error: {words} (os error {number})")
        assert one_line(error) == f"{words}; nothing already written is lost"
    assert one_line(SafetensorError("I/O error: Bad file descriptor (os error 9)")) is None
    assert one_line(SafetensorError("No space left on device")) is not None
    assert one_line(OSError(errno.ENOSPC, "No space left on device")) == (
        "No space left on device: the run cannot go on; nothing already written is lost"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_memory(error):
    assert one_line(error) == MEMORY


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), FileNotFoundError(2, "none", "x"), RuntimeError("x")]
)
def test_everything_else_is_ours(error):
    assert one_line(error) is None
