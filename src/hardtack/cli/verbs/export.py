"""`hardtack export`: a ticket's model as a folder that other programs open."""

import argparse
from typing import Any

from hardtack.cli.output import calm_libraries
from hardtack.cli.parser import Parser, add, one_of, parameters, typed
from hardtack.cli.progress import Bars

SUMMARY = "writes a ticket's model for other programs: units really removed, or zeros baked in"
EXAMPLE = "hardtack export runs/retrained --to shrink --out models/small"
HELPS = {
    "rows": "a folder in which evaluate measured the target: its rows go on the model's card",
    "base": "where the ticket's base is now, when it has moved",
    "seed": "seed of the head of a ticket that was not retrained; it is not written",
    "merge_adapter": "merge a base that is a PEFT adapter into the base it names",
    "private": "whether a repository that --push makes is private; one that is there stays as it is",
}


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `export`."""
    from hardtack import stages
    from hardtack.exports import EXPORTS

    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a model made by retrain, a ticket folder, or a search's run folder that holds one ticket",
    )
    group = parser.add_argument_group("what is made")
    group.add_argument(
        "--to",
        required=True,
        type=one_of("export", EXPORTS),
        metavar="{" + ",".join(EXPORTS) + "}",
        help="shrink: heads, neurons and channels are really gone; dense: zeros stay where they are; onnx, "
        "openvino: for these programs, units gone where they can be; onnx-int8: a smaller model of its own",
    )
    group.add_argument(
        "--out", required=True, metavar="DIR", help="the model's folder: new or empty, never another one"
    )
    group.add_argument(
        "--push", metavar="ORG/NAME", help="upload the written folder to the hub, with the saved token"
    )
    add(parser, parameters(stages.export, HELPS), title="export")


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `stages.export`."""
    from hardtack import stages

    settings = typed(args, parameters(stages.export, HELPS), owner="export")
    with calm_libraries():
        return stages.export(
            args.target, to=args.to, out=args.out, push_to=args.push, dry_run=args.dry_run, **settings
        )


def text(result: dict[str, Any]) -> str:
    """Render the result for people."""
    from hardtack.reports.text import facts_text

    return facts_text(result)
