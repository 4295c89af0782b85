"""Find, prove and ship sparse subnetworks that stay robust under attack."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hardtack.errors import InputError
    from hardtack.loading import load
    from hardtack.prunable import Prunable
    from hardtack.reports.page import report
    from hardtack.stages import Common, demo, evaluate, export, retrain, search, ship, soup, train
    from hardtack.studies import study
    from hardtack.tasks.task import Task
    from hardtack.tasks.text import load_task
    from hardtack.ticket import Ticket

__version__ = "0.1.0"

__all__ = [
    "Common",
    "InputError",
    "Prunable",
    "Task",
    "Ticket",
    "demo",
    "evaluate",
    "export",
    "load",
    "load_task",
    "report",
    "retrain",
    "search",
    "ship",
    "soup",
    "study",
    "train",
]

_HOMES = {
    "hardtack.errors": ("InputError",),
    "hardtack.loading": ("load",),
    "hardtack.prunable": ("Prunable",),
    "hardtack.reports.page": ("report",),
    "hardtack.stages": ("Common", "demo", "evaluate", "export", "retrain", "search", "ship", "soup", "train"),
    "hardtack.studies": ("study",),
    "hardtack.tasks.task": ("Task",),
    "hardtack.tasks.text": ("load_task",),
    "hardtack.ticket": ("Ticket",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import hardtack` and `hardtack --help` stay
    instant.
    """
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'hardtack' has no attribute {name!r}")
