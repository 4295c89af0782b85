"""`hardtack study`: a recipe of stages and grids, run cell by cell; resumes where it stopped."""

import argparse
import sys
from typing import Any

from hardtack.cli.output import calm_libraries, plan_text
from hardtack.cli.parser import Parser, whole_number
from hardtack.cli.progress import Bars

SUMMARY = "runs a recipe, a TOML of stages and grids; skips what is done, resumes where it stopped"
EXAMPLE = "hardtack study recipes/first_look.toml --processes 2 --threads 2"


def flags(parser: Parser, words: list[str]) -> None:
    """Add the flags of `study`."""
    parser.add_argument(
        "file", metavar="FILE", help="a TOML of stages; seeds and settings are in it, so there is no --seed"
    )
    parser.add_argument("--out", metavar="DIR", help="the study's folder (default: runs/NAME)")
    parser.add_argument(
        "--processes",
        type=whole_number,
        default=1,
        metavar="N",
        help="cells that run at a time: 1 in this process, more in local processes (default: 1)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number,
        metavar="N",
        help="threads of all processes together (default: torch's own for one process, else one a core)",
    )
    parser.add_argument(
        "--keep-weights", action="store_true", help="also keep weights that no later stage needs"
    )
    parser.add_argument(
        "--write-results",
        action="store_true",
        help="write rows, and outcomes without texts, to the recipe's `results` folder (docs/results)"
        " /NAME/HARDWARE, to be committed; committed rows count as done on the same hardware",
    )


def run(args: argparse.Namespace, watch: Bars) -> dict[str, Any]:
    """Call `studies.study`."""
    with calm_libraries():
        from hardtack.studies import study

        return study(
            args.file,
            out=args.out,
            processes=args.processes,
            threads=args.threads,
            keep_weights=args.keep_weights,
            write_results=args.write_results,
            watch=watch,
            dry_run=args.dry_run,
        )


def status(result: dict[str, Any]) -> int:
    """Say what failed, a line each, and return the exit status: 1 where a failure was ours, else 2."""
    for one in result.get("failed", ()):
        print(f"hardtack: {one['place']} failed: {one['line']}", file=sys.stderr)
    if result.get("not_run"):
        names = ", ".join(result["not_run"])
        print(f"hardtack: not run, because they need what failed: {names}", file=sys.stderr, flush=True)
    return (1 if any(one["ours"] for one in result["failed"]) else 2) if result.get("failed") else 0


def plan(result: dict[str, Any]) -> str:
    """Render a plan for people: the stages with time and disk, then the commands that do the same."""
    if not result["commands"]:
        return f"{plan_text(result)}; all cells are done"
    return "\n".join([plan_text(result), "", "the same as these commands:", *result["commands"]])


def text(result: dict[str, Any]) -> str:
    """Render the result for people."""
    from hardtack.reports.text import facts_text

    counts = {name: len(result[name]) for name in ("ran", "failed", "not_run")}
    facts = {name: result[name] for name in ("folder", "cells", "rows", "results", "seconds")}
    return facts_text({**facts, **counts}) + f"\n`hardtack show {result['folder']}` lists the cells"
