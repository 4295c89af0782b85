"""`export`: ordinary models out of a ticket or a retrained model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hardtack import cost
from hardtack.errors import InputError, nearest
from hardtack.exports import EXPORTS
from hardtack.exports.card import public_name, write_card
from hardtack.exports.push import check_name, push
from hardtack.loading import Loaded, load, model_folder
from hardtack.reports.folders import read_rows
from hardtack.runs import Json
from hardtack.stages.common import made_of, one_process, provenance_of, save_folder, write_provenance
from hardtack.stages.fitting import ticket_folder
from hardtack.stages.planning import total
from hardtack.ticket import Ticket

INT8 = "onnx-int8"
NO_RUN = (None, "nowhere")
"""What stands for the run of what was made without a folder; rows that name it could be about any model."""


def export(
    target: str | Path,
    *,
    to: str,
    out: str | Path,
    rows: Sequence[str | Path] = (),
    base: str | None = None,
    seed: int = 0,
    merge_adapter: bool = False,
    push_to: str | None = None,
    private: bool = True,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write a ticket's model as a folder that other programs open, and check that it answers the same.

    Args:
        target: a ticket (folder, or a search's run folder that holds one), or a model made by `retrain`.
        to: "shrink" (units really removed), "dense" (zeros baked in), or "onnx", "onnx-int8", "openvino".
        out: the new model's folder: new or empty.
        rows: folders in which `evaluate` measured the target; their rows go on the model's card.
        base: where the ticket's base is now, when it has moved.
        seed: seed of the head of a ticket that was not retrained; it is not written.
        merge_adapter: merge a base that is a PEFT adapter into the base it names.
        push_to: ORG/NAME on the hub that the written folder is uploaded to.
        private: whether a repository that is made there is private; one that is there stays as it is.
        dry_run: return a plan instead.
    """
    one_process("export")
    if push_to is not None:
        check_name(push_to)
    if to not in EXPORTS:
        raise InputError(f"--to {to!r} does not exist{nearest(to, EXPORTS)}")
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out {out} exists and is not empty; allowed: a new or empty folder")
    if out.name in ("", ".."):
        raise InputError(f"--out {out} names no folder to put in its place; allowed: a folder by its name")
    loaded, ticket, made = _masked(target, base, seed, merge_adapter)
    if dry_run:
        return total(
            [{"name": f"export to {to}", "seconds": 1.0, "bytes": 4 * loaded.model.num_parameters()}]
        )
    shown = _rows_about(made, to, rows)
    name = public_name(str(out), local=True)
    local = ticket.base.revision is None if base is None else Path(base).exists()
    facts: dict[str, Any] = {}

    def write(folder: Path) -> None:
        facts.update(EXPORTS[to](loaded, ticket, folder))
        kept = cost.parameters_kept(loaded.model)
        write_provenance(folder, {**made, "kind": "export", "exported": to, "parameters": kept})
        labels = [label for _, label in sorted((loaded.model.config.id2label or {}).items())]
        write_card(
            folder,
            name=name,
            base=base or ticket.base.id,
            local=local,
            made=made,
            labels=labels,
            how=facts.pop("opens").format(name=name),
            form=facts["form"],
            rows=shown,
        )

    save_folder(out, write)
    notes = ["its head was never trained and is not written: train it first"] if loaded.fresh_head else []
    return {
        "kind": "export",
        "to": to,
        "folder": str(out),
        **facts,
        "parameters": loaded.model.num_parameters(),
        "disk_bytes": cost.disk_bytes(out),
        "pushed": None if push_to is None else push(out, push_to, private=private),
        "notes": notes,
    }


def _rows_about(made: dict[str, Json], to: str, folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Read the rows of evaluations, which must be about the model that is exported.

    Tickets of one search share its run, so what was removed counts, too. Rounded to int8, a model answers as
    no other export does: it has rows of its own.
    """
    if folders and made.get("run") in NO_RUN:
        raise InputError(
            f"--rows {folders[0]}: what is exported does not say which run made it; allowed: no rows"
        )
    found = []
    for folder in folders:
        for row in read_rows(Path(folder)):
            if row.get("run") != made.get("run"):
                raise InputError(
                    f"--rows {folder} measured what {row.get('run')} made; allowed: rows of {made.get('run')}"
                )
            for name in ("sparsity", "granularity"):
                if row.get(name) != made.get(name):
                    raise InputError(
                        f"--rows {folder} measured {name} {row.get(name)}; allowed: {made.get(name)}, the "
                        "exported model's"
                    )
            if (row.get("exported") == INT8) != (to == INT8):
                raise InputError(
                    f"--rows {folder} measured {row.get('exported') or 'no export'}; allowed for --to {to}: "
                    f"rows of {'an int8 export' if to == INT8 else 'the model or an export in floats'}"
                )
            found.append(row)
    return found


def _masked(
    target: str | Path, base: str | None, seed: int, merge_adapter: bool
) -> tuple[Loaded, Ticket, dict[str, Json]]:
    """Load what is exported, its removed weights at zero, with its ticket and how it was made."""
    place = Path(model_folder(str(target)))
    if (place / "config.json").is_file():
        if not (place / "ticket" / "ticket.json").is_file():
            raise InputError(
                f"{target} is a model without a ticket; allowed: a ticket, or a model made by retrain"
            )
        for name, given in (("base", base), ("merge_adapter", merge_adapter or None)):
            if given is not None:
                raise InputError(f"{name} {given} is not allowed: {target} is a whole model, no ticket")
        ticket, loaded = Ticket.load(place / "ticket"), load(str(target), seed=seed)
        if loaded.fresh_head:  # it was trained with another one
            raise InputError(f"{target} is a language model, which opens as it is; allowed: classifiers")
        ticket.hold_(loaded.model)
        return loaded, ticket, provenance_of(target)
    ticket = Ticket.load(ticket_folder(target))
    loaded = load(base or ticket.base.id, seed=seed, merge_adapter=merge_adapter)
    ticket.apply_(loaded.model)
    return loaded, ticket, made_of(ticket)
