"""Do DeepWordBug, Pruthi and PWWS say the same as TextAttack 0.3.11's recipes of these names?

    python bench/parity.py MODEL TASK [--examples 200] [--seeds 3] [--attack pwws ...] [--wordnet DIR]

Both sides attack the same sentences of the validation split on the same model, cut at 64 tokens, with
hardtack's list of function words. Queries are counted TextAttack's way: every text of every list it asks,
however often. Where an attack draws at random, both sides are the mean over the seeds. Printed are accuracy
under attack (within 2 points?), mean queries (within 10%?) and every example on which most seeds of one side
disagree with most seeds of the other, with what either found. Each of these is attacked again under --more
seeds: "draws" says that both sides then fall about equally often (Fisher's exact test, p >= 0.01),
"systematic" that they do not, so that the reason stands in the code of one of them.

TextAttack is a yardstick, installed apart (bench/yardstick.py). Where it is absent nothing is compared.
"""

import argparse
import random
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import fisher_exact

from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.victim import Victim
from hardtack.loading import load
from hardtack.runs import Run
from hardtack.tasks.task import Example
from hardtack.tasks.text import Encoder, load_task
from yardstick import RECIPES, fill_nltk_folder, is_here, recipe

DRAWS = {"deepwordbug", "pruthi"}  # PWWS draws nothing


class Answers:
    """The victim's logits by text, shared by both sides and all seeds: equal texts get equal answers."""

    def __init__(self, victim: Victim):
        self.victim, self.known = victim, {}

    def learn(self, texts: list[str]) -> None:
        """Ask the victim what is not known yet."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(fresh, self.victim.logits([(text,) for text in fresh]), strict=True))

    def of(self, texts: list[str]) -> torch.Tensor:
        """Return the logits of texts, [n, C]."""
        self.learn(texts)
        return torch.stack([self.known[text] for text in texts])


class Found(NamedTuple):
    """What one side says of one example under one seed."""

    status: str
    queries: int
    text: str


# ------------------------------------------------------------------ TextAttack's side


def their_attack(name: str, answers: Answers, folder: Path) -> Any:
    """Build a recipe around the answers that both sides share."""

    def wrapper(wrappers: Any) -> Any:
        class Wrapper(wrappers.ModelWrapper):
            model, tokenizer = answers.victim.model, None

            def __call__(self, texts: list[str]) -> torch.Tensor:
                return answers.of(texts)

            def get_grad(self, text: str) -> Any:
                raise NotImplementedError

        return Wrapper()

    return recipe(name, wrapper, folder)


def theirs(attack: Any, examples: list[Example], seed: int) -> Iterator[Found]:
    """Attack every example with TextAttack."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (TextAttack draws from it)
    torch.manual_seed(seed)
    words = {"SkippedAttackResult": "missed", "SuccessfulAttackResult": "fell", "FailedAttackResult": "held"}
    for example in examples:
        result = attack.attack(example.text[0], example.label)
        text = result.perturbed_result.attacked_text.text
        yield Found(words[type(result).__name__], result.num_queries, text)


# ------------------------------------------------------------------ hardtack's side


def ours(name: str, examples: list[Example], answers: Answers, seed: int, wordnet: Path) -> list[Found]:
    """Attack every example with hardtack, all in lockstep, counting all texts of every list."""
    attack = ATTACKS[name](**({"wordnet": wordnet} if name == "pwws" else {}))
    live = [attack.attack(example, Run.nowhere(seed).rng(name, example=example.id)) for example in examples]
    asked, found = {k: next(queries) for k, queries in enumerate(live)}, [Found("held", 0, "")] * len(live)
    while asked:
        answers.learn([text for texts in asked.values() for (text,) in texts])
        for k, texts in list(asked.items()):
            found[k] = found[k]._replace(queries=found[k].queries + len(texts))
            try:
                logits = answers.of([text for (text,) in texts]).double().round(decimals=4)
                asked[k] = live[k].send(logits)
            except StopIteration as stop:
                del asked[k]
                text = (stop.value.adversarial or stop.value.original)[0]
                found[k] = found[k]._replace(status=stop.value.status, text=text)
    return found


# ------------------------------------------------------------------ the comparison


def summary(found: list[list[Found]]) -> tuple[float, float]:
    """Return accuracy under attack in percent and mean queries of an attacked example, over the seeds."""
    held = [100 * sum(f.status == "held" for f in seed) / len(seed) for seed in found]
    queries = [statistics.mean(f.queries for f in seed if f.status != "missed") for seed in found]
    return statistics.mean(held), statistics.mean(queries)


def compare(
    name: str, examples: list[Example], mine: list[list[Found]], other: list[list[Found]]
) -> tuple[bool, list[int]]:
    """Print both sides; return whether they agree and the examples on which their majorities differ."""
    (held_a, queries_a), (held_b, queries_b) = summary(mine), summary(other)
    good = abs(held_a - held_b) <= 2 and abs(queries_a / queries_b - 1) <= 0.1
    print(
        f"{name}: accuracy under attack {held_a:.2f}% against {held_b:.2f}%, mean queries {queries_a:.1f} "
        f"against {queries_b:.1f} (ratio {queries_a / queries_b:.3f}), {len(examples)} examples, "
        f"{len(mine)} and {len(other)} seeds: {'agrees' if good else 'DIFFERS'}",
        flush=True,
    )
    shares = ([fell([seed[k] for seed in side]) for k in range(len(examples))] for side in (mine, other))
    return good, [k for k, (a, b) in enumerate(zip(*shares, strict=True)) if (a > 0.5) != (b > 0.5)]


def fell(found: list[Found]) -> float:
    """Return the share of seeds under which an example fell."""
    return sum(one.status == "fell" for one in found) / len(found)


def explain(example: Example, a: list[Found], b: list[Found]) -> None:
    """Print whether the two sides differ on an example by what they draw or by what they do."""
    ours, theirs = (sum(one.status == "fell" for one in side) for side in (a, b))
    chance = fisher_exact([[ours, theirs], [len(a) - ours, len(b) - theirs]]).pvalue
    print(
        f"  {example.id}: {'draws' if chance >= 0.01 and len(a) > 1 else 'systematic'}, fell under "
        f"{ours} of {len(a)} seeds of ours and {theirs} of {len(b)} of theirs (p = {chance:.3f})"
    )
    print(f"    {example.text[0]}")
    for side, found in (("ours", a), ("theirs", b)):
        print(f"    {side}: {next((f.text for f in found if f.status == 'fell'), 'held')}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--more", type=int, default=20, help="seeds by which a difference is explained")
    parser.add_argument("--attack", action="append", choices=RECIPES)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    args = parser.parse_args()
    if not is_here():
        print("textattack is not installed here: nothing to compare with")
        return 0
    warnings.filterwarnings("ignore")
    task = load_task(args.task)
    loaded = load(args.model, task.labels)
    victim = Victim(loaded.model, Encoder.of(loaded.tokenizer, loaded.model, 64))
    answers = Answers(victim)
    examples = task.examples("validation", args.examples, seed=0)
    agreed = True
    with tempfile.TemporaryDirectory() as folder:
        fill_nltk_folder(Path(folder), args.wordnet)
        for name in args.attack or RECIPES:
            attack = their_attack(name, answers, Path(folder))

            def both(some: list[Example], seeds: range, name: str = name, attack: Any = attack) -> Any:
                return (
                    [ours(name, some, answers, seed, args.wordnet) for seed in seeds],
                    [list(theirs(attack, some, seed)) for seed in seeds],
                )

            mine, other = both(examples, range(args.seeds if name in DRAWS else 1))
            good, differing = compare(name, examples, mine, other)
            agreed &= good
            if differing:
                more = range(100, 100 + args.more) if name in DRAWS else range(1)
                mine, other = both([examples[k] for k in differing], more)
                for place, k in enumerate(differing):
                    explain(examples[k], [seed[place] for seed in mine], [seed[place] for seed in other])
    return 0 if agreed else 1


if __name__ == "__main__":
    raise SystemExit(main())
