"""What a pruning method is: a frozen dataclass with one method, `search`, that yields tickets."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.tasks.task import Batches
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Objective


class Data(NamedTuple):
    """What a search may read: training batches and validation batches, never test; and how it computes.

    Attributes:
        train: the training split.
        validation: the validation split.
        precision: "fp32" or "bf16".
        attacked: sentences that attacks have changed, none of the test split; None where nobody named any.
        weights: where a streamed model's weights are, by their names in it; None for one in memory.
    """

    train: Batches
    validation: Batches
    precision: str = "fp32"
    attacked: Batches | None = None
    weights: Mapping[str, Tensor] | None = None


class Search(Protocol):
    """A pruning method; its fields are its hyperparameters, its flags and its documentation.

    `needs` says what it reads ("weights", "inputs" or "labels"), `starts` where it starts by default
    ("base" or "finetuned"), `minimises` which objective it takes by default, `removes` which kinds of unit it
    can tell apart, `version` is raised when a fix changes its results. `gives` and `advice` help a newcomer
    to choose: what its tickets are, and when to take it; the documentation's table of methods is made of
    them.
    """

    name: ClassVar[str]
    needs: ClassVar[str]
    starts: ClassVar[str]
    minimises: ClassVar[str]
    removes: ClassVar[tuple[str, ...]]
    version: ClassVar[int]
    gives: ClassVar[str]
    advice: ClassVar[str]

    @property
    def sparsities(self) -> tuple[Sparsity, ...]:
        """What share of the units each ticket removes; one ticket for each."""
        ...

    def steps(self, epoch: int) -> int:
        """Return how many training steps the search takes at `epoch` steps an epoch (0 for none)."""
        ...

    def check(self, view: Prunable) -> None:
        """Refuse sparsities that cannot be drawn from these units, before anything is trained for them."""
        ...

    def search(
        self, start: nn.Module, base: Base, view: Prunable, data: Data, objective: Objective, run: Run
    ) -> Iterator[Ticket]:
        """Yield a ticket for each wanted sparsity, as soon as it exists; the caller saves each at once.

        Whenever it yields or ends, also by an exception, the model is plain and bit-equal to what it got.

        Args:
            start: the model that is searched, with a trained head where `starts` says so.
            base: what the tickets rewind to.
            view: the units that may go.
            data: training and validation batches.
            objective: what is minimised where the method trains.
            run: random streams, log and scratch; a killed search continues from there.
        """
        ...


def sparsities_field(*default: float) -> Any:
    """Return the field that every method has: the sparsities to draw tickets at."""
    return dataclasses.field(
        default=tuple(Sparsity(fraction=value) for value in default),
        metadata={
            "help": "sparsity of a ticket, once for each: 0.3, head=0.2,neuron=0.4, flops=0.5, 2:4, learned",
            "flag": False,
        },
    )


def record(method: Search, run: Run, sparsity: Sparsity, **facts: Any) -> dict[str, Any]:
    """Return a ticket's origin: the method with its settings, the wanted sparsity, seed and run."""
    settings = {
        field.name: getattr(method, field.name)
        for field in dataclasses.fields(method)  # type: ignore[arg-type]
        if field.name != "sparsities"
    }
    wanted = {"method": method.name, "version": method.version, "settings": settings, "wanted": str(sparsity)}
    return {**wanted, "seed": run.seed, "run": run.id, **facts}


def check_kinds(method: Search, view: Prunable) -> None:
    """Refuse kinds of unit that a method does not remove."""
    if other := [kind for kind in view.granularity if kind not in method.removes]:
        raise InputError(f"{method.name} removes no {other[0]} units; allowed: {', '.join(method.removes)}")


def check_training(*, epochs: float, lr: float, weight_decay: float, clip: float) -> None:
    """Refuse settings of training that no optimiser takes."""
    finite = all(map(math.isfinite, (epochs, lr, weight_decay, clip)))
    if not finite or epochs <= 0 or lr <= 0 or weight_decay < 0 or clip < 0:
        raise InputError(
            f"epochs {epochs}, lr {lr}, weight decay {weight_decay}, clip {clip}; "
            "allowed: epochs and lr above 0, weight decay and clip 0 or more, all finite"
        )
