"""The attacks on text: an explicit list, name -> class; one file = one attack."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hardtack.evaluation.attacks.bae import BAE
from hardtack.evaluation.attacks.bert_attack import BERTAttack
from hardtack.evaluation.attacks.cascade import Cascade
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.attacks.embedding_pgd import EmbeddingPGD
from hardtack.evaluation.attacks.embedding_swap import EmbeddingSwap
from hardtack.evaluation.attacks.hotflip import HotFlip
from hardtack.evaluation.attacks.protocol import Outcome, TextAttack
from hardtack.evaluation.attacks.pruthi import Pruthi
from hardtack.evaluation.attacks.pwws import PWWS
from hardtack.evaluation.attacks.textbugger import TextBugger
from hardtack.evaluation.attacks.textfooler import TextFooler
from hardtack.evaluation.attacks.word_swap import WordSwap

ATTACKS: dict[str, type[Any]] = {
    DeepWordBug.name: DeepWordBug,
    Pruthi.name: Pruthi,
    TextBugger.name: TextBugger,
    WordSwap.name: WordSwap,
    PWWS.name: PWWS,
    TextFooler.name: TextFooler,
    BAE.name: BAE,
    BERTAttack.name: BERTAttack,
    EmbeddingSwap.name: EmbeddingSwap,
    HotFlip.name: HotFlip,
    EmbeddingPGD.name: EmbeddingPGD,
    Cascade.name: Cascade,
}


class Build(Protocol):
    """Makes an attack of ATTACKS from the settings of its name; `known` are some that are built already."""

    def __call__(self, name: str, known: Mapping[str, Any]) -> Any:
        """Return an instance."""
        ...


def attacks_of(names: Sequence[str], members: Sequence[str], build: Build) -> tuple[Any, ...]:
    """Return one instance for each row of each attack that was chosen by name.

    An attack with a `sweep` is as many rows. Members of a cascade are built from the settings of their own
    names, whether they also stand alone or not.

    Args:
        names: what was chosen.
        members: what a cascade consists of, where one was chosen.
        build: makes one from its settings.
    """

    def made(name: str) -> Any:
        if name != Cascade.name or not members:
            return build(name, {})
        inside = [made(one) if one in ATTACKS and one != name else one for one in members]
        return build(name, {"members": tuple(inside)})  # which refuses names that it does not know

    every = [made(name) for name in dict.fromkeys(names)]
    return tuple(row for one in every for row in (one.sweep() if hasattr(one, "sweep") else (one,)))


__all__ = ["ATTACKS", "Outcome", "TextAttack", "attacks_of"]
