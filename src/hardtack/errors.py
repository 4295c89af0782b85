"""The one exception that means "the input is wrong or the run cannot go on": one line, no traceback."""

import difflib
from collections.abc import Iterable


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
