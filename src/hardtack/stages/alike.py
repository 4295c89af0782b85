"""Models that have to fit together: one that teaches and its student, or those that are averaged."""

import re
from collections.abc import Sequence
from typing import Any

from hardtack.errors import InputError
from hardtack.loading import Loaded
from hardtack.stages.common import Common, tokenizer_digest

NUMBERED = re.compile(r"(label_)?\d+")  # what transformers and tables without names call classes

NO_STRUCTURE = frozenset(
    "_name_or_path architectures dtype id2label initializer_range label2id problem_type torch_dtype "
    "transformers_version use_cache finetuning_task".split()
)
"""What of a config does not change what its model computes."""


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


def check_architecture(loaded: Loaded, name: str, other: Loaded, of: str) -> None:
    """Refuse a model whose tensors would mean something else in a second one, which is called `of`."""
    kinds = [type(one.model).__name__ for one in (loaded, other)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{name} is a {kinds[0]}, {of} a {kinds[1]}; allowed: the same architecture")
    own, wanted = ({**_structure(one)} for one in (loaded, other))
    for key in sorted(own.keys() | wanted.keys()):
        if own.get(key) != wanted.get(key):
            raise InputError(
                f"{name} has {key} {own.get(key)}, {of} {wanted.get(key)}; allowed: the same architecture"
            )


def _structure(loaded: Loaded) -> dict[str, Any]:
    """Return what decides what a model computes: its config but for names and training, and its shapes."""
    config = loaded.model.config.to_dict()
    kept = {key: value for key, value in config.items() if key not in NO_STRUCTURE and "drop" not in key}
    shapes = {name: tuple(tensor.shape) for name, tensor in loaded.model.state_dict().items()}
    return {**shapes, **kept}
