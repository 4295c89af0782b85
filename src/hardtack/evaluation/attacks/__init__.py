"""The attacks on text: an explicit list, name -> class; one file = one attack."""

from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.attacks.protocol import Outcome, TextAttack
from hardtack.evaluation.attacks.word_swap import WordSwap

ATTACKS: dict[str, type[DeepWordBug] | type[WordSwap]] = {
    DeepWordBug.name: DeepWordBug,
    WordSwap.name: WordSwap,
}

__all__ = ["ATTACKS", "Outcome", "TextAttack"]
