"""Which method meets which toy model and granularity, and with which line the other pairs are refused."""

from itertools import product
from typing import Any

from tests.contracts.by_position import ByPosition
from tests.toys import TOYS
from tests.zoo import UNITS, ZOO

from hardtack.methods import METHODS

ALL = {**METHODS, "by_position": ByPosition}  # the one line that a new method takes
QUICK: dict[str, dict[str, Any]] = {
    "early_bird": {"epochs": 1.5, "lr": 1e-2},
    "hard_concrete": {"epochs": 1.0},
    "iterative": {"epochs": 1.0, "lr": 1e-2},
}
"""Settings that make a method that trains quick here; methods that do not train need none."""
CALIBRATED = ("wanda", "obs", "retention")
"""Methods that read inputs block by block; with fewer examples than there are, the seed says which."""
SMALL = {method: {"calibration": 4} for method in CALIBRATED}
SEEDED = {"early_bird", "hard_concrete", "random", "iterative", *CALIBRATED}
GRANULARITIES = (("weight",), ("head",), ("neuron",), ("head", "neuron"), ("channel",))
HOME = {name: ("weight",) if "weight" in made.removes else ("head", "neuron") for name, made in ALL.items()}
"""Kinds of unit that a method is tried on where any will do."""
FRACTIONS = ("0.2", "0.3", "0.36")  # the first and third lie on the path of iterative pruning


BASES = {
    "bert": "BertModel", "roberta": "RobertaModel", "xlm-roberta": "XLMRobertaModel",
    "distilbert": "DistilBertModel", "albert": "AlbertModel", "electra": "ElectraModel",
    "mpnet": "MPNetModel", "deberta-v2": "DebertaV2Model", "deberta-v3": "DebertaV2Model",
    "modernbert": "ModernBertModel", "gpt2": "GPT2Model", "llama": "LlamaModel", "qwen2": "Qwen2Model",
    "qwen3": "Qwen3Model", "gemma": "GemmaModel", "gemma2": "Gemma2Model", "gemma3_text": "Gemma3TextModel",
    "vit": "ViTModel", "deit": "DeiTModel", "resnet": "ResNetModel", "resnet-bottleneck": "ResNetModel",
    "convnext": "ConvNextModel", "squeezebert": "SqueezeBertModel", "conv": "ToyConv",
}  # fmt: skip


LISTED = (
    "albert, bert, deberta-v2, deit, distilbert, electra, gemma, gemma2, gemma3_text, gpt2, llama, "
    "modernbert, mpnet, qwen2, qwen3, roberta, vit, xlm-roberta"
)
UNBLOCKED = {
    **{
        toy: f"{BASES[toy]} has no attention blocks in the table of families; allowed: {LISTED}"
        for toy in ("squeezebert", "conv", "resnet", "resnet-bottleneck", "convnext")
    },
    "albert": "AlbertModel runs its 1 block(s) 3 times; blocks that layers share cannot be pruned one after "
    "the other",
    "deberta-v2": "DebertaV2Model changes states between blocks 0 and 1, so they cannot be run apart",
}
"""toy -> the line with which methods that walk through blocks refuse it."""


def refusals() -> dict[tuple[str, str, tuple[str, ...]], str]:
    """(method, toy, granularity) -> the one line with which it is refused; everything else must work."""
    expected = {}
    for toy, name in BASES.items():
        known = ("weight", *UNITS.get(toy, ()))
        for kinds in GRANULARITIES:
            if lacks := [kind for kind in kinds if kind not in known]:
                line = f"granularity '{lacks[0]}' is not known for {name}; allowed: {', '.join(known)}"
                expected |= {(method, toy, kinds): line for method in ALL}
        removed = "head, neuron, channel"
        expected["early_bird", toy, ("weight",)] = f"early_bird removes no weight units; allowed: {removed}"
    for toy in BASES:  # whose blocks cannot be run one after the other
        line = UNBLOCKED.get(toy)
        expected |= {(method, toy, ("weight",)): line for method in CALIBRATED if line}
    for toy, kinds in product(BASES, GRANULARITIES):
        if kinds != ("weight",) and ("magnitude", toy, kinds) not in expected:
            line = f"removes no {kinds[0]} units; allowed: weight"
            expected |= {(method, toy, kinds): f"{method} {line}" for method in CALIBRATED}
    stuck = "share 0.2 cuts none of the 2 head units left, so sparsity 0.36 is out of reach"
    for kinds in (("head",), ("head", "neuron")):
        expected["iterative", "albert", kinds] = f"{stuck}; choose a larger share"
    return expected


REFUSED = refusals()
CASES = [
    (method, toy, kinds)
    for method in ALL
    for toy in ZOO
    for kinds in GRANULARITIES
    if (method, toy, kinds) not in REFUSED
]
FEW = [case for case in CASES if case[1] in TOYS or case[0] in ("early_bird", "hard_concrete", "magnitude")]
"""Every method on a toy of every shape; on the other families one that trains and one that does not."""
AT_HOME = [(method, toy) for method in ALL for toy in TOYS if (method, toy, HOME[method]) not in REFUSED]
"""Every method on every toy that has units which it removes."""
