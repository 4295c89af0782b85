"""The pruning methods: one file each, one line in this table each."""

from hardtack.methods.early_bird import EarlyBird
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.methods.iterative import Iterative
from hardtack.methods.magnitude import Magnitude
from hardtack.methods.random import Random
from hardtack.methods.search import Search

METHODS: dict[str, type[Search]] = {
    "hard_concrete": HardConcrete,
    "early_bird": EarlyBird,
    "magnitude": Magnitude,
    "random": Random,
    "iterative": Iterative,
}
