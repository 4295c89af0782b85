"""A study of 24 cells in two one-thread processes: the rows of one process, sooner than with two threads.

    python bench/study.py [--epochs 1] [--examples 20] [--pairs 1] [--folder DIR]

Every way is a command of its own, started cold, so that all of them pay for the imports. The way with one
thread only gives the rows that the processes must reproduce bit for bit (but for `measured`).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hardtack.cost import hardware

ROOT = Path(__file__).resolve().parent.parent
CELLS = 24


def run(recipe: Path, out: Path, processes: int, threads: int) -> float:
    """Run the study and return its seconds; a failed cell ends the bench."""
    words = ["hardtack", "study", recipe, "--out", out, "--processes", processes, "--threads", threads]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *map(str, words), "--json"], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout)
    assert len(result["ran"]) == result["cells"] == CELLS, result
    print(f"{processes} processes, {threads} threads in all: {seconds:.1f} s", flush=True)
    return seconds


def rows(out: Path) -> list[dict]:
    """Return the rows but for what is measured."""
    found = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "measured"} for row in found]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    place = args.folder or Path(tempfile.mkdtemp(prefix="study-"))
    text = (ROOT / "recipes" / "first_look.toml").read_text()
    text = text.replace("epochs = 3", f"epochs = {args.epochs}")
    text = text.replace("examples = 100", f"examples = {args.examples}")
    recipe = place / "bench.toml"
    recipe.write_text(text)
    print(hardware(), f"{CELLS} cells, {args.epochs} epochs, {args.examples} attacked examples")
    run(recipe, place / "one", 1, 1)
    two, threaded = [], []
    for pair in range(args.pairs):
        # In turn, so that what else the machine does meets both alike.
        two.append(run(recipe, place / f"two-{pair}", 2, 2))
        threaded.append(run(recipe, place / f"threaded-{pair}", 1, 2))
    equal = rows(place / "one") == rows(place / "two-0")
    same = (place / "one" / "outcomes.jsonl").read_bytes() == (
        place / "two-0" / "outcomes.jsonl"
    ).read_bytes()
    ratio = statistics.median(a / b for a, b in zip(two, threaded, strict=True))
    print(f"rows equal: {equal}; outcomes equal: {same}; two processes take {ratio:.2f} of two threads")
    return 0 if equal and same and ratio < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
