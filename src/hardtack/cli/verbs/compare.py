"""`hardtack compare`: run folders side by side, with intervals and verdicts."""

import argparse
from pathlib import Path
from typing import Any

from hardtack.cli.output import NO_PLAN
from hardtack.cli.parser import Parser, whole_number
from hardtack.cli.progress import Bars

SUMMARY = "run folders side by side: intervals, paired differences against the first, verdicts"
EXAMPLE = "hardtack compare runs/evaluated-dense runs/evaluated-random runs/evaluated-robust"


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `compare`."""
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", help="folders made by evaluate; the first is the yardstick"
    )
    parser.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="of the bootstrap (default: 0)"
    )


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `reports.compare.compare`."""
    from hardtack.reports.compare import compare

    if args.dry_run:
        return dict(NO_PLAN)
    return compare([Path(folder) for folder in args.folders], seed=args.seed)


def text(result: dict[str, Any]) -> str:
    """Render the tables for people."""
    from hardtack.reports.compare import compare_text

    return compare_text(result)
