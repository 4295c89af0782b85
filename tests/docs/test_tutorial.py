"""The tutorial as a reader types it: on a toy model here, on the real one where there is time."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser
from tests.toys import saved_toy, toy_texts

from hardtack.cli import main
from hardtack.cli.progress import Bars
from hardtack_docs.console import Command, blocks, commands

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
TEXT = PAGE.read_text(encoding="utf-8")
TYPED = [each for block in blocks(TEXT) if block.language == "console" for each in commands(block.text)]
SEEN = 5  # reports of progress before the reader presses Ctrl-C


def heads(lines) -> list[str]:
    """The heads of the tables among these lines, and the lines outside of tables; without numbers."""
    lines = list(lines)
    tables = [line for line, rule in pairwise(lines) if re.match(r"\|-+\|", rule)]
    plain = [line for line in lines if line and not line.startswith("|")]
    return [re.sub(r"\s+", " ", re.sub(r"\d[\d.,]*", "N", line)) for line in tables + plain]


def names(lines) -> list[str]:
    """The first cells of a table of names and values."""
    return [line.split("|")[1].strip() for line in lines if re.match(r"\| [a-z_]+ +\| ", line)]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Run the whole page in one folder: what each command printed and how it ended, in order."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for example in Sybil([PythonCodeBlockParser()]).parse(PAGE).examples():
            example.evaluate()
        assert (folder / "reviews.csv").read_text(encoding="utf-8").count("\n") == 601
        write_csv(folder / "reviews.csv")
        saved_toy(folder / "minilm")
        ends = [(command, *enter(command)) for command in TYPED if command.line.startswith("hardtack ")]
        assert len(ends) == len(TYPED) - 1  # the one that copies the real model
    return folder, ends


def write_csv(file: Path) -> None:
    """A CSV of one's own: texts of the toy vocabulary, one of them quoted."""
    texts, labels = toy_texts(120)
    lines = [f'"{text}"' if row % 7 == 0 else text for row, (text,) in enumerate(texts)]
    pairs = zip(lines, labels, strict=True)
    file.write_text("text,label\n" + "".join(f"{t},{'good' if x else 'bad'}\n" for t, x in pairs), "utf-8")


def enter(command: Command) -> tuple[int, str, str]:
    """Type one command, and Ctrl-C where the page says so; return the exit status and what was printed."""
    out, said, seen = io.StringIO(), io.StringIO(), []
    report = Bars.__call__

    def interrupting(self, label, done, total):
        report(self, label, done, total)
        seen.append(done)
        if command.interrupted and len(seen) == SEEN:
            raise KeyboardInterrupt  # where the signal's handler raises it: anywhere in the main thread

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bars, "__call__", interrupting)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            status = main(shlex.split(command.line)[1:])
    return status, out.getvalue(), said.getvalue()


def test_every_command_ends_as_the_page_says(told):
    for command, status, _, said in told[1]:
        assert status == command.status, (command.line, said)
    assert [status for _, status, _, _ in told[1]].count(2) == 3
    assert [status for _, status, _, _ in told[1]].count(130) == 1


def test_the_page_shows_what_commands_print(told):
    for command, status, out, said in told[1]:
        if status == 0:
            assert command.shown, f"{command.line}: run docs/record.py"
            printed = out.rstrip().splitlines()
            assert [h for h in heads(command.shown) if h.startswith("|")] == [
                h for h in heads(printed) if h.startswith("|")
            ], command.line
            assert names(command.shown)[:12] == names(printed)[:12], command.line
        elif status == 2:
            [complaint] = said.splitlines()
            [shown] = command.shown
            assert re.sub(r"-[0-9a-f]{8}/", "-X/", shown) == re.sub(r"-[0-9a-f]{8}/", "-X/", complaint)
        else:
            assert command.shown[-1] in said


def test_the_interrupted_run_went_on(told):
    folder, _ = told
    done = json.loads((folder / "runs/dense/DONE").read_text())
    assert done["resumed"] >= 1


def test_the_scorecard_page_knows_every_field_of_a_row(told):
    folder, _ = told
    lines = (folder / "runs/ticket-attacked/rows.jsonl").read_text(encoding="utf-8").splitlines()
    section = (ROOT / "docs/scorecard.md").read_text(encoding="utf-8").partition("## What a row says")[2]
    first_cells = [line.split("|")[1] for line in section.partition("\n## ")[0].splitlines() if "|" in line]
    documented = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(json.loads(lines[0]))
    assert len(lines) == 2


def test_the_files_page_knows_every_file(told):
    folder, _ = told
    page = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    for run in (folder / "runs").iterdir():
        for path in run.iterdir():
            assert f"`{path.name}{'/' if path.is_dir() else '`'}" in page, path
    for path in (folder / "runs/found/tickets/sparsity-0.3000").iterdir():
        assert f"`{path.name}`" in page


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_page_is_what_the_real_model_says(tmp_path):
    """Run the recorder on a copy of the page: with the real model, real processes and a real Ctrl-C."""
    code = (
        "import sys; from pathlib import Path; import record; "
        "print(record.record(record.PAGE.read_text('utf-8'), Path(sys.argv[1]))[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT / "docs", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    again = [each for b in blocks(done.stdout) if b.language == "console" for each in commands(b.text)]
    assert [each.line for each in again] == [each.line for each in TYPED]
    for now, then in zip(again, TYPED, strict=True):
        assert heads(now.shown) == heads(then.shown), now.line
