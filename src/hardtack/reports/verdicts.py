"""Verdicts: paired differences against the yardstick, who is best at what, and whether to believe it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hardtack.errors import InputError, nearest
from hardtack.reports.blocks import Cell, Finding, Table, table
from hardtack.reports.compare import Entry, compare_group
from hardtack.reports.models import Group, Model, Rate
from hardtack.reports.scorecard import counted, shifted
from hardtack.reports.text import byte_text, signed_text

LEVEL = 0.05  # of Holm's adjusted p values
CLEARLY = 0.9  # below this share of the yardstick's latency a model counts as faster
ALONE = "It is the only model here: there is nothing to compare it with."
MEASURES = (("accuracy_under_attack", "under attack"), ("clean_accuracy", "before the attack"))


class Difference(NamedTuple):
    """How far a model is above or below another on the same examples, in one measure."""

    model: int
    against: int
    measure: str
    mean: float
    low: float
    high: float
    verdict: str
    seeds: int
    holm_p: float | None  # None over several seeds, where the interval itself is over seeds and examples
    matching: bool | None  # None for one seed, which has no standard deviation
    deviation: float | None = None  # of the seeds' differences
    double_win: bool = False  # matching in both measures

    @property
    def firm(self) -> str:
        """Return the verdict, with the doubt that many comparisons leave."""
        if self.verdict != "no difference" and self.holm_p is not None and self.holm_p >= LEVEL:
            return f"{self.verdict}, but not after Holm's correction"
        return self.verdict


@dataclass(frozen=True)
class Compared:
    """The differences of one attacked group, or why there are none."""

    group: Group
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    def of(self, model: Model, measure: str) -> Difference | None:
        """Return a model's difference in one measure, over its seeds where there are several."""
        mine = [d for d in self.differences if d.model == model.number and d.measure == measure]
        return max(mine, key=lambda difference: difference.seeds, default=None)


def yardstick_of(models: Sequence[Model], name: str | None) -> Model:
    """Return the model that is called `name`; by default the first dense one, or else the first.

    Raises:
        InputError: when no model is called so.
    """
    if name is None:
        return next((model for model in models if model.dense), models[0])
    for model in models:
        if name in (model.label, *(entry.folder for entry in model.entries)):
            return model
    raise InputError(f"no model is called {name!r}{nearest(name, [model.label for model in models])}")


def compare_all(
    models: Sequence[Model], groups: Iterable[Group], yardstick: Model, *, seed: int
) -> list[Compared]:
    """Compare every model with the yardstick on each attacked group."""
    found = []
    for group in groups:
        if group.attack is not None and len({entry.also[-1] for entry in group.entries}) > 1:
            found.append(_compare(models, group, yardstick, seed))
    return found


def _compare(models: Sequence[Model], group: Group, yardstick: Model, seed: int) -> Compared:
    entries = [*yardstick.of(group), *(e for m in models if m is not yardstick for e in m.of(group))]
    labels = {model.number: model.label for model in models}
    whole = [entry for entry in entries if entry.outcomes]
    notes = [
        f"{labels[e.also[-1]]} has no outcomes under {group.attack} (row {e.row['id']}): "
        "its differences are not known"
        for e in entries
        if not e.outcomes
    ]
    if not any(entry.also[-1] == yardstick.number for entry in whole):
        return Compared(group, (), (*notes, f"{group.name}: the yardstick, {yardstick.label}, is not here"))
    numbers = {entry.run: entry.also[-1] for entry in whole}
    try:
        result = compare_group(whole, numbers, seed)
    except InputError as error:
        return Compared(group, (), (*notes, f"{group.name}: no paired differences, for {error}"))
    alone = (
        {e.also[-1] for e in whole} - {line["number"] for line in result["differences"]} - {yardstick.number}
    )
    notes += [
        f"{labels[n]} has no seed in common with {yardstick.label} under {group.attack}"
        for n in sorted(alone)
    ]
    return Compared(group, tuple(_differences(result, yardstick.number)), tuple(notes))


def _differences(result: dict, yardstick: int) -> list[Difference]:
    found = []
    for line in result["differences"]:
        if line["number"] == yardstick:
            continue
        for name, _ in MEASURES:
            one = line[name]
            size = (one["difference"], one["low"], one["high"], one["verdict"])
            found.append(Difference(line["number"], line["against"], name, *size, 1, one["holm_p"], None))
    for line in result["over_seeds"]:
        for name, _ in MEASURES:
            one = line[name]
            size = (one["mean"], one["low"], one["high"], one["verdict"])
            more = (line["seeds"], None, one["matching"], one["standard_deviation"], line["double_win"])
            found.append(Difference(line["numbers"][0], yardstick, name, *size, *more))
    return found


def difference_tables(models: Sequence[Model], compared: Iterable[Compared], yardstick: Model) -> list[Table]:
    """Return a table of differences for each attacked group: over seeds where there are several."""
    tables = []
    for one in compared:
        known = [(m, words, d) for m in models for name, words in MEASURES if (d := one.of(m, name))]
        rows = [
            (
                Cell(model.label, words),
                Cell(signed_text(found.mean, found.low, found.high), _deviation(found)),
                Cell(found.verdict, _doubt(model, found)),
                "-" if found.holm_p is None else f"{found.holm_p:.3g}",
                str(found.seeds),
            )
            for model, words, found in known
        ]
        if rows:
            caption = f"Each model minus {yardstick.label}, on the same examples: {one.group.name}"
            head = ("model", "difference [95%]", "verdict", "Holm p", "seeds")
            tables.append(table(caption, head, rows, right=(1, 3, 4)))
    return tables


def _deviation(found: Difference) -> str:
    return "" if found.deviation is None else f"standard deviation {found.deviation:.3f}"


def _doubt(model: Model, found: Difference) -> str:
    """Say what a verdict leaves open: Holm's correction for one seed, the yardstick's spread for several."""
    if found.matching is None:
        return found.firm.removeprefix(found.verdict).removeprefix(", ")
    if found.double_win and not model.dense:
        return "matching: a double win"
    return "matching" if found.matching else "not matching"


def findings(
    models: Sequence[Model],
    groups: Sequence[Group],
    compared: Sequence[Compared],
    yardstick: Model,
    *,
    seed: int,
) -> list[Finding]:
    """Say which model is best at what, and whether that is more than chance."""
    found = []
    by_group = {id(one.group): one for one in compared}
    homes = [group for group in groups if not shifted(group)]
    for group in homes:
        if group.attack is not None:
            found.append(_most_robust(models, group, by_group.get(id(group)), yardstick, seed))
    for group in homes:
        if group.attack is None:
            found.append(_most_accurate(models, group, yardstick, seed, len(homes) > 1))
    return [*filter(None, found), *_cheapest(models, yardstick)]


def _ranked(models: Iterable[Model], group: Group, name: str, seed: int) -> list[tuple[Model, Rate]]:
    rates = [(model, model.rate(group, name, seed=seed)) for model in models]
    known = [(model, rate) for model, rate in rates if rate is not None]
    return sorted(known, key=lambda pair: -pair[1].mean)


def _most_robust(
    models: Sequence[Model], group: Group, compared: Compared | None, yardstick: Model, seed: int
) -> Finding | None:
    """Name the most robust model; a winner is told apart from the yardstick and from the second."""
    ranked = _ranked(models, group, "accuracy_under_attack", seed)
    if not ranked:
        return None
    (best, rate), *rest = ranked
    question = f"Most robust under {group.attack} ({group.row.get('task')}, {group.row.get('split')})"
    if not rest:
        return Finding(question, f"{best.label} keeps {_sized(rate)}", ALONE)
    theirs = {model.number: one for model, one in ranked}.get(yardstick.number)
    parts, clear = [], True
    if best is yardstick:
        parts.append("No model holds up better than the yardstick.")
    elif theirs is not None:
        difference = compared.of(best, "accuracy_under_attack") if compared else None
        parts.append(f"{yardstick.label}, the yardstick, keeps {theirs.mean:.3f}.")
        parts.append(_against(difference))
        clear = difference is not None and difference.firm == "higher"
    second, other = rest[0]
    if second is not yardstick or best is yardstick:
        lead = _compare([second, best], group, second, seed).of(best, "accuracy_under_attack")
        parts.append(f"{second.label}, the second, keeps {other.mean:.3f}. {_against(lead)}")
        clear = clear and lead is not None and lead.firm == "higher"
    answer = f"{best.label} keeps" if clear else f"no clear winner; {best.label} is highest with"
    return Finding(question, f"{answer} {_sized(rate)}", " ".join(parts))


def _against(difference: Difference | None) -> str:
    if difference is None:
        return "Without paired outcomes the difference cannot be judged."
    size = signed_text(difference.mean, difference.low, difference.high)
    return f"Difference {size}: {difference.firm}."


def _most_accurate(
    models: Sequence[Model], group: Group, yardstick: Model, seed: int, many: bool
) -> Finding | None:
    ranked = _ranked(models, group, "clean_accuracy", seed)
    if not ranked:
        return None
    (best, rate), *rest = ranked
    question = f"Most accurate, no attack ({group.row.get('task')}, {group.row.get('split')})"
    answer = f"{best.label} is right on {_sized(rate)}"
    if not rest:
        return Finding(question, answer, ALONE)
    inside = [model for model, other in rest if other.high >= rate.low]
    if not inside:
        return Finding(question, answer, "Its interval lies above that of every other model.")
    answer = f"no clear winner; {best.label} is highest with {_sized(rate)}"
    return Finding(question, answer, f"The interval overlaps with that of {_named(inside)}.")


def _sized(rate: Rate) -> str:
    return f"{rate.mean:.3f} [{rate.low:.3f} to {rate.high:.3f}] of {rate.examples:,} examples"


def _named(models: Sequence[Model]) -> str:
    """Name up to four models."""
    more = f" and {len(models) - 4} more" if len(models) > 4 else ""
    return ", ".join(model.label for model in models[:4]) + more


def _cheapest(models: Sequence[Model], yardstick: Model) -> list[Finding]:
    return [*_smallest(models), *_fastest(models, yardstick)]


def _smallest(models: Sequence[Model]) -> list[Finding]:
    kept = [(model, count) for model in models if (count := model.middle("parameters")) is not None]
    if len(kept) < 2:
        return []
    least = min(count for _, count in kept)
    best = [model for model, count in kept if count <= 1.001 * least]
    if len(best) == len(kept):
        return []
    size = best[0].middle("disk_bytes")
    detail = "" if size is None else f"{byte_text(size)} on disk. "
    detail += (
        "Zeros in an ordinary model folder take their place on disk, and those of single weights their time."
    )
    return [Finding("Fewest parameters kept", f"{_named(best)}: {counted(least)}", detail)]


def _fastest(models: Sequence[Model], yardstick: Model) -> list[Finding]:
    timed = [(m, moment) for m in models if (moment := m.middle("latency_ms", measured=True)) is not None]
    theirs = yardstick.middle("latency_ms", measured=True)
    if len(timed) < 2 or not theirs:
        return []
    best, moment = min(timed, key=lambda pair: pair[1])
    if moment >= CLEARLY * theirs:
        detail = (
            f"{yardstick.label}, the yardstick, takes {theirs:.1f} ms; less than 10% below it is scatter."
        )
        return [Finding("Fastest", "no model is clearly faster", detail)]
    if best.does(yardstick):
        detail = (
            f"From {moment:.1f} to {max(m for _, m in timed):.1f} ms a text, though {best.label} computes as "
        )
        detail += (
            f"much as {yardstick.label}, the yardstick: zeros in place save no time, a busy machine costs it."
        )
        return [Finding("Fastest", "latencies scatter: no model computes less", detail)]
    detail = f"{yardstick.label}, the yardstick, takes {theirs:.1f} ms. Medians of few runs on one machine."
    return [Finding("Fastest", f"{best.label}: {moment:.1f} ms a text", detail)]


def entries_without_outcomes(groups: Iterable[Group]) -> list[Entry]:
    """Return the attacked rows that no example stands behind."""
    return [e for group in groups if group.attack is not None for e in group.entries if not e.outcomes]
