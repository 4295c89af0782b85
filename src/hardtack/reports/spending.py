"""What making the models took: passes and seconds of every stage of a study, and how many times less."""

from collections.abc import Sequence
from statistics import mean, median

from hardtack.reports.blocks import Cell, Section, Table, Text, table
from hardtack.reports.folders import Row
from hardtack.reports.models import Model

HOW = (
    "A pass is one forward and backward of a batch; a search counts every pass until its rule stopped it, "
    "those it looked back on included. Seconds are this machine's, without looks at validation. What is "
    "saved is the ratio to the costliest model of the same seed: the median over seeds, the least and most. "
    "Of seconds only where one version of the program measured both."
)


def spending(models: Sequence[Model]) -> list[Section]:
    """Return the part of the page on what training took; nothing where no rows of a study say it."""
    known = [(model, _by_seed(model)) for model in models]
    known = [(model, seeds) for model, seeds in known if seeds]
    if not known:
        return []
    costliest, most = max(known, key=lambda one: mean(_sum(spent, "seconds") for spent in one[1].values()))
    theirs = _programs(costliest)
    rows = []
    for model, seeds in known:
        shared = [seed for seed in seeds if seed in most]
        mine = _programs(model)
        together = [seed for seed in shared if mine[seed] == theirs[seed]]
        rows.append(
            (
                model.label,
                _stages(list(seeds.values())),
                f"{mean(_sum(spent, 'passes') for spent in seeds.values()):,.0f}",
                f"{mean(_sum(spent, 'seconds') for spent in seeds.values()):,.0f}",
                *(_ratio([_sum(most[s], of) / _sum(seeds[s], of) for s in among if _sum(seeds[s], of)],
                         len(shared)) for of, among in (("passes", shared), ("seconds", together))),
            )
        )  # fmt: skip
    head = ("model", "stages", "passes", "seconds", "times fewer passes", "times faster")
    caption = f"What making a model took, as means over {len(most)} seeds"
    made: Table = table(caption, head, rows, right=(2, 3, 4, 5))
    return [Section("spending", "What training took", (Text(HOW), made))]


def _by_seed(model: Model) -> dict[object, list[Row]]:
    found: dict[object, list[Row]] = {}
    for entry in model.entries:
        if spent := entry.row["measured"].get("spent"):
            found.setdefault(entry.seed, spent)
    return found


def _programs(model: Model) -> dict[object, object]:
    """Return, for each seed, which versions and commit measured it."""
    return {entry.seed: entry.row["measured"].get("program") for entry in reversed(model.entries)}


def _sum(spent: Sequence[Row], what: str) -> float:
    return sum(one[what] for one in spent)


def _stages(seeds: Sequence[Sequence[Row]]) -> Cell:
    """Name the stages, with the mean passes and seconds of each beneath."""
    names = dict.fromkeys(one["stage"] for spent in seeds for one in spent)
    notes = []
    for name in names:
        parts = [one for spent in seeds for one in spent if one["stage"] == name]
        passes, seconds = (mean(part[what] for part in parts) for what in ("passes", "seconds"))
        notes.append(f"{name} {passes:,.0f} passes, {seconds:,.0f} s")
    return Cell(", ".join(names), "; ".join(notes))


def _ratio(values: Sequence[float], seeds: int) -> Cell | str:
    """Show the middle of some ratios, and of how many seeds, where that is not all of them."""
    if not values:
        return "-"
    middle = f"{median(values):.1f}"
    shown = middle if len(values) == 1 else f"{middle} [{min(values):.1f}, {max(values):.1f}]"
    return shown if len(values) == seeds else Cell(shown, f"{len(values)} of {seeds} seeds")
