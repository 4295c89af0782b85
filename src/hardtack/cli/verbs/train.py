"""`hardtack train`: a dense model, fine-tuned on a task."""

import argparse
from typing import Any

from hardtack.cli import shared
from hardtack.cli.output import calm_libraries
from hardtack.cli.parser import Parser, add, parameters, typed
from hardtack.cli.progress import Bars

SUMMARY = "fine-tunes a dense model"
EXAMPLE = "hardtack train bert-base-uncased --task sst2 --objective freelb --epochs 3 --out runs/dense"
HELPS = {
    "epochs": "passes over the training split",
    "lr": "largest learning rate",
    "weight_decay": "AdamW's weight decay; biases and norms have none",
    "warmup": "share of the steps in which the learning rate rises",
    "epoch_rule": "which epoch is kept: the last, or the best on validation",
    "distil_from": "a fine-tuned model with this tokenizer and these classes: its answers count in the loss",
    "distil_weight": "share of the teacher's answers in the loss, above 0 to 1 (default: 0.5)",
    "distil_temperature": "divides the logits of both before they are compared (default: 2)",
}


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `train`."""
    from hardtack import stages

    parser.add_argument(
        "model", metavar="MODEL", help="a Hugging Face id or a local folder: the base to fine-tune"
    )
    shared.add_task_and_out(parser)
    add(parser, parameters(stages.train, HELPS), title="training")
    shared.add_objective(parser)
    shared.add_common(parser)


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `stages.train`."""
    from hardtack import stages

    settings = typed(args, parameters(stages.train, HELPS), owner="train") | shared.objective(args)
    with calm_libraries():
        return stages.train(
            args.model,
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
