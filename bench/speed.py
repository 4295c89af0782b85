"""How many times faster than TextAttack 0.3.11 are DeepWordBug, PWWS and Pruthi?

    python bench/speed.py MODEL TASK [--attack pwws ...] [--runtime torch openvino ...] [--sentences 16]
        [--pairs 10]

Both sides attack the same sentences of the validation split, all of which the model gets right, on one model
cut at 64 tokens, in one process with the same number of threads: TextAttack by its own wrapper of
transformers models (it pads every text to the maximum length) and its own batches of 32, hardtack in lockstep
through the runtimes asked for. All sides take turns; the ratio is taken turn by turn, its median and
quartiles are printed with seconds, queries and the share of the time that is not spent in the model. The
ratio of processor seconds stands beside it, for machines that are shared. Caches are emptied before every
turn; a conversion is not timed, but its seconds are printed.

Padded to 64 tokens, a text costs TextAttack 64 / (tokens of ours) times as much. On one thread, where a full
batch is bound by its products, the model itself can hardly gain more than that.

TextAttack is a yardstick, installed apart (bench/yardstick.py). Where it is absent nothing is compared.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hardtack.cost import hardware
from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.robust import attack_all, rates
from hardtack.evaluation.runtimes import RUNTIMES
from hardtack.evaluation.victim import Eager, Runtime, Victim
from hardtack.exports.onnx import to_onnx
from hardtack.loading import load
from hardtack.runs import Run
from hardtack.tasks.task import Example
from hardtack.tasks.text import Encoder, load_task
from yardstick import RECIPES, fill_nltk_folder, is_here, recipe

LENGTH = 64
EAGER = {"deepwordbug": 3.0, "pwws": 3.0, "pruthi": 2.0}  # times as fast, at least
FASTER = 5.0  # with the faster runtime
OUTSIDE = 0.15  # of the time may be spent outside the model (eager)


class Turn(NamedTuple):
    """What one side did in one turn; `tokens` a text that went through the model, padding included."""

    seconds: float
    processor: float
    inside: float
    queries: int
    held: int
    tokens: float


class Timed:
    """Adds up the seconds spent in a callable."""

    def __init__(self, call: Callable[..., Any], name: str = ""):
        self.call, self.name, self.seconds = call, name, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return self.call(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - began


def ours(attack: Any, examples: list[Example], encoder: Encoder, runtime: Runtime, model: Any) -> Turn:
    """Attack all examples in lockstep."""
    timed = Timed(runtime, runtime.name)
    began, worked = time.perf_counter(), time.process_time()
    victim = Victim(model, encoder, runtime=timed)
    outcomes = attack_all(attack, examples, victim, Run.nowhere())
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    tokens = victim.forwards.padded_tokens / victim.forwards.texts
    return Turn(
        seconds, processor, timed.seconds, sum(o.queries for o in outcomes), rates(outcomes).held, tokens
    )


def theirs(attack: Any, examples: list[Example]) -> Turn:
    """Attack all examples with TextAttack, one after another, as its Attacker does in one process."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (TextAttack draws from it)
    attack.clear_cache()
    model = attack.goal_function.model.model
    timed, plain = Timed(model.forward), model.forward
    model.forward = timed
    try:
        began, worked = time.perf_counter(), time.process_time()
        results = [attack.attack(example.text[0], example.label) for example in examples]
        seconds, processor = time.perf_counter() - began, time.process_time() - worked
    finally:
        model.forward = plain
    held = sum(type(result).__name__ == "FailedAttackResult" for result in results)
    queries = sum(result.num_queries for result in results)
    return Turn(seconds, processor, timed.seconds, queries, held, LENGTH)


def line(name: str, turns: list[Turn]) -> str:
    """Describe a side by its medians."""
    seconds = statistics.median(turn.seconds for turn in turns)
    outside = statistics.median(1 - turn.inside / turn.seconds for turn in turns)
    last = turns[-1]
    what = f"{last.queries} queries of {last.tokens:.1f} tokens, {last.held} held"
    return f"{name}: {seconds:.2f} s, {what}, {outside:.1%} outside the model"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("--attack", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--runtime", nargs="+", choices=["torch", *RUNTIMES], default=["torch", *RUNTIMES])
    parser.add_argument("--sentences", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    args = parser.parse_args()
    if not is_here():
        print("textattack is not installed here: nothing to compare with")
        return 0
    warnings.filterwarnings("ignore")
    task = load_task(args.task)
    loaded = load(args.model, task.labels)
    encoder = Encoder.of(loaded.tokenizer, loaded.model, LENGTH)
    loaded.tokenizer.model_max_length = LENGTH  # TextAttack's wrapper pads to it
    drawn = task.examples("validation", 2 * args.sentences, seed=0)
    answers = Victim(loaded.model, encoder).logits([example.text for example in drawn]).argmax(dim=1)
    right = [e for e, answer in zip(drawn, answers.tolist(), strict=True) if answer == e.label]
    examples = right[: args.sentences]
    tokens = statistics.mean(len(row["input_ids"]) for row in encoder([e.text for e in examples]))
    print(hardware(), f"{len(examples)} sentences of {tokens:.1f} tokens on average")

    kept = True
    with tempfile.TemporaryDirectory() as folder:
        fill_nltk_folder(Path(folder), args.wordnet)
        runtimes: list[Runtime] = []
        for name in args.runtime:
            runtimes.append(built(name, loaded.model, encoder, examples, Path(folder)))
        for name in args.attack:
            attack = ATTACKS[name](**({"wordnet": args.wordnet} if name == "pwws" else {}))
            other = recipe(
                name, lambda w: w.HuggingFaceModelWrapper(loaded.model, loaded.tokenizer), Path(folder)
            )
            sides: dict[str, Callable[[], Turn]] = {"TextAttack": lambda other=other: theirs(other, examples)}
            for runtime in runtimes:
                sides[runtime.name] = lambda runtime=runtime, attack=attack: ours(
                    attack, examples, encoder, runtime, loaded.model
                )
            kept &= judge(name, in_turns(sides, args.pairs))
    return 0 if kept else 1


def built(name: str, model: Any, encoder: Encoder, examples: list[Example], folder: Path) -> Runtime:
    """Return a runtime; say what its conversion cost."""
    if name == "torch":
        return Eager(model)
    file, began = folder / "victim.onnx", time.perf_counter()
    if not file.exists():
        rows = encoder([example.text for example in examples[:4]])
        width = max(len(row["input_ids"]) for row in rows)
        fill = {key: [[*row[key], *[0] * (width - len(row[key]))] for row in rows] for key in rows[0]}
        to_onnx(model, file, inputs={key: torch.tensor(values) for key, values in fill.items()})
    runtime = RUNTIMES[name](file, vocabulary=model.get_input_embeddings().weight.shape[0])
    print(f"{runtime.name} ready after {time.perf_counter() - began:.1f} s", flush=True)
    return runtime


def in_turns(sides: dict[str, Callable[[], Turn]], turns: int) -> dict[str, list[Turn]]:
    """Let the sides take turns, in the other order every other time, after one turn that is not counted."""
    for side in sides.values():
        side()
    done: dict[str, list[Turn]] = {name: [] for name in sides}
    for number in range(turns):
        for name in sorted(sides, reverse=bool(number % 2)):
            done[name].append(sides[name]())
    return done


def judge(attack: str, done: dict[str, list[Turn]]) -> bool:
    """Print what every side did and how many times as fast as TextAttack; return whether gates hold."""
    kept = True
    print(f"{attack}: {line('TextAttack', done['TextAttack'])}")
    faster = []
    for name, turns in done.items():
        if name == "TextAttack":
            continue
        ratios = [a.seconds / b.seconds for a, b in zip(done["TextAttack"], turns, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        work = statistics.median(
            a.processor / b.processor for a, b in zip(done["TextAttack"], turns, strict=True)
        )
        print(f"{attack}: {line(name, turns)}")
        print(
            f"    {middle:.2f} times as fast [{low:.2f}, {high:.2f}] over {len(ratios)} turns, "
            f"{work:.2f} times in seconds of processor",
            end="",
        )
        if name.startswith("torch"):
            outside = statistics.median(1 - turn.inside / turn.seconds for turn in turns)
            fine = middle >= EAGER[attack] and outside < OUTSIDE
            kept &= fine
            print(
                f"; at least {EAGER[attack]} and under {OUTSIDE:.0%} outside: {'holds' if fine else 'FAILS'}"
            )
        else:
            faster.append(middle)
            print()
    if faster:
        fine = max(faster) >= FASTER
        kept &= fine
        print(
            f"{attack}: the fastest runtime at least {FASTER} times: {'holds' if fine else 'FAILS'}",
            flush=True,
        )
    return kept


if __name__ == "__main__":
    sys.exit(main())
