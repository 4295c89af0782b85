"""What README and pages show is run: Python by Sybil, docstrings by doctest, commands by the real parser."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser
from tests.toys import saved_toy

import hardtack
from hardtack.cli.parser import Parser
from hardtack.cli.verbs import VERBS
from hardtack.methods import METHODS
from hardtack_docs.console import commands

ROOT = Path(__file__).parents[2]
# Records are history, and the pages below methods/ and verbs/ are made anew with each build.
FOLDERS = ("docs", "docs/guides", "docs/nouns")
SOURCES = [ROOT / "README.md", *sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in SOURCES}
WITH_PYTHON = [name for name, text in PAGES.items() if "```python\n" in text]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(hardtack.__path__, "hardtack.")
    if module.name != "hardtack.__main__"
)
SYBIL = Sybil([PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)])


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_examples(page, tmp_path, monkeypatch):
    saved_toy(tmp_path / "tiny")  # the model of the pages' examples
    monkeypatch.chdir(tmp_path)
    examples = list(SYBIL.parse(ROOT / page).examples())
    assert len(examples) >= PAGES[page].count("```python\n")
    for example in examples:
        example.evaluate()


def test_examples_in_docstrings():
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
    for name in MODULES:
        for found in finder.find(importlib.import_module(name), name):
            runner.run(found)
    ran = runner.summarize(verbose=False)
    assert ran.failed == 0
    assert ran.attempted >= 6  # as many as there were when this was written


def typed(text: str) -> list[str]:
    """Every hardtack command of a page, without what is shown below it."""
    found = []
    for language, block in FENCE.findall(text):
        if language == "console":
            found += [command.line for command in commands(block)]
        elif language in ("", "sh"):
            found += block.splitlines()
    return [line for line in found if line.startswith("hardtack ")]


def parse(line: str) -> None:
    """Read a command as the command line does; what is wrong with it is an InputError."""
    _, name, *rest = shlex.split(line, comments=True)
    parser = Parser(f"hardtack {name}", summary=VERBS[name].SUMMARY, example="")
    VERBS[name].flags(parser, rest)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--json", action="store_true")
    if "--help" not in rest:
        parser.parse(rest)


COMMANDS = sorted({line for text in PAGES.values() for line in typed(text) if " magnitud " not in line})


def test_commands_are_found():
    assert "hardtack demo --out runs/demo" in COMMANDS
    assert len([line for line in COMMANDS if line in typed(PAGES["README.md"])]) >= 10


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    parse(line)


def test_readme_names_every_verb_and_method():
    today = PAGES["README.md"].partition("## What exists today")[2].partition("\n## ")[0]
    verbs = re.search(r"^- Verbs: (.*)$", today, re.MULTILINE)
    methods = re.search(r"^- Methods: (.*)$", today, re.MULTILINE)
    assert verbs is not None
    assert methods is not None
    assert sorted(re.findall(r"`(\w+)`", verbs[1])) == sorted(VERBS)
    assert sorted(re.findall(r"`(\w+)`", methods[1])) == sorted(METHODS)
