"""Whole pages: one a method, from its docstrings and fields; one a verb, from its real `--help`."""

import contextlib
import dataclasses
import inspect
import io
import os
import sys

import hardtack
from hardtack.cli import main
from hardtack.cli.verbs import VERBS
from hardtack.methods import METHODS
from hardtack_docs import facts
from hardtack_docs.plain import halves, inline, markdown, table

MARK = "<!-- Made when the site is built; edit the source that it describes. -->"
WIDTH = "88"  # columns of a help page: two of them would not fit a phone, more would not fit a laptop


def generated() -> dict[str, str]:
    """Return every generated page: path below docs/ -> Markdown."""
    made = {f"methods/{name}.md": method_page(name) for name in METHODS}
    return made | {f"verbs/{name}.md": verb_page(name) for name in VERBS}


def method_page(name: str) -> str:
    """Describe a method in the words of its own file."""
    method = METHODS[name]
    module = sys.modules[method.__module__]
    title, _, body = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
    about, differs = halves(method.__doc__)
    signature = ", ".join(item.name for item in dataclasses.fields(method))  # type: ignore[arg-type]
    at_a_glance = table(
        ("", ""),
        [
            ("Take it when", inline(method.advice)),
            ("Gives", inline(method.gives)),
            ("Needs", facts.NEEDS[method.needs]),
            ("Starts from", facts.start(method)),
            ("Costs", facts.cost(method)),
            ("Version", f"{method.version} (raised when a fix changes results)"),
        ],
    )
    return "\n\n".join(
        (
            MARK,
            f"# {inline(name)}",
            inline(facts.first_line(method)),
            inline(" ".join(title.split())),
            at_a_glance,
            f"```sh\nhardtack search {name} MODEL --task TASK --sparsity 0.3 --out DIR\n```",
            markdown(about),
            markdown(body),
            markdown(differs),
            "## Settings",
            facts.settings(method),
            "`--sparsity` says what a ticket removes and may be repeated; all flags are on the page of "
            "[search](/verbs/search.md), or in:",
            f"```console\n$ hardtack search {name} --help\n```",
            "## In Python",
            "To be handed to {py:func}`hardtack.search`:",
            f"```{{py:class}} {method.__module__}.{method.__name__}({signature})\n```\n",
        )
    )


def verb_page(name: str) -> str:
    """Describe a verb by its summary, its example and its real help."""
    verb = VERBS[name]
    python = f"In Python: {{py:func}}`hardtack.{name}`. " if name in hardtack.__all__ else ""
    return "\n\n".join(
        (
            MARK,
            f"# hardtack {name}",
            inline(f"{verb.SUMMARY[0].upper()}{verb.SUMMARY[1:]}."),
            f"```console\n$ {verb.EXAMPLE}\n```",
            f"{python}What it leaves: [files](/files.md). How it ends: [exit status](/exit-status.md).",
            "## All flags",
            f"```text\n{help_of(name)}```\n",
        )
    )


def help_of(name: str) -> str:
    """Return what `hardtack VERB --help` prints in a terminal of one width."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            status = main([name, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    if status:
        raise RuntimeError(f"hardtack {name} --help ended with {status}")
    return shown.getvalue()
