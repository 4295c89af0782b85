"""From a name to a plain model in float32, its tokenizer, and the record of what it was (`Base`)."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file, extract_commit_hash

from hardtack import sessions, shrunk
from hardtack.adapters import Adapter
from hardtack.errors import InputError
from hardtack.prunable import SHRUNK_UNITS, base_of
from hardtack.runs import generator
from hardtack.ticket import Base, digest_of


@dataclass(frozen=True)
class Loaded:
    """A classifier or language model ready to use: with its tokenizer, and whether its head is untrained.

    `head` is a hash of what the checkpoint brought outside the base, None where it brought nothing;
    `classes` is what its config calls its classes, whatever the task calls them.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base: Base
    fresh_head: bool
    head: str | None
    classes: tuple[str, ...] = ()


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
    merge_adapter: bool = False,
    foreign: bool = False,
) -> Loaded:
    """Load a sequence classifier, or a language model, from a hub id, a local folder or a run folder.

    Tensors that the checkpoint lacks, or has in another size (the head of another task), are drawn from the
    keyed stream `head`, not from the loader's; so equal seeds give equal heads on any machine.

    Args:
        name: hub id or folder.
        labels: the task's label names; None keeps the checkpoint's own. No name at all, `()`, asks for a
            causal language model; a folder with a config and a tokenizer but no weights then gives a fresh
            one, to be trained from scratch.
        seed: seed of a fresh head, or model.
        device: where the model goes.
        trained_head: refuse a model whose head is missing or has another number of classes.
        merge_adapter: where `name` is a PEFT adapter, load the base that it names and merge it in; the result
            is a plain model. Without it an adapter is refused.
        foreign: open an export for another program (ONNX, OpenVINO) too: it answers, on the CPU, and cannot
            be trained or pruned. Without it such a folder is refused.

    Raises:
        InputError: when `name` is no model, has no safetensors weights or tokenizer, lacks tensors of its
            base other than a pooler, is quantised, or is an adapter that nobody asked to merge.
    """
    place = model_folder(name)
    if (file := sessions.file_of(place)) is not None:
        if not foreign:
            raise InputError(f"{name} is made for another program; allowed here: a model with its weights")
        return _foreign(file, name, labels)
    adapter = _adapter(place, name, merge_adapter)
    source, whose = (
        (place, name) if adapter is None else (model_folder(adapter.base), f"{name}'s base {adapter.base}")
    )
    config = shrunk.config_of(_file(source, "config.json")) or _config(source, whose)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{whose} is quantised; allowed: a base with float weights")
    classes = _classes(config)
    if labels is None and adapter is not None:
        config.num_labels = adapter.classes(config)
    if labels == ():
        _check_decoder(config, whose, adapter)
    elif labels is not None:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = None  # our losses, not the model's
    own = adapter is not None and _file(place, "tokenizer_config.json") is not None
    tokenizer = _tokenizer(place, name) if own else _tokenizer(source, whose, config)
    maker: Any = AutoModelForCausalLM if labels == () else AutoModelForSequenceClassification
    if labels == () and weightless(source):
        if trained_head:
            raise InputError(f"{name} has a config and no weights; train it first")
        return _from_scratch(config, name, tokenizer, seed, device)
    if hasattr(config, SHRUNK_UNITS):
        maker = shrunk.classifier_of(config, _weight_files(source, whose))
    try:
        model, info = maker.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True, use_safetensors=True, trust_remote_code=False,
        )  # fmt: skip
    except Exception as error:  # whatever the libraries raise at a damaged file, the file is the cause
        what = "language model" if labels == () else "text classifier"
        raise InputError(f"{whose} cannot be loaded as a {what}: {_one_line(error)}") from None
    shrunk.made_plain_(model)
    misfits = {entry[0] for entry in info["mismatched_keys"]}
    brought = set() if adapter is None else adapter.brings(model)
    fresh = sorted({*info["missing_keys"], *misfits} - brought)
    prefix = _prefix(model)
    inner = [key for key in fresh if prefix and key.startswith(prefix)]
    head = [key for key in fresh if key not in inner]
    if len(fresh) == len(model.state_dict()) or len(inner) == len(base_of(model).state_dict()):
        raise InputError(f"{whose} holds none of the weights of a {config.model_type} model")
    if lost := [key for key in inner if key in misfits or "pooler" not in key]:  # few heads keep the pooler
        raise InputError(f"{whose} lacks weights that its config asks for: {lost[0]}, {len(lost)} in all")
    if head and trained_head:
        what = "its vocabulary" if labels == () else f"{config.num_labels} classes"
        raise InputError(f"{name} has no trained head for {what} ({', '.join(head)}); train it first")
    _draw_fresh_(model, fresh, seed)
    if adapter is not None:
        adapter.merge_(model)
    _pad_(model, tokenizer, name)
    base = Base.of(
        model,
        name,
        revision=_revision(place),
        head_seed=seed if fresh else None,
        fresh=(key.removeprefix(prefix) for key in inner),
    )
    brought = {
        key: value for key, value in model.state_dict().items() if prefix and not key.startswith(prefix)
    }
    brought = {key: value for key, value in brought.items() if key not in head}
    digest = digest_of(brought) if brought else None
    return Loaded(model.to(device).eval(), tokenizer, base, bool(head), digest, classes)  # type: ignore[arg-type]


def _pad_(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Give tokenizer and model a padding token: their own, or that of the end."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"{name} has a tokenizer without a padding or end token; one of them is needed")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id  # a decoder looks for its last token by this one


def _check_decoder(config: Any, whose: str, adapter: "Adapter | None") -> None:
    """Refuse what cannot predict a text token by token."""
    kind = config.model_type
    if adapter is not None or hasattr(config, SHRUNK_UNITS):
        raise InputError(f"{whose} is an adapter or a shrunk model; allowed for texts alone: a whole decoder")
    if kind not in DECODERS or (kind in ENCODERS and not getattr(config, "is_decoder", False)):
        raise InputError(
            f"{whose} is a {kind} model, which predicts no next token; allowed for texts alone: a decoder "
            "such as GPT-2 (if the task has labels, --label-column names them)"
        )


PROVENANCE = "hardtack.json"
"""What a stage writes beside a model: how it was made."""
WEIGHTS = ("*.safetensors*", "pytorch_model*", "*.pt", "*.pth", "*.h5", "*.msgpack")
"""Files that hold weights; only the first kind is read."""


def weightless(source: str) -> bool:
    """Say whether a folder holds no weights of any kind, but perhaps a config to make a language model of.

    Raises:
        InputError: for a folder that a stage wrote and whose weights have been removed since.
    """
    folder = Path(source)
    if not folder.is_dir() or any(next(folder.glob(kind), None) for kind in WEIGHTS):
        return False
    if (folder / PROVENANCE).is_file():
        raise InputError(
            f"{source} has no weights any more: they were removed; allowed: run again what made it"
        )
    return True


def _from_scratch(
    config: Any, name: str, tokenizer: PreTrainedTokenizerBase, seed: int, device: str
) -> Loaded:
    """Make a language model of a config, every tensor drawn from its own stream of the seed."""
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"{name} has a tokenizer of {len(tokenizer)} tokens and a config of {config.vocab_size}; "
            "allowed: a vocab_size that holds them all"
        )
    with torch.random.fork_rng(devices=[]):  # it draws what is then drawn again
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _draw_fresh_(model, [tensor for tensor, _ in model.named_parameters()], seed)
    _pad_(model, tokenizer, name)
    base = Base.of(model, name, head_seed=seed)
    return Loaded(model.to(device).eval(), tokenizer, base, True, None)


def _foreign(file: Path, name: str, labels: tuple[str, ...] | None) -> Loaded:
    """Open a file that another program runs, with the tokenizer and config beside it."""
    place = str(file.parent)
    config = _config(place, name)
    if labels is not None and len(labels) != config.num_labels:
        raise InputError(f"{name} has {config.num_labels} classes, the task {len(labels)}; allowed: as many")
    digest = xxhash.xxh3_128()
    for part in sorted(file.parent.glob(f"{file.stem}.*")):  # the graph, and weights that stand beside it
        digest.update(part.read_bytes())
    base = Base(name, digest.hexdigest())
    model: Any = sessions.Foreign(file, config)
    tokenizer, classes = _tokenizer(place, name), _classes(config)
    return Loaded(model.eval(), tokenizer, base, False, digest.hexdigest(), classes)


def _classes(config: Any) -> tuple[str, ...]:
    return tuple(str(name) for _, name in sorted((config.id2label or {}).items()))


def _file(place: str, name: str) -> Path | None:
    """Return a file of a folder or hub id, or None where there is none or nothing can be reached."""
    try:
        found = cached_file(place, name, _raise_exceptions_for_missing_entries=False)
    except Exception:  # what is wrong with the place is said when its config is read
        return None
    return None if found is None else Path(found)


def _weight_files(place: str, name: str) -> list[Path]:
    """Return the safetensors files of a folder or hub id, all parts of weights that are cut into several."""
    parts, index = ["model.safetensors"], "model.safetensors.index.json"
    whole = _file(place, parts[0])  # first, as in transformers
    if whole is None and (listed := _file(place, index)) is not None:
        try:
            parts = sorted(set(json.loads(listed.read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{name} has a {index} that cannot be read: {_one_line(error)}") from None
    files = [_file(place, part) for part in parts]
    if None in files:
        raise InputError(f"{name} has no {parts[files.index(None)]}; allowed: weights in safetensors")
    return [file for file in files if file is not None]


def _adapter(place: str, name: str, merge: bool) -> Adapter | None:
    """Return the adapter that lies at a place, None where a model does; refuse one that nobody asked for."""
    settings = _file(place, "adapter_config.json")
    if settings is None:
        return None
    try:
        base = json.loads(settings.read_text())["base_model_name_or_path"]
        if not isinstance(base, str):
            raise TypeError("base_model_name_or_path is no name")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name} is an adapter whose config names no base: {_one_line(error)}") from None
    if not merge:
        raise InputError(
            f"{name} is an adapter of {base}, no model; merge_adapter (--merge-adapter) merges it"
        )
    if find_spec("peft") is None:
        raise InputError("merging an adapter needs the extra 'lora': pip install 'hardtack[lora]'")
    weights = _file(place, "adapter_model.safetensors")
    if weights is None:
        raise InputError(
            f"{name} has no adapter_model.safetensors; allowed: safetensors, no pickled adapters"
        )
    try:
        tensors = load_file(weights)
    except Exception as error:
        raise InputError(
            f"{name} has an adapter_model.safetensors that cannot be read: {_one_line(error)}"
        ) from None
    return Adapter(name, settings.parent, base, tensors)


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


def _tokenizer(place: str, name: str, config: Any = None) -> PreTrainedTokenizerBase:
    known = config if hasattr(config, SHRUNK_UNITS) else None  # there the folder names no type that it knows
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, config=known)
    except Exception as error:
        raise InputError(f"{name} has no tokenizer that can be read: {_one_line(error)}") from None
    # Without files, transformers makes up one that knows special tokens only (DeBERTa's with gaps between).
    if len(tokenizer.get_vocab()) <= len(set(tokenizer.all_special_ids)):
        raise InputError(f"{name} has no tokenizer; its files are needed beside the model's")
    return tokenizer


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _revision(place: str) -> str | None:
    """Return the hub's commit of what a name stands for; None of a folder here."""
    if Path(place).is_dir():
        return None
    file = _file(place, "config.json") or _file(place, "adapter_config.json")
    return None if file is None else extract_commit_hash(str(file), None)


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
