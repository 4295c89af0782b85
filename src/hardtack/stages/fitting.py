"""`train` and `retrain`: dense models, and subnetworks from their rewind point with the mask held."""

import copy
import dataclasses
from pathlib import Path
from typing import Any, cast

from torch import nn

from hardtack import cost, shrunk
from hardtack.errors import InputError
from hardtack.loading import Loaded
from hardtack.runs import Json, Watch
from hardtack.select import round_half_up
from hardtack.stages.common import (
    Common,
    named,
    open_run,
    provenance_of,
    result_of,
    resumptions,
    save_model,
    settings_of,
    settle,
    tokenizer_digest,
    weights_digest,
)
from hardtack.stages.epochs import Fit, fit_epochs, seconds_looking
from hardtack.stages.planning import forwards, plan
from hardtack.stages.planning import total as planned
from hardtack.stages.reproducing import recipe
from hardtack.stages.teaching import open_teacher, taught
from hardtack.tasks.task import Task
from hardtack.ticket import Ticket
from hardtack.training.adversarial import Clean, Objective


def train(
    model: str,
    *,
    task: str,
    out: str | Path,
    objective: Objective | None = None,
    epochs: float = 3.0,
    lr: float = 2e-5,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    epoch_rule: str = "last",
    distil_from: str | None = None,
    distil_weight: float | None = None,
    distil_temperature: float | None = None,
    common: Common | None = None,
    watch: Watch | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Fine-tune a dense model and write an ordinary transformers folder to `out/model`.

    Args:
        model: hub id or folder.
        task: built-in name, folder or file.
        out: run folder; the same command again continues or finds it done.
        objective: what is minimised; `Clean()` by default.
        epochs: passes over the training data; fractions are allowed.
        lr: peak learning rate; it rises during `warmup` and falls to 0.
        weight_decay: AdamW's, on matrices only.
        warmup: share of training in which the rate rises.
        epoch_rule: keep the "last" epoch, or the "best" on validation.
        distil_from: a fine-tuned model of the same tokenizer and classes, whose answers the objective's loss
            asks for beside the labels.
        distil_weight: share of that part of the loss, above 0 to 1; 0.5 by default.
        distil_temperature: divides both models' logits there; 2 by default.
        common: seed, lengths, device.
        watch: receives progress.
        dry_run: return a plan instead: stages, seconds, bytes.
    """
    again = recipe("train", locals())
    common, objective = common or Common(), objective or Clean()
    fit = Fit(epochs, lr, weight_decay, warmup, epoch_rule, distil_from, distil_weight, distil_temperature)
    data = common.open_task(task)
    loaded = common.load(model, data.labels)
    return _run(
        "train",
        objective.name,
        loaded,
        None,
        data,
        fit,
        objective,
        out,
        common,
        watch,
        dry_run,
        {"model": model, "task_from": task},
        again,
        inherited(model),
    )


def retrain(
    ticket: str | Path,
    *,
    task: str,
    out: str | Path,
    base: str | None = None,
    objective: Objective | None = None,
    epochs: float = 3.0,
    lr: float = 2e-5,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    epoch_rule: str = "last",
    distil_from: str | None = None,
    distil_weight: float | None = None,
    distil_temperature: float | None = None,
    common: Common | None = None,
    watch: Watch | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Train a ticket's subnetwork from its rewind point, the base model with a fresh head, with the mask
    held.

    Of a ticket of heads, neurons or channels the smaller model is trained, its units really taken out, and
    its weights are then written to where they belong: the same subnetwork, in less time.

    Args as in `train`, and:
        ticket: a ticket folder, a run folder that holds one ticket, or a shrunk model, which holds nothing.
        base: where the ticket's base is now, when it has moved.
    """
    again = recipe("retrain", locals())
    common, objective = common or Common(), objective or Clean()
    fit = Fit(epochs, lr, weight_decay, warmup, epoch_rule, distil_from, distil_weight, distil_temperature)
    data = common.open_task(task)
    facts: dict[str, Json] = {"ticket": str(ticket), "task_from": task, "base_from": base}
    found, made = None, inherited(ticket)
    if made:
        if base is not None:
            raise InputError(f"base {base} is not allowed: {ticket} is a whole model, no ticket")
        loaded = common.load(str(ticket), data.labels)
        method = str(made["method"])
    else:
        found = Ticket.load(ticket_folder(ticket))
        loaded = common.load(base or found.base.id, data.labels)
        found.apply_(loaded.model)
        facts["ticket_digest"] = found.digest()
        method = str(found.origin.get("method", "ticket"))
    return _run(
        "retrain",
        method,
        loaded,
        found,
        data,
        fit,
        objective,
        out,
        common,
        watch,
        dry_run,
        facts,
        again,
        made,
    )


def inherited(model: str | Path) -> dict[str, Json]:
    """Return what a shrunk model passes on to one that is trained from it; {} for any other model."""
    made = provenance_of(model)
    if made.get("exported") != "shrink":
        return {}
    kept = ("method", "ticket_objective", "granularity", "sparsity", "prunable", "exported")
    return {name: made.get(name) for name in kept}


def ticket_folder(name: str | Path) -> Path:
    """Find the ticket that a path names: the folder itself, a trained model's, or a run's only one."""
    folder = Path(name)
    for place in (folder, folder / "ticket", folder / "model" / "ticket"):
        if (place / "ticket.json").is_file():
            return place
    inside = sorted(path.parent for path in (folder / "tickets").glob("*/ticket.json"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise InputError(
            f"{name} holds {len(inside)} tickets; name one: {', '.join(str(path) for path in inside)}"
        )
    raise InputError(f"{name} is no ticket: it has no ticket.json")


def _run(
    kind: str,
    method: str,
    loaded: Loaded,
    ticket: Ticket | None,
    data: Task,
    fit: Fit,
    objective: Objective,
    out: str | Path,
    common: Common,
    watch: Watch | None,
    dry_run: bool,
    facts: dict[str, Json],
    again: str | None,
    made: dict[str, Json],
) -> dict[str, Any]:
    encoder = common.encoder(loaded)
    batches = common.training_batches(data, encoder)
    total = max(1, round_half_up(fit.epochs * len(batches)))
    teacher, soft = None, fit.soft()
    if fit.distil_from is not None:
        teacher = open_teacher(fit.distil_from, loaded, encoder, data, common)
    if dry_run:
        size = cost.parameters_kept(loaded.model) * 4
        steps = plan([(f"{kind} {total} steps", loaded.model, batches, objective, total, 4 * size)])["stages"]
        asked = [forwards("teacher", teacher.model, batches)] if teacher is not None else []
        return planned([*asked, *steps])
    minimised, trained_with = objective, objective.name
    settings = {
        **{name: value for name, value in settings_of(fit).items() if not name.startswith("distil_")},
        "objective": named(objective),
        "base": loaded.base.fingerprint,
        "head": loaded.head,
        "tokenizer": tokenizer_digest(loaded.tokenizer),
        "data": data.fingerprint("train"),
        "ticket": facts.get("ticket_digest"),
    }
    if fit.epoch_rule == "best":  # then validation decides which weights are kept
        settings["validation"] = data.fingerprint("validation")
    if teacher is not None and soft is not None:
        minimised = dataclasses.replace(
            cast(Any, objective), loss=dataclasses.replace(soft, hard=objective.loss)
        )
        trained_with = f"{objective.name} + distillation"
        facts["teacher"] = weights_digest(teacher.model)
        settings["distil"] = [facts["teacher"], soft.weight, soft.temperature]
    record = {**facts, "task": data.name, "fit": settings_of(fit, all=True), "objective": _whole(objective)}
    record |= {"base": loaded.base.fingerprint, "cut": list(data.cut), "data": data.fingerprint("train")}
    with open_run(
        kind, method, out, settings=settings, record=record, common=common, watch=watch, again=again
    ) as run:
        assert run.folder is not None
        if run.finished():
            return result_of(run)
        validation = data.batches("validation", encoder, 2 * common.batch_size, common.seed)
        if teacher is not None:
            batches, teacher = taught(batches, teacher, run), None  # its answers stay, its weights may go
        small, score = _smaller(loaded.model, ticket), data.metric
        model, hold = (loaded.model, ticket) if small is None else (small, None)
        best = fit_epochs(model, batches, validation, score, minimised, fit, hold, total, run, common)
        if small is not None and ticket is not None:
            shrunk.fill_(loaded.model, small, ticket.masks)
        sparsity = None if ticket is None else ticket.sparsity()
        provenance = {
            "run": run.id,
            "kind": kind,
            "method": method if ticket else "dense",
            "objective": trained_with,
            "ticket_objective": ticket.origin.get("objective") if ticket else None,
            "epochs": fit.epochs,
            "epoch_rule": fit.epoch_rule,
            "seed": common.seed,
            "task": data.name,
            "max_length": encoder.max_length,
            "granularity": list(ticket.granularity) if ticket else None,
            "sparsity": sparsity,
            "prunable": ticket.units() if ticket else None,
            **made,
        }
        if run.writes:
            save_model(loaded, run.folder / "model", provenance, ticket)
        return settle(
            run,
            kind=kind,
            method=method,
            objective=trained_with,
            steps=total,
            passes=total * objective.passes,
            **({} if soft is None else {"teacher_texts": batches.examples}),
            **{f"validation_{score.name}": best},
            sparsity=made.get("sparsity", sparsity),
            model=str(run.folder / "model"),
            resumed=resumptions(run),
            seconds=round(run.clock.seconds() - seconds_looking(run), 3),
        )


def _smaller(model: nn.Module, ticket: Ticket | None) -> nn.Module | None:
    """Return a copy without the units that a ticket takes out; None where it leaves tensors as large."""
    if ticket is None or not shrunk.is_cut_by(ticket.masks, ticket.view(model)):
        return None
    small = copy.deepcopy(model)
    shrunk.shrink_(small, ticket.masks)
    return small


def _whole(objective: Objective) -> dict[str, Json]:
    return {"name": objective.name, **settings_of(objective, all=True)}
