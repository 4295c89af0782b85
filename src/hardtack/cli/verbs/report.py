"""`hardtack report`: one self-contained page about runs."""

import argparse
from typing import Any

from hardtack.cli.output import NO_PLAN
from hardtack.cli.parser import Parser, whole_number
from hardtack.cli.progress import Bars

SUMMARY = "one self-contained page about runs: scorecard, differences, plots, attacked sentences"
EXAMPLE = "hardtack report runs/ --out report.html"


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `report`."""
    from hardtack.reports.page import SENTENCES

    parser.add_argument("runs", metavar="DIR", nargs="+", help="run folders, or folders of run folders")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="what is written: .html, .md (Markdown) or .csv"
    )
    parser.add_argument(
        "--yardstick",
        metavar="NAME",
        help="the model that others are compared with, as the page calls it (default: the first dense)",
    )
    parser.add_argument(
        "--sentences",
        type=whole_number,
        default=SENTENCES,
        metavar="N",
        help=f"attacked examples shown for each attack; 0 leaves texts out (default: {SENTENCES})",
    )
    parser.add_argument("--title", metavar="TEXT", help="heading of the page (default: from its tasks)")
    parser.add_argument(
        "--seed",
        type=whole_number,
        default=0,
        metavar="N",
        help="of the bootstrap and of the draw of examples (default: 0)",
    )


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `reports.page.report`."""
    from hardtack.reports.page import report

    if args.dry_run:
        return dict(NO_PLAN)
    return report(
        args.runs,
        out=args.out,
        yardstick=args.yardstick,
        sentences=args.sentences,
        title=args.title,
        seed=args.seed,
    )


def text(result: dict[str, Any]) -> str:
    """Say what was written, and what was odd about the input."""
    from hardtack.reports.text import byte_text

    size = f"{len(result['models'])} models, {result['rows']} rows, {result['runs']} run folders"
    lines = [f"{result['out']}: {size}, {byte_text(result['bytes'])}"]
    return "\n".join([*lines, *(f"note: {note}" for note in result["notes"])])
