"""`hardtack runs`: the run folders below a folder, their state and size; removes what is asked for."""

import argparse
from pathlib import Path
from typing import Any

from hardtack.cli.output import NO_PLAN
from hardtack.cli.parser import Parser, add, fields, typed
from hardtack.cli.progress import Bars

SUMMARY = "run folders: state, how far each came, size on disk; removes the ones that are named"
EXAMPLE = "hardtack runs runs/ --remove-state interrupted --older-than 7"


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `runs`."""
    from hardtack.reports.runs import Choice

    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", default="runs", help="where to look (default: runs)"
    )
    add(parser, fields(Choice), title="which runs (nothing is asked before what is named goes)")


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `reports.runs.runs`."""
    from hardtack.reports.runs import Choice, plan_of, runs

    choice = Choice(**typed(args, fields(Choice), owner="runs"))
    if args.dry_run and not choice.removes:
        return dict(NO_PLAN)
    result = runs(Path(args.folder), choice, dry_run=args.dry_run)
    return plan_of(result) if args.dry_run else result


def text(result: dict[str, Any]) -> str:
    """Render the table, or what was removed."""
    from hardtack.reports.runs import runs_text

    return runs_text(result)
