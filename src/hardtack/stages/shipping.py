"""`ship`: from a fine-tuned model and limits to an exported model with its report, or to why there is none.

It only calls the other stages, each in a run folder of its own below OUT: whatever was killed continues where
it stopped, and nothing that is done is done again.
"""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hardtack.errors import InputError
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.attacks.protocol import TextAttack
from hardtack.loading import Loaded
from hardtack.methods.early_bird import EarlyBird
from hardtack.methods.magnitude import Magnitude
from hardtack.methods.search import Search
from hardtack.reports.page import report
from hardtack.runs import Json, Run, Watch
from hardtack.select import Sparsity
from hardtack.stages.common import (
    Common,
    named,
    one_process,
    open_run,
    result_of,
    settings_of,
    settle,
    tokenizer_digest,
    weights_digest,
)
from hardtack.stages.epochs import Fit
from hardtack.stages.evaluating import evaluate
from hardtack.stages.exporting import export
from hardtack.stages.fitting import retrain, train
from hardtack.stages.limits import Facts, Limits
from hardtack.stages.ordering import Order, check, kinds_removed, teacher_of
from hardtack.stages.planning import total
from hardtack.stages.searching import search
from hardtack.storage import write_atomic
from hardtack.tasks.task import Task
from hardtack.training.adversarial import Clean, Objective

SPARSITIES = tuple(Sparsity(fraction=share) for share in (0.25, 0.5, 0.75))
METHODS: tuple[Search, ...] = (EarlyBird(sparsities=SPARSITIES), Magnitude(sparsities=SPARSITIES))
ATTACKS: tuple[TextAttack, ...] = (DeepWordBug(),)
CHOICE = "choice.json"
"""A file in the run's folder: what was chosen under which limits, written before the test split is read."""


def ship(
    model: str,
    *,
    task: str,
    out: str | Path,
    max_latency_ms: float | None = None,
    min_accuracy: float | None = None,
    min_accuracy_under_attack: float | None = None,
    methods: Sequence[Search] = METHODS,
    attacks: Sequence[TextAttack] = ATTACKS,
    examples: int = 200,
    to: str = "shrink",
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
    """Make a fine-tuned model smaller until it meets limits, and export the best that does.

    Tickets of heads and neurons are searched in the model, at several sizes by each method. Each is
    retrained, starting from the model's own weights, exported, and measured as it was exported on the
    validation split: clean on the whole split, under each attack, and the milliseconds of one forward of one
    text, the longest among the first 64 (the median of 10, and of the rows). The dense model is measured too,
    as the yardstick; it is no candidate.

    Of the candidates that meet all limits the one is chosen that is most accurate under the attack that
    leaves it least; then the one most accurate before; then the fastest. Without limits all do, and the rule
    is the same. The test split is read once, by the chosen one: clean and under the same attacks. It is
    exported to `out/model`, with these rows on its card; `out/report.html` shows all candidates (`report.md`
    where the extra `report` is not installed).

    Other limits may be tried in the same folder, at no further cost, until a model is shipped. Then its test
    row has been read, and limits that are chosen after it would be chosen by it.

    Args:
        model: a fine-tuned classifier: hub id, folder, or a run of `train`.
        task: built-in name, folder or file.
        out: run folder; the same command again continues or finds it done.
        max_latency_ms: longest milliseconds of that forward, in the program that the export is for.
        min_accuracy: least accuracy on the whole validation split.
        min_accuracy_under_attack: least accuracy on the attacked examples, for each attack.
        methods: what finds tickets, each with its sparsities.
        attacks: attack instances; all candidates meet the same examples.
        examples: how many are attacked.
        to: "shrink", "onnx", "onnx-int8" or "openvino".
        objective: what retraining minimises; `Clean()` by default. Early-bird searches with its own.
        epochs: of retraining, as in `retrain`.
        lr: peak learning rate of retraining.
        weight_decay: AdamW's, on matrices only.
        warmup: share of retraining in which the rate rises.
        epoch_rule: keep the "last" epoch, or the "best" on validation.
        distil_from: a teacher of retraining, as in `retrain`: the model itself, or a better one.
        distil_weight: share of the teacher's part of the loss, above 0 to 1; 0.5 by default.
        distil_temperature: divides both models' logits there; 2 by default.
        common: seed, lengths, device.
        watch: receives progress.
        dry_run: return a plan instead: stages, seconds, bytes.

    Raises:
        InputError: also when no candidate meets the limits: which limit, how near it came and by which
            candidate. All that was measured stays for the next attempt.
    """
    one_process("ship")
    common, objective = common or Common(), objective or Clean()
    limits = Limits(max_latency_ms, min_accuracy, min_accuracy_under_attack)
    fit = Fit(epochs, lr, weight_decay, warmup, epoch_rule, distil_from, distil_weight, distil_temperature)
    order = Order(
        model, task, Path(out), tuple(methods), tuple(attacks), examples, to, objective, fit, common, watch
    )
    check(order, limits)
    data = common.open_task(task)
    loaded = common.load(model, data.labels, trained_head=True)
    kinds, teacher = kinds_removed(order, loaded, data), teacher_of(order, loaded, data)
    if dry_run:
        return _plan(order, kinds)
    settings = _settings(order, data, loaded, teacher)
    del loaded, teacher  # every stage loads its own
    record = {"model": model, "task": data.name, "task_from": task, "fit": settings_of(fit, all=True)}
    record |= {"objective": {"name": objective.name, **settings_of(objective, all=True)}, "to": to}
    record |= {"methods": settings["methods"], "attacks": settings["attacks"], "examples": examples}
    with open_run(
        "ship", to, order.folder, settings=settings, record=record, common=common, watch=watch
    ) as run:
        _check_choice(order, limits)
        if run.finished():
            return result_of(run)
        dense, found, notes = _measured(order, kinds)
        _gather(order, found)
        try:
            best = limits.choose(found)
        except InputError as error:
            page = _page(order)
            raise InputError(f"{error}; all that was measured stays: {page}") from None
        return _shipped(order, run, limits, dense, found, best, notes)


def _settings(order: Order, data: Task, loaded: Loaded, teacher: Loaded | None) -> dict[str, Json]:
    """Return what names the run: all that changes a result, but for the limits."""
    soft = order.fit.soft()
    taught: dict[str, Json] = {}
    if teacher is not None and soft is not None:
        taught = {"distil": [weights_digest(teacher.model), soft.weight, soft.temperature]}
    return {
        **{name: value for name, value in settings_of(order.fit).items() if not name.startswith("distil_")},
        **taught,
        "to": order.to,
        "methods": [[method.name, method.version, settings_of(method, all=True)] for method in order.methods],
        "attacks": json.loads(json.dumps([attack.settings() for attack in order.attacks], default=str)),
        "examples": order.examples,
        "objective": named(order.objective),
        "base": loaded.base.fingerprint,
        "head": loaded.head,
        "tokenizer": tokenizer_digest(loaded.tokenizer),
        "data": {split: data.fingerprint(split) for split in ("train", "validation", "test")},
    }


def _measured(order: Order, kinds: Sequence[str]) -> tuple[Facts, list[Facts], list[str]]:
    """Measure the dense model, then make and measure every candidate; return what searches noted, too."""
    dense = _facts("dense", _evaluated(order, "dense", order.model, "validation"))
    tickets, notes = {}, []
    for method in order.methods:
        name = f"search-{method.name}"
        place = order.folder / name
        searched = search(method, order.model, out=place, granularity=kinds, **order.part(name))
        notes += [f"{name}: {note}" for note in searched["notes"]]
        tickets |= {f"{method.name}-{one}": place / "tickets" / str(one) for one in method.sparsities}
    found = []
    for name, method, sparsity in order.candidates():
        fitted = retrain(
            tickets[name], base=order.model, out=order.folder / "retrained" / name, objective=order.objective,
            **dataclasses.asdict(order.fit), **order.part(name),
        )  # fmt: skip
        made = order.folder / "candidates" / name
        if not made.exists():  # an export stands there whole or not at all
            export(fitted["folder"], to=order.to, out=made)
        rows = _evaluated(order, name, made, "validation")
        cut = {"method": method.name, "sparsity": str(sparsity), "folder": str(made)}
        found.append({**_facts(name, rows), **cut, "retrained": fitted["folder"]})
    return dense, found, notes


def _evaluated(order: Order, name: str, target: str | Path, split: str) -> list[dict[str, Any]]:
    result = evaluate(
        target, out=_place(order, name, split), split=split, attacks=order.attacks, examples=order.examples,
        **order.part(name),
    )  # fmt: skip
    return result["rows"]


def _place(order: Order, name: str, split: str) -> Path:
    return order.folder / "measured" / (name if split == "validation" else f"{name}-{split}")


def _facts(name: str, rows: Sequence[dict[str, Any]]) -> Facts:
    """Return what a model's rows say of it: costs, and its accuracy clean and under the worst attack."""
    clean = next(row for row in rows if row["attack"] is None)
    under: dict[str, float] = {}
    for row in rows:  # a sweep over radii has several
        if row["attack"]:
            left = row["accuracy_under_attack"]
            under[row["attack"]] = min(left, under.get(row["attack"], left))
    return {
        "name": name,
        "latency_ms": statistics.median(row["measured"]["latency_ms"] for row in rows),
        "latency_tokens": clean["measured"]["latency_tokens"],
        "runtime": clean["runtime"],
        "accuracy": clean["clean_accuracy"],
        "accuracy_under_attack": min(under.values(), default=None),
        "under_attack": under,
        "parameters": clean["parameters"],
        "disk_bytes": clean["disk_bytes"],
    }


def _gather(order: Order, found: Sequence[Facts], more: Sequence[Path] = ()) -> None:
    """Write the rows of all evaluations side by side, the dense model's first."""
    places = [_place(order, name, "validation") for name in ("dense", *(facts["name"] for facts in found))]
    for file in ("rows.jsonl", "outcomes.jsonl"):
        parts = [place / file for place in (*places, *more)]
        lines = [part.read_text("utf-8") for part in parts if part.exists()]
        write_atomic(order.folder / file, "".join(lines))


def _page(order: Order) -> str:
    """Write the report on all stages; where what draws it is not installed, as plain Markdown."""
    drawn = all(find_spec(package) for package in ("jinja2", "matplotlib"))
    names = ("measured", "retrained", *(f"search-{method.name}" for method in order.methods))
    out = order.folder / ("report.html" if drawn else "report.md")
    return report([order.folder / name for name in names], out=out)["out"]


def _shipped(
    order: Order,
    run: Run,
    limits: Limits,
    dense: Facts,
    found: Sequence[Facts],
    best: Facts,
    notes: Sequence[str],
) -> dict[str, Json]:
    """Read the test split for the chosen candidate, export it with these rows, and finish."""
    name, read = best["name"], _place(order, best["name"], "test")
    asked = dataclasses.asdict(limits)
    write_atomic(order.folder / CHOICE, json.dumps({"chosen": name, "limits": asked}) + "\n")
    tested = _facts(name, _evaluated(order, name, best["folder"], "test"))
    _gather(order, found, [read])
    if not (order.folder / "model").exists():
        export(best["retrained"], to=order.to, out=order.folder / "model", rows=[read])
    for facts in (dense, *found):
        facts["meets"] = limits.met_by(facts)
    shown = [{name: value for name, value in facts.items() if name != "retrained"} for facts in found]
    return settle(
        run,
        kind="ship",
        to=order.to,
        limits=asked,
        chosen=name,
        model=str(order.folder / "model"),
        report=_page(order),
        notes=[*notes],
        dense=dense,
        candidates=shown,
        test={fact: tested[fact] for fact in ("accuracy", "accuracy_under_attack", "under_attack")},
    )


def _check_choice(order: Order, limits: Limits) -> None:
    """Refuse other limits where the test split was read for what these chose, or is about to be."""
    file = order.folder / CHOICE
    choice = json.loads(file.read_text()) if file.exists() else None
    if choice is not None and choice["limits"] != dataclasses.asdict(limits):
        asked = " ".join(f"{limit.flag} {limit.value:g}" for limit in Limits(**choice["limits"]).asked())
        raise InputError(
            f"--out {order.folder} has chosen {choice['chosen']} under {asked or 'no limits'} and read the "
            "test split for it; allowed: the same limits, or another folder"
        )


def _plan(order: Order, kinds: Sequence[str]) -> dict[str, Any]:
    """Sum the stages' plans; a candidate is taken to last as long as the dense model would."""
    task: dict[str, Any] = {"task": order.task, "common": order.common, "dry_run": True}
    asked: dict[str, Any] = {**task, "attacks": order.attacks, "examples": order.examples}
    measure, read = (
        evaluate(order.model, out=order.folder, split=split, **asked)["stages"]
        for split in ("validation", "test")
    )
    fit = train(
        order.model, out=order.folder, objective=order.objective, **dataclasses.asdict(order.fit), **task
    )["stages"]
    written = {"name": f"export to {order.to}", "seconds": 1.0, "bytes": fit[0]["bytes"] // 4}
    parts = [("dense", measure)]
    for method in order.methods:
        found = search(method, order.model, out=order.folder, granularity=kinds, **task)
        parts.append(("search", found["stages"]))
    retrained = [{**stage, "name": f"re{stage['name']}"} for stage in fit]
    parts += [(name, [*retrained, written, *measure]) for name, _, _ in order.candidates()]
    parts.append(("test", [*read, written]))
    return total([{**one, "name": f"{name}: {one['name']}"} for name, stages in parts for one in stages])
