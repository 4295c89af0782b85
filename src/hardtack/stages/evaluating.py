"""`evaluate`: what a model or ticket still does clean, under attack and on other data; rows and outcomes."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from torch import Tensor

from hardtack import cost
from hardtack.errors import InputError
from hardtack.evaluation import flags
from hardtack.evaluation.attacks.protocol import Outcome, TextAttack
from hardtack.evaluation.clean import accuracy, predict
from hardtack.evaluation.robust import attack_all, rates
from hardtack.evaluation.victim import Victim, evaluating
from hardtack.loading import Loaded, model_folder
from hardtack.runs import Json, Run, Watch
from hardtack.stages.common import (
    Common,
    leave_recipe,
    made_of,
    one_process,
    open_run,
    provenance_of,
    settle,
    tokenizer_digest,
)
from hardtack.stages.fitting import ticket_folder
from hardtack.stages.planning import total
from hardtack.stages.reproducing import recipe
from hardtack.stages.rows import Rows, lines_of
from hardtack.tasks.task import Task
from hardtack.tasks.text import Encoder
from hardtack.ticket import Ticket, digest_of

QUERIES = 40
"""Queries an attacked example takes, for plans; measured on sentences of about 20 words."""


class Target(NamedTuple):
    """What is evaluated: the loaded model, the ticket in it (if any), how it was made, and a name for run
    ids.
    """

    loaded: Loaded
    ticket: Ticket | None
    made: dict[str, Json]
    digest: str
    folder: Path | None


def evaluate(
    target: str | Path,
    *,
    task: str,
    out: str | Path,
    split: str = "test",
    attacks: Sequence[TextAttack] = (),
    examples: int = 200,
    shifted: Sequence[str] = (),
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
        shifted: other tasks with the same labels, measured clean.
        base: where a ticket's base is now, when it has moved.
        common: seed, lengths, device.
        watch: receives progress.
        dry_run: return a plan instead: stages, seconds, bytes.
    """
    again = recipe("evaluate", locals())
    one_process("evaluate")
    common = common or Common()
    data = common.open_task(task)
    others = {name: common.open_task(name) for name in shifted}
    for name, other in others.items():
        if other.labels != data.labels:
            raise InputError(
                f"--shifted {name} has the labels {other.labels}; "
                f"allowed: those of {data.name}, {data.labels}"
            )
    found = open_target(target, data, base, common)
    encoder = common.encoder(found.loaded)
    if dry_run:
        return _plan(found, data, split, attacks, examples, others, encoder, common)
    settings = {"target": found.digest}
    record = {
        "target": str(target),
        "task": data.name,
        "made": found.made,
        "task_from": task,
        "base_from": base,
    }
    record["shifted_from"] = {other.name: name for name, other in others.items()}
    with open_run(
        "evaluate",
        str(found.made.get("method", "model")),
        out,
        settings=settings,
        record=record,
        common=common,
        without=("precision", "train_examples"),  # nothing is trained here
        watch=watch,
        parent=found.made.get("run"),
        again=again,
    ) as run:
        assert run.folder is not None
        rows = Rows(run.folder)
        shared = _shared(found, data, split, encoder, common)
        # Each row with what it is measured on: two tasks may share a name.
        work: list[tuple[dict[str, Json], Task | TextAttack]] = [
            (_clean_row(found, data, split, None, shared), data)
        ]
        work += [
            (_clean_row(found, other, _split_of(other, split), data.name, shared), other)
            for other in others.values()
        ]
        work += [(_attack_row(found, data, split, attack, examples, shared), attack) for attack in attacks]
        missing = [(row, on) for row, on in work if row["id"] not in rows.ids()]
        if missing:
            (run.folder / "DONE").unlink(missing_ok=True)
            leave_recipe(run, again)
        for row, on in missing:
            run.clock.restart()  # each row's seconds are its own
            outcomes: list[Outcome] = []
            if isinstance(on, Task):
                row |= _measure_clean(found, on, data, row, encoder, common, run)
            else:
                measured, outcomes = _measure_attack(found, data, row, on, examples, encoder, common, run)
                row |= measured
            length = flags.other_length(found.made.get("max_length"), encoder.max_length)
            other = flags.other_split(split, row["split"])
            row["flags"] = sorted({*row["flags"], *length, *other, *_reading_flag(run, row)})
            row["measured"] = _measured(found, encoder, data, split, run.clock.seconds(), common)
            rows.put(row, outcomes)
        wanted = {row["id"] for row, _ in work}
        result: dict[str, Json] = {"kind": "evaluate", "target": str(target)}
        result["rows"] = [row for row in rows.all() if row["id"] in wanted]
        if run.finished():  # nothing was missing, and perhaps nothing can be written here
            return {"id": run.id, "folder": str(run.folder), **result}
        return settle(run, **result)


def open_target(target: str | Path, data: Task, base: str | None, common: Common) -> Target:
    """Load what is evaluated: a ticket is applied to its base, whose head is then untrained."""
    path = Path(target)
    place = Path(model_folder(str(target)))
    is_model = (place / "config.json").is_file()
    if not is_model and path.is_dir() and ((path / "ticket.json").is_file() or (path / "tickets").is_dir()):
        ticket = Ticket.load(ticket_folder(path))
        loaded = common.load(base or ticket.base.id, data.labels)
        ticket.apply_(loaded.model)
        made = made_of(ticket)
        digest = f"ticket-{ticket.digest()}-{loaded.head}-{tokenizer_digest(loaded.tokenizer)}"
        return Target(loaded, ticket, made, digest, ticket_folder(path))
    loaded = common.load(str(target), data.labels)
    ticket = Ticket.load(place / "ticket") if (place / "ticket" / "ticket.json").is_file() else None
    made = provenance_of(target)
    weights = digest_of({**loaded.model.state_dict(), **dict(loaded.model.named_parameters())})
    digest = f"model-{weights}-{tokenizer_digest(loaded.tokenizer)}"
    return Target(loaded, ticket, made, digest, place if is_model else None)


def _shared(found: Target, data: Task, split: str, encoder: Encoder, common: Common) -> dict[str, Json]:
    """Return what all rows of one target and task have in common."""
    made = found.made
    inputs = _one_input(encoder, data, split, common)
    with evaluating(found.loaded.model):
        flops = cost.forward_flops(found.loaded.model, inputs)
    return {
        "model": found.loaded.base.id,
        "ticket": str(ticket_folder(found.folder)) if found.ticket is not None and found.folder else None,
        "method": made.get("method"),
        "objective": made.get("objective"),
        "epochs": made.get("epochs"),
        "epoch_rule": made.get("epoch_rule"),
        "granularity": made.get("granularity"),
        "sparsity": made.get("sparsity"),
        "prunable": made.get("prunable"),
        "run": made.get("run"),
        "seed": common.seed,
        "trained_seed": made.get("seed"),
        "max_length": encoder.max_length,
        "parameters": cost.parameters_kept(found.loaded.model),
        "flops": flops,
        "flops_tokens": int(inputs["input_ids"].shape[1]),
        "disk_bytes": cost.disk_bytes(found.folder) if found.folder is not None else None,
    }


def _one_input(encoder: Encoder, data: Task, split: str, common: Common) -> dict[str, Tensor]:
    """Return one input on the device: the longest text among the first 64 of the evaluated split."""
    rows = encoder(data.table(split).texts[:64])
    longest = max(rows, key=lambda row: len(row["input_ids"]))
    return {name: torch.tensor([value], device=common.place()) for name, value in longest.items()}


def _row(
    found: Target,
    data: Task,
    split: str,
    attack: Json,
    settings: Json,
    n: int,
    shift: str | None,
    shared: dict[str, Json],
) -> dict[str, Json]:
    name = [
        found.digest,
        data.fingerprint(split),
        split,
        attack,
        settings,
        n,
        shift,
        shared["seed"],
        shared["max_length"],
    ]
    id = xxhash.xxh3_64(json.dumps(name, sort_keys=True).encode()).hexdigest()
    return {
        "id": id,
        **shared,
        "task": data.name,
        "split": split,
        "cut": split in data.cut,
        "attack": attack,
        "attack_settings": settings,
        "examples": n,
        "shifted_from": shift,
        "data_fingerprint": data.fingerprint(split),
        "clean_accuracy": None,
        "accuracy_under_attack": None,
        "attack_success_rate": None,
        "mean_queries": None,
        "forward_texts": None,
        "flags": [],
    }


def _clean_row(
    found: Target, data: Task, split: str, shift: str | None, shared: dict[str, Json]
) -> dict[str, Json]:
    return _row(found, data, split, None, None, len(data.table(split)), shift, shared)


def _attack_row(
    found: Target, data: Task, split: str, attack: TextAttack, examples: int, shared: dict[str, Json]
) -> dict[str, Json]:
    n = min(examples, len(data.table(split)))
    return _row(found, data, split, attack.name, _settings(attack), n, None, shared)


def _settings(attack: TextAttack) -> Json:
    return json.loads(json.dumps(attack.settings(), default=str))


def _split_of(data: Task, split: str) -> str:
    """Return the split of a shifted task that is read: the wanted one, or the only one (with a flag)."""
    if split in data.splits or len(data.splits) > 1:
        data.table(split)  # refused where it is missing
        return split
    return next(iter(data.splits))


def _measure_clean(
    found: Target, data: Task, home: Task, row: dict[str, Json], encoder: Encoder, common: Common, run: Run
) -> dict[str, Json]:
    """Measure a whole split; `home` is the task whose training split the model may know by heart."""
    split = row["split"]
    batches = data.batches(split, encoder, 2 * common.batch_size, 0)
    logits, labels = predict(found.loaded.model, batches, run=run, row=row["id"])
    overlap = (
        flags.train_test_overlap(home.table("train").texts, data.table(split).texts)
        if "train" in home.splits and (data is not home or split != "train")
        else ()
    )
    doubts = [*flags.untrained_head(found.loaded.fresh_head), *overlap]
    return {"clean_accuracy": accuracy(logits, labels), "forward_texts": len(labels), "flags": doubts}


def _measure_attack(
    found: Target,
    data: Task,
    row: dict[str, Json],
    attack: TextAttack,
    examples: int,
    encoder: Encoder,
    common: Common,
    run: Run,
) -> tuple[dict[str, Json], list[Outcome]]:
    drawn = data.examples(row["split"], examples, common.seed)
    victim = Victim(found.loaded.model, encoder, common.batch_size)
    texts = [example.text for example in drawn]
    outcomes = attack_all(attack, drawn, victim, run, row=row["id"])
    measured, forwards = rates(outcomes), {"forward_texts": victim.rows_seen}
    doubts = [
        *flags.few_examples(drawn),
        *flags.one_class(drawn),
        *flags.nothing_attacked(outcomes),
        *flags.training_mode(victim),
        *flags.probabilities(victim),
        *flags.text_without_tokens(victim),
        *flags.untrained_head(found.loaded.fresh_head),
        *flags.truncated(texts, encoder, encoder.max_length),
        *flags.random_output(victim.logits(texts[:32]), victim.logits(texts[:32])),
    ]
    names = ("clean_accuracy", "accuracy_under_attack", "attack_success_rate", "mean_queries")
    return {**{name: getattr(measured, name) for name in names}, **forwards, "flags": doubts}, outcomes


def _reading_flag(run: Run, row: dict[str, Json]) -> Sequence[str]:
    """Log each reading of a test split, and doubt one that follows a reading with other settings."""
    if row["split"] != "test":
        return ()
    settings = json.dumps([row["attack"], row["attack_settings"], row["examples"]], sort_keys=True)
    assert run.folder is not None
    log = run.folder / "log.jsonl"
    # Only whole lines of this kind are parsed: a full disk may have cut another one short.
    marked = [line for line in lines_of(log) if '"event": "read"' in line and line.endswith("}")]
    same = [line for line in map(json.loads, marked) if line["data"] == row["data_fingerprint"]]
    earlier = [line["settings"] for line in same if line["attack"] == row["attack"]]
    if not run.logged(event="read", row=row["id"]):  # or it was killed before the row was written
        run.log(
            event="read",
            row=row["id"],
            data=row["data_fingerprint"],
            attack=row["attack"],
            settings=settings,
        )
    return flags.read_again(settings, earlier)


def _measured(
    found: Target, encoder: Encoder, data: Task, split: str, seconds: float, common: Common
) -> dict[str, Json]:
    inputs = _one_input(encoder, data, split, common)
    with evaluating(found.loaded.model):
        latency = cost.latency_ms(found.loaded.model, inputs)
    return {
        "seconds": round(seconds, 3),
        "latency_ms": round(latency, 3),
        "latency_tokens": int(inputs["input_ids"].shape[1]),
        "memory_bytes": cost.peak_memory_bytes(),
        "hardware": cost.hardware(common.place()),
    }


def _plan(
    found: Target,
    data: Task,
    split: str,
    attacks: Sequence[TextAttack],
    examples: int,
    others: dict[str, Task],
    encoder: Encoder,
    common: Common,
) -> dict[str, Any]:
    sample = data.table(split).texts[:64]
    victim = Victim(found.loaded.model, encoder, common.batch_size)
    victim.logits(sample[:2])
    began = time.perf_counter()
    victim.logits(sample)
    each = (time.perf_counter() - began) / len(sample)
    sizes = [(f"clean {split}", len(data.table(split)))]
    sizes += [
        (f"shifted {name}", len(other.table(_split_of(other, split)))) for name, other in others.items()
    ]
    sizes += [(attack.name, QUERIES * min(examples, len(data.table(split)))) for attack in attacks]
    return total(
        [{"name": name, "seconds": round(each * n, 1), "bytes": 500 * n // QUERIES} for name, n in sizes]
    )
