"""Fingerprints of what lies outside a study: its data and models count by content, not by where they are."""

from collections.abc import Mapping
from pathlib import Path

import xxhash

from hardtack.errors import InputError
from hardtack.evaluation.shift import LabelMap, choose_map
from hardtack.loading import load, model_folder, weightless
from hardtack.runs import Json
from hardtack.stages.fitting import ticket_folder
from hardtack.studies.verbs import common_of
from hardtack.tasks.task import Task
from hardtack.tasks.text import load_task
from hardtack.ticket import Ticket, digest_of


class Contents:
    """Reads each task and model once."""

    def __init__(self):
        self._tasks: dict[tuple[Json, ...], Task] = {}
        self._models: dict[str, str] = {}

    def data(self, verb: str, settings: Mapping[str, Json]) -> list[str]:
        """Return the fingerprints of what a stage reads of its data.

        Raises:
            InputError: when the data cannot be read, or lack what the stage needs.
        """
        task = self._task(settings["task"], settings)
        if verb == "soup":
            return [task.fingerprint("validation")] if task.table("validation") else []
        if verb != "evaluate":
            found = [task.fingerprint("train")] if task.table("train") else []
            best = settings.get("epoch_rule") == "best"  # then validation decides which weights are kept
            return [*found, task.fingerprint("validation")] if best else found
        split = settings.get("split", "test")
        found = [task.fingerprint(split)] if task.table(split) else []
        found += [task.fingerprint("train")] if "train" in task.splits else []  # a flag says what overlaps
        for name in settings.get("shifted", ()):
            other = self._task(name, settings)
            maps = [LabelMap.parse(text) for text in settings.get("label_map", ())]
            try:
                choose_map(task.labels, other.labels, maps)
            except InputError as error:
                raise InputError(f"shifted {name!r}: {error}") from None
            found.append(other.fingerprint())
        return found

    def model(self, name: str) -> str:
        """Return the fingerprint of a model or ticket outside the study.

        Raises:
            InputError: when there is none.
        """
        if name not in self._models:
            self._models[name] = _fingerprint(name)
        return self._models[name]

    def root(self, verb: str, settings: Mapping[str, Json]) -> str:
        """Return the model that a stage begins with, where it refers to no other: of a ticket its base."""
        if verb == "retrain":
            return settings.get("base") or Ticket.load(ticket_folder(settings["ticket"])).base.id
        return settings["model" if "model" in settings else "target"]

    def _task(self, name: str, settings: Mapping[str, Json]) -> Task:
        common = common_of(settings)
        read = (name, common.text_column, common.label_column)
        if read not in self._tasks:
            self._tasks[read] = load_task(name, text_column=read[1], label_column=read[2])
        limits = (common.train_examples, common.min_words, common.seed if common.train_examples else 0)
        if (*read, *limits) not in self._tasks:
            self._tasks[(*read, *limits)] = self._tasks[read].limited(*limits)
        return self._tasks[(*read, *limits)]


def _fingerprint(name: str) -> str:
    path, place = Path(name), Path(model_folder(name))
    is_model = (place / "config.json").is_file()
    if not is_model and ((path / "ticket.json").is_file() or (path / "tickets").is_dir()):
        return Ticket.load(ticket_folder(path)).digest()
    if is_model and weightless(str(place)):  # to be trained from scratch: its config is all of it
        return xxhash.xxh3_128((place / "config.json").read_bytes()).hexdigest()
    loaded = load(name)
    if loaded.fresh_head:  # a base: the head that was just drawn is no content of it
        return loaded.base.fingerprint
    return digest_of(dict(loaded.model.named_parameters()))
