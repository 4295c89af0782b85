"""`search`: tickets of a model, saved one by one as the method finds them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hardtack import cost
from hardtack.errors import InputError
from hardtack.methods.search import Data, Search
from hardtack.prunable import Prunable, kinds_of, unlisted
from hardtack.runs import Watch
from hardtack.select import round_half_up
from hardtack.stages.common import (
    Common,
    named,
    open_run,
    result_of,
    resumptions,
    settings_of,
    settle,
    tokenizer_digest,
)
from hardtack.stages.fitting import train
from hardtack.stages.planning import plan
from hardtack.stages.planning import total as planned
from hardtack.stages.reproducing import recipe
from hardtack.ticket import fingerprint
from hardtack.training.adversarial import OBJECTIVES, Objective


def search(
    method: Search,
    model: str,
    *,
    task: str,
    out: str | Path,
    start: str | None = None,
    objective: Objective | None = None,
    granularity: Sequence[str] = (),
    keep_whole: Sequence[str] = (),
    warm_epochs: float = 3.0,
    warm_lr: float = 2e-5,
    common: Common | None = None,
    watch: Watch | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Find tickets of a model and write each to `out/tickets/` as soon as it exists.

    Args:
        method: what finds them, with its settings, e.g. `HardConcrete(sparsities=(Sparsity.parse(0.3),))`.
        model: the base, which tickets rewind to.
        task: built-in name, folder or file; its test split is never read here.
        out: run folder.
        start: where the search starts; by default the base, or, for methods that learn on a fine-tuned
            model, the base fine-tuned for `warm_epochs` (kept in `out/warm`).
        objective: what the search minimises where it trains; by default the method's own.
        granularity: kinds of unit: weight, head, neuron, channel; by default weights, or, for methods that
            remove none, what else the model has.
        keep_whole: name patterns of what is never pruned.
        warm_epochs: length of that fine-tuning.
        warm_lr: its peak learning rate.
        common: seed, lengths, device.
        watch: receives progress.
        dry_run: return a plan instead: stages, seconds, bytes.
    """
    again = recipe("search", locals())
    common = common or Common()
    objective = objective or OBJECTIVES[method.minimises]()
    names = [str(sparsity) for sparsity in method.sparsities]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two sparsities share the folder {min(twice)}; allowed: each once, to 4 decimals")
    data = common.open_task(task)
    base = common.load(model, data.labels)
    granularity = granularity or _default_kinds(method, base.model)
    view = Prunable.of(base.model, granularity, keep_whole)
    method.check(view)
    warm = start is None and method.starts == "finetuned"
    if dry_run:
        return _plan(method, base, data, objective, warm_epochs if warm else 0.0, view, common)
    started_from = None if start is None else common.load(start, data.labels, trained_head=True)
    searched = started_from or base
    reads = method.needs != "weights"
    settings = {
        **settings_of(method),
        "base": base.base.fingerprint,
        "start": None if started_from is None else fingerprint(started_from.model),
        "granularity": [*granularity],
        "keep_whole": [*keep_whole],
    }
    if reads:
        settings["objective"] = named(objective)
    if warm:
        settings["warm"] = [warm_epochs, warm_lr, named(OBJECTIVES["clean"]())]
    if reads or warm:  # else nothing is read but weights
        settings["data"] = data.fingerprint("train")
        settings["head"] = searched.head
        settings["tokenizer"] = tokenizer_digest(searched.tokenizer)
    record = {
        "model": model,
        "start": start,
        "task": data.name,
        "task_from": task,
        "base": base.base.fingerprint,
        "cut": list(data.cut),
        "settings": settings_of(method, all=True),
        "objective": {"name": objective.name, **settings_of(objective, all=True)},
        "granularity": [*granularity],
        "keep_whole": [*keep_whole],
        "warm_epochs": warm_epochs if warm else None,
    }
    with open_run(
        "search",
        method.name,
        out,
        settings=settings,
        record=record,
        common=common,
        without=() if reads or warm else tuple(settings_of(common, all=True)),
        version=method.version,
        watch=watch,
        again=again,
    ) as run:
        assert run.folder is not None
        if run.finished():
            return result_of(run)
        before, warmed = 0.0, 0
        if warm:
            fitted = train(
                model,
                task=task,
                out=run.folder / "warm",
                epochs=warm_epochs,
                lr=warm_lr,
                common=common,
                watch=watch,
            )
            before, warmed = fitted["seconds"], fitted["passes"]
            run.clock.restart()  # what earlier processes worked is in `before` and in the saved states
            start = str(fitted["model"])
            searched = common.load(start, data.labels, trained_head=True)
        encoder = common.encoder(searched)
        batches = Data(
            common.training_batches(data, encoder),
            data.batches("validation", encoder, 2 * common.batch_size, common.seed),
            common.precision,
        )
        home = run.folder / "tickets"
        known = {
            "start": None if start is None else fingerprint(searched.model),
        }
        if reads:
            known |= {"task": data.name, "objective": objective.name, "max_length": encoder.max_length}
        notes, passes = list(filter(None, [unlisted(base.model)])), 0
        longest = method.steps(len(batches.train)) * objective.passes
        for ticket in method.search(searched.model, base.base, view, batches, objective, run):
            place = home / str(ticket.origin["wanted"])
            notes = sorted({*notes, *filter(None, [ticket.origin.get("note")])})
            passes = max(passes, int(ticket.origin.get("passes", longest)))
            if run.writes and not (place / "ticket.json").is_file():
                home.mkdir(exist_ok=True)
                dataclasses.replace(ticket, origin={**ticket.origin, **known}).save(place)
            if not run.logged(event="ticket", name=place.name):  # cut off with the steps before it, or not
                run.log(event="ticket", name=place.name, sparsity=ticket.sparsity())
        return settle(
            run,
            kind="search",
            method=method.name,
            objective=objective.name if reads else None,
            granularity=[*granularity],
            tickets=sorted(str(path.parent) for path in home.glob("*/ticket.json")),
            notes=notes,
            resumed=resumptions(run),
            passes=warmed + passes,
            seconds=round(before + run.clock.seconds(), 3),
        )


def _default_kinds(method: Search, model: nn.Module) -> Sequence[str]:
    """Return the kinds that a method removes from a model when nobody says which."""
    if "weight" in method.removes:
        return ("weight",)
    known = [kind for kind in method.removes if kind in kinds_of(model)]
    return known or method.removes[:1]  # refused then, by name, with what the model has


def _plan(
    method: Search,
    base: Any,
    data: Any,
    objective: Objective,
    warm_epochs: float,
    view: Prunable,
    common: Common,
) -> dict[str, Any]:
    batches = common.training_batches(data, common.encoder(base))
    weights = 4 * cost.parameters_kept(base.model)
    ticket = len(method.sparsities) * (view.units // 8 + 4096)
    stages = []
    if warm_epochs:
        steps = round_half_up(warm_epochs * len(batches))
        stages += plan(
            [(f"warm-up {steps} steps", base.model, batches, OBJECTIVES["clean"](), steps, weights)]
        )["stages"]
    steps = method.steps(len(batches))
    if steps:
        stages += plan([(f"{method.name} {steps} steps", base.model, batches, objective, steps, ticket)])[
            "stages"
        ]
    else:
        stages.append({"name": method.name, "seconds": 1.0, "bytes": ticket})
    return planned(stages)
