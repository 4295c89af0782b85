"""`hardtack soup`: one model, the average of several."""

import argparse
from typing import Any

from hardtack.cli import shared
from hardtack.cli.output import calm_libraries
from hardtack.cli.parser import Parser, add, parameters, typed
from hardtack.cli.progress import Bars

SUMMARY = "averages fine-tuned models; each joins if a score on validation does not fall"
EXAMPLE = "hardtack soup runs/seed-0 runs/seed-1 runs/seed-2 --task sst2 --attack deepwordbug --out runs/soup"
HELPS = {
    "examples": "how many examples of validation are attacked for a score: drawn with the seed, stratified",
    "uniform": "average all models without choosing among them",
}


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `soup`."""
    from hardtack import stages

    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="fine-tuned models of one base: ids, folders or run folders; the best on validation begins",
    )
    shared.add_task_and_out(parser)
    add(parser, parameters(stages.soup, HELPS), title="soup")
    shared.add_attacks(parser)
    shared.add_common(parser, without=("precision",))  # nothing is trained


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Build the attacks from their flags and call `stages.soup`."""
    from hardtack import stages

    settings = typed(args, parameters(stages.soup, HELPS), owner="soup")
    attacks = shared.attacks(args)
    with calm_libraries():
        return stages.soup(
            args.models,
            task=args.task,
            out=args.out,
            attacks=attacks,
            common=shared.common(args),
            watch=watch,
            dry_run=args.dry_run,
            **settings,
        )


def text(result: dict[str, Any]) -> str:
    """Render who joined with which score, then the facts."""
    from hardtack.reports.text import facts_text, soup_text

    facts = {name: value for name, value in result.items() if name != "ingredients"}
    return f"{soup_text(result)}\n\n{facts_text(facts)}"
