"""What a ticket costs: bytes on disk, and loading and applying it against `from_pretrained` of its base.

    python bench/ticket.py [--pairs 10]

BERT-base shape with random weights (85.5 million prunable weights). `from_pretrained` maps the file and
copies nothing: pages are first read by whoever uses the weights. Applying has to write 342 MB of new memory
whatever it does. Both yardsticks are shown: the bare call, and the call with every weight read once.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, BertConfig
from transformers.utils import logging

from hardtack.cost import disk_bytes, hardware
from hardtack.prunable import Prunable
from hardtack.select import Sparsity, draw
from hardtack.ticket import Base, Ticket
from pairs import interleaved, report


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=10)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(hardware())
    with tempfile.TemporaryDirectory() as folder:
        base, place = Path(folder) / "base", Path(folder) / "ticket"
        model = AutoModelForSequenceClassification.from_config(BertConfig())
        model.save_pretrained(base)
        view = Prunable.of(model)
        scores = {site.name: torch.rand(site.units) for site in view.sites}
        Ticket.of(Base.of(model), view, draw(view, scores, Sparsity.parse(0.3))).save(place)
        limit = view.units / 8 + 64 * 1024
        size = disk_bytes(place)
        kept = size <= limit
        print(
            f"ticket: {size} bytes for {view.units} weights, "
            f"limit {limit:.0f}: {'holds' if kept else 'FAILS'}"
        )

        models: list[torch.nn.Module] = []

        def bare() -> None:
            AutoModelForSequenceClassification.from_pretrained(base)

        def read() -> None:
            for parameter in AutoModelForSequenceClassification.from_pretrained(base).parameters():
                parameter.sum()

        def applied() -> None:
            Ticket.load(place).apply_(models.pop(0))

        for yardstick, name in ((bare, "from_pretrained"), (read, "from_pretrained with every weight read")):
            models += [
                AutoModelForSequenceClassification.from_pretrained(base) for _ in range(args.pairs + 1)
            ]
            holds = report(f"load and apply / {name}", interleaved(applied, yardstick, args.pairs), 2.0)
            kept &= holds or yardstick is read  # the limit is on the bare call

        ratios = []
        for _ in range(args.pairs + 5):  # one model at a time: memory that was used before is used again
            began = time.perf_counter()
            models.append(AutoModelForSequenceClassification.from_pretrained(base))
            loaded = time.perf_counter()
            applied()
            ratios.append((time.perf_counter() - loaded) / (loaded - began))
        low, middle, high = statistics.quantiles(ratios[5:], n=4)
        print(f"one model at a time, memory used before: {middle:.2f} [{low:.2f}, {high:.2f}], no limit")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
