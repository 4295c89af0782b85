"""`evaluate`: what a model or ticket still does clean, under attack and on other data; rows and outcomes."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hardtack.errors import InputError
from hardtack.evaluation import flags
from hardtack.evaluation.attacks.protocol import Outcome, TextAttack
from hardtack.evaluation.relations import RELATED, related
from hardtack.evaluation.shift import How, LabelMap, choose_map
from hardtack.evaluation.victim import Victim
from hardtack.runs import Json, Watch
from hardtack.stages.common import Common, leave_recipe, one_process, open_run, settle
from hardtack.stages.measuring import (
    QUERIES,
    Subject,
    Whole,
    check_columns,
    choose_runtime,
    measure_attack,
    measure_whole,
    reading_doubts,
    row_of,
)
from hardtack.stages.planning import forwards, total
from hardtack.stages.reproducing import recipe
from hardtack.stages.rows import Rows
from hardtack.stages.targets import open_target
from hardtack.tasks.task import Task


def evaluate(
    target: str | Path,
    *,
    task: str,
    out: str | Path,
    split: str = "test",
    attacks: Sequence[TextAttack] = (),
    examples: int = 200,
    shifted: Sequence[str] = (),
    label_map: Sequence[str] = (),
    merge: How = "argmax",
    by: Sequence[str] = (),
    runtime: Literal["auto", "torch"] = "auto",
    base: str | None = None,
    common: Common | None = None,
    watch: Watch | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Measure a model or ticket and append rows to `out`: one clean over the whole split, one for each
    attack and shift.

    A row that is there already is not measured again; a killed command continues where it stopped.

    Args:
        target: a model (hub id or folder), a ticket (applied to its base), or a folder made by `train` or
            `retrain`.
        task: built-in name, folder or file.
        out: run folder; rows of one target may come from several commands.
        split: the split that is read; choices belong to "validation".
        attacks: attack instances; all of them meet the same examples.
        examples: how many are attacked: drawn with the seed, stratified by label.
        shifted: other sets, measured clean. Their labels are the task's, or mapped from them.
        label_map: LABEL=CLASS+CLASS,LABEL=CLASS: which of the task's classes stand for each label of a
            shifted set; it serves the sets that have exactly these labels. Known without it: equal names, and
            three inference classes to two.
        merge: "argmax" takes the best class and then its label; "sum" adds probabilities first.
        by: columns of the files that are read (a sub-case, a source): accuracy for each of their values too.
        runtime: "auto" lets onnxruntime or OpenVINO answer attacks on a CPU, where one is installed, the work
            is worth a conversion and its answers are the model's; "torch" is the model itself.
        base: where a ticket's base is now, when it has moved.
        common: seed, lengths, device.
        watch: receives progress.
        dry_run: return a plan instead: stages, seconds, bytes.
    """
    again = recipe("evaluate", locals())
    one_process("evaluate")
    common = common or Common()
    data = common.open_task(task, keep=by)
    if attacks and not data.labels:
        raise InputError(f"task {data.name!r} has texts alone; an attack needs labels")
    wholes = [Whole.of(data, split, None, by), *_shifted(data, split, shifted, label_map, merge, by, common)]
    check_columns(by, wholes)
    found = open_target(target, data, base, common)
    subject = Subject(found, data, split, common.encoder(found.loaded), common)
    if dry_run:
        return _plan(subject, attacks, examples, wholes)
    record = {
        "target": str(target),
        "task": data.name,
        "made": found.made,
        "task_from": task,
        "base_from": base,
    }
    record["shifted_from"] = {whole.data.name: name for whole, name in zip(wholes[1:], shifted, strict=True)}
    with open_run(
        "evaluate",
        str(found.made.get("method", "model")),
        out,
        settings={"target": found.digest},
        record=record,
        common=common,
        without=("precision", "train_examples"),  # nothing is trained here
        watch=watch,
        parent=found.made.get("run"),
        again=again,
    ) as run:
        assert run.folder is not None
        rows, shared = Rows(run.folder), subject.shared()
        work = [(row_of(subject, on, examples, shared), on) for on in (*wholes, *attacks)]
        # An older version measured structured tickets at their base's size: other operations, measured anew.
        there = {row["id"]: row["flops"] for row in rows.all()}
        missing = [(row, on) for row, on in work if there.get(row["id"], -1) != row["flops"]]
        if missing:
            (run.folder / "DONE").unlink(missing_ok=True)
            leave_recipe(run, again)
        fast = None
        if runtime == "auto" and any(not isinstance(on, Whole) for _, on in missing):
            # All attacks count, done or not: a run that goes on has to find the same program again.
            fast = choose_runtime(subject, len(attacks), examples, shared["flops"], run)
        for row, on in missing:
            run.clock.restart()  # each row's seconds are its own
            outcomes: list[Outcome] = []
            if isinstance(on, Whole):
                row |= measure_whole(subject, on, row, run)
            else:
                measured, outcomes = measure_attack(subject, on, row, examples, fast, run)
                row |= measured
            length = flags.other_length(found.made.get("max_length"), subject.encoder.max_length)
            other = flags.other_split(split, row["split"])
            row["flags"] = sorted({*row["flags"], *length, *other, *reading_doubts(run, row)})
            row["measured"] = subject.measured(run.clock.seconds())
            rows.put(row, outcomes)
        if not run.finished():
            _relate(rows)
        wanted = {row["id"] for row, _ in work}
        result: dict[str, Json] = {"kind": "evaluate", "target": str(target)}
        result["rows"] = [row for row in rows.all() if row["id"] in wanted]
        if run.finished():  # nothing was missing, and perhaps nothing can be written here
            return {"id": run.id, "folder": str(run.folder), **result}
        return settle(run, **result)


def _shifted(
    data: Task,
    split: str,
    names: Sequence[str],
    maps: Sequence[str],
    how: How,
    by: Sequence[str],
    common: Common,
) -> list[Whole]:
    """Open the other sets, each with the map of its labels where they are not the task's own."""
    given = [LabelMap.parse(text, how) for text in maps]
    found = []
    for name in names:
        other = common.open_task(name, keep=by)
        if bool(other.labels) != bool(data.labels):
            raise InputError(f"--shifted {name}: of it and {data.name}, one has labels, one has none")
        try:
            labels = choose_map(data.labels, other.labels, given, how)
        except InputError as error:
            raise InputError(f"--shifted {name}: {error} (--label-map)") from None
        found.append(Whole.of(other, split, labels, by))
    for one, text in zip(given, maps, strict=True):
        if not any(whole.labels == one for whole in found):
            there = (
                "; ".join(", ".join(whole.data.labels) for whole in found) or "none: no --shifted is given"
            )
            raise InputError(f"--label-map {text}: no shifted set has exactly these labels; allowed: {there}")
    return found


def _relate(rows: Rows) -> None:
    """Give every row of the folder the doubts that the others raise about it, and take back old ones."""
    written = rows.all()
    doubts = related(written)
    for row in written:
        now = sorted({flag for flag in row["flags"] if flag not in RELATED} | doubts.get(row["id"], set()))
        if now != row["flags"]:
            rows.put({**row, "flags": now}, ())


def _plan(
    subject: Subject, attacks: Sequence[TextAttack], examples: int, wholes: Sequence[Whole]
) -> dict[str, Any]:
    if not subject.home.labels:
        size, model = 2 * subject.common.batch_size, subject.found.loaded.model
        batches = [whole.data.batches(whole.split, subject.encoder, size) for whole in wholes]
        names = [f"clean {whole.data.name} {whole.split}" for whole in wholes]
        return total([forwards(name, model, one) for name, one in zip(names, batches, strict=True)])
    table = subject.home.table(subject.split)
    sample = table.texts[:64]
    victim = Victim(subject.found.loaded.model, subject.encoder, subject.common.batch_size)
    victim.logits(sample[:2])
    began = time.perf_counter()
    victim.logits(sample)
    each = (time.perf_counter() - began) / len(sample)
    sizes = [
        (f"{'shifted ' if whole.data is not subject.home else 'clean '}{whole.data.name} {whole.split}", n)
        for whole in wholes
        for n in (len(whole.data.table(whole.split)),)
    ]
    sizes += [(attack.name, QUERIES * min(examples, len(table))) for attack in attacks]
    return total(
        [{"name": name, "seconds": round(each * n, 1), "bytes": 500 * n // QUERIES} for name, n in sizes]
    )
