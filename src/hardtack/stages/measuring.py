"""The rows of `evaluate`: what names one, and how each kind is measured."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import xxhash
from torch import Tensor

from hardtack import cost
from hardtack.errors import InputError
from hardtack.evaluation import flags
from hardtack.evaluation.attacks.embedding_pgd import EmbeddingPGD
from hardtack.evaluation.attacks.protocol import Outcome, TextAttack, log_odds
from hardtack.evaluation.clean import predict
from hardtack.evaluation.gradients import WhiteBox
from hardtack.evaluation.robust import attack_all, rates
from hardtack.evaluation.runtimes import fastest_runtime
from hardtack.evaluation.shift import LabelMap, accuracy_by, brier_score, calibration_error
from hardtack.evaluation.victim import Runtime, Victim, device_of, evaluating, runtime_of
from hardtack.exports.onnx import to_onnx
from hardtack.runs import Json, Run
from hardtack.sessions import Foreign
from hardtack.stages.common import Common
from hardtack.stages.fitting import ticket_folder
from hardtack.stages.rows import lines_of
from hardtack.stages.targets import Target
from hardtack.tasks.task import Example, Table, Task
from hardtack.tasks.text import Encoder

QUERIES = 40
"""Texts an attacked example takes, for plans; measured on sentences of about 20 words."""

SEEN = 64  # attacked examples whose gradients are looked at before a gradient attack is believed


def one_input(data: Task, split: str, encoder: Encoder, device: str) -> dict[str, Tensor]:
    """Return the input that costs are measured with: the longest text among the first 64 of a split."""
    rows = encoder(data.table(split).texts[:64])
    longest = max(rows, key=lambda row: len(row["input_ids"]))
    return {name: torch.tensor([value], device=device) for name, value in longest.items()}


@dataclass(frozen=True)
class Subject:
    """What all rows of one command are about: the target, its task, the split, and how texts are encoded."""

    found: Target
    home: Task
    split: str
    encoder: Encoder
    common: Common

    def one_input(self) -> dict[str, Tensor]:
        """Return one input where the model is, the same for every model of this split."""
        return one_input(self.home, self.split, self.encoder, str(device_of(self.found.loaded.model)))

    def shared(self) -> dict[str, Json]:
        """Return what all rows have in common."""
        found, made, inputs = self.found, self.found.made, self.one_input()
        model, foreign = found.loaded.model, isinstance(found.loaded.model, Foreign)
        flops = None
        if not foreign:  # which does its own, uncounted
            with evaluating(model):
                flops = cost.forward_flops(model, inputs)
        names = (
            "method objective ticket_objective epochs epoch_rule granularity sparsity prunable exported run"
        )
        return {
            "model": found.loaded.base.id,
            "ticket": str(ticket_folder(found.folder)) if found.ticket and found.folder else None,
            **{name: made.get(name) for name in names.split()},
            "runtime": runtime_of(model).name,
            "seed": self.common.seed,
            "trained_seed": made.get("seed"),
            "max_length": self.encoder.max_length,
            "parameters": made.get("parameters") if foreign else cost.parameters_kept(model),
            "flops": flops,
            "flops_tokens": int(inputs["input_ids"].shape[1]),
            "disk_bytes": cost.disk_bytes(found.folder) if found.folder is not None else None,
        }

    def measured(self, seconds: float) -> dict[str, Json]:
        """Return what differs from run to run: time, memory, hardware."""
        inputs = self.one_input()
        with evaluating(self.found.loaded.model):
            latency = cost.latency_ms(self.found.loaded.model, inputs)
        return {
            "seconds": round(seconds, 3),
            "latency_ms": round(latency, 3),
            "latency_tokens": int(inputs["input_ids"].shape[1]),
            "memory_bytes": cost.peak_memory_bytes(),
            "hardware": cost.hardware(str(device_of(self.found.loaded.model))),
        }


@dataclass(frozen=True)
class Whole:
    """A clean row: a whole split of the task itself, or of another set under a map of its labels.

    `by` names the columns of the set by whose values accuracy is broken down.
    """

    data: Task
    split: str
    labels: LabelMap | None = None
    by: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Task, split: str, labels: LabelMap | None, by: Sequence[str]) -> "Whole":
        """Read the wanted split, or a set's only one; columns that it lacks break nothing down."""
        if split not in data.splits and len(data.splits) == 1:
            split = next(iter(data.splits))
        return cls(data, split, labels, tuple(name for name in by if name in data.table(split).groups))


def check_columns(by: Sequence[str], read: Sequence[Whole]) -> None:
    """Refuse a column by which nothing that is read can be broken down."""
    for name in by:
        if not any(name in whole.by for whole in read):
            names = ", ".join(f"{whole.split} of {whole.data.name}" for whole in read)
            raise InputError(f"--by {name}: no column of {names}; allowed: a column of a file that is read")


def row_of(
    subject: Subject, on: Whole | TextAttack, examples: int, shared: dict[str, Json]
) -> dict[str, Json]:
    """Return a row with its id and everything but what is measured.

    Args:
        subject: what the command is about.
        on: a whole split or an attack.
        examples: how many examples an attack gets.
        shared: `subject.shared()`.
    """
    whole = on if isinstance(on, Whole) else Whole(subject.home, subject.split)
    attack = None if isinstance(on, Whole) else on.name
    settings = None if isinstance(on, Whole) else json.loads(json.dumps(on.settings(), default=str))
    there = len(whole.data.table(whole.split))
    n = there if isinstance(on, Whole) else min(examples, there)
    shift = subject.home.name if whole.data is not subject.home else None
    fingerprint = whole.data.fingerprint(whole.split)
    extra: dict[str, Json] = {}
    if whole.labels is not None:
        extra["label_map"] = json.loads(json.dumps(asdict(whole.labels)))
    if whole.by:
        extra["by"] = list(whole.by)
    name = [subject.found.digest, fingerprint, whole.split, attack, settings, n, shift]
    name += [shared["seed"], shared["max_length"], *([extra] if extra else [])]
    return {
        "id": xxhash.xxh3_64(json.dumps(name, sort_keys=True).encode()).hexdigest(),
        **shared,
        "task": whole.data.name,
        "split": whole.split,
        "cut": whole.split in whole.data.cut,
        "attack": attack,
        "attack_settings": settings,
        "examples": n,
        "shifted_from": shift,
        "label_map": extra.get("label_map"),
        "data_fingerprint": fingerprint,
        "clean_accuracy": None,
        "perplexity": None,
        "calibration_error": None,
        "brier_score": None,
        "by": None,
        "accuracy_under_attack": None,
        "attack_success_rate": None,
        "mean_queries": None,
        "forward_texts": None,
        "answered_by": None,
        "flags": [],
    }


def measure_whole(subject: Subject, whole: Whole, row: dict[str, Json], run: Run) -> dict[str, Json]:
    """Measure a whole split clean: accuracy, calibration, and accuracy by the columns that were named.

    Of texts alone: perplexity.
    """
    found, home = subject.found, subject.home
    table = whole.data.table(whole.split)
    batches = whole.data.batches(whole.split, subject.encoder, 2 * subject.common.batch_size, 0)
    logits, labels = predict(found.loaded.model, batches, run=run, row=row["id"])
    doubts = [*flags.untrained_head(found.loaded.fresh_head), *_overlap(home, whole, table)]
    if not home.labels:
        return {home.metric.name: home.metric(logits, labels), "forward_texts": len(labels), "flags": doubts}
    if whole.labels is None:
        predictions, shares = logits.argmax(dim=1), logits.double().softmax(dim=1)
    else:
        columns = whole.labels.columns(home.labels, whole.data.labels)
        predictions, shares = whole.labels.merged(logits, columns)
    right = predictions == labels
    result: dict[str, Json] = {
        "clean_accuracy": right.double().mean().item(),
        "calibration_error": calibration_error(shares, labels, predictions),
        "brier_score": brier_score(shares, labels),
        "forward_texts": len(labels),
        "flags": doubts,
    }
    if whole.by:
        result["by"] = {name: accuracy_by(table.groups[name], right) for name in whole.by}
    return result


def _overlap(home: Task, whole: Whole, table: Table) -> Sequence[str]:
    """Doubt texts of the home task's training split, which the model may know by heart."""
    if "train" not in home.splits or (whole.data is home and whole.split == "train"):
        return ()
    return flags.train_test_overlap(home.table("train").texts, table.texts)


def choose_runtime(subject: Subject, attacks: int, examples: int, flops: float | None, run: Run) -> Runtime:
    """Return what answers the attacks of one command: the fastest program here that agrees with the model.

    Args:
        subject: what is attacked.
        attacks: how many attacks there are.
        examples: how many examples each of them gets.
        flops: operations of one text, where they are known.
        run: its log says what was chosen and why.
    """
    model, encoder = subject.found.loaded.model, subject.encoder
    drawn = subject.home.examples(subject.split, examples, subject.common.seed)
    chosen = fastest_runtime(
        model,
        encoder,
        [example.text for example in drawn],
        convert=to_onnx,
        work_flops=attacks * len(drawn) * QUERIES * (flops or 0),
        scratch=run.scratch,
    )
    said = {"event": "runtime", "name": chosen.runtime.name, "why": chosen.why}
    if not run.logged(**said):  # a run that goes on finds the same one again
        run.log(**said)
    return chosen.runtime


def measure_attack(
    subject: Subject,
    attack: TextAttack,
    row: dict[str, Json],
    examples: int,
    runtime: Runtime | None,
    run: Run,
) -> tuple[dict[str, Json], list[Outcome]]:
    """Attack the drawn examples; return the rates with their doubts, and the outcomes."""
    encoder = subject.encoder
    drawn = subject.home.examples(row["split"], examples, subject.common.seed)
    victim = Victim(subject.found.loaded.model, encoder, subject.common.batch_size, runtime=runtime)
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
        *flags.untrained_head(subject.found.loaded.fresh_head),
        *flags.truncated(texts, encoder, encoder.max_length),
        *flags.random_output(victim.logits(texts[:32]), victim.logits(texts[:32])),
    ]
    if getattr(attack, "sees_gradients", False):
        doubts += _gradient_doubts(attack, drawn[:SEEN], victim, run)
    names = ("clean_accuracy", "accuracy_under_attack", "attack_success_rate", "mean_queries")
    found = {name: getattr(measured, name) for name in names}
    return {**found, **forwards, "answered_by": victim.runtime.name, "flags": doubts}, outcomes


def _gradient_doubts(attack: TextAttack, drawn: Sequence[Example], victim: Victim, run: Run) -> list[str]:
    """Doubt gradients that vanish, and steps along them that lead nowhere."""
    box = WhiteBox(victim)
    doubts = [*flags.vanishing_gradients(box.steepest(drawn))]
    if isinstance(attack, EmbeddingPGD):
        asks = [attack.ascent(one, run.rng(f"attack/{attack.name}", example=one.id)) for one in drawn]
        odds = [log_odds(trail, ask.label) for trail, ask in zip(box.ascents(asks), asks, strict=True)]
        doubts += flags.steps_do_not_help(
            torch.stack([one[0] for one in odds]), torch.stack([one[-1] for one in odds])
        )
    return doubts


def reading_doubts(run: Run, row: dict[str, Json]) -> Sequence[str]:
    """Log each reading of a test split, and doubt one that follows a reading with other settings."""
    if row["split"] != "test":
        return ()
    # The radii of a sweep are rows of one reading.
    told = {name: value for name, value in (row["attack_settings"] or {}).items() if name != "radii"} or None
    settings = json.dumps([row["attack"], told, row["examples"]], sort_keys=True)
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
