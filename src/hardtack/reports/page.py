"""One page about runs: which model is best at what, whether that may be believed, and everything behind it.

The page is built once as plain blocks; HTML, Markdown and CSV are three ways to write it down. Nothing here
loads a model or torch, and equal folders give equal bytes: no date, no random name.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardtack.doubts import FLAGS
from hardtack.errors import InputError
from hardtack.reports import figures
from hardtack.reports.blocks import (
    Cell,
    Check,
    Checks,
    Commands,
    Figures,
    Findings,
    Items,
    Section,
    Table,
    Text,
    table,
)
from hardtack.reports.commands import commands
from hardtack.reports.compare import seed_note
from hardtack.reports.folders import Row
from hardtack.reports.gather import Found, gather
from hardtack.reports.lost import lost
from hardtack.reports.models import Group, Model, groups_of, models_of
from hardtack.reports.scorecard import scorecard, shifted, shifts
from hardtack.reports.sentences import attacked
from hardtack.reports.spending import spending
from hardtack.reports.trust import checks
from hardtack.reports.verdicts import compare_all, difference_tables, findings, yardstick_of

SENTENCES = 4
RATES = (
    ("clean accuracy", "share of the examples that are right without an attack"),
    ("accuracy under attack", "share of the attacked examples that are right before and after the attack"),
    ("held, fell, missed", "right before and after; right before, wrong after; wrong before the attack"),
    ("queries", "how often the attack asked the model, as a mean over the examples that it attacked"),
    ("sparsity", "the share that was removed of the units that could be removed"),
    (
        "interval",
        "of 100 such intervals 95 hold the true rate, over examples (and seeds, if several)",
    ),
    ("verdict", "higher or lower if the interval of the paired difference leaves out 0, else no difference"),
    ("Holm p", "exact McNemar p value, adjusted for the number of comparisons of its table"),
    ("matching", "at most one standard deviation of the yardstick's seeds below the yardstick's mean"),
    ("double win", "a ticket that matches the yardstick both before and under attack"),
)


@dataclass(frozen=True)
class Page:
    """A report as data.

    Attributes:
        title: the heading.
        lead: one sentence on what was read.
        sections: the parts, in order.
        models: the models, for CSV.
        groups: their rows side by side, for CSV.
        notes: what was odd about the input, a line each.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    models: tuple[Model, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]


def report(
    runs: Sequence[str | Path],
    *,
    out: str | Path,
    yardstick: str | None = None,
    sentences: int = SENTENCES,
    title: str | None = None,
    seed: int = 0,
) -> Row:
    """Write one self-contained page about runs: HTML, Markdown or CSV by the ending of `out`.

    Args:
        runs: run folders, or folders of run folders.
        out: the file: .html, .md or .csv.
        yardstick: the model that others are compared with, by its name on the page; by default the first
            dense one.
        sentences: attacked examples shown for each attack; 0 leaves texts out, for they may be private.
        title: the page's heading.
        seed: of the bootstrap and of the draw of sentences.

    Returns:
        The file that was written, its format and bytes, and how many models, rows and notes it tells of.
    """
    path = Path(out)
    write = {".html": _html, ".md": _markdown, ".csv": _csv}.get(path.suffix.lower())
    if write is None:
        raise InputError(f"--out {path} ends in {path.suffix or 'nothing'}; allowed: .html, .md, .csv")
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; allowed: a file")
    if sentences < 0 or seed < 0:
        raise InputError(f"sentences {sentences}, seed {seed}; allowed: 0 and more")
    places = [Path(run).expanduser() for run in runs]
    found = gather(places)
    page = build(found, yardstick=yardstick, sentences=sentences, title=title, seed=seed)
    content = write(page).encode("utf-8", errors="replace")  # a lone surrogate in a text is no reason to fail
    _replace(path, content)
    return {
        "out": str(path),
        "format": path.suffix.lower().removeprefix("."),
        "bytes": len(content),
        "runs": len(found.folders),
        "models": [model.label for model in page.models],
        "rows": len(found.entries),
        "notes": list(page.notes),
    }


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all (`runs.write_atomic` would load torch)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _html(page: Page) -> str:
    from hardtack.reports.html import html

    return html(page)


def _markdown(page: Page) -> str:
    from hardtack.reports.markdown import markdown

    return markdown(page)


def _csv(page: Page) -> str:
    from hardtack.reports.markdown import csv_text

    return csv_text(page)


def build(
    found: Found,
    *,
    yardstick: str | None = None,
    sentences: int = SENTENCES,
    title: str | None = None,
    seed: int = 0,
) -> Page:
    """Build the page from what was gathered."""
    notes = list(found.notes)
    models = models_of(found.entries, notes)
    groups = groups_of(models)
    sections = _measured(found, models, groups, yardstick, sentences, seed, notes) if models else [_nothing()]
    if tickets := figures.layers(found):
        left = len(found.tickets) - len(tickets)
        more = (
            (Text(f"{left} more tickets are not drawn; a report on fewer folders shows them."),)
            if left
            else ()
        )
        sections.append(Section("tickets", "Where the tickets are sparse", (Figures(tuple(tickets)), *more)))
    if gone := lost(found):
        sections.append(Section("lost", "What pruning lost", (Figures(tuple(gone)),)))
    if curves := [*figures.trajectories(found), *figures.settling(found)]:
        sections.append(Section("searches", "How the searches went", (Figures(tuple(curves)),)))
    sections += [_words(models), _origins(found, groups)]
    if notes:
        sections.append(Section("notes", "Odd things in the input", (Items(tuple(dict.fromkeys(notes))),)))
    tasks = (
        ", ".join(dict.fromkeys(str(group.home[0]) for group in groups if not shifted(group))) or "tickets"
    )
    parts = ((models, "model"), (found.entries, "row"), (found.folders, "run folder"))
    lead = f"{', '.join(_many(len(things), what) for things, what in parts)}."
    if models:
        lead += f" {seed_note(min(len(model.seeds) for model in models)).capitalize()}."
    heading = title or f"Robustness report: {tasks}"
    return Page(heading, lead, tuple(sections), tuple(models), tuple(groups), tuple(notes))


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _nothing() -> Section:
    check = Check(False, "Rows", "No row: nothing was evaluated, so this page says nothing about accuracy.")
    return Section("summary", "Summary", (Checks((check,)),))


def _measured(
    found: Found,
    models: Sequence[Model],
    groups: Sequence[Group],
    name: str | None,
    sentences: int,
    seed: int,
    notes: list[str],
) -> list[Section]:
    """Return the parts of the page that are about rows."""
    yardstick = yardstick_of(models, name)
    compared = compare_all(models, groups, yardstick, seed=seed)
    notes += [note for one in compared for note in one.notes]
    best = findings(models, groups, compared, yardstick, seed=seed)
    trust = checks(found, models, groups, compared)
    short = (Findings(tuple(best)), Checks(tuple(trust)))
    sections = [
        Section("summary", "Summary", short),
        Section("scorecard", "Scorecard", tuple(scorecard(models, groups, seed=seed))),
    ]
    if differences := difference_tables(models, compared, yardstick):
        which = (
            f"The yardstick is {yardstick.label}. A difference whose interval contains 0 is no difference."
        )
        sections.append(Section("differences", "Differences", (Text(which), *differences)))
    if plots := figures.robustness(models, compared, groups, yardstick, seed=seed):
        sections.append(Section("robustness", "Robustness against size and speed", (Figures(tuple(plots)),)))
    if other := shifts(models, groups, seed=seed):
        sections.append(Section("shift", "On other data", tuple(other)))
    sections += spending(models)
    if shown := attacked(models, groups, count=sentences, seed=seed):
        how = "Changed words are bold and underlined, and listed below. What held and fell is of one seed."
        sections.append(Section("sentences", "What the attacks did", (Text(how), *shown)))
    return sections


def _words(models: Sequence[Model]) -> Section:
    """Explain the flags that were raised, and the words of the page."""
    raised = {str(flag) for model in models for entry in model.entries for flag in entry.row["flags"]}
    blocks: list[Table] = []
    if raised:
        names = sorted(raised)
        rows = [(Cell(name), FLAGS.get(name, "This version of hardtack does not know it.")) for name in names]
        anchors = [f"flag-{name}" for name in names]
        blocks.append(table("Flags that rows raised", ("flag", "what it means"), rows, anchors=anchors))
    blocks.append(table("Words of this page", ("word", "meaning"), RATES))
    return Section("words", "Flags and words explained", tuple(blocks))


def _origins(found: Found, groups: Sequence[Group]) -> Section:
    """Say how everything was made: data, attacks, machines, versions, commands."""
    data = [
        (str(task), str(split), str(group.row["examples"]), str(group.row.get("data_fingerprint")))
        for group in groups
        for task, split in [group.home]
    ]
    blocks: list[Any] = []
    if data:
        blocks.append(
            table("Data", ("task", "split", "examples", "fingerprint"), dict.fromkeys(data), right=(2,))
        )
    attacks = [(group.name, _spelled(group.row.get("attack_settings"))) for group in groups if group.attack]
    if attacks:
        blocks.append(table("Attacks and their settings", ("attack", "settings"), attacks))
    if machines := dict.fromkeys(_spelled(e.row["measured"].get("hardware")) for e in found.entries):
        blocks.append(Items(tuple(f"Hardware of the measurements: {machine}" for machine in machines)))
    blocks.append(Items(tuple(_versions(found))))
    if made := commands(found):
        text = (
            "Commands, rebuilt from each run's recipe and rows, with every setting that can change a result; "
            "run them in the folder where the first ones ran."
        )
        blocks += [Text(text), Commands(tuple(made))]
    return Section("origins", "How this was made", tuple(blocks))


def _versions(found: Found) -> list[str]:
    """Say which programs ran, and from which commits: by recipes, and by rows of a study without its runs."""
    names: dict[str, dict[str, None]] = {}
    for folder in found.folders:
        recipe = folder.recipe
        programs: list[Any] = [{**(recipe.get("versions") or {}), "commit": recipe.get("commit")}]
        if not recipe:
            programs = [e.row["measured"].get("program") for e in found.entries if e.folder == folder.name]
        for program in programs:
            known = {name: value for name, value in (program or {}).items() if value is not None}
            names.setdefault(_spelled(known), {})[folder.name] = None
    return [
        f"Versions: {version}" if len(names) == 1 else f"Versions of {', '.join(folders)}: {version}"
        for version, folders in names.items()
    ]


def _spelled(facts: object) -> str:
    if not isinstance(facts, dict) or not facts:
        return "not recorded"
    return ", ".join(f"{name} {value}" for name, value in facts.items() if name != "name")
