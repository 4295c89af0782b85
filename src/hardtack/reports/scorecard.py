"""The scorecard: what each model costs, how good it is, what it keeps under attack and on other data."""

from collections.abc import Iterable, Sequence

from hardtack.reports.blocks import Cell, Table, table
from hardtack.reports.compare import Entry
from hardtack.reports.models import Group, Model, Rate
from hardtack.reports.table import sparsity_text
from hardtack.reports.text import byte_text

THOUSANDS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def scorecard(models: Sequence[Model], groups: Sequence[Group], *, seed: int) -> list[Table]:
    """Return a table of costs, and one of accuracies for each task and split."""
    tables = [costs(models)]
    texts = [group for group in groups if any(_perplexity(entry) is not None for entry in group.entries)]
    rated = [group for group in groups if group not in texts and not shifted(group)]
    for home in dict.fromkeys(group.home for group in rated):
        tables.append(_accuracies(models, [group for group in rated if group.home == home], seed))
    return [*tables, _perplexities(models, texts)] if texts else tables


def _perplexity(entry: Entry) -> float | None:
    return entry.row.get("perplexity")


def _perplexities(models: Sequence[Model], groups: Sequence[Group]) -> Table:
    """Return the perplexity of each language model on each set of texts: the mean over its seeds."""
    rows = []
    for model in models:
        cells = [Cell(model.label)]
        for group in groups:
            found = [value for value in map(_perplexity, model.of(group)) if value is not None]
            ends = f"{min(found):.2f} to {max(found):.2f}, {len(found)} seeds" if len(found) > 1 else ""
            cells.append(Cell(f"{sum(found) / len(found):.2f}", ends) if found else Cell("-"))
        if any(model.of(group) for group in groups):
            rows.append(cells)
    head = ("model", *(f"{group.row.get('task')}, {group.row.get('split')}" for group in groups))
    caption = "Perplexity, lower is better: e to the mean nats of a token, and its range over seeds"
    return table(caption, head, rows, right=range(1, len(head)))


def shifted(group: Group) -> bool:
    """Say whether a group's data are another task's."""
    return group.row.get("shifted_from") is not None


def costs(models: Iterable[Model]) -> Table:
    """Return what each model is and costs."""
    rows = []
    for model in models:
        flops, latency = model.middle("flops"), model.middle("latency_ms", measured=True)
        size = model.middle("disk_bytes")
        tokens = model.row.get("flops_tokens")
        rows.append([
            Cell(model.label, ", ".join(_made(model))),
            _sparsity(model),
            counted(model.middle("parameters")),
            Cell(counted(flops), f"{tokens} tokens" if flops is not None and tokens else ""),
            "-" if size is None else byte_text(size),
            "-" if latency is None else f"{latency:.1f} ms",
            Cell(_seeds(model.seeds)),
        ])  # fmt: skip
    head = ("model", "sparsity", "parameters kept", "FLOPs", "on disk", "latency", "seeds")
    return table("What each model is and costs", head, rows, right=range(1, 6))


def _accuracies(models: Sequence[Model], groups: Sequence[Group], seed: int) -> Table:
    columns = sorted(groups, key=lambda group: group.attack is not None)  # clean first
    alone = [group.attack for group in columns]
    head, cells = ["model"], {model.number: [Cell(model.label)] for model in models}
    for group in columns:
        head.append(column_name(group, alone.count(group.attack) > 1))
        attacked = group.attack is not None
        if attacked:
            head.append("queries")
        for model in models:
            name = "accuracy_under_attack" if attacked else "clean_accuracy"
            cells[model.number].append(rate_cell(model.rate(group, name, seed=seed)))
            if attacked:
                asked = [
                    e.row["mean_queries"] for e in model.of(group) if e.row.get("mean_queries") is not None
                ]
                cells[model.number].append(Cell(f"{sum(asked) / len(asked):.1f}" if asked else "-"))
    head.append("flags")
    for model in models:
        raised = [flag for group in columns for entry in model.of(group) for flag in entry.row["flags"]]
        flags = tuple(dict.fromkeys(map(str, raised)))
        cells[model.number].append(Cell("" if flags else "none", links=flags))
    rows = [cells[model.number] for model in models if any(model.of(group) for group in columns)]
    row = columns[0].row
    where = f"task {row.get('task')}, split {row.get('split')}"
    where += " (cut from training, for the data had none)" if row.get("cut") else ""
    caption = f"Accuracy on {where}: share of examples that are right, with its 95% interval"
    return table(caption, head, rows, right=range(1, len(head) - 1))


def shifts(models: Sequence[Model], groups: Sequence[Group], *, seed: int) -> list[Table]:
    """Return a table for each set of other data: accuracy there, beside the accuracy at home."""
    tables = []
    for group in filter(shifted, groups):
        home = [
            g
            for g in groups
            if g.attack is None and not shifted(g) and g.row.get("task") == group.row["shifted_from"]
        ]
        extra = [
            name
            for name in ("calibration_error", "brier_score")
            if any(e.row.get(name) is not None for e in group.entries)
        ]
        rows = []
        for model in models:
            there = model.rate(group, "clean_accuracy", seed=seed)
            if there is None:
                continue
            here = model.rate(home[0], "clean_accuracy", seed=seed) if home else None
            change = "-" if here is None else f"{there.mean - here.mean:+.3f}"
            known = [e.row.get(name) for name in extra for e in model.of(group)[:1]]
            more = [f"{value:.3f}" if isinstance(value, int | float) else None for value in known]
            rows.append([model.label, rate_cell(there), rate_cell(here), change, *more])
        if not rows:  # texts alone: their perplexity stands on the scorecard
            continue
        head = ["model", f"on {group.row.get('task')}", f"on {group.row['shifted_from']}", "change"]
        head += [name.replace("_", " ") for name in extra]
        caption = (
            f"Accuracy on other data: {group.row.get('task')}, for models of {group.row['shifted_from']}"
        )
        tables.append(table(caption, head, rows, right=range(1, len(head))))
        tables += _cases(models, group)
    return tables


def _cases(models: Sequence[Model], group: Group) -> list[Table]:
    """Return, for each column that a set is broken down by, a table with a line a value, a column a model."""
    shown = [
        (model, entry.row["by"]) for model in models for entry in model.of(group)[:1] if entry.row.get("by")
    ]
    tables = []
    for column in dict.fromkeys(name for _, by in shown for name in by):
        mine = [(model, by[column]) for model, by in shown if column in by]
        values = list(dict.fromkeys(value for _, by in mine for value in by))
        head = [column, "examples", *(model.label for model, _ in mine)]
        rows = []
        for value in values:
            found = [by.get(value) for _, by in mine]
            size = next(one["examples"] for one in found if one)
            rows.append([value, f"{size:,}", *(f"{one['accuracy']:.3f}" if one else "-" for one in found)])
        caption = f"Accuracy on {group.row.get('task')} by {column}"
        tables.append(table(caption, head, rows, right=range(1, len(head))))
    return tables


def column_name(group: Group, with_examples: bool = False) -> str:
    """Name a group as a column of a table."""
    name = f"under {group.attack}" if group.attack else "clean"
    return (
        f"{name}, n = {group.row['examples']:,}" if with_examples or group.attack else f"{name}, whole split"
    )


def rate_cell(rate: Rate | None) -> Cell:
    """Write a rate with its interval below."""
    if rate is None:
        return Cell("-")
    over = f", {rate.seeds} seeds" if rate.seeds > 1 else ""
    return Cell(f"{rate.mean:.3f}", f"{rate.low:.3f} to {rate.high:.3f}{over}")


def counted(count: float | None) -> str:
    """Write a large count with three digits: 22713983 -> 22.7 M."""
    if count is None:
        return "-"
    for letter, size in THOUSANDS:
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:.3g}"


def _sparsity(model: Model) -> Cell:
    row = model.row
    if row.get("sparsity") is None:
        return Cell("0", "dense")
    kinds = row.get("granularity") or ["weight"]
    what = " and ".join(f"{kind}s" for kind in (kinds if isinstance(kinds, list) else [kinds]))
    of = f"of {counted(row['prunable'])} {what}" if row.get("prunable") else what
    return Cell(sparsity_text(row["sparsity"]), of)


def _made(model: Model) -> list[str]:
    row, parts = model.row, []
    if row.get("method") and row["method"] != model.label:
        parts.append(str(row["method"]))
    if model.found_with and model.found_with != "clean":
        parts.append(f"found with {model.found_with}")
    if row.get("objective"):
        epochs = f" for {row['epochs']:g} epochs" if isinstance(row.get("epochs"), int | float) else ""
        rule = f", {row['epoch_rule']} epoch" if row.get("epoch_rule") else ""
        parts.append(f"trained {row['objective']}{epochs}{rule}")
    return parts


def _seeds(seeds: Sequence[object]) -> str:
    return ", ".join(map(str, seeds)) if len(seeds) <= 8 else f"{len(seeds)} seeds"
