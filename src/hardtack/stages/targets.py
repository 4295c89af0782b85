"""What `evaluate` is pointed at: a model, a ticket on its base, or a folder that a stage left."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from hardtack import shrunk
from hardtack.errors import InputError
from hardtack.loading import Loaded, model_folder
from hardtack.runs import Json
from hardtack.sessions import Foreign
from hardtack.stages.common import Common, made_of, provenance_of, tokenizer_digest, weights_digest
from hardtack.stages.fitting import ticket_folder
from hardtack.tasks.task import Task
from hardtack.ticket import Ticket


class Target(NamedTuple):
    """What is evaluated: the loaded model, the ticket in it (if any), how it was made, and a name for run
    ids.
    """

    loaded: Loaded
    ticket: Ticket | None
    made: dict[str, Json]
    digest: str
    folder: Path | None


def open_target(target: str | Path, data: Task, base: str | None, common: Common) -> Target:
    """Load what is evaluated: a ticket is applied to its base, whose head is then untrained.

    Heads, neurons and channels that a ticket removes are taken out of the model, as `retrain` does and
    `export --to shrink` writes it: the same answers, at what the subnetwork costs.
    """
    path = Path(target)
    place = Path(model_folder(str(target)))
    is_model = (place / "config.json").is_file()
    if not is_model and path.is_dir() and ((path / "ticket.json").is_file() or (path / "tickets").is_dir()):
        ticket = Ticket.load(ticket_folder(path))
        loaded = common.load(base or ticket.base.id, data.labels)
        ticket.apply_(loaded.model)
        made = made_of(ticket)
        digest = f"ticket-{ticket.digest()}-{loaded.head}-{tokenizer_digest(loaded.tokenizer)}"
        _shrink_(loaded.model, ticket)
        return Target(loaded, ticket, made, digest, ticket_folder(path))
    loaded = common.load(str(target), data.labels, foreign=True)
    ticket = Ticket.load(place / "ticket") if (place / "ticket" / "ticket.json").is_file() else None
    made = provenance_of(target)
    _check_order(str(target), loaded, data)
    if isinstance(loaded.model, Foreign):
        digest = f"file-{loaded.head}-{tokenizer_digest(loaded.tokenizer)}"
        return Target(loaded, None, made, digest, place)
    digest = f"model-{weights_digest(loaded.model)}-{tokenizer_digest(loaded.tokenizer)}"
    if made.get("exported") == "dense":  # the same weights as the model it was made from, at another cost
        digest += "-dense"
    if ticket is not None:
        _shrink_(loaded.model, ticket)
    return Target(loaded, ticket, made, digest, place if is_model else None)


def _check_order(name: str, loaded: Loaded, data: Task) -> None:
    """Refuse a trained head that has the task's classes in another order: it would be believed blindly."""
    own, wanted = ([one.casefold() for one in names] for names in (loaded.classes, data.labels))
    if not loaded.fresh_head and own != wanted and sorted(own) == sorted(wanted):
        raise InputError(
            f"{name} has the classes {', '.join(loaded.classes)}, the task {', '.join(data.labels)}; "
            "allowed: the same ones in the same order (an info.json beside the data gives it)"
        )


def _shrink_(model: nn.Module, ticket: Ticket) -> None:
    """Take out the units that a ticket removes; a model in which they are not zero stays as it is."""
    view = ticket.view(model)
    if not shrunk.is_cut_by(ticket.masks, view):
        return
    tensors = view.tensors(model)
    if not any(bool(tensors[name][~mask].any()) for name, mask in view.spread(ticket.masks).items()):
        shrunk.shrink_(model, ticket.masks)
