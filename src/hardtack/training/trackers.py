"""Trackers: a run's numbers shown as they come, in TensorBoard and its like; the log stays the record."""

from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import is_initialized
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from hardtack.errors import InputError, nearest
from hardtack.runs import Json

PROJECT = "hardtack"
EXTRAS = {"tensorboard": "hardtack[tensorboard]"}


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that does not exist or whose library is not installed."""
    known = [str(kind) for kind in LoggerType if kind is not LoggerType.ALL]
    installed = [str(kind) for kind in get_available_trackers()]
    if name is None or name in installed:
        return
    if name not in known:
        raise InputError(f"tracker {name!r} does not exist{nearest(name, known)}")
    raise InputError(
        f"tracker {name!r} is not installed: pip install '{EXTRAS.get(name, name)}'; "
        f"installed here: {', '.join(installed) or 'none'}"
    )


class Tracker:
    """Shows every number that a run logs with a step, through Accelerate; nothing starts before the first.

    A number is named by the part of the run, the event if it belongs to one, and its own name:
    `round-1/loss`, `validation/accuracy`.

    Args:
        name: "tensorboard", "wandb" or another that Accelerate knows.
        folder: where a tracker with files of its own puts them.
    """

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self._accelerator: Accelerator | None = None

    def __call__(self, part: str, numbers: Mapping[str, Json]) -> None:
        """Show the numbers of one line of the log; one without a step is no point of a curve."""
        step = numbers.get("step")
        prefix = part + (f"{numbers['event']}/" if "event" in numbers else "")
        shown = {
            prefix + name: value
            for name, value in numbers.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        if step is not None and shown:
            self._started().log(shown, step=step)

    def close(self) -> None:
        """Write what is left; not `end_training`, which would also part the processes of a group."""
        if self._accelerator is not None:
            for tracker in self._accelerator.trackers:
                tracker.finish()
            self._accelerator = None

    def _started(self) -> Accelerator:
        if self._accelerator is None:
            # Accelerate's state is one a process: where there is none, only files are wanted of it here.
            self._accelerator = Accelerator(
                cpu=not is_initialized(), log_with=self.name, project_dir=self.folder
            )
            self._accelerator.init_trackers(PROJECT)
        return self._accelerator
