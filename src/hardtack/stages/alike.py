"""Models that have to fit together: one that teaches and its student, or those that are averaged."""

import re
from collections.abc import Sequence
from typing import Any

from hardtack.errors import InputError
from hardtack.loading import Loaded
from hardtack.stages.common import Common, tokenizer_digest

NUMBERED = re.compile(r"(label_)?\d+")  # what transformers and tables without names call classes


def open_trained(name: str, labels: Sequence[str], common: Common) -> Loaded:
    """Load a fine-tuned model whose classes are these, in this order.

    Raises:
        InputError: when it has no trained head, or other classes. Names count where both sides have any,
            upper and lower case alike: a head that means other classes would be believed blindly.
    """
    loaded = common.load(name, None, trained_head=True)
    config: Any = loaded.model.config
    own = [str(config.id2label[number]) for number in range(config.num_labels)]
    if len(own) != len(labels):
        raise InputError(f"{name} has {len(own)} classes, the task {len(labels)}; allowed: as many")
    folded = [[one.casefold() for one in names] for names in (own, labels)]
    if all(not NUMBERED.fullmatch(one) for names in folded for one in names) and folded[0] != folded[1]:
        raise InputError(
            f"{name} has the classes {', '.join(own)}, the task {', '.join(labels)}; allowed: the same ones "
            "in the same order"
        )
    return loaded


def check_tokenizer(loaded: Loaded, name: str, other: Loaded, of: str) -> None:
    """Refuse a model that cuts texts in another way than a second one, which is called `of`."""
    if tokenizer_digest(loaded.tokenizer) != tokenizer_digest(other.tokenizer):
        raise InputError(f"{name} has another tokenizer than {of}; allowed: the same one")
