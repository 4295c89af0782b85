"""Do verdicts depend on the batch size, on the runtime, or on what else is attacked?

    python bench/verdicts.py MODEL TASK [--examples 200] [--attack deepwordbug] [--runtime torch openvino ...]
        [--alone]

One attack on the same sentences of the validation split, cut at 64 tokens, with the same draws: by every
runtime with batch size 8 and 64, and with --alone one example at a time (by the model itself). What the first
way found is compared with what each other way found; an example on which the verdict (or only the text or the
number of queries) is another is listed by its id. At most one verdict in 200 may differ.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

from hardtack.cost import hardware
from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.robust import attack_all
from hardtack.evaluation.runtimes import RUNTIMES
from hardtack.evaluation.victim import Victim
from hardtack.loading import load
from hardtack.runs import Run
from hardtack.tasks.text import Encoder, load_task
from speed import LENGTH, built

MAY_DIFFER = 1 / 200


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--attack", choices=("deepwordbug", "pruthi", "pwws"), default="deepwordbug")
    parser.add_argument("--runtime", nargs="+", choices=["torch", *RUNTIMES], default=["torch", *RUNTIMES])
    parser.add_argument("--alone", action="store_true", help="also one example at a time")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    task = load_task(args.task)
    loaded = load(args.model, task.labels)
    encoder = Encoder.of(loaded.tokenizer, loaded.model, LENGTH)
    examples = task.examples("validation", args.examples, seed=0)
    attack = ATTACKS[args.attack]()
    print(hardware(), f"{args.attack} on {len(examples)} sentences", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        runtimes = [built(name, loaded.model, encoder, examples, Path(folder)) for name in args.runtime]
    ways = [(runtime, size, 256) for runtime in runtimes for size in (8, 64)]
    if args.alone:
        ways.append((runtimes[0], 8, 1))
    first, kept = None, True
    for runtime, size, window in ways:
        victim, began = Victim(loaded.model, encoder, size, runtime=runtime), time.perf_counter()
        found = attack_all(attack, examples, victim, Run.nowhere(), window=window)
        seconds = time.perf_counter() - began
        first = first or found
        pairs = list(zip(first, found, strict=True))
        verdicts = [a.id for a, b in pairs if a.status != b.status]
        besides = [a.id for a, b in pairs if a != b and a.status == b.status]
        fine = len(verdicts) <= MAY_DIFFER * len(examples)
        kept &= fine
        print(
            f"{runtime.name}, batch size {size}, {'alone' if window == 1 else 'together'}: {seconds:.1f} s, "
            f"{victim.forwards.texts} texts in {victim.forwards.batches} batches, "
            f"{len(verdicts)} of {len(examples)} verdicts differ {verdicts}, {len(besides)} more in text "
            f"or queries {besides}: {'holds' if fine else 'FAILS'}",
            flush=True,
        )
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
