"""A PEFT adapter: what it brings beside a base, and how both become one plain model."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from hardtack.errors import InputError


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter on disk: what it changes of which base."""

    name: str
    folder: Path
    base: str
    tensors: dict[str, Tensor]

    def classes(self, config) -> int:  # a transformers config of any family
        """Return the number of classes of the head that it brings, or else of the base's."""
        with torch.device("meta"):
            bare = AutoModelForSequenceClassification.from_config(config)
        heads = (held for _, mine, held in self._whole(bare) if _is_head_of_others(config, mine, held))
        return next((held.shape[0] for held in heads), config.num_labels)

    def brings(self, model: PreTrainedModel) -> set[str]:
        """Name the tensors of the model that it replaces as a whole (a trained head), where sizes agree."""
        return {name for name, mine, held in self._whole(model) if mine.shape == held.shape}

    def _whole(self, model: nn.Module) -> list[tuple[str, Tensor, Tensor]]:
        """Pair each whole tensor that it holds with the model's own: name, the model's, the adapter's."""
        own = model.named_parameters()
        return [
            (name, mine, self.tensors[_STEM + name]) for name, mine in own if _STEM + name in self.tensors
        ]

    def merge_(self, model: PreTrainedModel) -> None:
        """Write base + adapter into the model, which is a plain one again afterwards.

        In float64: then the order in which a machine sums hardly ever reaches a bit of the float32 result,
        and a ticket found on it fits on another machine, too.
        """
        from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

        tensors = dict(self.tensors)
        for name, mine, held in self._whole(model):
            if _is_head_of_others(model.config, mine, held):  # it stays what the base has, or what was drawn
                tensors[_STEM + name] = mine.detach().clone()
        try:
            with (
                warnings.catch_warnings(),
                torch.random.fork_rng(devices=[]),
            ):  # it draws what it then replaces
                warnings.simplefilter("ignore", FutureWarning)  # of transformers, at what peft still calls
                settings = PeftConfig.from_pretrained(str(self.folder))
                settings.base_model_name_or_path, settings.inference_mode = None, True
                wrapped = get_peft_model(model, settings)
                wanted = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
                found = set_peft_model_state_dict(wrapped, tensors)
                if strange := {*(wanted.keys() - tensors.keys()), *found.unexpected_keys}:
                    raise ValueError(f"its tensors are not those of its config: {min(strange)}")
                wrapped.double().merge_and_unload(safe_merge=True)
        except Exception as error:  # whatever peft raises at a damaged file or a kind that it cannot merge
            raise InputError(
                f"{self.name} cannot be merged into {self.base}: {' '.join(str(error).split())[:200]}"
            ) from None
        model.float().requires_grad_(True)


_STEM = "base_model.model."
"""What stands before the names of a model's own tensors in an adapter's file."""


def _is_head_of_others(config, mine: Tensor, held: Tensor) -> bool:
    return (
        mine.shape[0] == config.num_labels and mine.shape[1:] == held.shape[1:] and mine.shape != held.shape
    )
