"""What a model is worth on other data: merging its classes into another set's labels, and calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hardtack.errors import InputError, nearest

BINS = 15
"""Bins of the expected calibration error, of equal width, as in Guo et al. 2017."""

How = Literal["argmax", "sum"]

# Classes of inference tasks -> the two labels of HANS and of RTE, whose names differ in spelling alone.
_NLI: tuple[Mapping[str, tuple[str, ...]], ...] = tuple(
    {"entailment": ("entailment",), no: others}
    for no, others in (
        ("non-entailment", ("neutral", "contradiction")),
        ("not_entailment", ("neutral", "contradiction")),
        ("non-entailment", ("not_entailment",)),
        ("not_entailment", ("non-entailment",)),
    )
)


@dataclass(frozen=True)
class LabelMap:
    """Says which of a model's classes stand for each label of another set.

    Attributes:
        groups: label of the other set -> the model's classes that mean it; each class in exactly one group.
        how: "argmax" takes the model's best class and then merges it; "sum" adds the probabilities of each
            group first (the two differ where one group has several classes: McCoy et al. 2019 merge after
            the argmax).
    """

    groups: Mapping[str, tuple[str, ...]]
    how: How = "argmax"

    @classmethod
    def parse(cls, text: str, how: How = "argmax") -> "LabelMap":
        """Read "entailment=entailment,non-entailment=neutral+contradiction"."""
        groups: dict[str, tuple[str, ...]] = {}
        for part in text.split(","):
            label, equals, classes = part.partition("=")
            names = tuple(name.strip() for name in classes.split("+"))
            if not equals or not label.strip() or not all(names):
                raise InputError(
                    f"label map {part!r}; allowed: LABEL=CLASS or LABEL=CLASS+CLASS, with commas"
                )
            if label.strip() in groups:
                raise InputError(
                    f"label map {text!r} names {label.strip()!r} twice; allowed: each label once"
                )
            groups[label.strip()] = names
        return cls(groups, how)

    def __post_init__(self) -> None:
        if self.how not in ("argmax", "sum"):
            raise InputError(
                f"label map by {self.how!r} does not exist{nearest(self.how, ('argmax', 'sum'))}"
            )
        classes = [name for names in self.groups.values() for name in names]
        if twice := sorted({name for name in classes if classes.count(name) > 1}):
            raise InputError(f"label map gives class {twice[0]!r} to two labels; allowed: one")

    def columns(self, classes: Sequence[str], labels: Sequence[str]) -> list[list[int]]:
        """Return, for each of the other set's labels, the numbers of the model's classes.

        Raises:
            InputError: when the map leaves out a class or a label, or names one that does not exist.
        """
        for name in self.groups:
            if name not in labels:
                raise InputError(f"label map names the label {name!r}{nearest(name, labels)}")
        named = [name for names in self.groups.values() for name in names]
        for name in named:
            if name not in classes:
                raise InputError(f"label map names the class {name!r}{nearest(name, classes)}")
        if left := [name for name in (*labels, *classes) if name not in self.groups and name not in named]:
            raise InputError(f"label map leaves out {left[0]!r}; allowed: every label and every class once")
        return [[classes.index(name) for name in self.groups[label]] for label in labels]

    def merged(self, logits: Tensor, columns: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return predictions [n] and probabilities [n, labels] in terms of the other set's labels.

        Probabilities of a group are summed either way; only the prediction depends on `how`.
        """
        shares = logits.double().softmax(1)
        summed = torch.stack([shares[:, list(group)].sum(1) for group in columns], 1)
        if self.how == "sum":
            return summed.argmax(1), summed
        label_of = torch.empty(logits.shape[1], dtype=torch.long)
        for label, group in enumerate(columns):
            label_of[list(group)] = label
        return label_of[logits.argmax(1)], summed


def choose_map(
    classes: Sequence[str], labels: Sequence[str], given: Sequence[LabelMap] = (), how: How = "argmax"
) -> LabelMap | None:
    """Return the map from a model's classes to another set's labels; None where they are the same.

    The first given map that names exactly these labels; else equal names in another order; else the known
    ones of inference tasks: entailment, neutral and contradiction to HANS's or RTE's two labels, and these
    two to each other.

    Raises:
        InputError: when nobody says which classes stand for which label.
    """
    for one in given:
        if set(one.groups) == set(labels):
            one.columns(classes, labels)  # refused here, before anything is measured
            return one
    if tuple(classes) == tuple(labels):
        return None
    if sorted(classes) == sorted(labels):
        return LabelMap({label: (label,) for label in labels}, how)
    for groups in _NLI:
        if set(groups) == set(labels) and sorted(sum(groups.values(), ())) == sorted(classes):
            return LabelMap(groups, how)
    raise InputError(
        f"no label map from the classes {', '.join(classes)} to the labels {', '.join(labels)}; "
        f"allowed: equal names, or a map such as {labels[0]}={classes[0]},{labels[-1]}={classes[-1]}"
    )


def calibration_error(probabilities: Tensor, labels: Tensor, predictions: Tensor | None = None) -> float:
    """Return the expected calibration error: |accuracy - confidence| over bins of confidence, weighted.

    Args:
        probabilities: [n, C], rows that sum to 1.
        labels: [n].
        predictions: [n]; the most probable class by default.

    Source: Guo et al. 2017, eq. 3, with 15 bins (lower edge excluded, upper included).
    """
    predictions = probabilities.argmax(1) if predictions is None else predictions
    confidence = probabilities.gather(1, predictions[:, None])[:, 0].double()
    right = (predictions == labels).double()
    bins = (confidence * BINS).ceil().clamp(1, BINS).long() - 1
    gap = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, right - confidence)
    return float(gap.abs().sum() / len(labels))


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Return the Brier score: the mean squared distance to the one-hot label, from 0 (best) to 2."""
    hot = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return float((probabilities.double() - hot).square().sum(1).mean())


def accuracy_by(groups: Sequence[str], right: Tensor) -> dict[str, dict[str, float]]:
    """Return the examples and the accuracy of each group (a sub-case, a source), in the order of names.

    Args:
        groups: one name per example.
        right: bool [n].
    """
    if len(groups) != len(right):
        raise InputError(f"{len(groups)} group names for {len(right)} examples; allowed: one each")
    found = {}
    for name in sorted(set(groups)):
        mine = right[torch.tensor([group == name for group in groups])]
        found[name] = {"examples": len(mine), "accuracy": float(mine.double().mean())}
    return found
