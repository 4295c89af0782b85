"""Cascade: runs several attacks one after another on whatever still holds: the worst case of them all."""

from copy import copy
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError, nearest
from hardtack.evaluation.attacks.protocol import Judges, Outcome, Queries, TextAttack, Texts
from hardtack.runs import generator
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class Cascade:
    """Runs several attacks one after another on whatever still holds: the worst case of them all.

    An example falls when one member fells it, and its outcome says which; it holds when none does, as
    AutoAttack (Croce, Hein 2020, arXiv 2003.01690) reports images. Queries add up, and a text that two
    members ask counts once.

    Every member has a random stream of its own, so that what it draws depends neither on the model nor on how
    far the members before it got. The order decides queries, and who fells an example, but not whether it
    falls. A query limit is shared: each member gets what the ones before it left over.
    """

    name: ClassVar[str] = "cascade"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes

    members: tuple[str | TextAttack, ...] = field(
        metadata={"help": "an attack by name, with its default settings (in Python also an attack), in order"}
    )
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example, all together; 0 = no limit"}
    )

    def __post_init__(self):
        if self.query_limit < 0:
            raise InputError(f"query_limit = {self.query_limit}; allowed: 0 (no limit) and more")
        if not self.attacks:
            raise InputError("a cascade of no attacks; at least 1 is needed")
        for model in ("encoder", "masked_lm"):
            named = [attack.settings().get(model) for attack in self.attacks]
            if len({one for one in named if one is not None}) > 1:
                raise InputError(f"members of a cascade differ in {model}; allowed: one for all of them")

    @cached_property
    def attacks(self) -> tuple[TextAttack, ...]:
        """The members, made once."""
        return tuple(made(member) for member in self.members)

    def judges(self) -> Judges:
        """Return the judges of the members; where several need one, it is the same."""
        encoder = filler = None
        for attack in self.attacks:
            if (judges := getattr(attack, "judges", None)) is None:
                continue
            own: Judges = judges()
            encoder, filler = encoder or own.encoder, filler or own.filler
        return Judges(encoder, filler)

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: all settings of all members."""
        members = [attack.settings() for attack in self.attacks]
        return {
            "name": self.name,
            "version": self.version,
            "members": members,
            "query_limit": self.query_limit,
        }

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield what the members ask, pass answers on, return the first fall."""
        seed = int(torch.randint(2**62, (), generator=rng))
        asked: set[Texts] = set()
        for number, member in enumerate(self.attacks):
            if self.query_limit:
                left = self.query_limit - len(asked)
                if left <= 0:
                    break
                # The original, which every member asks first, counts once.
                member = limited(member, left + (number > 0))
            queries = member.attack(example, generator(seed, member.name, number))
            outcome = yield from counted(queries, asked)
            if outcome.status != "held":
                by = member.name if outcome.status == "fell" else None
                return outcome._replace(queries=len(asked), by=by)
        return Outcome(example.id, "held", len(asked), example.text, None)


def counted(queries: Queries, asked: set[Texts]) -> Queries:
    """Pass on an attack's questions and answers, noting the texts that it asks the victim."""
    answer = None
    while True:
        try:
            ask = next(queries) if answer is None else queries.send(answer)
        except StopIteration as stop:
            return stop.value
        if isinstance(ask, list):
            asked.update(ask)
        answer = yield ask


def limited(attack: TextAttack, most: int) -> TextAttack:
    """Return the attack with a query limit of at most so many texts, and everything it has opened."""
    limit = getattr(attack, "query_limit", 0)
    other = copy(attack)
    # Not dataclasses.replace, which would open the attack's resources anew for every example.
    object.__setattr__(other, "query_limit", min(limit, most) if limit else most)
    return other


def made(member: str | TextAttack) -> TextAttack:
    """Return a member as it is, or by its name with default settings."""
    from hardtack.evaluation.attacks import ATTACKS

    allowed = [name for name in ATTACKS if name not in ("cascade", "embedding_pgd")]
    if not isinstance(member, str):
        if member.name in ATTACKS and member.name not in allowed:
            raise InputError(
                f"{member.name} in a cascade; allowed: single attacks that end in a changed text"
            )
        return member
    if member not in allowed:
        raise InputError(f"unknown member {member!r} of a cascade{nearest(member, allowed)}")
    cls = ATTACKS[member]
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    if needed:
        raise InputError(f"{member} in a cascade needs {needed[0]}; pass the attack itself, not its name")
    return cls()
