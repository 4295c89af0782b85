"""Which attacks, one after another, leave the lowest accuracy for the fewest queries?

    python bench/cascades.py MODEL TASK [--attack deepwordbug pwws ...] [--examples 200] [--neighbours FILE]
        [--out docs/results/cascades]

Each attack meets the same validation examples once. Every order of up to three of them is then a cascade: an
example falls to the first member that fells it, and its queries are those of the members that it met (the
original text, which every member asks first, counts once). That is exact for attacks that draw nothing and a
draw of another stream for those that do; the cascades at the front are also run as `cascade`, and both
numbers stand in the table. Written are `outcomes.csv` (no texts), `front.md` and `front.svg`.
"""

import argparse
import csv
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers.utils import logging

from hardtack.cost import hardware
from hardtack.evaluation.attacks import ATTACKS, Outcome
from hardtack.evaluation.attacks.cascade import Cascade
from hardtack.evaluation.robust import attack_all
from hardtack.evaluation.victim import Victim
from hardtack.loading import load
from hardtack.runs import Run, commit
from hardtack.stats import proportion
from hardtack.tasks.text import Encoder, load_task

MEMBERS = 3
DEFAULT = ("deepwordbug", "pruthi", "pwws")
COLUMNS = (
    "cascade",
    "accuracy under attack, 95%",
    "queries an attacked example",
    "run as `cascade`",
    "seconds for 1,000 queries",
)


class Chain(NamedTuple):
    """Attacks in order, with what they leave and what they ask."""

    names: tuple[str, ...]
    accuracy: float
    queries: float

    @property
    def label(self) -> str:
        return ", then ".join(self.names)


def chains(found: dict[str, list[Outcome]]) -> list[Chain]:
    """Return every order of up to three attacks, worked out from what each did alone."""
    orders = [order for size in range(1, MEMBERS + 1) for order in itertools.permutations(found, size)]
    return [chain(order, found) for order in orders]


def chain(order: Sequence[str], found: dict[str, list[Outcome]]) -> Chain:
    """Return what attacks in this order leave, and the mean queries of an attacked example."""
    held, asked, attacked = 0, 0, 0
    for outcomes in zip(*(found[name] for name in order), strict=True):
        if outcomes[0].status == "missed":
            continue
        attacked += 1
        met = list(itertools.takewhile(lambda one: one.status == "held", outcomes))
        held += len(met) == len(outcomes)
        met = outcomes[: len(met) + 1]
        asked += sum(one.queries for one in met) - (len(met) - 1)
    return Chain(tuple(order), held / len(found[order[0]]), asked / attacked)


def front(found: Sequence[Chain]) -> list[Chain]:
    """Return the cascades that none beats in both numbers, from the fewest queries on."""
    best: list[Chain] = []
    for one in sorted(found, key=lambda one: (one.queries, one.accuracy, one.names)):
        if not best or one.accuracy < best[-1].accuracy:
            best.append(one)
    return best


def draw(found: Sequence[Chain], best: Sequence[Chain], file: Path) -> None:
    """Draw every cascade as a point and the front as a line."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "hardtack", "svg.fonttype": "none"}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for size, marker in zip(range(1, MEMBERS + 1), "os^", strict=True):
        mine = [one for one in found if len(one.names) == size]
        label = "one attack" if size == 1 else f"cascades of {size}"
        axes.scatter([c.queries for c in mine], [c.accuracy for c in mine], marker=marker, s=18, label=label)
    axes.step([c.queries for c in best], [c.accuracy for c in best], where="post", color="0.3", label="front")
    for one in best:
        axes.annotate(
            one.label, (one.queries, one.accuracy), xytext=(4, 4), textcoords="offset points", fontsize=7
        )
    axes.set(xlabel="mean queries an attacked example (log)", ylabel="accuracy under attack", xscale="log")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None, "Creator": None})


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("--attack", nargs="+", choices=list(ATTACKS), default=list(DEFAULT))
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--neighbours", type=Path, help="adds word_swap over this table")
    parser.add_argument("--out", type=Path, default=Path("docs/results/cascades"))
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    task = load_task(args.task)
    loaded = load(args.model, task.labels, trained_head=True)
    encoder = Encoder.of(loaded.tokenizer, loaded.model, args.max_length)
    examples = task.examples("validation", args.examples, seed=0)
    attacks = {name: ATTACKS[name]() for name in args.attack}
    if args.neighbours:
        attacks["word_swap"] = ATTACKS["word_swap"](args.neighbours)

    found: dict[str, list[Outcome]] = {}
    seconds: dict[str, float] = {}
    for name, attack in attacks.items():
        began = time.perf_counter()
        found[name] = attack_all(attack, examples, Victim(loaded.model, encoder), Run.nowhere())
        seconds[name] = time.perf_counter() - began
        alone = chain([name], found)
        print(f"{name}: {alone.accuracy:.3f}, {alone.queries:.1f} queries, {seconds[name]:.0f} s", flush=True)
    every = chains(found)
    best = front(every)

    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "outcomes.csv", "w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["example", *(f"{name} {what}" for name in found for what in ("status", "queries"))])
        for row in zip(*found.values(), strict=True):
            writer.writerow([row[0].id, *(value for one in row for value in (one.status, one.queries))])
    lines = [
        f"{len(examples)} validation examples of `{task.name}` (seed 0, length {args.max_length}, "
        f"data {task.fingerprint('validation')[:12]}). Hardware: {hardware()}. Commit {str(commit())[:12]}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "| --- " * len(COLUMNS) + "|",
    ]
    for one in best:
        rerun = ""
        if len(one.names) > 1:
            cascade = Cascade(members=tuple(attacks[name] for name in one.names))
            outcomes = attack_all(cascade, examples, Victim(loaded.model, encoder), Run.nowhere())
            real = chain(["it"], {"it": outcomes})
            rerun = f"{real.accuracy:.3f}, {real.queries:.1f} queries"
        low, high = proportion(round(one.accuracy * len(examples)), len(examples))[1:]
        took = sum(seconds[name] for name in one.names)
        texts = sum(o.queries for name in one.names for o in found[name] if o.status != "missed")
        cells = (one.label, f"{one.accuracy:.3f} [{low:.3f}, {high:.3f}]", f"{one.queries:.1f}", rerun)
        lines.append(f"| {' | '.join(cells)} | {1000 * took / texts:.1f} |")
        print(lines[-1], flush=True)
    (args.out / "front.md").write_text("\n".join(lines) + "\n")
    draw(every, best, args.out / "front.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
