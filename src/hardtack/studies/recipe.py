"""A recipe: what the TOML of a study says; `reading` makes it.

name = "robust"                       # default: the file's name
[common]                              # for every stage: task, and the fields of stages.Common
task = "$HARDTACK_DATA/sst2_sentences"
[grid]                                # axes that all stages share, where they have such a key
seed = [0, 1]
[[stage]]
name = "dense"
verb = "train"
model = "bert-base-uncased"
[[stage]]
name = "attacked"
verb = "evaluate"
target = "@dense"                     # the cell of that stage with the same values on the shared axes
attack = ["deepwordbug"]
only = {seed = [0]}                   # of all its combinations those with these values
"""

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from hardtack.errors import InputError
from hardtack.runs import Json
from hardtack.studies.verbs import Verb


@dataclass(frozen=True)
class Stage:
    """One stage: its verb, what it fixes, its own axes, and whether its weights stay.

    Attributes:
        fixed: plain keys, those of [common] included; settings of one method have dotted names.
        grid: key -> the values of an axis of this stage.
        only: key of an axis, its own or one of what it refers to -> the values it is wanted at.
        keep: its weights are results and are never removed.
    """

    name: str
    verb: Verb
    fixed: Mapping[str, Json]
    grid: Mapping[str, list[Json]]
    keep: bool = False
    only: Mapping[str, list[Json]] = field(default_factory=dict)

    def refers_to(self, shared: Mapping[str, list[Json]]) -> set[str]:
        """Return the names of the stages that it refers to."""
        axes = {**shared, **self.grid}
        values = [v for key in self.verb.refers for v in [self.fixed.get(key), *axes.get(key, ())]]
        return {one[1:] for value in values for one in each(value) if is_reference(one)}


@dataclass(frozen=True)
class Recipe:
    """What a study is: stages and grids, checked.

    Attributes:
        file: where it was read.
        text: the file as it is.
        results: folder of committed rows, relative to the working directory.
        explores: it chooses settings, so test splits and the seeds of confirmations are refused.
        grid: the shared axes.
        stages: in the order of the file.
        variables: text with its variables filled in -> the text as it was typed.
    """

    file: Path
    name: str
    text: str
    results: str = "docs/results"
    explores: bool = False
    grid: Mapping[str, list[Json]] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    def wrong(self, said: str, stage: str = "") -> NoReturn:
        """Refuse: one line that names the file and the stage."""
        raise InputError(f"{self.file}: stage {stage!r}: {said}" if stage else f"{self.file}: {said}")

    def in_order(self) -> list[Stage]:
        """Return the stages so that each comes after those that it refers to."""
        graph = {stage.name: sorted(stage.refers_to(self.grid)) for stage in self.stages}
        by_name = {stage.name: stage for stage in self.stages}
        try:
            return [by_name[name] for name in graphlib.TopologicalSorter(graph).static_order()]
        except graphlib.CycleError as error:
            around = " -> ".join(f"@{name}" for name in reversed(error.args[1]))
            self.wrong(f"stages refer to each other in a circle: {around}; allowed: one direction")


def each(value: Json) -> list[Json]:
    """Return the values of a list, or a value as a list of one."""
    return value if isinstance(value, list) else [value]


def is_reference(value: Json) -> bool:
    """Say whether a value names another stage."""
    return isinstance(value, str) and value.startswith("@")
