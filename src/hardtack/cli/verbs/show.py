"""`hardtack show`: a ticket, model, run or task in a table."""

import argparse
from typing import Any

from hardtack.cli.output import NO_PLAN
from hardtack.cli.parser import Parser, add, fields, typed
from hardtack.cli.progress import Bars

SUMMARY = "a ticket, model, run or task in a table"
EXAMPLE = "hardtack show runs/search/tickets/sparsity-0.3000"


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `show`."""
    from hardtack.reports.show import Reading

    parser.add_argument(
        "thing", metavar="THING", help="a ticket, model or run folder, or a task: its name, folder or file"
    )
    add(parser, fields(Reading), title="reading a task")


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `reports.show.show`."""
    from hardtack.reports.show import Reading, show

    if args.dry_run:
        return dict(NO_PLAN)
    return show(args.thing, Reading(**typed(args, fields(Reading), owner="show")))


def text(result: dict[str, Any]) -> str:
    """Render the tables for people."""
    from hardtack.reports.show import show_text

    return show_text(result)
