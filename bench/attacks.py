"""What attacks cost on real sentences: queries a second, the share of time outside the model, and lockstep
against one example at a time.

    python bench/attacks.py [--attack deepwordbug word_swap] [--examples 32] [--pairs 10] [--model FOLDER]

MiniLM with a fresh head attacked on its own predictions, or a fine-tuned FOLDER, on the validation split of
$HARDTACK_DATA/sst2_sentences (default: ../shared/data). Both sides use one model, one tokenizer, the same
examples and random streams; only how many examples are live at once differs.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers.utils import logging

from hardtack.cost import hardware
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.attacks.word_swap import WordSwap
from hardtack.evaluation.resources import embedded_model
from hardtack.evaluation.robust import attack_all
from hardtack.evaluation.victim import Victim
from hardtack.loading import load
from hardtack.runs import Run
from hardtack.tasks.text import Encoder, load_task
from pairs import interleaved, report

OUTSIDE = 0.15  # of the time may be spent outside the model


class Clock:
    """Adds up the seconds spent in a model's forward."""

    def __init__(self, model: torch.nn.Module):
        self.model, self.seconds = model, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        inner = self.model.forward

        def timed(*args, **kwargs):
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        self.model.forward = timed
        try:
            yield
        finally:
            self.model.forward = inner


def main() -> int:
    data = Path(os.environ.get("HARDTACK_DATA", "../shared/data"))
    table = data / "attack_resources" / "counterfitted_neighbors.jsonl.gz"
    makers = {"deepwordbug": DeepWordBug, "word_swap": lambda: WordSwap(table)}
    parser = argparse.ArgumentParser()
    parser.add_argument("--attack", nargs="+", choices=makers, default=list(makers))
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--model", default=None)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    task = load_task(str(data / "sst2_sentences"))
    loaded = load(args.model or embedded_model(), task.labels)
    encoder = Encoder.of(loaded.tokenizer, loaded.model, 64)
    examples = task.examples("validation", args.examples, 0)
    answers = Victim(loaded.model, encoder).logits([example.text for example in examples]).argmax(dim=1)
    examples = [
        example._replace(label=label) for example, label in zip(examples, answers.tolist(), strict=True)
    ]
    print(hardware(), f"{len(examples)} sentences, {torch.get_num_threads()} threads")

    kept = True
    for name in args.attack:
        attack = makers[name]()

        def together(attack=attack):
            return attack_all(attack, examples, Victim(loaded.model, encoder), Run.nowhere())

        def alone(attack=attack):
            victim = Victim(loaded.model, encoder)
            return [attack_all(attack, [example], victim, Run.nowhere())[0] for example in examples]

        together()  # warm
        clock = Clock(loaded.model)
        began = time.perf_counter()
        with clock.running():
            outcomes = together()
        seconds = time.perf_counter() - began
        queries, outside = sum(outcome.queries for outcome in outcomes), 1 - clock.seconds / seconds
        holds = outside < OUTSIDE
        print(
            f"{name}: {queries} queries in {seconds:.2f} s, {queries / seconds:.0f} a second; "
            f"{outside:.1%} of the time outside the model, "
            f"limit {OUTSIDE:.0%}: {'holds' if holds else 'FAILS'}"
        )
        same = sum(a == b for a, b in zip(outcomes, alone(), strict=True))
        print(f"{name}: {same} of {len(examples)} outcomes equal those of one example at a time")
        kept &= holds and same >= len(examples) - 1
        kept &= report(f"{name} in lockstep / one at a time", interleaved(together, alone, args.pairs), 1.0)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
