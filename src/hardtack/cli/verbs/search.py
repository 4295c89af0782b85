"""`hardtack search METHOD`: tickets of a model, found by one of the methods."""

import argparse
from typing import Any

from hardtack.cli import shared
from hardtack.cli.output import calm_libraries
from hardtack.cli.parser import Parser, add, fields, notation, one_of, parameters, typed
from hardtack.cli.progress import Bars
from hardtack.errors import InputError, nearest

SUMMARY = "finds tickets: masks of a model's weights, heads or neurons"
EXAMPLE = (
    "hardtack search hard_concrete bert-base-uncased --task sst2 --from runs/dense"
    " --sparsity 0.3 --sparsity 0.5 --out runs/search"
)
HELPS = {
    "granularity": "what a ticket removes: weight, head, neuron or channel (default: weight, if the method "
    "removes weights)",
    "keep_whole": "sites that are never pruned: a pattern of their names, e.g. pooler*",
    "attacked_from": "folder of `evaluate` with attacks on train or validation: wanda, obs and retention "
    "measure what is lost on the sentences that fell, and calibrate on them (--attacked)",
    "stream": "read the weights a block at a time and keep states on disk: for classifiers larger than "
    "memory",
    "warm_epochs": "epochs of fine-tuning before the search where a method needs them and there is no --from",
    "warm_lr": "peak learning rate of that fine-tuning",
}


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `search`; METHOD comes first and brings its own."""
    from hardtack import stages
    from hardtack.methods import METHODS
    from hardtack.select import Sparsity

    method = words[0] if words else ""
    asked = method in ("-h", "--help") or not words
    if not asked and method not in METHODS:
        raise InputError(f"hardtack search: METHOD comes first, {method!r} is none{nearest(method, METHODS)}")
    parser.add_argument(
        "method",
        metavar="METHOD",
        type=one_of("method", METHODS),
        help="; ".join(f"{name}: {shared.first_line(cls)}" for name, cls in METHODS.items()).replace(
            "%", "%%"
        )
        + "; `hardtack search METHOD --help` shows its own flags",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a Hugging Face id or a local folder: the base, which tickets rewind to",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="MODEL2",
        help="where the search starts (default: the base, fine-tuned first where the method needs that)",
    )
    shared.add_task_and_out(parser)
    parser.add_argument(
        "--sparsity",
        action="append",
        type=notation(Sparsity.parse),
        metavar="S",
        help="what a ticket removes: 0.3, head=0.2,neuron=0.4, 2:4, learned; or what share of a cost goes "
        "with its heads and neurons: parameters=0.5, flops=0.5, latency=0.5 (on this machine) "
        "(may be repeated; default: 0.3)",
    )
    if method in METHODS:
        add(parser, fields(METHODS[method]), title=f"{method}: {shared.first_line(METHODS[method])}")
    add(parser, parameters(stages.search, HELPS), title="search")
    what = "what a method that trains minimises; what perturbs the embeddings that wanda, obs, retention read"
    shared.add_objective(parser, default="the method's own", what=what)
    shared.add_common(parser)


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Build the method from its flags and call `stages.search`."""
    from hardtack import stages
    from hardtack.methods import METHODS

    cls = METHODS[args.method]
    settings = typed(args, fields(cls), owner=args.method)
    if args.sparsity:
        settings["sparsities"] = tuple(args.sparsity)
    method = cls(**settings)
    settings = typed(args, parameters(stages.search, HELPS), owner="search") | shared.objective(args)
    with calm_libraries():
        return stages.search(
            method,
            args.model,
            task=args.task,
            out=args.out,
            start=args.start,
            common=shared.common(args),
            watch=watch,
            dry_run=args.dry_run,
            **settings,
        )


def text(result: dict[str, Any]) -> str:
    """Render the result for people."""
    from hardtack.reports.text import facts_text

    return facts_text(result)
