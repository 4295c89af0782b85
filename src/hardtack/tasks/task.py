"""A task is what the data mean: texts, labels, splits and the metric, fixed before any model is seen.

Everything random here is a function of a seed and a label, so that two models of one comparison read the same
examples in the same order and an interrupted run can go on at any step.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor

from hardtack.errors import InputError
from hardtack.runs import generator

POOL = 32  # batches that are sorted by length together: enough to save padding, few enough to stay random

Encode = Callable[[Sequence[tuple[str, ...]]], Sequence[Mapping[str, Sequence[int]]]]


class Batch(NamedTuple):
    """What a model is given at one step: `inputs` for its forward, and the labels apart from them.

    `ids` are positions in the split's table, so that `out[batch.ids] = logits` puts rows back in order.
    `extra` holds further columns of the same length (a bias model's logits, a teacher's), or nothing.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    ids: Tensor
    extra: dict[str, Tensor]


class Example(NamedTuple):
    """One raw example, as an attack sees it: its name, its one or two texts and its label."""

    id: str
    text: tuple[str, ...]
    label: int


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(dim=1) == labels).double().mean().item()


def _perplexity(surprise: Tensor, labels: Tensor) -> float:
    nats, tokens = surprise.double().sum(dim=0).tolist()
    if not tokens:
        raise InputError("perplexity of texts of one token; a token after the first is needed")
    return math.exp(min(nats / tokens, 700.0))  # a larger one is no float


@dataclass(frozen=True)
class Metric:
    """A metric turns a model's answers and labels into one number and knows its range and direction.

    Accuracy is the fraction of rows of logits [n, C] whose largest entry, the first of equals, is the label
    [n]. Perplexity is e to the mean nats of a token, over all tokens of all texts but each text's first one,
    which follows nothing: from nats and tokens of each text, [n, 2].
    """

    name: str = "accuracy"
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    compute: Callable[[Tensor, Tensor], float] = _accuracy

    def __call__(self, answers: Tensor, labels: Tensor) -> float:
        """Return the metric of answers, a row for each example, and labels [n]."""
        if len(labels) == 0:
            raise InputError(f"{self.name} of no examples: at least 1 is needed")
        return self.compute(answers, labels)

    def better(self, one: float, other: float) -> bool:
        """Say whether one value is better than another, in this metric's direction."""
        return one > other if self.higher_is_better else one < other


ACCURACY = Metric()
PERPLEXITY = Metric("perplexity", 1.0, math.inf, False, _perplexity)


@dataclass(frozen=True, eq=False)
class Table:
    """A table is one split: its text columns, its labels as class numbers, and where each row came from.

    Args:
        columns: one tuple of texts per text column (one column, or two for sentence pairs), each of length n.
        labels: int64 [n], positions in the task's label names.
        rows: int64 [n], row numbers in the file that the row was read from; they name the examples.
        groups: further columns of length n (a sub-case, a source) by which accuracy may be broken down.
    """

    columns: tuple[tuple[str, ...], ...]
    labels: np.ndarray
    rows: np.ndarray
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Sequence[tuple[str, ...]], labels: Sequence[int]) -> "Table":
        """Make a table from rows of texts, numbered from 0."""
        return cls(
            tuple(zip(*texts, strict=True)),
            np.asarray(labels, dtype=np.int64),
            np.arange(len(labels), dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The texts row by row."""
        return list(zip(*self.columns, strict=True))

    def take(self, positions: np.ndarray) -> "Table":
        """Return the rows at these positions, in this order, still under their original row numbers."""
        columns = tuple(tuple(column[i] for i in positions) for column in self.columns)
        groups = {name: tuple(column[i] for i in positions) for name, column in self.groups.items()}
        return Table(columns, self.labels[positions], self.rows[positions], groups)


def allocate(counts: np.ndarray, n: int) -> np.ndarray:
    """Share `n` out in proportion to `counts`: exact sum, largest remainders first.

    Every class gets at least one where n allows it.

    Args:
        counts: int64 [C], what each class has.
        n: at most the sum of the counts.
    """
    share = counts * n / counts.sum()
    taken = np.floor(share).astype(np.int64)
    taken = np.maximum(taken, (counts > 0) & (n >= (counts > 0).sum()))
    order = np.lexsort(
        (np.arange(len(counts)), taken - share)
    )  # furthest below its share first, then by position
    while taken.sum() < n:
        for k in order:
            if taken.sum() < n and taken[k] < counts[k]:
                taken[k] += 1
    while (
        taken.sum() > n
    ):  # the guaranteed one of a rare class is paid for by the class furthest above its share
        taken[np.argmax(np.where(taken > 1, taken - share, -np.inf))] -= 1
    return taken


def stratified(labels: np.ndarray, n: int, *, seed: int, label: str) -> np.ndarray:
    """Draw n distinct positions, every class in proportion, as a function of the seed; sorted by position."""
    classes, counts = np.unique(labels, return_counts=True)
    chosen = []
    for value, count in zip(classes, allocate(counts, n), strict=True):
        members = np.flatnonzero(labels == value)
        order = torch.randperm(len(members), generator=generator(seed, f"{label}/{value}")).numpy()
        chosen.append(members[order[:count]])
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True, eq=False)
class Task:
    """A task names its labels, holds its splits and says how it is scored; it knows no model.

    Args:
        name: what the user typed, shortened to a name.
        labels: the class names; a class number is a position in this tuple. A task of texts alone, for
            language models, has none, and its tables' labels are all 0.
        splits: some of "train", "validation" and "test".
        metric: how predictions are scored.
        cut: names of the splits that were cut from training because the data had none.
    """

    name: str
    labels: tuple[str, ...]
    splits: Mapping[str, Table]
    metric: Metric = field(default_factory=Metric)
    cut: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, table in self.splits.items():
            if len(table) == 0:
                raise InputError(
                    f"split {split!r} of task {self.name!r} is empty; at least 1 example is needed"
                )
            if not self.labels:
                continue
            low, high = int(table.labels.min()), int(table.labels.max())
            if low < 0 or high >= len(self.labels):
                raise InputError(
                    f"label {low if low < 0 else high} in split {split!r} of task {self.name!r}; "
                    f"allowed: 0 to {len(self.labels) - 1} ({', '.join(self.labels)})"
                )
        if "train" not in self.splits or not self.labels:
            return
        known = np.unique(self.splits["train"].labels)
        if len(known) < 2:
            raise InputError(
                f"task {self.name!r} has only one class in training ({self.labels[known[0]]!r}); "
                "at least 2 are needed"
            )
        for split, table in self.splits.items():
            unseen = np.setdiff1d(table.labels, known)
            if len(unseen):
                raise InputError(
                    f"label {self.labels[unseen[0]]!r} in split {split!r} of task {self.name!r} is unseen in "
                    f"training; allowed: {', '.join(self.labels[k] for k in known)}"
                )

    def table(self, split: str) -> Table:
        """Return a split, or says in one line which splits there are."""
        if split in self.splits:
            return self.splits[split]
        there = ", ".join(self.splits)
        if split == "train":
            raise InputError(f"task {self.name!r} has no training data; splits it has: {there}")
        raise InputError(f"task {self.name!r} has no split {split!r}; splits it has: {there}")

    def examples(self, split: str, n: int | None = None, seed: int = 0) -> list[Example]:
        """Draw at most n raw examples, stratified by label and distinct; the same ones for every model.

        Args:
            split: the split's name.
            n: how many; None, or as many as there are or more, gives all of them. Always in file order.
            seed: chooses the draw.
        """
        table = self.table(split)
        if n is not None and n < 1:
            raise InputError(f"{n} examples asked for; allowed: 1 or more")
        if n is not None and n < len(table):
            table = table.take(stratified(table.labels, n, seed=seed, label=f"examples/{split}"))
        return [
            Example(f"{split}-{row}", text, int(label))
            for row, text, label in zip(table.rows, table.texts, table.labels, strict=True)
        ]

    def batches(self, split: str, encode: Encode, size: int, seed: int = 0) -> "Batches":
        """Encode a split with one call of the tokenizer and returns its batches."""
        return Batches(self.table(split), encode, size=size, seed=seed)

    def limited(self, train_examples: int | None = None, min_words: int = 0, seed: int = 0) -> "Task":
        """Return the task with short rows left out of every split and a stratified draw of its training rows.

        Args:
            train_examples: how many training rows to keep; None keeps all. More than there are is an error.
            min_words: rows with fewer words (all their texts together) are left out of every split.
            seed: chooses the draw.
        """
        splits = dict(self.splits)
        if min_words > 0:
            for split, table in splits.items():
                long = [sum(len(text.split()) for text in texts) >= min_words for texts in table.texts]
                if not any(long):
                    raise InputError(
                        f"min_words {min_words} leaves nothing of split {split!r} of task {self.name!r}"
                    )
                splits[split] = table.take(np.flatnonzero(long))
        if train_examples is not None:
            self.table("train")
            classes, there = len(np.unique(splits["train"].labels)), len(splits["train"])
            if not classes <= train_examples <= there:
                raise InputError(
                    f"train_examples {train_examples} of task {self.name!r}; allowed: {classes} (one of each "
                    f"class) to {there}"
                )
            draw = stratified(splits["train"].labels, train_examples, seed=seed, label="train_examples")
            splits["train"] = splits["train"].take(draw)
        return replace(self, splits=splits)

    def fingerprint(self, split: str | None = None) -> str:
        """Return a content hash of label names, texts and labels: of one split, or of all of them."""
        names = sorted(self.splits) if split is None else [split]
        digest = xxhash.xxh3_128(json.dumps([list(self.labels), names]).encode())
        for name in names:
            table = self.table(name)
            digest.update(np.array([len(table.columns), len(table)], dtype="<i8").tobytes())
            for column in table.columns:
                encoded = [text.encode() for text in column]
                digest.update(np.array([len(text) for text in encoded], dtype="<i8").tobytes())
                digest.update(b"".join(encoded))
            digest.update(table.labels.astype("<i8").tobytes())
        return digest.hexdigest()


class Batches:
    """Batches are a split cut into steps: shuffled, of similar lengths, any step found without replaying.

    An epoch is a permutation drawn from (seed, epoch). Its rows are sorted by length inside pools of 32
    batches, cut into batches, and the batches are shuffled. When the size does not divide the rows there is
    one short batch; it takes the last rows of the permutation before sorting, lest it be the longest texts.

    Args:
        table: the split.
        encode: rows of texts -> a dict of token lists per row; its `pad_id` (else 0) pads input_ids.
        size: rows in a batch.
        seed: chooses the order.
    """

    def __init__(self, table: Table, encode: Encode, *, size: int, seed: int = 0) -> None:
        if size < 1:
            raise InputError(f"batch size {size}; allowed: 1 or more")
        encoded = encode(table.texts)
        self.examples, self.size, self.seed = len(table), size, seed
        self._labels = torch.from_numpy(table.labels.astype(np.int64))
        self._pads = {key: getattr(encode, "pad_id", 0) if key == "input_ids" else 0 for key in encoded[0]}
        self._lengths = np.array([len(row["input_ids"]) for row in encoded], dtype=np.int64)
        self._starts = np.concatenate(([0], np.cumsum(self._lengths)[:-1]))
        total = int(self._lengths.sum())
        # Ragged rows lie end to end: 4 bytes a token and key, however long the longest text is.
        self._flat = {
            key: np.fromiter((token for row in encoded for token in row[key]), dtype=np.int32, count=total)
            for key in self._pads
        }
        self._extra: dict[str, Tensor] = {}
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    def __len__(self) -> int:
        return -(-self.examples // self.size)

    def beside(self, **columns: Tensor) -> "Batches":
        """Return the same batches with further columns in `extra`, each [examples, ...] in row order."""
        found = copy.copy(self)
        found._extra = {**self._extra, **columns}
        return found

    def at(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0 over all epochs: epoch = step // len(self)."""
        if step < 0:
            raise ValueError(f"step {step}; allowed: 0 or more")
        epoch, index = divmod(step, len(self))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return self._collate(self._epoch[1][index])

    def in_order(self, size: int | None = None, *, only: np.ndarray | None = None) -> Iterator[Batch]:
        """Yield every row once, longest first, for evaluation; `ids` tell who is who.

        Args:
            size: rows in a batch, by default the training batch's.
            only: positions of the rows to yield, by default all.
        """
        rows = np.arange(self.examples) if only is None else only
        order = rows[np.argsort(-self._lengths[rows], kind="stable")]
        for start in range(0, len(order), size or self.size):
            yield self._collate(order[start : start + (size or self.size)])

    def drawn(self, n: int, seed: int) -> np.ndarray:
        """Return the positions of n rows, stratified by label and distinct; all if there are not more."""
        if n >= self.examples:
            return np.arange(self.examples)
        return stratified(self._labels.numpy(), n, seed=seed, label="drawn")

    def _order(self, epoch: int) -> list[np.ndarray]:
        rng = generator(self.seed, "order", epoch)
        rows = torch.randperm(self.examples, generator=rng).numpy()
        whole = self.examples - self.examples % self.size
        batches = [rows[whole:]] if whole < self.examples else []
        for start in range(0, whole, self.size * POOL):
            pool = rows[start : min(start + self.size * POOL, whole)]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self.size)
        return [batches[i] for i in torch.randperm(len(batches), generator=rng).tolist()]

    def _collate(self, rows: np.ndarray) -> Batch:
        lengths = self._lengths[rows]
        columns = np.arange(lengths.max())  # [width]
        filled = columns < lengths[:, None]  # [batch, width]
        sources = (self._starts[rows][:, None] + columns)[filled]  # [tokens of the batch], row by row
        inputs = {}
        for key, flat in self._flat.items():
            padded = np.full(filled.shape, self._pads[key], dtype=np.int64)
            padded[filled] = flat[sources]
            inputs[key] = torch.from_numpy(padded)
        ids = torch.from_numpy(rows.astype(np.int64))
        extra = {name: column[ids] for name, column in self._extra.items()}
        return Batch(inputs, self._labels[ids], ids, extra)
