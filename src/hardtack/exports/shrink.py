"""Export as a smaller model: heads, neurons and channels are really gone, with their time and memory."""

from pathlib import Path
from typing import Any

from hardtack import shrunk
from hardtack.errors import InputError
from hardtack.exports.checked import ORDINARY, OURS, answers, sample, write
from hardtack.loading import Loaded
from hardtack.ticket import Ticket

FORMS = {
    False: "an ordinary transformers folder; its config says the new width",
    True: "a folder whose layers differ in size: hardtack.load opens it, transformers refuses it",
}
"""Whether layers have sizes that no config can say -> what was made."""


def to_shrink(loaded: Loaded, ticket: Ticket, folder: Path) -> dict[str, Any]:
    """Take the removed units out of the model and write it.

    Args:
        loaded: the model, whose removed units are zero; it is shrunk in place.
        ticket: what says which they are.
        folder: an empty folder.

    Raises:
        InputError: for a ticket of single weights, or one that removes nothing.
    """
    view = ticket.view(loaded.model)
    masks = {site.name: ticket.masks[site.name] for site in view.sites if site.kind != "weight"}
    if not masks:
        raise InputError(
            "a ticket of single weights leaves no smaller model; allowed: tickets of heads, neurons or "
            "channels, or --to dense"
        )
    if all(bool(mask.all()) for mask in masks.values()):
        raise InputError("this ticket removes no unit; there is nothing to shrink")
    expected, before = answers(loaded.model, sample(loaded.model)), loaded.model.num_parameters()
    shrunk.shrink_(loaded.model, masks)
    uneven = shrunk.is_shrunk(loaded.model)
    return {
        "form": FORMS[uneven],
        "opens": OURS if uneven else ORDINARY,
        "difference": write(loaded, folder, expected),
        "parameters_before": before,
    }
