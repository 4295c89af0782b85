"""The stages of the work as functions: the Python API, and what the command line calls.

Only here do layers meet: a stage opens its run, hands things down, and returns a JSON-able dict.
"""

from hardtack.stages.common import Common
from hardtack.stages.demonstrating import demo
from hardtack.stages.evaluating import evaluate
from hardtack.stages.exporting import export
from hardtack.stages.fitting import retrain, train
from hardtack.stages.searching import search
from hardtack.stages.shipping import ship
from hardtack.stages.souping import soup

__all__ = ["Common", "demo", "evaluate", "export", "retrain", "search", "ship", "soup", "train"]
