"""Texts from a folder, a file or the hub become a task; a tokenizer and a model make an encoder."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

from hardtack.errors import InputError, nearest
from hardtack.tasks.made import made_task
from hardtack.tasks.task import Table, Task, stratified

SPLITS = ("train", "validation", "test")
TYPES = (".parquet", ".csv", ".tsv", ".jsonl")
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
    seed: int = 0,
) -> Task:
    """Load a task by its built-in name, or from a folder or file of one's own.

    A missing validation or test split is cut from training: a tenth of it, stratified, named in `Task.cut`.
    A folder without training data loads too; only asking it for training is an error.

    Args:
        name: "made" (the generated task), a name of the hub table, or a path: a folder with train, validation
            and test files, or one file, which is training data. A folder called sst2 is `./sst2`.
        text_column: the column of the texts, or two with a comma between; by default text, or else
            sentence1,sentence2.
        label_column: the column of the labels, whole numbers or names; by default label.
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
        files, names = _split_files(path), _label_names(path / "info.json")
    else:
        if path.suffix not in TYPES:
            raise InputError(
                f"{path} is of no known type; allowed: {', '.join(TYPES)}, or a folder of such files"
            )
        files, names = {"train": path}, _label_names(path.parent / "info.json")
    wanted = (tuple(text_column.split(",")) if text_column else None, label_column or "label")
    raw = {split: _read(file, *wanted) for split, file in files.items()}
    task_name = path.resolve().name if path.is_dir() else path.stem
    return _assemble(task_name, raw, names, seed)


@dataclass(frozen=True)
class _Raw:
    """One split as it was read: `where` is the file, for messages."""

    where: str
    columns: tuple[tuple[str, ...], ...]
    labels: list[int] | list[str]
    rows: np.ndarray


def _split_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for split in SPLITS:
        found = [folder / f"{split}{suffix}" for suffix in TYPES if (folder / f"{split}{suffix}").is_file()]
        if len(found) > 1:
            raise InputError(
                f"{folder} has {found[0].name} and {found[1].name}; allowed: one file for each split"
            )
        if found:
            files[split] = found[0]
    if not files:
        raise InputError(f"{folder} has no split; needed: train, validation or test as {', '.join(TYPES)}")
    return files


def _label_names(info: Path) -> tuple[str, ...] | None:
    if not info.is_file():
        return None
    try:
        content = json.loads(info.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{info} is not JSON ({_line(error)})") from None
    names = content.get("label_names") if isinstance(content, dict) else None
    if not names:
        return None
    if (
        not isinstance(names, list)
        or not all(isinstance(n, str) for n in names)
        or len(set(names)) < len(names)
    ):
        raise InputError(f"label_names in {info} is {names!r}; allowed: a list of different names")
    return tuple(names)


def _read(file: Path, text_columns: tuple[str, ...] | None, label_column: str) -> _Raw:
    table = _table(file, text_columns or ("text", "sentence1", "sentence2"))
    if table.num_rows == 0:
        raise InputError(f"{file} is empty; at least 1 row is needed")
    names = table.column_names
    if text_columns is None:
        pair = "text" not in names and "sentence1" in names
        text_columns = ("sentence1", "sentence2") if pair else ("text",)
    if len(text_columns) > 2:
        raise InputError(f"{len(text_columns)} text columns ({', '.join(text_columns)}); allowed: 1 or 2")
    for column in text_columns:
        if names.count(column) != 1:
            hint = nearest(column, names)
            raise InputError(f"{file} has no text column {column!r} (name it with --text-column){hint}")
    if names.count(label_column) != 1:
        hint = nearest(label_column, names)
        raise InputError(f"{file} has no label column {label_column!r} (name it with --label-column){hint}")
    texts = tuple(_texts(table.column(column), column, file) for column in text_columns)
    labels = _labels(table.column(label_column), label_column, file)
    return _Raw(str(file), texts, labels, np.arange(len(labels)))


def _table(file: Path, text_columns: tuple[str, ...]) -> pa.Table:
    if file.stat().st_size == 0:
        raise InputError(f"{file} is empty; at least 1 row is needed")
    try:
        if file.suffix == ".parquet":
            # read through one handle: a folder of other splits beside it must not be taken for a data set
            with pa_parquet.ParquetFile(file) as parquet:
                return parquet.read()
        # In Arrow's own memory: one of its threads may let go of it last, and if Python's interpreter is
        # ending by then, memory of Python's aborts the process (exit status 134 after a refused command).
        with pa.OSFile(str(file)) as stream:
            held = stream.read_buffer()
        content = held.to_pybytes()
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise InputError(
                f"{file} is not UTF-8 at line {line} (byte {content[error.start]:#04x})"
            ) from None
        if file.suffix == ".jsonl":
            # one block: pyarrow refuses a line that crosses two of them
            block = pa_json.ReadOptions(block_size=min(len(content) + 1, 2**31 - 1))
            return pa_json.read_json(pa.BufferReader(held), read_options=block)
        # A .tsv has no quoting: in it a lone quotation mark would swallow the lines up to the next one.
        parse = pa_csv.ParseOptions(
            delimiter="\t" if file.suffix == ".tsv" else ",",
            quote_char=False if file.suffix == ".tsv" else '"',
            newlines_in_values=file.suffix == ".csv",
        )
        convert = pa_csv.ConvertOptions(column_types={column: pa.string() for column in text_columns})
        return pa_csv.read_csv(pa.BufferReader(held), parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} cannot be read as {file.suffix[1:]}: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _texts(column: pa.ChunkedArray, name: str, file: Path) -> tuple[str, ...]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InputError(f"text column {name!r} of {file} holds {column.type}; allowed: strings")
    try:
        texts = column.to_pylist()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} has broken UTF-8 in column {name!r} ({error.reason})") from None
    for row, text in enumerate(texts):
        if text is None or not text.strip():
            raise InputError(f"empty text in column {name!r}, row {row} of {file}; every row needs a text")
    return tuple(texts)


def _labels(column: pa.ChunkedArray, name: str, file: Path) -> list[int] | list[str]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_struct(kind):
        raise InputError(
            f"labels in column {name!r} of {file} are lists; allowed: one whole number or name a row "
            "(multi-label and token classification are not supported)"
        )
    values = column.to_pylist()
    missing = [row for row, value in enumerate(values) if value is None or value == ""]
    if missing:
        raise InputError(
            f"label missing in column {name!r}, row {missing[0]} of {file}; {len(missing)} rows have none"
        )
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        raise InputError(
            f"labels in column {name!r} of {file} are fractions ({values[0]}); allowed: whole numbers or "
            "names (regression is not supported)"
        )
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return [int(value) for value in values]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values
    raise InputError(f"labels in column {name!r} of {file} are {kind}; allowed: whole numbers or names")


def _assemble(name: str, raw: Mapping[str, _Raw], names: tuple[str, ...] | None, seed: int) -> Task:
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
        for row, value in zip(rows.rows, rows.labels, strict=True):
            if value not in numbers:
                train = "; unseen in training" if "train" in raw and split != "train" else ""
                allowed = ", ".join(str(known) for known in numbers)
                raise InputError(f"label {value!r} in row {row} of {rows.where}{train}; allowed: {allowed}")
            labels.append(numbers[value])
        splits[split] = Table(rows.columns, np.array(labels, dtype=np.int64), rows.rows)
    task = Task(name, names, splits)  # checked before anything is cut from it
    return _with_cuts(task, seed) if "train" in splits else task


def _number(
    raw: Mapping[str, _Raw], names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Return label names, and label value -> class number; training alone fixes them where there is any."""
    kinds = {type(value) for split in raw.values() for value in split.labels[:1]}
    if len(kinds) > 1:
        raise InputError(
            f"labels of {', '.join(s.where for s in raw.values())} are numbers and names; allowed: one kind"
        )
    basis = [raw["train"]] if "train" in raw else list(raw.values())
    values = sorted({value for split in basis for value in split.labels})
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
        rare = task.labels[classes[counts.argmin()]]
        raise InputError(
            f"training of {task.name!r} has {counts.min()} rows of label {rare!r}: too few to cut "
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
            f"task {name!r} could not be loaded from the hub ({_line(error)}); allowed without a network: "
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
        raw[split] = _Raw(
            f"{hub.dataset} {split}", texts, labels[good].tolist(), np.array(good, dtype=np.int64)
        )
    return _assemble(name, raw, tuple(loaded["train"].features["label"].names), seed)
