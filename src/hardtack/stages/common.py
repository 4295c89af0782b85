"""What every stage shares: common settings, opening task, model and run, and saving a model's folder."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import nn

from hardtack import shrunk
from hardtack.errors import InputError
from hardtack.loading import PROVENANCE, Loaded, load
from hardtack.runs import Json, Run, Watch, identify
from hardtack.storage import write_atomic
from hardtack.tasks.task import Batches, Task
from hardtack.tasks.text import Encoder, load_task
from hardtack.ticket import Ticket, digest_of
from hardtack.training.adversarial import Objective
from hardtack.training.loop import check_precision
from hardtack.training.processes import Processes, check_launcher, own_device, started
from hardtack.training.trackers import Tracker, check_tracker

"""A file in a model's folder that says how the model was made; rows take their method and settings from it.
"""


def no_result(default: Any, help: str) -> Any:
    """Return a field that cannot change results and stays out of a run's name."""
    return field(default=default, metadata={"help": help, "result": False})


@dataclass(frozen=True)
class Common:
    """Settings that every stage takes."""

    seed: int = field(default=0, metadata={"help": "base of every random stream"})
    max_length: int = field(
        default=128, metadata={"help": "tokens a text is cut to, in training and evaluation"}
    )
    batch_size: int = field(default=32, metadata={"help": "examples a training step, in each process"})
    train_examples: int | None = field(
        default=None, metadata={"help": "train on so many examples: seeded, stratified (default: all)"}
    )
    min_words: int = field(default=0, metadata={"help": "leave out texts with fewer words, in every split"})
    text_column: str | None = field(default=None, metadata={"help": "name of the text column in files"})
    label_column: str | None = field(default=None, metadata={"help": "name of the label column in files"})
    precision: str = field(default="fp32", metadata={"help": "fp32 or bf16"})
    merge_adapter: bool = no_result(False, "merge a model that is a PEFT adapter into the base it names")
    device: str = no_result("auto", "cpu, cuda, cuda:1, mps or auto (CUDA if there is one)")
    save_seconds: float = no_result(30.0, "seconds between saved states of long work")
    tracker: str | None = no_result(
        None, "show training's numbers in tensorboard, wandb, ... as well (files in DIR/trackers)"
    )

    def __post_init__(self) -> None:
        for name, low in (
            ("seed", 0),
            ("max_length", 3),
            ("batch_size", 1),
            ("min_words", 0),
            ("save_seconds", 0),
        ):
            if getattr(self, name) < low:
                raise InputError(f"{name} {getattr(self, name)} is not allowed; allowed: {low} or more")
        check_precision(self.precision)  # before a run folder is made in its name
        check_tracker(self.tracker)

    def place(self) -> str:
        """Return the device to use, in each of several processes its own; raises InputError without one."""
        check_launcher(self.precision)
        if started() > 1:
            return own_device(self.device)
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"device {self.device!r} cannot be used: {reason}; allowed: cpu, auto, a GPU here"
            ) from None
        return self.device

    def processes(self) -> Processes:
        """Return the processes that share the work, having met."""
        return Processes.joined(self.place())

    def training_batches(self, data: Task, encoder: Encoder) -> Batches:
        """Return the training batches, of `batch_size` rows for each process."""
        return data.batches("train", encoder, self.batch_size * self.processes().count, self.seed)

    def open_task(self, name: str, *, keep: Sequence[str] = ()) -> Task:
        """Load a task and cut it down as these settings say, with these further columns of its files."""
        # Splits that have to be cut are the same for every seed: repeats are compared on the same examples.
        task = load_task(name, text_column=self.text_column, label_column=self.label_column, keep=keep)
        return task.limited(self.train_examples, self.min_words, self.seed)

    def load(
        self, name: str, labels: tuple[str, ...] | None, *, trained_head: bool = False, foreign: bool = False
    ) -> Loaded:
        """Load a model for these labels (None: its own) as these settings say."""
        return load(
            name,
            labels,
            seed=self.seed,
            device=self.place(),
            trained_head=trained_head,
            merge_adapter=self.merge_adapter,
            foreign=foreign,
        )

    def encoder(self, loaded: Loaded) -> Encoder:
        """Return the encoder of a model's tokenizer at these settings' length."""
        return Encoder.of(loaded.tokenizer, loaded.model, self.max_length)


def part_watch(watch: Watch | None, name: str) -> Watch | None:
    """Return a watch that says which part of a composed stage works."""
    return None if watch is None else lambda label, done, total: watch(f"{name}: {label}", done, total)


def settings_of(instance: Any, *, all: bool = False) -> dict[str, Json]:
    """Return a dataclass instance's fields as JSON: those that differ from their default and can change
    results.

    Args:
        instance: a frozen dataclass.
        all: every field instead (for the record).
    """
    found: dict[str, Json] = {}
    for item in dataclasses.fields(instance):
        value = getattr(instance, item.name)
        if all or (item.metadata.get("result", True) and value != item.default):
            found[item.name] = _json(value)
    return found


def _json(value: Any) -> Json:
    if isinstance(value, tuple | list):
        return [_json(inner) for inner in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    return getattr(value, "__name__", None) or str(value)


def named(objective: Objective) -> list[Json]:
    """Return what an objective puts into a run's name: what it is, its version and its settings."""
    return [objective.name, objective.version, settings_of(objective)]


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a hash of how a tokenizer cuts texts, the same wherever its files lie."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content: Json = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:  # but for the two settings that calls leave behind in it
        content = {**json.loads(backend.to_str()), "truncation": None, "padding": None}
    sides = [tokenizer.truncation_side, tokenizer.model_max_length, tokenizer.pad_token_id]
    content = [content, sides, sorted(tokenizer.model_input_names)]
    return xxhash.xxh3_128(json.dumps(content, sort_keys=True).encode()).hexdigest()


def weights_digest(model: nn.Module) -> str:
    """Return a hash of all tensors of a model: weights, buffers, and both names of tied ones."""
    return digest_of({**model.state_dict(), **dict(model.named_parameters())})


def open_run(
    kind: str,
    method: str,
    out: str | Path,
    *,
    settings: Mapping[str, Json],
    record: Mapping[str, Json],
    common: Common,
    without: Collection[str] = (),
    version: int = 1,
    parent: str | None = None,
    watch: Watch | None = None,
    again: str | None = None,
) -> Run:
    """Open the run that these settings name, in the folder `out`.

    Args:
        kind: the verb.
        method: the method or objective.
        out: the folder.
        settings: what changes the results, besides the common settings.
        record: what the recipe says.
        common: settings that every stage takes.
        without: names of those that change no result of this stage.
        version: the method's.
        parent: id of the run that this one reads.
        watch: receives progress.
        again: the recipe of a study that does the same again.
    """
    shared = {name: value for name, value in settings_of(common).items() if name not in without}
    shared.pop("seed", None)  # repeats over seeds share a name and differ in the seed part
    settings = {**settings, **shared}
    processes = common.processes()
    if processes.count > 1:  # sums in another order and other dropout: equal to no other number's bits
        settings["processes"] = processes.count
    id = identify(kind, method, version=version, settings=settings, parent=parent, seed=common.seed)
    recipe = {"kind": kind, "method": method, **record, "common": settings_of(common, all=True)}
    recipe["processes"] = processes.count
    run = processes.open(
        Path(out),
        id,
        recipe=recipe,
        seed=common.seed,
        parent=parent,
        watch=watch,
        save_seconds=common.save_seconds,
    )
    if not (Path(out) / "DONE").exists():
        leave_recipe(run, again)
    if common.tracker is not None and run.writes:
        run.mirror = Tracker(common.tracker, Path(out) / "trackers")
    return run


def leave_recipe(run: Run, again: str | None) -> None:
    """Write `recipe.toml`, a study of one stage, beside a run that is about to work."""
    if again is not None and run.folder is not None and run.writes:
        write_atomic(run.folder / "recipe.toml", again)


def one_process(verb: str) -> None:
    """Refuse several processes where one does all the work and the others would only wait."""
    if started() > 1:
        raise InputError(
            f"{verb} works in one process and {started()} were started; allowed in several: train, search, "
            "retrain"
        )


def save_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside `target`, then put it in its place in one step."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_model(
    loaded: Loaded, target: Path, provenance: Mapping[str, Json], ticket: Ticket | None = None
) -> None:
    """Write a model's folder with tokenizer, provenance and, if there is one, the ticket."""

    def write(folder: Path) -> None:
        shrunk.save(loaded.model, folder)
        loaded.tokenizer.save_pretrained(folder)
        write_provenance(folder, provenance)
        if ticket is not None:
            ticket.save(folder / "ticket")

    save_folder(target, write)


def write_provenance(folder: Path, provenance: Mapping[str, Json]) -> None:
    """Write how a model was made beside it."""
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1, sort_keys=True) + "\n")


def made_of(ticket: Ticket) -> dict[str, Json]:
    """Return what a ticket says about how its subnetwork was made, as a model's provenance does."""
    wanted = ("method", "run", "seed", "max_length", "objective")
    made = {name: ticket.origin.get(name) for name in wanted}
    return {
        **made,
        "ticket_objective": made["objective"],
        "granularity": list(ticket.granularity),
        "sparsity": ticket.sparsity(),
        "prunable": ticket.units(),
    }


def provenance_of(folder: str | Path) -> dict[str, Json]:
    """Return what a model folder (or the run folder around it) says about how it was made; {} if nothing."""
    for place in (Path(folder) / PROVENANCE, Path(folder) / "model" / PROVENANCE):
        if place.is_file():
            try:
                return dict(json.loads(place.read_text()))
            except (OSError, ValueError, TypeError, RecursionError) as error:
                reason = " ".join(str(error).split())[:160]
                raise InputError(f"{place} cannot be read: {reason}; allowed: what hardtack wrote") from None
    return {}


def result_of(run: Run) -> dict[str, Json]:
    """Return what a finished run said in its DONE file; paths inside it follow a folder that has moved."""
    assert run.folder is not None
    result = json.loads((run.folder / "DONE").read_text())
    return {
        **_moved(result, f"{result['folder']}{os.sep}", f"{run.folder}{os.sep}"),
        "folder": str(run.folder),
    }


def _moved(value: Json, old: str, new: str) -> Json:
    if isinstance(value, dict):
        return {name: _moved(inner, old, new) for name, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, old, new) for inner in value]
    return new + value.removeprefix(old) if isinstance(value, str) and value.startswith(old) else value


def settle(run: Run, **facts: Json) -> dict[str, Json]:
    """Finish a run with its result and return the result; in several processes, that of the writing one."""
    result = {"id": run.id, "folder": str(run.folder), **facts}
    run.finish(**result)
    run.meet()
    return result if run.writes else result_of(run)


def resumptions(run: Run) -> int:
    """Count how often the run's log says that work was resumed."""
    path = run.folder / "log.jsonl" if run.folder else None
    return path.read_text().count('"event": "resumed"') if path is not None and path.exists() else 0
