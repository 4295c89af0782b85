"""The command line, `hardtack VERB ...`: parses, calls `hardtack.stages` or `hardtack.reports`, prints."""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from hardtack import __version__
from hardtack.cli.output import (
    json_line,
    leave_the_others,
    only_the_first_process_on_stdout,
    only_the_result_on_stdout,
    plan_text,
    process_number,
)
from hardtack.cli.parser import Parser
from hardtack.cli.progress import Bars
from hardtack.cli.verbs import VERBS
from hardtack.errors import InputError, nearest, one_line

DONE, OURS, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 the input is wrong, 1 a failure of ours."""
    try:
        with only_the_first_process_on_stdout():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as request:  # argparse's --help
        return DONE if request.code in (None, 0) else WRONG_INPUT
    except KeyboardInterrupt:
        _complain("interrupted; the same command resumes where it stopped")
        return INTERRUPTED
    except BrokenPipeError:  # `hardtack show ... | head` closed our standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return DONE
    except Exception as error:
        line = one_line(error)
        if line is None:
            traceback.print_exc()
            return OURS
        _complain(line)
        return WRONG_INPUT


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE
    if words[0] == "--version":
        print(f"hardtack {__version__}")
        return DONE
    name, rest = words[0], words[1:]
    if name not in VERBS:
        what = "flag" if name.startswith("-") else "verb"
        raise InputError(f"unknown {what} {name!r}{nearest(name, VERBS)}")
    verb = VERBS[name]
    parser = Parser(f"hardtack {name}", summary=verb.SUMMARY, example=verb.EXAMPLE)
    verb.flags(parser, rest)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--dry-run", action="store_true", help="say which stages would run, their time and disk; run nothing"
    )
    output.add_argument(
        "--json",
        action="store_true",
        help="the result as one JSON object on the last line; progress on stderr",
    )
    args = parser.parse(rest)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_the_result_on_stdout(args.json))
        watch = stack.enter_context(Bars())
        result = verb.run(args, watch)
    leave_the_others()
    people = getattr(verb, "plan", plan_text) if args.dry_run else verb.text
    print(json_line(result) if args.json else people(result), flush=True)
    return verb.status(result) if hasattr(verb, "status") else DONE


def overview() -> str:
    """List the verbs, what each does and an example of it; this imports no model library."""
    lines = ["hardtack: find, prove and ship sparse subnetworks that stay robust under attack", ""]
    for name, verb in VERBS.items():
        lines += [f"  {name:<9} {verb.SUMMARY}", f"            {verb.EXAMPLE}"]
    lines += ["", "hardtack VERB --help explains a verb and all its flags; hardtack --version"]
    lines += [
        "exit status: 0 done; 2 wrong input, or the run cannot go on (one line says why); 1 a failure of ours"
    ]
    return "\n".join(lines)


def _complain(line: str) -> None:
    who = f"hardtack (process {number}):" if (number := process_number()) else "hardtack:"
    alone = line.startswith("hardtack ") and not number  # a parser names the verb, e.g. "hardtack train: ..."
    print(line if alone else f"{who} {line}", file=sys.stderr, flush=True)
