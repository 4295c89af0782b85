"""Smaller models: units really taken out of a plain model, and how such a model is written and built again.

Where every layer keeps equally many neurons and all heads, the model's config can say it, and the folder is
an ordinary one of transformers. Else the sizes of each layer stand in `config.json` under `shrunk_units`, and
the model type there is one that transformers does not know: it refuses the folder and cannot open it wrong.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from hardtack.errors import InputError
from hardtack.families import FAMILIES
from hardtack.prunable import SHRUNK_UNITS, Prunable, Site, base_of, kinds_of

MODEL_TYPE = "hardtack-shrunk: open it with hardtack.load"
"""The model type that such a folder's config names; its own stands under `shrunk_from`.

transformers quotes it where it refuses the folder."""
WIDEST = 2**24
"""Largest dimension that a folder may claim for its dense model: indices of units take memory."""
LAYERS = ("num_hidden_layers", "num_hidden_groups", "inner_group_num", "depths")
"""Attributes of configs, whatever a family calls its own, that say how many layers are built."""
Units = Mapping[str, int | list[int]]


def is_shrunk(model: nn.Module) -> bool:
    """Say whether a model has layers of sizes that no config of transformers can say."""
    return bool(getattr(getattr(model, "config", None), SHRUNK_UNITS, None))


# ------------------------------------------------------------------------------------ taking units out


@torch.no_grad()
def shrink_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Take units out of a model for good: its tensors get smaller and its config says so.

    Args:
        model: a plain model of a listed family.
        masks: site -> bool [units], True = kept; of heads, neurons or channels.
    """
    view = _whole_units(model)
    sites = {site.name: site for site in view.sites}
    masks = {name: mask for name, mask in masks.items() if not bool(mask.all())}
    base = base_of(model)
    for param, gone in _gone(view, masks).items():
        module, _, attribute = param.rpartition(".")
        _cut_(base.get_submodule(module), attribute, gone)
    units: dict[str, int | list[int]] = dict(getattr(base.config, SHRUNK_UNITS, {}))
    for name, mask in masks.items():
        kept = mask.nonzero().flatten().tolist()
        if sites[name].kind == "head":
            before = units.get(name, list(range(sites[name].units)))
            assert isinstance(before, list)
            units[name] = heads = [before[head] for head in kept]
            _tell_heads_(base, sites[name], heads)
        else:
            units[name] = len(kept)
    _say_(base, units)


def _whole_units(model: nn.Module) -> Prunable:
    return Prunable.of(model, [kind for kind in kinds_of(model) if kind != "weight"])


def _gone(view: Prunable, masks: Mapping[str, Tensor]) -> dict[str, dict[int, Tensor]]:
    """Return what masks take out: parameter -> dimension -> positions."""
    sites = {site.name: site for site in view.sites}
    parts: dict[str, dict[int, list[Tensor]]] = {}
    for name, mask in masks.items():
        for param, dim, index in sites[name].slices:
            assert index is not None
            parts.setdefault(param, {}).setdefault(dim, []).append(index[~mask.cpu()].flatten())
    return {param: {dim: torch.cat(along) for dim, along in dims.items()} for param, dims in parts.items()}


def _left(size: int, gone: Tensor) -> Tensor:
    left = torch.ones(size, dtype=torch.bool)
    left[gone] = False
    return left.nonzero().flatten()


def _cut_(module: nn.Module, attribute: str, gone: Mapping[int, Tensor]) -> None:
    """Cut positions out of one tensor of a module, and let the module's own record of its sizes follow."""
    old = getattr(module, attribute)
    value = old.detach()
    for dim, positions in gone.items():
        kept = _left(value.shape[dim], positions).to(value.device)
        value = value.index_select(dim, kept)
        if attribute == "weight" and isinstance(module, nn.BatchNorm2d):
            module.num_features = len(kept)
            for name in ("running_mean", "running_var"):
                setattr(module, name, getattr(module, name).index_select(0, kept))
    setattr(module, attribute, nn.Parameter(value, requires_grad=old.requires_grad))
    if attribute != "weight" or value.dim() == 1:
        return
    for names, size in (
        (("out_features", "out_channels", "nx"), 0),
        (("in_features", "in_channels", "nf"), 1),
    ):
        for name in names:  # of Linear, convolutions, and transformers' Conv1D, which stores [in, out]
            if hasattr(module, name):
                setattr(module, name, value.shape[size])


def _tell_heads_(base: nn.Module, site: Site, heads: list[int]) -> None:
    """Set what a layer's forward reads of its number of heads, as the family's entry says."""
    attention = FAMILIES[base.config.model_type].attention  # type: ignore[union-attr, index]
    assert attention is not None
    layer = base.get_submodule(site.name.removesuffix(".heads"))
    for path in (*attention.counts, *attention.widths):
        inner, _, attribute = path.rpartition(".")
        module = layer.get_submodule(inner)
        size = site.exit.index.shape[1] if path in attention.widths else 1  # type: ignore[union-attr]
        setattr(module, attribute, len(heads) * size)
    if attention.shared_bias is not None:
        module, position = layer.get_submodule(attention.shared_bias[0]), attention.shared_bias[1]
        if not hasattr(module, "kept_heads"):  # else the hook is there already and reads the new list
            module.register_forward_pre_hook(_OwnBias(position))
        module.kept_heads = heads  # type: ignore[assignment]


class _OwnBias:
    """A forward pre-hook that hands a module its own heads' part of a bias that all layers share."""

    def __init__(self, position: int):
        self.position = position

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        bias = inputs[self.position]  # [batch, heads, length, length]
        if bias is None:
            return inputs
        return (*inputs[: self.position], bias[:, module.kept_heads], *inputs[self.position + 1 :])


def _say_(base: nn.Module, units: dict[str, int | list[int]]) -> None:
    """Write the sizes into the config: as the family's own attribute where they are all alike."""
    config = base.config
    family = FAMILIES[config.model_type]  # type: ignore[union-attr, index]
    rest = [name for name in units if not name.endswith(".neurons")]
    if not rest and family.feedforward and family.feedforward.width:
        widths = {site.units for site in Prunable.of(base, ("neuron",)).sites}
        if len(widths) == 1:
            setattr(config, family.feedforward.width, widths.pop())
            if hasattr(config, SHRUNK_UNITS):
                delattr(config, SHRUNK_UNITS)
            return
    setattr(config, SHRUNK_UNITS, dict(sorted(units.items())))


# ------------------------------------------------------------------------------------ and back


def is_cut_by(masks: Mapping[str, Tensor], view: Prunable) -> bool:
    """Say whether masks leave a smaller model: whole units alone, some of them gone, none of a site's all."""
    # Asked first: masks of single weights are unpacked when they are read.
    if any(site.kind == "weight" for site in view.sites):
        return False
    found = [masks[site.name] for site in view.sites]
    return all(bool(mask.any()) for mask in found) and not all(bool(mask.all()) for mask in found)


@torch.no_grad()
def fill_(model: nn.Module, small: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Write a smaller model's tensors to where they stood before it was cut, and zeros beside them.

    Args:
        model: in its full size; what was taken out of `small` is zero afterwards. Running statistics of
            channels that were taken out stay as they are.
        small: what `shrink_` left of a copy of it, with other values by now.
        masks: site -> bool [units], what it was shrunk by.
    """
    base, found = base_of(model), dict(small.named_parameters()) | dict(small.named_buffers())
    gone = {id(base.get_parameter(param)): dims for param, dims in _gone(_whole_units(model), masks).items()}
    for module in base.modules():  # statistics are cut as the norm's weight is
        if isinstance(module, nn.BatchNorm2d) and id(module.weight) in gone:
            for statistic in (module.running_mean, module.running_var):
                gone[id(statistic)] = gone[id(module.weight)]
    for name, target in [*model.named_parameters(), *model.named_buffers()]:
        source, dims = found[name], gone.get(id(target), {})
        kept = [_left(n, dims[d]) if d in dims else torch.arange(n) for d, n in enumerate(target.shape)]
        if not dims:
            target.copy_(source)
            continue
        if isinstance(target, nn.Parameter):
            target.zero_()
        target[tuple(torch.from_numpy(index) for index in np.ix_(*[k.numpy() for k in kept]))] = source


# ------------------------------------------------------------------------------------ writing


def save(model: PreTrainedModel, folder: Path, *, head: bool = True) -> None:
    """Write a model's folder; one that no config of transformers can say gets a type that it refuses.

    Args:
        model: the model.
        folder: where to.
        head: False leaves out what stands outside the base model.
    """
    base = {name: value for name, value in model.state_dict().items() if name.startswith(_prefix(model))}
    model.save_pretrained(folder, state_dict=None if head else base)
    if is_shrunk(model):
        path = folder / "config.json"
        settings = json.loads(path.read_text())
        settings |= {"shrunk_from": settings["model_type"], "model_type": MODEL_TYPE}
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


# ------------------------------------------------------------------------------------ building again


def config_of(path: Path | None) -> Any:
    """Return the transformers config of a shrunk folder's config.json, None where it is not one of ours.

    Raises:
        InputError: when it is one of ours and damaged.
    """
    try:
        settings = json.loads(path.read_text()) if path is not None else {}
    except (OSError, ValueError):
        return None  # whoever reads it next says what is wrong with it
    if not isinstance(settings, dict) or settings.get("model_type") != MODEL_TYPE:
        return None
    try:
        kind = settings.pop("shrunk_from")
        units = settings[SHRUNK_UNITS]
        if not isinstance(units, dict) or not units or not all(map(_is_size, units.values())):
            raise ValueError(f"{SHRUNK_UNITS} has to name a size above 0 for each site")
        return type(AutoConfig.for_model(kind)).from_dict({**settings, "model_type": kind})
    except Exception as error:  # whatever a config of some family raises at odd values
        raise InputError(
            f"{path} is no config of a shrunk model: {' '.join(str(error).split())[:160]}"
        ) from None


def _is_size(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and value == sorted({head for head in value if type(head) is int and head >= 0})
    return type(value) is int and value > 0


def classifier_of(config: Any, files: Iterable[Path]) -> type[PreTrainedModel]:
    """Return a class whose instances are built in the sizes of a shrunk config.

    Sizes are checked against the files' before any memory is taken; nothing is executed.

    Args:
        config: what `config_of` returned.
        files: the folder's safetensors files.

    Raises:
        InputError: when the config's sizes fit neither its family nor the files.
    """
    units, shapes = getattr(config, SHRUNK_UNITS), _shapes(files)
    try:
        _check_layers(config, len(shapes))
        with torch.device("meta"):
            dense: nn.Module = AutoModelForSequenceClassification.from_config(_dense(config))
            if (widest := max(max(tensor.shape, default=0) for tensor in dense.parameters())) > WIDEST:
                raise ValueError(f"a tensor {widest} wide; allowed: up to {WIDEST}")
            made: Any = type(type(dense).__name__, (type(dense),), {"__init__": _build})
            sketch: nn.Module = made(config)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"a shrunk {config.model_type} cannot be built: {' '.join(str(error).split())[:160]}"
        ) from None
    wanted = {name: tuple(tensor.shape) for name, tensor in base_of(sketch).named_parameters()}
    prefix = _prefix(sketch)
    found = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    for name, shape in wanted.items():
        if found.get(name) != shape and ("pooler" not in name or name in found):
            is_there = found.get(name, "missing")
            raise InputError(f"{name} is {is_there} in the file, {shape} by {SHRUNK_UNITS} of config.json")
    setattr(config, SHRUNK_UNITS, units)
    return made


def _check_layers(config: Any, tensors: int) -> None:
    """Refuse more layers than there are tensors: each takes memory, even where its weights take none."""
    for name in LAYERS:
        said = getattr(config, name, None) or 0
        number = sum(said) if isinstance(said, list | tuple) else said
        if number > tensors:
            raise InputError(f"{name} {number} in config.json; allowed: up to {tensors}, the files' tensors")


def made_plain_(model: PreTrainedModel) -> None:
    """Give a model that was built by `classifier_of` its ordinary class back."""
    if type(model).__init__ is _build:
        model.__class__ = type(model).__bases__[0]


def _prefix(model: nn.Module) -> str:
    inner = base_of(model)
    return next((f"{name}." for name, module in model.named_modules() if module is inner and name), "")


def _dense(config: Any) -> Any:
    """Return the config of the model that a shrunk one comes from."""
    return type(config).from_dict({k: v for k, v in config.to_dict().items() if k != SHRUNK_UNITS})


def _build(self: Any, config: Any, *more: Any, **named: Any) -> None:
    """Build a dense model and cut it to size; transformers does this without memory, then loads values."""
    units = config.__dict__.pop(SHRUNK_UNITS)
    try:
        type(self).__bases__[0].__init__(self, config, *more, **named)
        with torch.device("cpu"):  # else indices would be without memory, too
            shrink_(self, _masks(_whole_units(self), units))
    finally:
        setattr(config, SHRUNK_UNITS, units)


def _masks(view: Prunable, units: Units) -> dict[str, Tensor]:
    """Turn sizes into masks over the dense model's units; which neurons they keep does not matter."""
    sites = {site.name: site for site in view.sites}
    masks = {}
    for name, kept in units.items():
        site = sites.get(name)
        heads = site is not None and site.kind == "head"
        if site is None or isinstance(kept, list) != heads:
            raise InputError(
                f"{SHRUNK_UNITS} names {name} with {kept}; allowed: sites of the model, heads as lists"
            )
        size = kept[-1] + 1 if isinstance(kept, list) else kept
        if size > site.units:
            raise InputError(f"{SHRUNK_UNITS} gives {name} {size} units; allowed: up to {site.units}")
        mask = torch.zeros(site.units, dtype=torch.bool)
        mask[kept if isinstance(kept, list) else slice(kept)] = True
        masks[name] = mask
    return masks


def _shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of the tensors in safetensors files, and nothing else of them."""
    found = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as stream:
                names = stream.keys()
                found |= {name: tuple(stream.get_slice(name).get_shape()) for name in names}
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is no safetensors file: {error}") from None
    return found
