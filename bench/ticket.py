"""What a ticket costs: bytes on disk, and loading and applying it against `from_pretrained` of its base.

    python bench/ticket.py [--pairs 10]

BERT-base shape with random weights (85.5 million prunable weights). `from_pretrained` maps the file and
copies nothing: pages are first read by whoever uses the weights. Applying has to write 342 MB of new memory
whatever it does. Both yardsticks are shown: the bare call, and the call with every weight read once.
"""

import argparse
import sys
import tempfile
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

        def loaded() -> None:
            models.append(AutoModelForSequenceClassification.from_pretrained(base))

        def read() -> None:
            loaded()
            for parameter in models.pop().parameters():
                parameter.sum()

        def applied() -> None:
            Ticket.load(place).apply_(models.pop(0))

        for _ in range(args.pairs + 1):
            loaded()
        fresh = models[:]

        def bare() -> None:
            AutoModelForSequenceClassification.from_pretrained(base)

        models[:] = fresh
        kept &= report("load and apply / from_pretrained", interleaved(applied, bare, args.pairs), 2.0)
        models.clear()
        for _ in range(args.pairs + 1):
            loaded()

        held = models[:]

        def applied_held() -> None:
            Ticket.load(place).apply_(held.pop(0))

        report(
            "load and apply / from_pretrained with every weight read",
            interleaved(applied_held, read, args.pairs),
            2.0,
        )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
