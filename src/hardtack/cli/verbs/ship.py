"""`hardtack ship`: from a fine-tuned model and limits to an exported model and its report."""

import argparse
import dataclasses
from typing import Any

from hardtack.cli import shared
from hardtack.cli.output import calm_libraries
from hardtack.cli.parser import Parser, add, fields, notation, one_of, parameters, typed
from hardtack.cli.progress import Bars
from hardtack.cli.verbs.train import HELPS as TRAINING

SUMMARY = "makes a fine-tuned model smaller until it meets limits, and exports the best that does"
EXAMPLE = (
    "hardtack ship runs/dense --task sst2 --max-latency-ms 20 --min-accuracy 0.9"
    " --min-accuracy-under-attack 0.3 --out runs/shipped"
)
LIMITS = {
    "max_latency_ms": "longest milliseconds of one text on this machine, as the export runs it",
    "min_accuracy": "least accuracy on the whole validation split, 0 to 1",
    "min_accuracy_under_attack": "least accuracy left on validation by each attack, 0 to 1",
}
HELPS = {"examples": "how many examples are attacked: drawn with the seed, stratified by label"}


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `ship`."""
    from hardtack import stages
    from hardtack.select import Sparsity
    from hardtack.stages.ordering import FORMS
    from hardtack.stages.shipping import METHODS, SPARSITIES

    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a fine-tuned classifier: a Hugging Face id, a folder, or a run of train",
    )
    shared.add_task_and_out(parser)
    add(parser, parameters(stages.ship, LIMITS), title="limits (exit status 2 where none meets them)")
    group = parser.add_argument_group("what is tried and made")
    default = ", ".join(f"{sparsity.fraction:g}" for sparsity in SPARSITIES)
    group.add_argument(
        "--sparsity",
        action="append",
        type=notation(Sparsity.parse),
        metavar="S",
        help="what a candidate loses of its heads and neurons: 0.5, head=0.2,neuron=0.4, flops=0.5, "
        f"latency=0.5 (may be repeated; default: {default})",
    )
    group.add_argument(
        "--to",
        type=one_of("export", FORMS),
        metavar="{" + ",".join(FORMS) + "}",
        default="shrink",
        help="what is exported, and what candidates are measured as (default: shrink)",
    )
    for method in METHODS:
        add(parser, fields(type(method)), title=f"{method.name}: its search", prefix=method.name)
    add(parser, parameters(stages.ship, TRAINING), title="retraining")
    shared.add_objective(parser)
    add(parser, parameters(stages.ship, HELPS), title="evaluation (without --attack: deepwordbug)")
    shared.add_attacks(parser)
    shared.add_common(parser)


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Build methods and attacks from their flags and call `stages.ship`."""
    from hardtack import stages
    from hardtack.stages.shipping import METHODS

    helps = {**LIMITS, **TRAINING, **HELPS}
    settings = typed(args, parameters(stages.ship, helps), owner="ship") | shared.objective(args)
    methods = []
    for method in METHODS:
        given = typed(args, fields(type(method)), owner=method.name, prefix=method.name)
        wanted = {"sparsities": tuple(args.sparsity)} if args.sparsity else {}
        methods.append(dataclasses.replace(method, **given, **wanted))  # type: ignore[type-var]
    if attacks := shared.attacks(args):
        settings["attacks"] = attacks
    with calm_libraries():
        return stages.ship(
            args.model,
            task=args.task,
            out=args.out,
            methods=methods,
            to=args.to,
            common=shared.common(args),
            watch=watch,
            dry_run=args.dry_run,
            **settings,
        )


def text(result: dict[str, Any]) -> str:
    """Render the candidates for people, and what was shipped."""
    from hardtack.reports.shipped import shipped_text

    return shipped_text(result)
