"""Drives attacks over many examples in lockstep and defines, once, the rates that come out of it."""

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from torch import Tensor

from hardtack.errors import InputError
from hardtack.evaluation.answers import Answers
from hardtack.evaluation.attacks.protocol import (
    Ascent,
    Ask,
    Fill,
    Flips,
    Judges,
    Outcome,
    Queries,
    Similar,
    TextAttack,
    Texts,
    predicted,
)
from hardtack.evaluation.gradients import WhiteBox
from hardtack.evaluation.sheaves import Row
from hardtack.evaluation.victim import Victim
from hardtack.runs import Run
from hardtack.tasks.task import Example

_VERSION = 2  # of the order in which this driver asks; part of what recorded answers are bound to
REMEMBERED = 2**18  # token lists whose logits all examples share; more than that and the oldest are forgotten


class Rates(NamedTuple):
    """The numbers of an attack over n examples.

    missed = wrong before the attack; held = right before and after; fell = right before, wrong after.
    `attack_success_rate` and `mean_queries` are None when every example was missed: nothing was attacked.
    """

    examples: int
    missed: int
    held: int
    fell: int
    clean_accuracy: float
    accuracy_under_attack: float
    attack_success_rate: float | None
    mean_queries: float | None


def rates(outcomes: Iterable[Outcome]) -> Rates:
    """Return the rates of an attack: the only place where they are defined.

    clean_accuracy = (held + fell) / n, accuracy_under_attack = held / n, attack_success_rate = fell / (held +
    fell); mean_queries is over the examples that were attacked (missed ones not counted), distinct texts per
    example.
    """
    listed = list(outcomes)
    if not listed:
        raise InputError("no example was attacked; at least 1 is needed")
    missed, held, fell = (sum(o.status == status for o in listed) for status in ("missed", "held", "fell"))
    n, attacked = len(listed), held + fell
    queries = sum(o.queries for o in listed if o.status != "missed")
    return Rates(
        examples=n,
        missed=missed,
        held=held,
        fell=fell,
        clean_accuracy=attacked / n,
        accuracy_under_attack=held / n,
        attack_success_rate=fell / attacked if attacked else None,
        mean_queries=queries / attacked if attacked else None,
    )


def attack_all(
    attack: TextAttack,
    examples: Sequence[Example],
    victim: Victim,
    run: Run,
    *,
    window: int = 256,
    row: str = "",
) -> list[Outcome]:
    """Attack all examples, many at once, and return their outcomes in the order of the examples.

    Each example's attack is a generator. In every round the texts that the live generators want are asked
    together, so that the model sees full batches, and so are their questions to the judges. A text is asked
    once per example, however often its attack repeats it, and counts once as a query. Texts that are the same
    to the model (equal token ids, after truncation) pass through it once, whichever examples they belong to;
    that changes no count. Answers are rounded to 1e-4 before any attack sees them.

    Every answer is kept in a file of `run.scratch`. Started again after a kill, the recorded answers are
    replayed into the same generators; the rounds, and with them the batches, fall as they would have without
    the kill.

    Args:
        attack: the attack and its settings.
        examples: what is attacked; ids must be distinct.
        victim: the model under attack.
        run: gives the random streams (by attack name and example id), the scratch folder and progress.
        window: how many examples are live at once; finished ones are replaced in order.
        row: names the result row, where one run attacks several models with one attack.
    """
    if not examples:
        raise InputError("no example to attack; at least 1 is needed")
    if window < 1:
        raise InputError(f"window {window}; allowed: 1 or more")
    if len({example.id for example in examples}) != len(examples):
        raise InputError("two examples to attack have one id; ids must be distinct")
    label = f"attack/{attack.name}" + (f"/{row}" if row else "")
    binding = _binding(attack, examples, victim, run, window=window, label=label)
    judges, white_box = _judges_of(attack, victim), WhiteBox(victim)
    outcomes: dict[int, Outcome] = {}
    waiting = iter(enumerate(examples))
    live: list[_Live] = []
    known: dict[bytes, Tensor] = {}
    with Answers(_path(run, label, binding), binding, victim.classes, clock=run.clock) as answers:
        try:
            run.tick(f"attack {attack.name}", 0, len(examples))
            while True:
                for position, example in islice(waiting, window - len(live)):
                    rng = run.rng(f"attack/{attack.name}", example=example.id)
                    live.append(_Live(position, example, attack.attack(example, rng)))
                    live[-1].start()
                if not live:
                    break
                _ask_victim([(one, text) for one in live for text in one.unknown()], victim, answers, known)
                _ask_judges(live, judges, answers)
                _ask_gradient(live, white_box, answers)
                outcomes |= {one.position: done for one in live if (done := one.step()) is not None}
                live = [one for one in live if one.position not in outcomes]
                run.tick(f"attack {attack.name}", len(outcomes), len(examples))
            answers.log_resumption(run, label)
        finally:
            for one in live:
                one.queries.close()
    return [outcomes[position] for position in range(len(examples))]


@dataclass
class _Live:
    """One example under attack: its generator, what it wants to know next and every answer it has had."""

    position: int
    example: Example
    queries: Queries
    wanted: Ask = field(default_factory=list)
    judged: Any = None  # the answer to an ask that is no list of texts
    sunk: bool = False  # a change of embeddings changed the prediction
    memo: dict[Texts, Tensor] = field(default_factory=dict)  # text -> rounded logits, float64 [C]

    def start(self) -> None:
        self.wanted = next(self.queries)
        if self.wanted != [self.example.text]:
            raise TypeError(
                f"an attack's first candidates are {self.wanted!r}; allowed: the original text alone"
            )

    def unknown(self) -> list[Texts]:
        if not isinstance(self.wanted, list):
            return []
        return [text for text in dict.fromkeys(self.wanted) if text not in self.memo]

    def step(self) -> Outcome | None:
        """Send the wanted answers; return the outcome when the attack is over."""
        original = self.memo[self.example.text]
        if not 0 <= self.example.label < len(original):
            raise InputError(
                f"example {self.example.id} has the label {self.example.label}; "
                f"the model's classes are 0 to {len(original) - 1}"
            )
        if not isinstance(self.wanted, list):
            answer = self.judged
        elif self.wanted:
            answer = torch.stack([self.memo[text] for text in self.wanted])
        else:
            answer = original.new_empty(0, len(original))
        try:
            self.wanted = self.queries.send(answer)
        except StopIteration as stop:
            return self.checked(stop.value)
        return None

    def checked(self, outcome: Outcome) -> Outcome:
        """Compare what an attack claims with the answers it had; the driver's count of queries stands."""
        label, memo = self.example.label, self.memo
        if predicted(memo[self.example.text]) != label:
            true = outcome.status == "missed" and outcome.adversarial is None
        elif outcome.status == "fell":
            fooling = outcome.adversarial
            true = self.sunk if fooling is None else fooling in memo and predicted(memo[fooling]) != label
        else:
            true = outcome.status == "held" and outcome.adversarial is None
        if not true or outcome.id != self.example.id or outcome.original != self.example.text:
            raise TypeError(f"an attack's outcome contradicts the answers it was given: {outcome!r}")
        return outcome._replace(queries=len(memo))


def _ask_victim(
    pending: list[tuple[_Live, Texts]], victim: Victim, answers: Answers, known: dict[bytes, Tensor]
) -> None:
    """Answer every pending text: from what equal tokens were answered, from the file as far as it goes, else
    from the model.
    """
    texts = list(dict.fromkeys(text for _, text in pending))
    rows = victim.encode(texts)
    keys = [_key(row) for row in rows]
    fresh = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
    places = sorted(fresh.values())  # of the first text with each new list of tokens
    asked = [texts[i] for i in places]
    for sheaf in victim.plan([rows[i] for i in places]):
        raw = answers.replay(len(sheaf.rows))
        if raw is None:
            raw = victim.answer(sheaf, asked)
            answers.append(raw)
        else:
            victim.classes = raw.shape[1]
            victim.observe(raw)
        for place, rounded in zip(sheaf.positions.tolist(), raw.double().round(decimals=4), strict=True):
            known[keys[places[place]]] = rounded
    found = dict(zip(texts, (known[key] for key in keys), strict=True))
    for one, text in pending:
        one.memo[text] = found[text]
    for key in list(islice(known, max(0, len(known) - REMEMBERED))):
        del known[key]


def _key(row: Row) -> bytes:
    """Return what is equal for equal token lists; all lists of a row have one length."""
    return xxhash.xxh3_128_digest(array("q", chain.from_iterable(row.values())).tobytes())


def _ask_judges(live: list[_Live], judges: Judges, answers: Answers) -> None:
    """Answer the questions of this round that are not for the victim, all of one kind in one call."""
    similar = [one for one in live if isinstance(one.wanted, Similar)]
    if similar:
        told = answers.replay_judged()
        if told is None:
            if judges.encoder is None:
                raise TypeError("an attack asks for similarities and has no sentence encoder in its judges()")
            cosines = judges.encoder.similar([one.wanted for one in similar])  # type: ignore[misc]
            told = [each.tolist() for each in cosines]
            answers.append_judged(told)
        for one, each in zip(similar, told, strict=True):
            one.judged = torch.tensor(each, dtype=torch.float64)
    fill = [one for one in live if isinstance(one.wanted, Fill)]
    if fill:
        told = answers.replay_judged()
        if told is None:
            if judges.filler is None:
                raise TypeError("an attack asks for substitutes and has no masked model in its judges()")
            told = judges.filler.fill([one.wanted for one in fill])  # type: ignore[misc]
            answers.append_judged(told)
        for one, each in zip(fill, told, strict=True):
            one.judged = [(word, score) for word, score in each]


def _ask_gradient(live: list[_Live], white_box: WhiteBox, answers: Answers) -> None:
    """Answer the white-box questions of this round, all of one kind in one call."""
    flips = [one for one in live if isinstance(one.wanted, Flips)]
    if flips:
        told = answers.replay_judged()
        if told is None:
            told = white_box.flips([one.wanted for one in flips])  # type: ignore[misc]
            answers.append_judged(told)
        for one, each in zip(flips, told, strict=True):
            one.judged = [[(word, fall) for word, fall in span] for span in each]
    ascents = [one for one in live if isinstance(one.wanted, Ascent)]
    if ascents:
        told = answers.replay_judged()
        if told is None:
            trails = white_box.ascents([one.wanted for one in ascents])  # type: ignore[misc]
            told = [trail.tolist() for trail in trails]
            answers.append_judged(told)
        for one, each in zip(ascents, told, strict=True):
            one.judged = torch.tensor(each, dtype=torch.float64)
            one.sunk = one.sunk or any(predicted(logits) != one.example.label for logits in one.judged)


def _judges_of(attack: TextAttack, victim: Victim) -> Judges:
    """Return the attack's judges, their models on the victim's device."""
    make = getattr(attack, "judges", None)
    judges = Judges() if make is None else make()
    for judge in judges:
        if (model := getattr(judge, "model", None)) is not None:
            model.to(victim.device)
    return judges


def _binding(
    attack: TextAttack, examples: Sequence[Example], victim: Victim, run: Run, *, window: int, label: str
) -> bytes:
    """Return a digest of everything that decides which texts are asked in which batch, but for the model
    itself; and of the runtime, so that answers of two programs never stand in one file.
    """
    plan = [victim.budget, victim.price, victim.runtime.name]
    digest = xxhash.xxh3_128(json.dumps([_VERSION, label, run.id, run.seed, window, *plan]).encode())
    digest.update(json.dumps(attack.settings(), sort_keys=True, default=str).encode())
    for example in examples:
        digest.update(json.dumps([example.id, example.text, example.label]).encode())
    return digest.digest()


def _path(run: Run, label: str, binding: bytes) -> Path | None:
    # The digest keeps two settings of one attack apart, so that neither discards the other's answers.
    scratch = run.scratch
    name = f"{label.replace('/', '-')}-{binding.hex()[:8]}.answers"
    return None if scratch is None else scratch / name
