"""`hardtack resources`: what attacks need, what is there, where it was looked for, what supplies the rest."""

import argparse
from typing import Any

from hardtack.cli.output import NO_PLAN
from hardtack.cli.parser import Parser
from hardtack.cli.progress import Bars

SUMMARY = "what attacks look words up in: what is there, where it was looked for, what supplies the rest"
EXAMPLE = "hardtack resources"


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `resources`: none but those of every verb."""


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Survey the folder of resources for the attacks that are registered."""
    from hardtack.evaluation.attacks import ATTACKS
    from hardtack.evaluation.resources import Resources

    return dict(NO_PLAN) if args.dry_run else Resources.found().survey(ATTACKS)


def text(result: dict[str, Any]) -> str:
    """Render the survey for people."""
    from hardtack.reports.resources import resources_text

    return resources_text(result)
