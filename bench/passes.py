"""What one pass of a model costs in each runtime, by the shape of its batch.

    python bench/passes.py MODEL TASK [--runtime torch openvino ...] [--turns 9]

Random tokens, full rows; all runtimes take turns. Printed is the least number of processor milliseconds over
the turns, which a shared machine disturbs least, and how many times as fast that is as the first runtime.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import torch

from hardtack.cost import hardware
from hardtack.evaluation.runtimes import RUNTIMES
from hardtack.loading import load
from hardtack.tasks.text import Encoder, load_task
from speed import LENGTH, built

SHAPES = ((64, 16), (32, 32), (16, 64), (8, 30), (4, 25), (1, 25))  # texts x tokens


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("--runtime", nargs="+", choices=["torch", *RUNTIMES], default=["torch", *RUNTIMES])
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    task = load_task(args.task)
    loaded = load(args.model, task.labels)
    encoder = Encoder.of(loaded.tokenizer, loaded.model, LENGTH)
    examples = task.examples("validation", 4, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        runtimes = [built(name, loaded.model, encoder, examples, Path(folder)) for name in args.runtime]
    print(hardware())
    keys = list(encoder([examples[0].text])[0])
    tokens = loaded.model.get_input_embeddings().weight.shape[0]
    for texts, length in SHAPES:
        inputs = {key: torch.ones(texts, length, dtype=torch.int64) for key in keys}
        inputs["input_ids"] = torch.randint(
            tokens, (texts, length), generator=torch.Generator().manual_seed(0)
        )
        if "token_type_ids" in inputs:
            inputs["token_type_ids"].zero_()
        spent = {runtime.name: [] for runtime in runtimes}
        for turn in range(args.turns + 1):
            for runtime in runtimes:
                began = time.process_time()
                runtime(inputs)
                if turn:  # the first one of a shape is not counted
                    spent[runtime.name].append(1000 * (time.process_time() - began))
        least = {name: min(times) for name, times in spent.items()}
        first = least[runtimes[0].name]
        told = (f"{name} {ms:.1f} ms ({first / ms:.2f})" for name, ms in least.items())
        print(f"{texts} x {length}: {', '.join(told)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
