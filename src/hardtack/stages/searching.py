"""`search`: tickets of a model, saved one by one as the method finds them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hardtack import cost
from hardtack.errors import InputError
from hardtack.loading import Loaded
from hardtack.methods import METHODS, sizes
from hardtack.methods.calibrated import Calibrated
from hardtack.methods.search import Data, Search
from hardtack.prunable import Prunable, kinds_of, unlisted
from hardtack.runs import Json, Run, Watch
from hardtack.select import round_half_up
from hardtack.stages import sizing
from hardtack.stages.attacked import attacked_table, digest_of_texts
from hardtack.stages.common import (
    Common,
    named,
    one_process,
    open_run,
    result_of,
    resumptions,
    settings_of,
    settle,
    tokenizer_digest,
)
from hardtack.stages.fitting import train
from hardtack.stages.measuring import one_input
from hardtack.stages.planning import plan
from hardtack.stages.planning import total as planned
from hardtack.stages.reproducing import recipe
from hardtack.stages.streaming import streamed
from hardtack.storage import Stored, write_atomic
from hardtack.tasks.task import Batches, Table, Task
from hardtack.ticket import fingerprint
from hardtack.training.adversarial import OBJECTIVES, Objective

SIZES = "sizes.json"
"""A file in a search's folder: what fraction each sparsity that was said as a cost came to."""


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
    attacked_from: str | None = None,
    stream: bool = False,
    warm_epochs: float = 3.0,
    warm_lr: float = 2e-5,
    common: Common | None = None,
    watch: Watch | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Find tickets of a model and write each to `out/tickets/` as soon as it exists.

    A sparsity may be the share of a cost that goes: `parameters=0.5`, `flops=0.5`, `latency=0.5` (on this
    machine). It is turned into a fraction of units before the method sees it, once: `out/sizes.json` keeps
    what was found, and each such ticket says it. `hardtack.stages.sizing` says what is counted.

    Args:
        method: what finds them, with its settings, e.g. `HardConcrete(sparsities=(Sparsity.parse(0.3),))`.
        model: the base, which tickets rewind to.
        task: built-in name, folder or file; its test split is never read here.
        out: run folder.
        start: where the search starts; by default the base, or, for methods that learn on a fine-tuned
            model, the base fine-tuned for `warm_epochs` (kept in `out/warm`).
        objective: what the search minimises where it trains; by default the method's own. For methods that
            read calibration data, what perturbs them.
        granularity: kinds of unit: weight, head, neuron, channel; by default weights, or, for methods that
            remove none, what else the model has.
        keep_whole: name patterns of what is never pruned.
        attacked_from: folder of `evaluate` with attacks on training or validation examples: the sentences
            that fell are there for methods that read calibration data.
        stream: read the model's weights from its files a block at a time, and keep calibration states on
            disk; the result is the same, bit for bit.
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
    _check_calibration(method, start, objective, attacked_from, stream)
    data = common.open_task(task)
    attacked = attacked_table(attacked_from, data) if attacked_from is not None else None
    base, weights = (
        streamed(model, data.labels, device=common.place())
        if stream
        else (common.load(model, data.labels), None)
    )
    granularity = granularity or _default_kinds(method, base.model)
    view = Prunable.of(base.model, granularity, keep_whole)
    sizing.check_costs(method, view)
    costs = bool(sizing.costs_of(method))
    if not costs:
        method.check(view)
    warm = start is None and method.starts == "finetuned"
    if dry_run:
        read = _data(common, data, base, attacked, weights)
        return _plan(method, base, read, objective, warm_epochs if warm else 0.0, view)
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
    if attacked is not None:
        settings["attacked"] = digest_of_texts(attacked)
    if warm:
        settings["warm"] = [warm_epochs, warm_lr, named(OBJECTIVES["clean"]())]
    if reads or warm:  # else nothing is read but weights
        settings["data"] = data.fingerprint("train")
        settings["head"] = searched.head
        settings["tokenizer"] = tokenizer_digest(searched.tokenizer)
    text = one_input(data, "validation", common.encoder(base), common.place()) if costs else {}
    if costs:
        settings["text"] = [text["input_ids"].shape[1], common.place().partition(":")[0]]
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
        "attacked_from": attacked_from,
        "warm_epochs": warm_epochs if warm else None,
        "warm_lr": warm_lr if warm else None,
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
        sizes = _sizes(method, base.model, view, text, run, common) if costs else {}
        method = sizing.settled(method, sizes)
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
        batches = _data(common, data, searched, attacked, weights)
        home = run.folder / "tickets"
        known = {
            "start": None if start is None else fingerprint(searched.model),
        }
        if reads:
            known |= {
                "task": data.name,
                "objective": objective.name,
                "max_length": common.encoder(searched).max_length,
            }
        notes, passes = list(filter(None, [unlisted(base.model)])), 0
        notes += [sizing.sentence(name, facts) for name, facts in sizes.items()]
        longest = method.steps(len(batches.train)) * objective.passes
        for ticket in method.search(searched.model, base.base, view, batches, objective, run):
            place = home / str(ticket.origin["wanted"])
            notes = sorted({*notes, *filter(None, [ticket.origin.get("note")])})
            passes = max(passes, int(ticket.origin.get("passes", longest)))
            if run.writes and not (place / "ticket.json").is_file():
                home.mkdir(exist_ok=True)
                sized = {"size": sizes[place.name]} if place.name in sizes else {}
                dataclasses.replace(ticket, origin={**ticket.origin, **known, **sized}).save(place)
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


def _sizes(
    method: Search, model: nn.Module, view: Prunable, text: dict[str, Tensor], run: Run, common: Common
) -> dict[str, dict[str, Json]]:
    """Find the fractions for sparsities that are said as a cost, or read what this run found before.

    One process measures, for two would not measure the same.
    """
    assert run.folder is not None
    file = run.folder / SIZES

    def write() -> None:
        if not file.exists():
            found = sizing.find(method, model, view, text)
            sizing.settled(method, found).check(view)
            write_atomic(file, json.dumps(found, indent=1) + "\n")

    common.processes().led(write)
    return json.loads(file.read_text())


def _default_kinds(method: Search, model: nn.Module) -> Sequence[str]:
    """Return the kinds that a method removes from a model when nobody says which."""
    if "weight" in method.removes:
        return ("weight",)
    known = [kind for kind in method.removes if kind in kinds_of(model)]
    return known or method.removes[:1]  # refused then, by name, with what the model has


def _check_calibration(
    method: Search, start: str | None, objective: Objective, attacked_from: str | None, stream: bool
) -> None:
    """Refuse what only methods can use that read calibration data, and what a streamed model cannot do."""
    others = {"attacked_from": attacked_from is not None, "stream": stream}
    for name, given in others.items():
        if given and not isinstance(method, Calibrated):
            known = [name for name, cls in METHODS.items() if isinstance(cls(), Calibrated)]
            raise InputError(f"{method.name} takes no {name}; allowed: {', '.join(known)}")
    if not stream:
        return
    one_process("search --stream")
    if start is not None:
        raise InputError(
            f"stream reads one model, the base, and starts there; allowed: no start, not {start}"
        )
    if objective.name != "clean":
        raise InputError(
            f"objective {objective.name} needs the whole model in memory (stream); allowed: clean"
        )


def _data(common: Common, data: Task, loaded: Loaded, attacked: Table | None, weights: Stored | None) -> Data:
    encoder = common.encoder(loaded)
    return Data(
        common.training_batches(data, encoder),
        data.batches("validation", encoder, 2 * common.batch_size, common.seed),
        common.precision,
        None if attacked is None else Batches(attacked, encoder, size=common.batch_size, seed=common.seed),
        weights,
    )


def _plan(
    method: Search, base: Loaded, data: Data, objective: Objective, warm_epochs: float, view: Prunable
) -> dict[str, Any]:
    ticket = len(method.sparsities) * (view.units // 8 + 4096)
    stages: list[dict[str, Any]] = []
    if isinstance(method, Calibrated):
        parts = sizes.plan(method, base.model, view, data, objective)
        return planned([{"name": p.name, "seconds": round(p.seconds, 3), "bytes": p.bytes} for p in parts])
    if warm_epochs:
        steps = round_half_up(warm_epochs * len(data.train))
        size = 4 * cost.parameters_kept(base.model)
        work = (f"warm-up {steps} steps", base.model, data.train, OBJECTIVES["clean"](), steps, size)
        stages += plan([work])["stages"]
    if steps := method.steps(len(data.train)):
        work = (f"{method.name} {steps} steps", base.model, data.train, objective, steps, ticket)
        stages += plan([work])["stages"]
    else:
        stages.append({"name": method.name, "seconds": 1.0, "bytes": ticket})
    return planned(stages)
