"""Prints results: tables for people, one JSON object on the last line for programs."""

import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from hardtack.reports.text import byte_text, second_text, table

CHATTERING = r"(accelerate|datasets|huggingface_hub|tokenizers|torch|transformers)(\.|$)"


NO_PLAN: Mapping[str, Any] = {"stages": [], "seconds": 0.0, "bytes": 0}  # of a verb that only reads


def json_line(result: Mapping[str, Any]) -> str:
    """Write a result as one line of strict JSON: a number that is not finite becomes null."""
    return json.dumps(_finite(result), allow_nan=False, ensure_ascii=False, default=str)


def plan_text(plan: Mapping[str, Any]) -> str:
    """Render what `--dry-run` returns: the stages with the time and disk they would take."""
    rows = [(s["name"], second_text(s["seconds"]), byte_text(s["bytes"])) for s in plan["stages"]]
    rows.append(("all", second_text(plan["seconds"]), byte_text(plan["bytes"])))
    return table(("stage", "time", "disk"), rows, right=(1, 2)) + "\nnothing was run (--dry-run)"


@contextlib.contextmanager
def calm_libraries() -> Iterator[None]:
    """Keep the libraries' loading chatter and warnings off the screen for the time of one command."""
    from transformers import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # "loading weights"; downloads from the hub go silent with it
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=CHATTERING)
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def only_the_result_on_stdout(strict: bool) -> Iterator[None]:
    """Send whatever anything prints meanwhile to standard error, when standard output is for a program."""
    if not strict:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def process_number() -> int:
    """Return which of several processes a launcher made this one; alone it is 0."""
    return int(os.environ.get("RANK", "0")) if os.environ.get("WORLD_SIZE", "1") != "1" else 0


@contextlib.contextmanager
def only_the_first_process_on_stdout() -> Iterator[None]:
    """Print results once: the other processes of a group have the same ones."""
    if process_number() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def leave_the_others() -> None:
    """Take leave of a group of processes that trained together; NCCL complains at exit when one did not."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
