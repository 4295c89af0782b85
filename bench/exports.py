"""Does every exported form answer and fall as the ticket it was made from?

    python bench/exports.py RETRAINED TASK [--examples 200] [--attack deepwordbug] [--to shrink dense ...]

A model made by `retrain` is exported in every form, and each is opened again. Its predictions on all test
examples are compared with those of the ticket's model, whose removed units are zero; all have to be equal.
Then the same test examples are attacked with the same draws; at most one verdict in 200 may differ. The form
with eight-bit weights is a model of its own: how much of it differs is printed, and no limit is set.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from hardtack.cost import disk_bytes, hardware
from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.robust import attack_all, rates
from hardtack.evaluation.victim import Victim
from hardtack.exports import EXPORTS
from hardtack.loading import load
from hardtack.runs import Run
from hardtack.stages import export
from hardtack.tasks.text import Encoder, load_task

LENGTH = 64
MAY_DIFFER = 1 / 200
OWN = ("onnx-int8",)
"""Forms that are models of their own."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--attack", choices=("deepwordbug", "pruthi"), default="deepwordbug")
    parser.add_argument("--to", nargs="+", choices=EXPORTS, default=list(EXPORTS))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    task, attack = load_task(args.task), ATTACKS[args.attack]()
    everything = [example.text for example in task.examples("test")]
    examples = task.examples("test", args.examples, seed=0)
    wanted, kept = None, True
    print(hardware(), f"{len(everything)} predictions, {args.attack} on {len(examples)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for form in (None, *args.to):
            place = args.model
            if form is not None:
                place = str(Path(folder) / form)
                export(args.model, to=form, out=place)
            loaded = load(place, task.labels, foreign=True)
            victim = Victim(loaded.model, Encoder.of(loaded.tokenizer, loaded.model, LENGTH))
            predictions = victim.logits(everything).argmax(dim=1)
            found = attack_all(attack, examples, victim, Run.nowhere())
            wanted = wanted or (predictions, found)
            other = int((predictions != wanted[0]).sum())
            verdicts = [a.id for a, b in zip(wanted[1], found, strict=True) if a.status != b.status]
            fine = other == 0 and len(verdicts) <= MAY_DIFFER * len(examples)
            said = "a model of its own" if form in OWN else "holds" if fine else "FAILS"
            kept &= fine or form in OWN
            print(
                f"{form or 'the ticket'} ({victim.runtime.name}): {other} of {len(everything)} predictions, "
                f"{len(verdicts)} of {len(examples)} verdicts differ {verdicts}, accuracy under attack "
                f"{rates(found).accuracy_under_attack:.3f}, {disk_bytes(Path(place)):,} bytes: {said}",
                flush=True,
            )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
