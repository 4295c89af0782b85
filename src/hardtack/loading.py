"""From a name to a plain model in float32, its tokenizer, and the record of what it was (`Base`)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from hardtack.errors import InputError
from hardtack.prunable import base_of
from hardtack.runs import generator
from hardtack.ticket import Base, digest_of


@dataclass(frozen=True)
class Loaded:
    """A classifier ready to use: model, tokenizer, what it is, and whether its head is untrained.

    `head` is a hash of what the checkpoint brought outside the base, None where it brought nothing.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base: Base
    fresh_head: bool
    head: str | None


def model_folder(name: str) -> str:
    """Return where the model is: a run folder stands for its `model/` inside; hub ids come back unchanged."""
    return str(Path(name) / "model") if (Path(name) / "model" / "config.json").is_file() else name


def load(
    name: str,
    labels: tuple[str, ...] | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    trained_head: bool = False,
) -> Loaded:
    """Load a sequence classifier from a hub id, a local folder or a run folder.

    Tensors that the checkpoint lacks, or has in another size (the head of another task), are drawn from the
    keyed stream `head`, not from the loader's; so equal seeds give equal heads on any machine.

    Args:
        name: hub id or folder.
        labels: the task's label names; None keeps the checkpoint's own.
        seed: seed of a fresh head.
        device: where the model goes.
        trained_head: refuse a model whose head is missing or has another number of classes.

    Raises:
        InputError: when `name` is no model, has no safetensors weights or tokenizer, lacks tensors of its
            base other than a pooler, or is quantised.
    """
    place = model_folder(name)
    config = _config(place, name)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{name} is quantised; allowed: a base with float weights")
    if labels is not None:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = None  # our losses, not the model's
    tokenizer = _tokenizer(place, name)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            place, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True,
            use_safetensors=True, trust_remote_code=False,
        )  # fmt: skip
    except Exception as error:  # whatever the libraries raise at a damaged file, the file is the cause
        raise InputError(f"{name} cannot be loaded as a text classifier: {_one_line(error)}") from None
    misfits = {entry[0] for entry in info["mismatched_keys"]}
    fresh = sorted({*info["missing_keys"], *misfits})
    prefix = _prefix(model)
    inner = [key for key in fresh if prefix and key.startswith(prefix)]
    head = [key for key in fresh if key not in inner]
    if len(fresh) == len(model.state_dict()) or len(inner) == len(base_of(model).state_dict()):
        raise InputError(f"{name} holds none of the weights of a {config.model_type} model")
    if lost := [key for key in inner if key in misfits or "pooler" not in key]:  # few heads keep the pooler
        raise InputError(f"{name} lacks weights that its config asks for: {lost[0]}, {len(lost)} in all")
    if head and trained_head:
        raise InputError(
            f"{name} has no trained head for {config.num_labels} classes ({', '.join(head)}); train it first"
        )
    _draw_fresh_(model, fresh, seed)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"{name} has a tokenizer without a padding or end token; one of them is needed")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id  # a decoder looks for its last token by this one
    base = Base.of(
        model,
        name,
        revision=getattr(config, "_commit_hash", None),
        head_seed=seed if fresh else None,
        fresh=(key.removeprefix(prefix) for key in inner),
    )
    brought = {
        key: value for key, value in model.state_dict().items() if prefix and not key.startswith(prefix)
    }
    brought = {key: value for key, value in brought.items() if key not in head}
    digest = digest_of(brought) if brought else None
    return Loaded(model.to(device).eval(), tokenizer, base, bool(head), digest)  # type: ignore[arg-type]


def _config(place: str, name: str):  # a transformers config of any family
    if Path(place).exists() and not (Path(place) / "config.json").is_file():
        raise InputError(f"{name} is no model: it has no config.json")
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        what = (
            "has a config that cannot be read" if Path(place).exists() else "is no model that can be reached"
        )
        raise InputError(f"{name} {what}: {_one_line(error)}") from None


def _tokenizer(place: str, name: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"{name} has no tokenizer that can be read: {_one_line(error)}") from None
    if len(tokenizer) <= len(
        set(tokenizer.all_special_ids)
    ):  # without files, transformers makes up an empty one
        raise InputError(f"{name} has no tokenizer; its files are needed beside the model's")
    return tokenizer


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _prefix(model: nn.Module) -> str:
    inner = base_of(model)
    return next((f"{name}." for name, module in model.named_modules() if module is inner and name), "")


@torch.no_grad()
def _draw_fresh_(model: nn.Module, names: list[str], seed: int) -> None:
    """Draw each tensor from its own stream: normal weights, zero biases, unit norms, as transformers does."""
    spread = float(getattr(getattr(model, "config", None), "initializer_range", 0.02))
    for name in names:
        parameter = model.get_parameter(name)
        if parameter.dim() > 1:
            parameter.normal_(0.0, spread, generator=generator(seed, "head", example=name))
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
