"""The one exception that means "the input is wrong or the run cannot go on": one line, no traceback.

And `one_line`, which sorts what went wrong into the user's to mend (a line) and ours (a traceback).
"""

import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable

# The folder that was named cannot be written or read, or the disk is full: no code of ours can help.
NOT_OURS = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    )
)
WRAPPED = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust pass the system's error on
FULL = os.strerror(errno.ENOSPC)
MEMORY = "out of memory: a smaller --batch-size or --max-length may fit; nothing already written is lost"


class InputError(ValueError):
    """Says in one line which value is wrong and what is allowed; the command line exits with status 2."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest allowed name, if any is near, and all allowed ones.

    >>> nearest("magnitud", ["random", "magnitude"])
    "; did you mean 'magnitude'? allowed: magnitude, random"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{guess} allowed: {', '.join(names)}"


def one_line(error: BaseException) -> str | None:
    """Say in one line why the run cannot go on, or None when the failure is ours."""
    line = _line(error)
    return None if line is None else " ".join(line.split())


def _line(error: BaseException) -> str | None:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError) or _is_torch_memory(error):
        return MEMORY
    if isinstance(error, OSError) and error.errno in NOT_OURS:
        where = f" {str(error.filename)!r}" if error.filename else ""
        return f"{error.strerror}:{where or ' the run cannot go on'}; nothing already written is lost"
    # safetensors and pyarrow wrap the system's error in their own classes.
    wrapped = WRAPPED.search(str(error))
    number = int(wrapped[1]) if wrapped else errno.ENOSPC if FULL in str(error) else 0
    return f"{os.strerror(number)}; nothing already written is lost" if number in NOT_OURS else None


def _is_torch_memory(error: BaseException) -> bool:
    """Recognise torch's ways of being out of memory without importing it for verbs that do not."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
