"""`hardtack demo`: the main job from end to end on the embedded model and the generated task."""

import argparse
from typing import Any

from hardtack.cli import shared
from hardtack.cli.output import calm_libraries
from hardtack.cli.parser import Parser
from hardtack.cli.progress import Bars

SUMMARY = "the main job on the embedded default, in minutes: a robust ticket beside its controls"
EXAMPLE = "hardtack demo --out runs/demo"


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `demo`."""
    parser.add_argument(
        "--out", default="runs/demo", metavar="DIR", help="the run folder (default: runs/demo)"
    )
    shared.add_common(parser, without=("text_column", "label_column"))  # it reads no files


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `stages.demo`."""
    from hardtack import stages

    with calm_libraries():
        return stages.demo(out=args.out, common=shared.common(args), watch=watch, dry_run=args.dry_run)


def text(result: dict[str, Any]) -> str:
    """Render the card for people."""
    from hardtack.reports.table import card_text

    return card_text(result)
