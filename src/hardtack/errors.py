"""The one exception that means "the input is wrong or the run cannot go on": one line, no traceback.

And `one_line`, which sorts what went wrong into the user's to mend (a line) and ours (a traceback).
"""

import difflib
import errno
import sys
from collections.abc import Iterable

# The folder that was named cannot be written or read, or the disk is full: no code of ours can help.
NOT_OURS = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    )
)
FULL = "No space left on device"
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
    if FULL in str(error):  # safetensors and pyarrow wrap the system's error in their own classes
        return f"{FULL}; nothing already written is lost"
    return None


def _is_torch_memory(error: BaseException) -> bool:
    """Recognise torch's ways of being out of memory without importing it for verbs that do not."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
