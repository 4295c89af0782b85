"""Studies: a recipe of stages and grids, expanded into runs that are named by what produces them."""

from hardtack.studies.running import study

__all__ = ["study"]
