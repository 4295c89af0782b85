"""`hardtack evaluate`: what a model or ticket still does on clean, attacked and shifted data."""

import argparse
from typing import Any

from hardtack.cli import shared
from hardtack.cli.output import calm_libraries
from hardtack.cli.parser import Parser, add, parameters, typed
from hardtack.cli.progress import Bars

SUMMARY = "measures a model or ticket clean, under attacks and on shifted data: appends rows"
EXAMPLE = (
    "hardtack evaluate runs/retrained --task sst2 --split test --attack deepwordbug"
    " --attack word_swap --neighbours neighbours.jsonl.gz --examples 200 --out runs/evaluated"
)
HELPS = {
    "split": "which split is read; every choice belongs to validation",
    "examples": "how many examples are attacked: drawn with the seed, stratified by label",
    "shifted": "another set with the task's labels, or labels mapped from them: measured clean",
    "label_map": "which classes stand for each label of a shifted set: LABEL=CLASS+CLASS,LABEL=CLASS",
    "merge": "how classes become a shifted set's label: argmax (best class first) or sum (of probabilities)",
    "by": "a column of the files, such as a sub-case: accuracy for each of its values too",
    "runtime": "what answers attacks on a CPU: auto (the fastest here that agrees with the model) or torch",
    "base": "where a ticket's base is now, when it has moved",
}


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `evaluate`."""
    from hardtack import stages

    parser.add_argument(
        "target", metavar="TARGET", help="a model, a ticket, or a folder made by train, retrain or export"
    )
    shared.add_task_and_out(parser)
    add(parser, parameters(stages.evaluate, HELPS), title="evaluation")
    shared.add_attacks(parser)
    shared.add_common(parser, without=("precision",))  # nothing is trained


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Build the attacks from their flags and call `stages.evaluate`."""
    from hardtack import stages

    settings = typed(args, parameters(stages.evaluate, HELPS), owner="evaluate")
    attacks = shared.attacks(args)
    with calm_libraries():
        return stages.evaluate(
            args.target,
            task=args.task,
            out=args.out,
            attacks=attacks,
            common=shared.common(args),
            watch=watch,
            dry_run=args.dry_run,
            **settings,
        )


def text(result: dict[str, Any]) -> str:
    """Render the rows for people, and what their flags mean."""
    from hardtack.doubts import FLAGS
    from hardtack.reports.table import rows_text

    return rows_text(result["rows"], FLAGS)
