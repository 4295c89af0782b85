"""`hardtack retrain`: the subnetwork, trained from its rewind point with its mask held."""

import argparse
from typing import Any

from hardtack.cli import shared
from hardtack.cli.output import calm_libraries
from hardtack.cli.parser import Parser, add, parameters, typed
from hardtack.cli.progress import Bars
from hardtack.cli.verbs.train import HELPS as TRAINING

SUMMARY = "trains a ticket's subnetwork from its rewind point with the mask held"
EXAMPLE = "hardtack retrain runs/search/tickets/sparsity-0.3000 --task sst2 --epochs 3 --out runs/retrained"
HELPS = {"base": "where the ticket's base is now, when it has moved", **TRAINING}


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `retrain`."""
    from hardtack import stages

    parser.add_argument(
        "ticket",
        metavar="TICKET",
        help="a ticket folder, a search's run folder that holds one ticket, or a model that export shrank",
    )
    shared.add_task_and_out(parser)
    add(parser, parameters(stages.retrain, HELPS), title="training")
    shared.add_objective(parser)
    shared.add_common(parser)


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `stages.retrain`."""
    from hardtack import stages

    settings = typed(args, parameters(stages.retrain, HELPS), owner="retrain") | shared.objective(args)
    with calm_libraries():
        return stages.retrain(
            args.ticket,
            task=args.task,
            out=args.out,
            common=shared.common(args),
            watch=watch,
            dry_run=args.dry_run,
            **settings,
        )


def text(result: dict[str, Any]) -> str:
    """Render the result for people."""
    from hardtack.reports.text import facts_text

    return facts_text(result)
