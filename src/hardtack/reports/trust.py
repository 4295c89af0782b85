"""May these numbers be believed? The rules of the evaluation protocol, checked against what was found."""

from collections.abc import Iterable, Sequence

from hardtack.doubts import FEW
from hardtack.reports.blocks import Check
from hardtack.reports.compare import CLAIM_SEEDS, seed_note
from hardtack.reports.gather import Found
from hardtack.reports.models import Group, Model
from hardtack.reports.verdicts import Compared, entries_without_outcomes

PLAIN = frozenset(("magnitude", "iterative"))  # methods that know nothing of robustness


def checks(
    found: Found, models: Sequence[Model], groups: Sequence[Group], compared: Iterable[Compared]
) -> list[Check]:
    """Return reasons to believe the page, or to be careful, the gravest first within each kind."""
    results = [
        _seeds(models),
        *_examples(groups),
        *_paired(groups, compared),
        *_splits(groups),
        *_controls(models),
        _flags(groups),
        *_machines(models),
        *_finished(found),
    ]
    return sorted(results, key=lambda check: check.good)


def _seeds(models: Sequence[Model]) -> Check:
    fewest = min(len(model.seeds) for model in models)
    text = seed_note(fewest)
    if fewest < CLAIM_SEEDS:
        text += ". The intervals cover other examples, not another training run"
        text = text if fewest == 1 else text + ", of which these are too few"
    return Check(fewest >= CLAIM_SEEDS, "Seeds", f"{text}.")


def _examples(groups: Iterable[Group]) -> list[Check]:
    sizes = [group.row["examples"] for group in groups if group.attack is not None]
    if not sizes:
        return [
            Check(False, "Attacks", "No row was measured under attack: nothing here is about robustness.")
        ]
    n = min(sizes)
    sway = 100 / n**0.5
    least = " or more" if len(set(sizes)) > 1 else ""
    text = f"{n:,}{least} attacked examples: a rate near one half is sure to about {sway:.0f} points."
    return [Check(n >= FEW, "Examples", text)]


def _paired(groups: Iterable[Group], compared: Iterable[Compared]) -> list[Check]:
    if missing := entries_without_outcomes(groups):
        text = f"{len(missing)} attacked rows lack outcomes: whether they share their examples is not known."
        return [Check(False, "Same examples", text)]
    if not any(one.differences for one in compared):
        return []
    text = "Models of one seed were attacked on the same examples; differences are paired over them."
    return [Check(True, "Same examples", text)]


def _splits(groups: Iterable[Group]) -> list[Check]:
    found = []
    splits = dict.fromkeys(str(group.row.get("split")) for group in groups)
    if list(splits) != ["test"]:
        text = f"Read on {', '.join(splits)}: only a test split that no choice was made on supports a claim."
        found.append(Check(False, "Split", text))
    else:
        found.append(Check(True, "Split", "All rows are of the test split."))
    if any(group.row.get("cut") for group in groups):
        text = "A split was cut from training data (seeded, stratified), because the data came without it."
        found.append(Check(True, "Cut split", text))
    return found


def _controls(models: Sequence[Model]) -> list[Check]:
    """Check that each ticket stands beside a dense model, a random ticket and a plain one of its sparsity."""
    dense = [model for model in models if model.dense]
    tickets = [model for model in models if not model.dense]
    if not tickets:
        return []
    missing = []
    if not dense:
        missing.append("no dense model")
    for ticket in tickets:
        same = [m for m in tickets if _cut(m) == _cut(ticket)]
        methods = {m.row.get("method") for m in same}
        if ticket.row.get("method") == "random":
            continue
        if "random" not in methods:
            missing.append(f"no random ticket of the sparsity of {ticket.label}")
        if not methods & PLAIN:
            missing.append(f"no magnitude or iterative ticket of the sparsity of {ticket.label}")
        if dense and not any(_trained(m) == _trained(ticket) for m in dense):
            missing.append(f"no dense model with the training of {ticket.label}")
    missing = list(dict.fromkeys(missing))
    if not missing:
        text = "Each ticket stands beside a dense model of equal training, a random and a plain ticket alike."
        return [Check(True, "Controls", text)]
    text = "; ".join(missing[:4]) + (f"; and {len(missing) - 4} more" if len(missing) > 4 else "")
    return [Check(False, "Controls", f"Missing: {text}.")]


def _cut(model: Model) -> tuple[object, ...]:
    sparsity = model.row.get("sparsity")
    return (
        round(sparsity, 4) if isinstance(sparsity, float) else sparsity,
        str(model.row.get("granularity")),
    )


def _trained(model: Model) -> tuple[object, ...]:
    return (model.row.get("objective"), model.row.get("epochs"))


def _flags(groups: Iterable[Group]) -> Check:
    flags = [flag for group in groups for entry in group.entries for flag in set(entry.row["flags"])]
    if not flags:
        return Check(True, "Flags", "No row doubts itself.")
    counts = ", ".join(f"{flag} ({flags.count(flag)})" for flag in dict.fromkeys(sorted(flags)))
    return Check(False, "Flags", f"Rows with doubts: {counts}. What they mean stands below.")


def _machines(models: Iterable[Model]) -> list[Check]:
    found = []
    machines = {
        str(sorted(entry.row["measured"]["hardware"].items()))
        for model in models
        for entry in model.entries
        if isinstance(entry.row["measured"].get("hardware"), dict)
    }
    if len(machines) > 1:
        text = f"Latencies come from {len(machines)} machines or settings: do not compare them across those."
        found.append(Check(False, "Machines", text))
    lengths = {e.row.get("flops_tokens") for model in models for e in model.entries if not shifted_row(e.row)}
    if len(lengths - {None}) > 1:
        text = "FLOPs and latencies were measured on texts of different lengths."
        found.append(Check(False, "Lengths", text))
    return found


def shifted_row(row: dict) -> bool:
    """Say whether a row is about another task's data."""
    return row.get("shifted_from") is not None


def _finished(found: Found) -> list[Check]:
    open_ = [folder.name for folder in found.folders if not folder.done]
    if not open_:
        return []
    names = ", ".join(open_[:3]) + (" ..." if len(open_) > 3 else "")
    text = f"{len(open_)} of {len(found.folders)} runs are unfinished: {names}."
    return [Check(False, "Unfinished", text)]
