"""What is the user's to mend gets one line; everything else is ours and gets none."""

import errno

import pytest
import torch

from hardtack.errors import MEMORY, InputError, one_line


def test_wrong_input_is_said_in_one_line():
    assert one_line(InputError("task 'a\nb' is unknown")) == "task 'a b' is unknown"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_disk_or_folder_that_refuses_is_named(number):
    line = one_line(OSError(number, "Refused", "runs/x"))
    assert line == "Refused: 'runs/x'; nothing already written is lost"


def test_a_full_disk_is_recognised_through_a_library():
    class SafetensorError(Exception):
        pass

    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert one_line(error) == "No space left on device; nothing already written is lost"
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
