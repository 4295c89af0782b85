"""Texts from a folder, a file or the hub become a task; a tokenizer and a model make an encoder."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hardtack.errors import InputError, nearest
from hardtack.tasks.files import SPLITS, TYPES, Raw, label_names, read, said, split_files
from hardtack.tasks.made import made_task
from hardtack.tasks.task import PERPLEXITY, Table, Task, stratified

CUT = 0.1  # of the training rows, for each split that has to be cut
MOST_CLASSES = (
    1000  # of a set without training data and label names; a larger number there is an id, not a class
)


@dataclass(frozen=True)
class Encoder:
    """An encoder turns rows of texts into the token lists that one model's forward accepts.

    Args:
        tokenizer: from transformers.
        max_length: longer rows are cut off there.
        keys: the forward's arguments; what the tokenizer makes beyond them is dropped.
    """

    tokenizer: Any
    max_length: int
    keys: frozenset[str]

    @classmethod
    def of(cls, tokenizer: Any, model: Any, max_length: int = 128) -> "Encoder":
        """Check once what the model's forward accepts, because transformers swallows unknown keys silently.

        The length is at most `max_length` and at most what the model has positions for.
        """
        if max_length < 3:
            raise InputError(f"max_length {max_length}; allowed: 3 or more")
        keys = frozenset(inspect.signature(model.forward).parameters) & {
            "input_ids",
            "attention_mask",
            "token_type_ids",
        }
        if "input_ids" not in keys:
            raise InputError(f"{type(model).__name__} takes no input_ids; a text model is needed")
        positions = getattr(model.config, "max_position_embeddings", None) or max_length
        for name, module in model.named_modules():  # RoBERTa's kin count positions from the padding's id + 1
            if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
                positions -= module.padding_idx + 1
        return cls(tokenizer, min(max_length, positions, tokenizer.model_max_length), keys)

    @property
    def pad_id(self) -> int:
        """The token that fills short rows, under a zero of the attention mask, so that any token will do."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        return 0

    def __call__(self, texts: Sequence[tuple[str, ...]]) -> list[dict[str, list[int]]]:
        """Encode all rows with one call of the tokenizer, without padding."""
        if not texts:
            return []
        columns = [list(column) for column in zip(*texts, strict=True)]
        encoded = self.tokenizer(
            *columns, truncation=True, max_length=self.max_length, padding=False, return_attention_mask=True
        )
        kept = {key: rows for key, rows in encoded.items() if key in self.keys}
        return [dict(zip(kept, row, strict=True)) for row in zip(*kept.values(), strict=True)]


@dataclass(frozen=True)
class Hub:
    """Where a built-in task lies on the hub, and which of its columns and labelled splits are read."""

    dataset: str
    config: str | None
    text: tuple[str, ...]
    splits: tuple[str, ...] = ("train", "validation")
    validation: str = "validation"


# GLUE's test splits carry no labels (mrpc's apart): where "test" is not listed, one is cut from training.
HUB: Mapping[str, Hub] = {
    "ag_news": Hub("fancyzhx/ag_news", None, ("text",), ("train", "test")),
    "cola": Hub("nyu-mll/glue", "cola", ("sentence",)),
    "imdb": Hub("stanfordnlp/imdb", None, ("text",), ("train", "test")),
    "mnli": Hub("nyu-mll/glue", "mnli", ("premise", "hypothesis"), validation="validation_matched"),
    "mrpc": Hub("nyu-mll/glue", "mrpc", ("sentence1", "sentence2"), SPLITS),
    "qnli": Hub("nyu-mll/glue", "qnli", ("question", "sentence")),
    "qqp": Hub("nyu-mll/glue", "qqp", ("question1", "question2")),
    "rotten_tomatoes": Hub("cornell-movie-review-data/rotten_tomatoes", None, ("text",), SPLITS),
    "rte": Hub("nyu-mll/glue", "rte", ("sentence1", "sentence2")),
    "snli": Hub("stanfordnlp/snli", None, ("premise", "hypothesis"), SPLITS),
    "sst2": Hub("nyu-mll/glue", "sst2", ("sentence",)),
    "yelp_polarity": Hub("fancyzhx/yelp_polarity", None, ("text",), ("train", "test")),
}


def load_task(
    name: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    keep: Sequence[str] = (),
    seed: int = 0,
) -> Task:
    """Load a task by its built-in name, or from a folder or file of one's own.

    A missing validation or test split is cut from training: a tenth of it, stratified, named in `Task.cut`.
    A folder without training data loads too; only asking it for training is an error.

    Args:
        name: "made" (the generated task), a name of the hub table, or a path: a folder with train, validation
            and test files, or one file, which is training data. A folder called sst2 is `./sst2`. Files of
            texts alone (a .txt with one a line, or a table without another column) make a task without
            labels, for language models.
        text_column: the column of the texts, or two with a comma between; by default text, or else
            sentence1,sentence2.
        label_column: the column of the labels, whole numbers or names; by default label.
        keep: further columns of files, such as a sub-case, to keep beside the texts; a split may lack them.
        seed: chooses the cut. It is not the seed of a run: all runs of a comparison share one test split.
    """
    if (name == "made" or name in HUB) and (column := text_column or label_column):
        raise InputError(f"task {name!r} has its own columns, not {column!r}; columns are named for files")
    if name == "made":
        return made_task()
    if name in HUB:
        return _from_hub(name, HUB[name], seed)
    path = Path(name).expanduser()
    if not path.exists():
        raise InputError(
            f"no task, folder or file {name!r}{nearest(name, [*HUB, 'made', 'a folder', 'a file'])}"
        )
    if path.is_dir():
        files, names = split_files(path), label_names(path / "info.json")
    else:
        if path.suffix not in TYPES:
            raise InputError(
                f"{path} is of no known type; allowed: {', '.join(TYPES)}, or a folder of such files"
            )
        files, names = {"train": path}, label_names(path.parent / "info.json")
    wanted = (tuple(text_column.split(",")) if text_column else None, label_column)
    raw = {split: read(file, *wanted, keep=keep) for split, file in files.items()}
    task_name = path.resolve().name if path.is_dir() else path.stem
    bare = [split for split in raw.values() if split.labels is None]
    if len(bare) == len(raw) and names is None:
        return _unlabelled(task_name, raw, seed)
    if bare:
        raise InputError(
            f"{bare[0].where} has no label column 'label'; needed: one, as other splits or info.json say"
        )
    return _assemble(task_name, raw, names, seed)


def _unlabelled(name: str, raw: Mapping[str, Raw], seed: int) -> Task:
    """Join splits of texts alone and cut the missing ones: a task for language models."""
    splits = {
        split: Table(rows.columns, np.zeros(len(rows.rows), dtype=np.int64), rows.rows)
        for split, rows in raw.items()
    }
    task = Task(name, (), splits, PERPLEXITY)
    return _with_cuts(task, seed) if "train" in splits else task


def _assemble(name: str, raw: Mapping[str, Raw], names: tuple[str, ...] | None, seed: int) -> Task:
    """Number the labels, joins the splits and cuts the missing ones."""
    widths = {len(split.columns) for split in raw.values()}
    if len(widths) > 1:
        raise InputError(
            f"splits of {name!r} have different numbers of text columns; allowed: the same in all"
        )
    names, numbers = _number(raw, names)
    splits = {}
    for split, rows in raw.items():
        labels = []
        for row, value in zip(rows.rows, rows.labels or (), strict=True):
            if value not in numbers:
                train = "; unseen in training" if "train" in raw and split != "train" else ""
                allowed = ", ".join(str(known) for known in numbers)
                raise InputError(f"label {value!r} in row {row} of {rows.where}{train}; allowed: {allowed}")
            labels.append(numbers[value])
        splits[split] = Table(rows.columns, np.array(labels, dtype=np.int64), rows.rows, rows.groups)
    task = Task(name, names, splits)  # checked before anything is cut from it
    return _with_cuts(task, seed) if "train" in splits else task


def _number(
    raw: Mapping[str, Raw], names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Return label names, and label value -> class number; training alone fixes them where there is any."""
    kinds = {type(value) for split in raw.values() for value in (split.labels or ())[:1]}
    if len(kinds) > 1:
        raise InputError(
            f"labels of {', '.join(s.where for s in raw.values())} are numbers and names; allowed: one kind"
        )
    basis = [raw["train"]] if "train" in raw else list(raw.values())
    values = sorted({value for split in basis for value in split.labels or ()})
    if kinds == {str}:
        names = names or tuple(str(value) for value in values)
        return names, {value: k for k, value in enumerate(names)}
    if names is not None:
        return names, {k: k for k in range(len(names))}
    if "train" in raw:  # 0 and 1, 1 to 5 stars, -1 and 1: classes in the order of their values
        return tuple(str(value) for value in values), {value: k for k, value in enumerate(values)}
    # Without training the number is the class, also where a class does not occur: all ones stay all ones.
    count = max(int(values[-1]) + 1, 2)
    if count > MOST_CLASSES:
        raise InputError(f"label {values[-1]} of {basis[0].where}; allowed: 0 to {MOST_CLASSES - 1}")
    return tuple(str(k) for k in range(count)), {k: k for k in range(count)}


def _with_cuts(task: Task, seed: int) -> Task:
    """Cut each missing split from training: a tenth of the rows, and at least one of each class."""
    missing = tuple(split for split in SPLITS if split not in task.splits)
    train = task.splits["train"]
    splits = dict(task.splits)
    classes, counts = np.unique(train.labels, return_counts=True)
    size = max(round(CUT * len(train)), len(classes))
    if missing and counts.min() <= len(missing):
        rare = f" of label {task.labels[classes[counts.argmin()]]!r}" if task.labels else ""
        raise InputError(
            f"training of {task.name!r} has {counts.min()} rows{rare}: too few to cut "
            f"{' and '.join(missing)} from; needed: {len(missing) + 1} of each, or a file for each split"
        )
    for split in missing:
        drawn = stratified(splits["train"].labels, size, seed=seed, label=f"cut/{split}")
        splits[split] = splits["train"].take(drawn)
        splits["train"] = splits["train"].take(np.setdiff1d(np.arange(len(splits["train"])), drawn))
    return replace(task, splits={split: splits[split] for split in SPLITS if split in splits}, cut=missing)


def _from_hub(name: str, hub: Hub, seed: int) -> Task:
    import datasets  # only tasks of the hub need it, and it takes a second to import

    try:
        loaded = datasets.load_dataset(hub.dataset, hub.config)
    except (OSError, ValueError) as error:
        raise InputError(
            f"task {name!r} could not be loaded from the hub ({said(error)}); allowed without a network: "
            "made, a folder or a file of your own"
        ) from None
    raw = {}
    for split in hub.splits:
        data = loaded[hub.validation if split == "validation" else split]
        columns = [list(data[column]) for column in hub.text]
        labels = np.array(data["label"], dtype=np.int64)
        # Some sets mark rows without agreement by -1 (snli) or hold a pair with nothing on one side.
        good = [
            k for k in range(len(labels)) if labels[k] >= 0 and all(column[k].strip() for column in columns)
        ]
        texts = tuple(tuple(column[k] for k in good) for column in columns)
        raw[split] = Raw(
            f"{hub.dataset} {split}", texts, labels[good].tolist(), np.array(good, dtype=np.int64)
        )
    return _assemble(name, raw, tuple(loaded["train"].features["label"].names), seed)
