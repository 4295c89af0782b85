"""Runs the tutorial for real and writes what it shows and what it took into docs/tutorial.md.

    python docs/record.py

It needs the `demo` extra, no network, and some minutes; nothing of it is a test. Every command is a process
of its own in an empty folder, as a reader would type it.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch

from hardtack.cost import hardware
from hardtack.reports.text import byte_text, second_text
from hardtack_docs.console import INTERRUPT, Block, Command, blocks, commands
from hardtack_docs.plain import code, table

PAGE = Path(__file__).parent / "tutorial.md"
MEASURED = re.compile(r"(<!-- measured .*? -->\n).*?(<!-- end -->)", re.DOTALL)


def words_of(line: str) -> list[str]:
    """Return the words of a command that starts with hardtack or python, for this interpreter."""
    first, *rest = shlex.split(line)
    return [sys.executable, *({"hardtack": ["-m", "hardtack"], "python": []}[first]), *rest]


def run(command: Command, folder: Path) -> tuple[list[str], float]:
    """Run one command, interrupted where the page says so; return the lines it shows and its seconds.

    Progress lines are left out: they come on standard error and say another thing each time.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        words_of(command.line), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if command.interrupted:
        words = shlex.split(command.line)
        state = folder / words[words.index("--out") + 1] / "scratch" / "fit.safetensors"
        while not state.exists() and process.poll() is None:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    out, said = process.communicate()
    if process.returncode != command.status:
        sys.exit(f"{command.line} ended with {process.returncode}, the page says {command.status}:\n{said}")
    complaints = [line for line in said.splitlines() if line.startswith("hardtack")]
    shown = [*([INTERRUPT] if command.interrupted else []), *out.rstrip().splitlines(), *complaints]
    return shown, time.perf_counter() - began


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def record(page: str, folder: Path) -> tuple[str, list[tuple[Command, float]]]:
    """Run every block of the page in order; return the page as it should be, and what each command took."""
    # A shell's background jobs ignore Ctrl-C, and so would our commands: ignoring is inherited, handlers not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done: list[tuple[Block, str]] = []
    took: list[tuple[Command, float]] = []
    for block in blocks(page):
        if block.language == "python":
            subprocess.run([sys.executable, "-c", block.text], cwd=folder, check=True)
            continue
        text = ""
        for command in commands(block.text):
            print(command.line, file=sys.stderr, flush=True)
            shown, seconds = run(command, folder)
            text += "\n".join([f"$ {command.line}", *shown]) + "\n"
            took.append((command, seconds))
        done.append((block, text))
    for block, text in reversed(done):
        page = page[: block.start] + text + page[block.end :]
    return page, took


def measured(took: Sequence[tuple[Command, float]], folder: Path, load: Sequence[float]) -> str:
    """Say what the commands took, on what machine, and how busy it was."""
    machine = hardware("cpu")
    total = sum(seconds for _, seconds in took)
    rows = [(_short(command), second_text(seconds)) for command, seconds in took]
    rows.append(("all of them", second_text(total)))
    return (
        f"One run with PyTorch {torch.__version__} on {os.cpu_count()} cores of {machine['processor']} "
        f"({machine['system']}, {machine['threads']} threads). The load average was {load[0]:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after; above {os.cpu_count()}, others were at work too. Commands ran one "
        f"after another, each with its start-up:\n\n{table(('Command', 'Time'), rows)}\n\n"
        f"On disk: {byte_text(size(folder / 'runs'))} in `runs`, nearly all of it three models; a ticket has "
        f"{byte_text(size(folder / 'runs/found/tickets'))}. The base in `minilm` has "
        f"{byte_text(size(folder / 'minilm'))}.\n"
    )


def _short(command: Command) -> str:
    """Return a command without what it shares with the others, and how it ended where that is not well."""
    words = shlex.split(command.line)
    kept = words[:3] if words[0] == "hardtack" else [words[0], "..."]
    kept += words[words.index("--out") :][:2] if "--out" in words else []
    kept += ["--dry-run"] if "--dry-run" in words else []
    return code(" ".join(kept)) + {0: "", 2: " (refused)", 130: " (interrupted)"}[command.status]


def main() -> None:
    """Record the tutorial."""
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        page, took = record(PAGE.read_text(encoding="utf-8"), Path(name))
        text = measured(took, Path(name), load)
    PAGE.write_text(MEASURED.sub(lambda found: found[1] + text + found[2], page), encoding="utf-8")


if __name__ == "__main__":
    main()
