"""One split of a task as a file holds it: parquet, CSV, TSV, JSON lines or text, checked as it is read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

from hardtack.errors import InputError, nearest

SPLITS = ("train", "validation", "test")
TYPES = (".parquet", ".csv", ".tsv", ".jsonl", ".txt")


@dataclass(frozen=True)
class Raw:
    """One split as it was read: `where` is the file, for messages; `groups` are the further columns kept.

    `labels` is None where the file holds texts alone.
    """

    where: str
    columns: tuple[tuple[str, ...], ...]
    labels: list[int] | list[str] | None
    rows: np.ndarray
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def said(error: Exception) -> str:
    """Return what a library's error says, in one line."""
    return " ".join(str(error).split())[:200]


def split_files(folder: Path) -> dict[str, Path]:
    """Return split name -> file of a folder; two files for one split are refused, and no split at all."""
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


def label_names(info: Path) -> tuple[str, ...] | None:
    """Return the label names in an info.json; None where there is no such file or it names none."""
    if not info.is_file():
        return None
    try:
        content = json.loads(info.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{info} is not JSON ({said(error)})") from None
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


def read(
    file: Path, text_columns: tuple[str, ...] | None, label_column: str | None, *, keep: Sequence[str] = ()
) -> Raw:
    """Read one split and check every value of it.

    A file whose only column holds its texts has no labels: its task is one for language models.

    Args:
        file: of one of TYPES.
        text_columns: one or two; by default text, or else sentence1 and sentence2.
        label_column: whole numbers or names; by default label.
        keep: further columns to keep as text where the file has them.
    """
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
    texts = tuple(_texts(table.column(column), column, file) for column in text_columns)
    if label_column is None and names == [*text_columns] and len(names) == 1:
        return Raw(str(file), texts, None, np.arange(len(texts[0])))
    label_column = label_column or "label"
    if names.count(label_column) != 1:
        hint = nearest(label_column, names)
        raise InputError(f"{file} has no label column {label_column!r} (name it with --label-column){hint}")
    labels = _labels(table.column(label_column), label_column, file)
    groups = {name: tuple(map(str, table.column(name).to_pylist())) for name in keep if name in names}
    return Raw(str(file), texts, labels, np.arange(len(labels)), groups)


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
        if file.suffix == ".txt":
            lines = [line for line in content.decode("utf-8").split("\n") if line.strip()]
            return pa.table({text_columns[0]: pa.array(lines, pa.string())})
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
        raise InputError(f"{file} cannot be read as {file.suffix[1:]}: {said(error)}") from None


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
