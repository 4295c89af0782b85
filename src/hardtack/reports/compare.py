"""Compares run folders: rows side by side with intervals, and paired differences against the first folder.

Two models are compared on the same attacked examples only: what differs between two models on one example is
far smaller than what differs between examples, and an unpaired interval would hide it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardtack.errors import InputError
from hardtack.reports.folders import Row, read_outcomes, read_rows
from hardtack.reports.table import interval_text, sparsity_text, wilson
from hardtack.reports.text import signed_text, table
from hardtack.stats import holm, matching, mcnemar, over_seeds, paired_difference, verdict

CLAIM_SEEDS = 5  # what the protocol asks for before anything is called a claim
GROUP = ("task", "split", "attack", "shifted_from")
MEASURES = {"clean_accuracy": ("held", "fell"), "accuracy_under_attack": ("held",)}  # and what counts as good
WHAT = (
    "method",
    "ticket_objective",
    "objective",
    "epochs",
    "epoch_rule",
    "granularity",
    "sparsity",
)  # equal in repeats over seeds
RUN = ("folder", *WHAT, "model", "ticket", "seed")
RATES = ("clean_accuracy", "accuracy_under_attack", "attack_success_rate", "mean_queries")
SHOWN = ("id", *WHAT, "model", "ticket", "seed", "examples", *RATES, "flags")


@dataclass(frozen=True)
class Entry:
    """One row, the folder it came from, and its outcomes by example id (empty for a clean row)."""

    folder: str
    row: Row
    outcomes: dict[str, Row]
    also: tuple[Any, ...] = ()
    """What tells this row's model from others whose rows say the same, where more than the row is known."""

    @property
    def group(self) -> tuple[Any, ...]:
        """Return what one table is about: task, split, attack and shift."""
        return tuple(self.row.get(name) for name in GROUP)

    @property
    def run(self) -> tuple[Any, ...]:
        """Return what was measured: the folder, and what its row says about the model."""
        return (self.folder, *(_hashable(self.row.get(name)) for name in RUN[1:]))

    @property
    def what(self) -> tuple[Any, ...]:
        """Return what repeats over seeds have in common."""
        known = (*(_hashable(self.row.get(name)) for name in WHAT), *self.also)
        return known if self.row.get("method") else (*known, self.row.get("model"))

    @property
    def seed(self) -> Any:
        """Return the seed by which rows are paired: the model's own, else the evaluation's."""
        trained = self.row.get("trained_seed")
        return self.row.get("seed") if trained is None else trained


def compare(folders: Sequence[Path], *, seed: int = 0) -> Row:
    """Put the rows of run folders side by side, one table for each (task, split, attack).

    Args:
        folders: folders with rows.jsonl; the first is the yardstick.
        seed: of the bootstrap.

    Raises:
        InputError: when there is nothing to compare, or rows of one table were not measured alike.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("one folder is named twice; allowed: different folders")
    entries = [
        entry
        for name, folder in zip(_names(folders), folders, strict=True)
        for entry in _entries(name, folder)
    ]
    first = entries[0].folder
    numbers = {run: number for number, run in enumerate(dict.fromkeys(e.run for e in entries), start=1)}
    groups = list(dict.fromkeys(entry.group for entry in entries))
    tables, alone = [], []
    for group in groups:
        for title, members in _ways([entry for entry in entries if entry.group == group], first):
            if len(members) > 1 and members[0].folder == first:
                tables.append({**compare_group(members, numbers, seed), "title": title})
            else:
                folders_ = ", ".join(dict.fromkeys(member.folder for member in members))
                alone.append(f"{title}: only in {folders_}")
    if not tables:
        raise InputError(
            f"nothing to compare: no task, split and attack of {first} has another row ({'; '.join(alone)})"
        )
    seeds = sorted({entry.seed for entry in entries}, key=str)
    models = dict.fromkeys(entry.what for entry in entries)
    fewest = min(len({entry.seed for entry in entries if entry.what == model}) for model in models)
    runs = [{"number": number, **dict(zip(RUN, run, strict=True))} for run, number in numbers.items()]
    return {
        "runs": runs,
        "tables": tables,
        "not_compared": alone,
        "seeds": seeds,
        "note": seed_note(fewest),
    }


def _ways(members: Sequence[Entry], first: str) -> list[tuple[str, list[Entry]]]:
    """Take rows of one group apart where the yardstick has several of it: of more than one radius, say.

    Where it did so in one way, all others have to have done it in the same.
    """
    title, keys = title_of(members[0].row), [_hashable(measured_alike(member.row)) for member in members]
    ways = list(
        dict.fromkeys(key for key, member in zip(keys, members, strict=True) if member.folder == first)
    )
    if len(ways) < 2:
        return [(title, list(members))]
    told = [json.loads(way) for way in ways]
    differing = [name for name in told[0] if any(way.get(name) != told[0][name] for way in told)]
    found: dict[str, list[Entry]] = {}
    for key, member in zip(keys, members, strict=True):
        found.setdefault(key, []).append(member)
    named = {
        key: ", ".join(
            f"{name.removeprefix('attack setting ')} {json.loads(key).get(name)}" for name in differing
        )
        for key in found
    }
    return [(f"{title}, {named[key]}", same) for key, same in found.items()]


def seed_note(seeds: int) -> str:
    """Say what so many seeds allow one to say."""
    if seeds >= CLAIM_SEEDS:
        return f"{seeds} seeds"
    return f"{seeds} seed{'s' if seeds > 1 else ''}: a look, no claim (a claim needs {CLAIM_SEEDS})"


def _names(folders: Sequence[Path]) -> list[str]:
    """Name folders by their last part, or in full where two would be named alike."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _entries(name: str, folder: Path) -> list[Entry]:
    outcomes = read_outcomes(folder)
    return [Entry(name, row, outcomes.get(row["id"], {})) for row in read_rows(folder)]


def compare_group(members: Sequence[Entry], numbers: Mapping[tuple[Any, ...], int], seed: int) -> Row:
    """Compare rows of one task, split and attack; the first is the yardstick.

    Args:
        members: the rows.
        numbers: of the runs, by `Entry.run`.
        seed: of the bootstrap.

    Raises:
        InputError: when they were not measured alike, or outcomes are missing.
    """
    _refuse_if_unlike(members)
    yardstick = members[0]
    by_seed: dict[Any, Entry] = {}
    for member in members:  # the yardstick's repeats with other seeds may lie in folders of their own
        if member.what == yardstick.what:
            by_seed.setdefault(member.seed, member)
    lines = [{"number": numbers[m.run], **_line(m)} for m in members]
    pairs = [
        (m, by_seed[m.seed], _numbered(m, by_seed[m.seed], numbers) | _difference(m, by_seed[m.seed], seed))
        for m in members
        if m.row.get("attack") and m.seed in by_seed and m is not by_seed[m.seed]
    ]
    tests = [line[name] for _, _, line in pairs for name in MEASURES]
    for test, adjusted in zip(tests, holm([test["mcnemar_p"] for test in tests]), strict=True):
        test["holm_p"] = adjusted
    return {
        **dict(zip(GROUP, yardstick.group, strict=True)),
        "title": title_of(yardstick.row),
        "examples": yardstick.row.get("examples"),
        "data_fingerprint": yardstick.row.get("data_fingerprint"),
        "attack_settings": yardstick.row.get("attack_settings"),
        "rows": lines,
        "differences": [difference for _, _, difference in pairs],
        "over_seeds": _over_seeds(pairs, seed),
        "without_pair": [f"{m.folder} seed {m.seed}" for m in members if m.seed not in by_seed],
    }


def _refuse_if_unlike(members: Sequence[Entry]) -> None:
    """Refuse rows that measured different things, naming the first difference."""
    first = members[0]
    wanted = measured_alike(first.row)
    for other in members[1:]:
        found = measured_alike(other.row)
        for name in wanted | found:
            if wanted.get(name) != found.get(name):
                raise InputError(
                    f"{first.folder} and {other.folder} cannot be compared on {title_of(first.row)}: {name} "
                    f"is {wanted.get(name)!r} and {found.get(name)!r}; allowed: rows measured alike"
                )
    with_outcomes: dict[Any, Entry] = {}
    for member in (m for m in members if m.row.get("attack")):
        if not member.outcomes:
            raise InputError(f"{member.folder} has no outcomes of row {member.row['id']}; evaluate it again")
        same_seed = with_outcomes.setdefault(member.seed, member)
        if same_seed.outcomes.keys() != member.outcomes.keys():
            odd = sorted(same_seed.outcomes.keys() ^ member.outcomes.keys())
            raise InputError(
                f"{same_seed.folder} and {member.folder} attacked different examples at seed {member.seed} "
                f"({len(odd)} are not shared, such as {odd[0]}); allowed: the same examples"
            )


def measured_alike(row: Row) -> Row:
    """Return what must be equal before two rows stand in one table."""
    settings = {f"attack setting {name}": value for name, value in (row.get("attack_settings") or {}).items()}
    settings.pop("attack setting seed", None)  # repeats over seeds stand in one table; pairs have one seed
    return {"data fingerprint": row.get("data_fingerprint"), "examples": row.get("examples"), **settings}


def _line(entry: Entry) -> Row:
    line: Row = {"folder": entry.folder, **{name: entry.row.get(name) for name in SHOWN}}
    for name in MEASURES:
        if (interval := wilson(entry.row, name)) is not None:
            line[f"{name}_low"], line[f"{name}_high"] = interval.low, interval.high
    return line


def _numbered(entry: Entry, yardstick: Entry, numbers: Mapping[tuple[Any, ...], int]) -> Row:
    return {"number": numbers[entry.run], "against": numbers[yardstick.run]}


def _good(entry: Entry, measure: str) -> np.ndarray:
    """Return 1 for each example that counts as good and 0 for the others, in the order of their ids."""
    return np.array([entry.outcomes[i]["status"] in MEASURES[measure] for i in sorted(entry.outcomes)], float)


def _difference(entry: Entry, yardstick: Entry, seed: int) -> Row:
    found: Row = {
        "folder": entry.folder,
        "id": entry.row["id"],
        "method": entry.row.get("method"),
        "seed": entry.seed,
    }
    found |= {"against_id": yardstick.row["id"], "examples": len(entry.outcomes)}
    for name in MEASURES:
        mine, theirs = _good(entry, name), _good(yardstick, name)
        interval = paired_difference(mine, theirs, seed=seed)
        found[name] = {
            "difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "verdict": verdict(interval),
            "mcnemar_p": mcnemar(mine, theirs),
        }
    return found


def _over_seeds(pairs: Iterable[tuple[Entry, Entry, Row]], seed: int) -> list[Row]:
    """Sum up what was measured with several seeds: interval over seeds and examples, and whether it matches.

    `matching` means at most one dense standard deviation below the yardstick's mean; a double win matches in
    both measures.
    """
    repeats: dict[tuple[Any, ...], list[tuple[Entry, Entry, Row]]] = {}
    for pair in pairs:
        repeats.setdefault(pair[0].what, []).append(pair)
    found = []
    for same in repeats.values():
        if len({entry.seed for entry, _, _ in same}) < 2:
            continue
        line: Row = {"numbers": [difference["number"] for _, _, difference in same], "seeds": len(same)}
        for name in MEASURES:
            mine = [_good(entry, name) for entry, _, _ in same]  # per seed, the same examples
            theirs = [_good(yardstick, name) for _, yardstick, _ in same]
            interval = over_seeds(mine, theirs, seed=seed)
            spread = [difference[name]["difference"] for _, _, difference in same]
            line[name] = {
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "standard_deviation": float(np.std(spread, ddof=1)),
                "verdict": verdict(interval),
                "matching": matching([x.mean() for x in mine], [x.mean() for x in theirs]),
            }
        line["double_win"] = all(line[name]["matching"] for name in MEASURES)
        found.append(line)
    return found


def _hashable(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def title_of(row: Row) -> str:
    """Name what a row measured: task, split, attack, shift."""
    parts = [
        str(row.get("task")),
        f"split {row.get('split')}",
        f"attack {row['attack']}" if row.get("attack") else "clean",
    ]
    if row.get("shifted_from"):
        parts.append(f"shifted from {row['shifted_from']}")
    return ", ".join(parts)


def compare_text(result: Row) -> str:
    """Render a comparison as plain tables."""
    blocks = [_runs_table(result["runs"])]
    for group in result["tables"]:
        blocks += [f"{group['title']}, {group['examples']} examples:", _rows_table(group)]
        if group["differences"]:
            blocks += [
                "differences, paired over the same examples:",
                _differences_table(group),
            ]
        for line in group["over_seeds"]:
            blocks.append(_seeds_text(line))
        if group["without_pair"]:
            blocks.append(f"no partner of the same seed: {', '.join(group['without_pair'])}")
    if result["not_compared"]:
        blocks.append("not compared: " + "; ".join(result["not_compared"]))
    return "\n\n".join([*blocks, result["note"]])


def _seeds_text(line: Row) -> str:
    """Say in one line what a comparison over several seeds found."""
    numbers = ", ".join(f"#{number}" for number in line["numbers"])
    parts = []
    for name, what in (("accuracy_under_attack", "under attack"), ("clean_accuracy", "clean")):
        one = line[name]
        size = signed_text(one["mean"], one["low"], one["high"])
        matches = "matching" if one["matching"] else "not matching"
        parts.append(f"{what} {size}, {one['verdict']}, {matches}")
    won = "; a double win" if line["double_win"] else ""
    return f"{numbers} over {line['seeds']} seeds, over seeds and examples: {'; '.join(parts)}{won}"


def _runs_table(runs: Iterable[Row]) -> str:
    head = ("#", "folder", "method", "found with", "trained with", "sparsity", "seed", "model")
    rows = [
        (
            r["number"],
            r["folder"],
            r["method"],
            r["ticket_objective"],
            r["objective"],
            sparsity_text(r["sparsity"]),
            r["seed"],
            r["model"],
        )
        for r in runs
    ]
    return table(head, rows, right=(0, 5, 6))


def _rows_table(group: Row) -> str:
    attacked = group["attack"] is not None
    rows = []
    for line in group["rows"]:
        cells = [line["number"], line["folder"], interval_text(line, "clean_accuracy")]
        if attacked:
            queries = line["mean_queries"]
            cells += [
                interval_text(line, "accuracy_under_attack"),
                None if queries is None else f"{queries:.1f}",
            ]
        rows.append(cells)
    head = ("#", "folder", "clean [95%]", *(("under attack [95%]", "queries") if attacked else ()))
    return table(head, rows, right=(0, 2, 3, 4))


def _differences_table(group: Row) -> str:
    head = ("pair", "folder", "measure", "difference [95%]", "verdict", "McNemar", "Holm")
    rows = []
    for line in group["differences"]:
        pair = f"{line['number']} - {line['against']}"
        for measure, name in (("under attack", "accuracy_under_attack"), ("clean", "clean_accuracy")):
            one = line[name]
            size = signed_text(one["difference"], one["low"], one["high"])
            p_values = (f"{one['mcnemar_p']:.3g}", f"{one['holm_p']:.3g}")
            rows.append((pair, line["folder"], measure, size, one["verdict"], *p_values))
    return table(head, rows, right=(3, 5, 6))
