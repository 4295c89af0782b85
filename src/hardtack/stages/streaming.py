"""A model of which only what stands around its blocks is in memory: its blocks' weights stay in its files."""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForSequenceClassification

from hardtack import loading, sessions, shrunk
from hardtack.errors import InputError
from hardtack.prunable import SHRUNK_UNITS, base_of, blocks_of
from hardtack.storage import Stored
from hardtack.ticket import Base, digest_of


@torch.no_grad()
def streamed(name: str, labels: tuple[str, ...], *, device: str = "cpu") -> tuple[loading.Loaded, Stored]:
    """Open a classifier of which only what stands around its blocks is in memory.

    Args:
        name: local folder, run folder or hub id of a whole model: nothing is drawn for it.
        labels: the task's label names.
        device: where what is in memory goes.

    Returns:
        The model, whose blocks' weights are on the device "meta", and all its weights as they lie in its
        files, by their names in the model.

    Raises:
        InputError: when `name` is no model, or its files do not hold exactly its tensors.
    """
    source = loading.model_folder(name)
    if sessions.file_of(source) is not None or loading._file(source, "adapter_config.json") is not None:
        raise InputError(f"{name} is no plain model; allowed with stream: a model with its own weights")
    config = shrunk.config_of(loading._file(source, "config.json")) or loading._config(source, name)
    if hasattr(config, SHRUNK_UNITS) or getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{name} is shrunk or quantised; allowed with stream: a model with float weights")
    if not labels:
        raise InputError("stream takes classifiers; allowed for a task of texts alone: no stream")
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = None  # our losses, not the model's
    tokenizer = loading._tokenizer(source, name, config)
    maker: Any = AutoModelForSequenceClassification
    with init_empty_weights(include_buffers=False):
        model = maker.from_config(config, dtype=torch.float32)
    shapes: dict[str, list[int]] = {}
    places: dict[str, tuple[Path, str]] = {}
    for file in loading._weight_files(source, name):
        try:
            with safe_open(file, framework="pt") as stream:
                for key in stream.keys():  # noqa: SIM118 - no mapping
                    places[key], shapes[key] = (file, key), list(stream.get_slice(key).get_shape())
        except SafetensorError as error:
            raise InputError(f"{file} cannot be read: {loading._one_line(error)}") from None
    for key, tensor in model.state_dict().items():
        if shapes.get(key) != [*tensor.shape]:
            there = shapes.get(key, "no such tensor")
            raise InputError(
                f"{name} has {there} for {key} {[*tensor.shape]}; allowed with stream: a trained model of "
                "these classes, whose files name its tensors as it does"
            )
    stored = Stored({key: places[key] for key in model.state_dict()}, torch.float32)
    prefix = loading._prefix(model)
    blocks = tuple(f"{prefix}{block}." for block in blocks_of(model))
    around = {key: stored[key].to(device) for key in stored if not key.startswith(blocks)}
    model.load_state_dict(around, assign=True, strict=False)
    for module in model.modules():
        for key, buffer in module.named_buffers(recurse=False):
            if not buffer.is_meta:
                setattr(module, key, buffer.to(device))
    loading._pad_(model, tokenizer, name)
    inner = Stored({key: places[prefix + key] for key in base_of(model).state_dict()}, torch.float32)
    base = Base(name, digest_of(inner), loading._revision(source))
    head = {key: stored[key] for key in stored if prefix and not key.startswith(prefix)}
    loaded = loading.Loaded(model.eval(), tokenizer, base, False, digest_of(head) if head else None)
    return loaded, stored
