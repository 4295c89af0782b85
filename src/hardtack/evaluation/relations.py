"""Doubts that no row shows alone: an attack beside another one on the same examples of the same model."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hardtack.doubts import FLAGS
from hardtack.evaluation.attacks import ATTACKS

Row = Mapping[str, Any]

_SAME = ("model", "ticket", "data_fingerprint", "split", "examples", "seed", "max_length", "shifted_from")
RELATED = ("weaker-white-box", "radius-does-not-reach-zero")
"""The flags that these comparisons give and take; a row's others are its own."""
assert set(RELATED) <= set(FLAGS)


def related(rows: Iterable[Row]) -> dict[str, set[str]]:
    """Return, for each row of an attack by its id, the doubts that the rows beside it raise.

    Compared are only rows of one model on the same examples. A cascade is in no comparison: it is as strong
    as the strongest of its members by construction.

    - radius-does-not-reach-zero: a sweep of two radii and more whose largest leaves examples standing;
    - weaker-white-box: that largest radius leaves more standing than an attack that sees only outputs.
    """
    found: dict[str, set[str]] = {}
    beside: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["attack"] in ATTACKS and row["attack"] != "cascade":
            found[row["id"]] = set()
            beside[json.dumps([row[name] for name in _SAME])].append(row)
    for group in beside.values():
        seeing = [row["accuracy_under_attack"] for row in group if not _sees_gradients(row)]
        for sweep in _sweeps(group):
            if len(sweep) < 2:
                continue
            widest = sweep[-1]
            if widest["accuracy_under_attack"] > 0:
                found[widest["id"]].add("radius-does-not-reach-zero")
            if seeing and widest["accuracy_under_attack"] > min(seeing):
                found[widest["id"]].add("weaker-white-box")
    return found


def _sees_gradients(row: Row) -> bool:
    return getattr(ATTACKS[row["attack"]], "sees_gradients", False)


def _sweeps(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows that differ in their radius alone, each group from the smallest on."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        settings = row["attack_settings"]
        if "radii" in settings:
            rest = {name: value for name, value in settings.items() if name != "radii"}
            groups[json.dumps(rest, sort_keys=True)].append(row)
    return [sorted(group, key=lambda row: row["attack_settings"]["radii"]) for group in groups.values()]
