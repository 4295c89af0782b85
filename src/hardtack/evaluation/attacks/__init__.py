"""The attacks on text: an explicit list, name -> class; one file = one attack."""

from typing import Any

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

__all__ = ["ATTACKS", "Outcome", "TextAttack"]
