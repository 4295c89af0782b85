"""What may go: the prunable units of one model as index sets; nothing above this file knows architectures.

A *site* is a group of units of one kind (the weights of one matrix, the heads of one layer, the neurons of
one feed-forward block). A *slice* says which positions of one tensor belong to each unit. Names are relative
to the base model, so a ticket found on a classifier fits the bare encoder too.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hardtack.errors import InputError, nearest
from hardtack.families import FAMILIES, Attention, Convolutions, Family, Feedforward, Part

KINDS = ("weight", "head", "neuron", "channel")
SHRUNK_UNITS = "shrunk_units"
"""The config attribute of a model that units were really removed from: site -> the heads that are left, by
their first numbers, or how many neurons or channels."""


class Slice(NamedTuple):
    """The positions of each unit along one dimension of one tensor.

    `index` is int64 [units, width]; None means that every element is a unit, and `dim` is then the inputs'
    dimension.
    """

    param: str
    dim: int
    index: Tensor | None  # pyright: ignore[reportIncompatibleMethodOverride] - of tuple, which nobody calls


class Site(NamedTuple):
    """A group of prunable units; their output leaves through `exit`, the inputs of a linear map.

    The slices hold all that makes a unit: zeroed, they take it out exactly.
    """

    name: str
    kind: str
    units: int
    slices: tuple[Slice, ...]
    exit: Slice


def base_of(model: nn.Module) -> nn.Module:
    """Return the encoder or decoder without its task head (the model itself when it has none)."""
    inner = getattr(model, "base_model", model)
    return inner if isinstance(inner, nn.Module) else model


@dataclass(frozen=True)
class Prunable:
    """The prunable units of a model, independent of the weights' values.

    Attributes:
        sites: every site, in the order of the model's modules.
        shapes: shape of every tensor that a site touches.
        granularity: the kinds that were asked for.
        keep_whole: name patterns that were left out.
    """

    sites: tuple[Site, ...]
    shapes: Mapping[str, torch.Size]
    granularity: tuple[str, ...]
    keep_whole: tuple[str, ...]

    @classmethod
    def of(
        cls, model: nn.Module, granularity: Iterable[str] = ("weight",), keep_whole: Iterable[str] = ()
    ) -> "Prunable":
        """List what may be removed from `model`.

        Args:
            model: any module; families of the table know heads, neurons or channels, others only weights
                (every linear or convolution weight under the base model).
            granularity: one or more of "weight", "head", "neuron", "channel".
            keep_whole: shell-style patterns of site names to leave out, e.g. "pooler*".

        Raises:
            InputError: for an unknown kind, a kind that this family has not, a model that is not built as
                its family's entry says, or when nothing is left to prune.
        """
        kinds, patterns = tuple(dict.fromkeys(granularity)), tuple(keep_whole)
        base = base_of(model)
        family = _family(base)
        sites: list[Site] = []
        for kind in kinds:
            if kind not in KINDS:
                raise InputError(f"granularity {kind!r} does not exist{nearest(kind, KINDS)}")
            known = kinds_of(model)
            if kind not in known:
                what = f"granularity {kind!r} is not known for {type(base).__name__}"
                raise InputError(f"{what}; allowed: {', '.join(known)}")
            if family is None or kind == "weight":
                sites += _weights(base, family)
            else:
                sites += _units(base, family, kind)
        for pattern in patterns if sites else ():
            if not any(fnmatch.fnmatchcase(site.name, pattern) for site in sites):
                raise InputError(f"keep_whole {pattern!r} matches no site, such as {sites[0].name}")
        kept = tuple(site for site in sites if not any(fnmatch.fnmatchcase(site.name, p) for p in patterns))
        if not kept:
            raise InputError(f"nothing to prune in {type(base).__name__} at granularity {', '.join(kinds)}")
        tensors = dict(base.named_parameters())
        names = {slice_.param for site in kept for slice_ in (*site.slices, site.exit)}
        return cls(kept, {name: tensors[name].shape for name in sorted(names)}, kinds, patterns)

    @property
    def units(self) -> int:
        """How many units there are in all."""
        return sum(site.units for site in self.sites)

    def tensors(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the parameters of `model` that the sites touch, by name.

        Raises:
            InputError: when one is missing or has another shape.
        """
        found = dict(base_of(model).named_parameters())
        for name, shape in self.shapes.items():
            if name not in found or found[name].shape != shape:
                got = tuple(found[name].shape) if name in found else "no such tensor"
                raise InputError(
                    f"{type(model).__name__} does not fit: {name} should be {tuple(shape)}, is {got}"
                )
        return {name: found[name] for name in self.shapes}

    def pruned(self) -> list[str]:
        """Return the names of the parameters that a mask can put zeros into."""
        return list(dict.fromkeys(slice_.param for site in self.sites for slice_ in site.slices))

    def spread(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn per-unit masks (site -> bool [units]) into per-tensor masks (parameter -> bool, its shape)."""
        return {name: self.spread_over(name, masks) for name in self.pruned()}

    def spread_over(self, name: str, masks: Mapping[str, Tensor]) -> Tensor:
        """Return the mask of one parameter: bool, its shape; it reads only the masks that touch it."""
        shape, whole = self.shapes[name], None
        for site in self.sites:
            for slice_ in site.slices:
                if slice_.param != name:
                    continue
                if slice_.index is None:
                    part = masks[site.name].view(shape)
                else:
                    along = torch.ones(shape[slice_.dim], dtype=torch.bool)
                    along[slice_.index[~masks[site.name]].flatten()] = False
                    part = along.view(_along(slice_.dim, len(shape))).expand(shape)
                whole = part if whole is None else whole & part
        assert whole is not None, name
        return whole.contiguous()

    def factors(self, coefficients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn per-unit coefficients into a factor for each tensor they act on, differentiably.

        A unit's coefficient multiplies the tensor at its exit: scaling those columns equals scaling the
        unit's output, because what follows is linear. Factors broadcast against their tensor.
        """
        out: dict[str, Tensor] = {}
        for site in self.sites:
            name, dim, index = site.exit
            shape, value = self.shapes[name], coefficients[site.name]
            if index is None:
                factor = value.view(shape)
            else:
                unit_of = torch.empty(shape[dim], dtype=torch.long)
                unit_of[index] = torch.arange(site.units)[:, None]
                factor = value[unit_of.to(value.device)].view(_along(dim, len(shape)))
            out[name] = out[name] * factor if name in out else factor
        return out

    def pooled(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum per-element values (parameter -> its shape) over each unit: site -> [units]."""
        out = {}
        for site in self.sites:
            if site.exit.index is None:
                out[site.name] = values[site.exit.param].flatten()
                continue
            parts = []
            for param, dim, index in site.slices:
                assert index is not None
                others = [axis for axis in range(values[param].dim()) if axis != dim]
                along = values[param].sum(others) if others else values[param]
                parts.append(along[index.to(along.device)].sum(1))
            out[site.name] = torch.stack(parts).sum(0)
        return out


def kinds_of(model: nn.Module) -> tuple[str, ...]:
    """Return the kinds of unit that are known of a model: weights always, others if its family is listed."""
    family = _family(base_of(model))
    return family.kinds if family else ("weight",)


def blocks_of(model: nn.Module) -> list[str]:
    """Return the names of the attention blocks of a listed model, relative to its base, in their order.

    Raises:
        InputError: when the model's family has none, or is not in the table.
    """
    base = base_of(model)
    family = _family(base)
    if family is None or family.attention is None:
        listed = sorted(name for name, entry in FAMILIES.items() if entry.attention)
        raise InputError(
            f"{type(base).__name__} has no attention blocks in the table of families; "
            f"allowed: {', '.join(listed)}"
        )
    return _layers(base, family)


def unlisted(model: nn.Module) -> str | None:
    """Return one line that says what is unknown of a model that the table lacks; None for a listed one."""
    if _family(base := base_of(model)) is not None:
        return None
    return (
        f"{type(base).__name__} is not in the table of families: each of its linear and convolution weights "
        "can go, its heads, neurons and channels are not known"
    )


def _family(base: nn.Module) -> Family | None:
    return FAMILIES.get(getattr(getattr(base, "config", None), "model_type", ""))


def _along(dim: int, rank: int) -> list[int]:
    return [-1 if axis == dim else 1 for axis in range(rank)]


def _matching(base: nn.Module, path: str) -> list[str]:
    """Return the modules at a path of the table, in the model's order; `*` stands for each index."""
    pattern = re.compile(re.escape(path).replace(r"\*", r"\d+"))
    return [name for name, _ in base.named_modules() if pattern.fullmatch(name)]


def _layers(base: nn.Module, family: Family) -> list[str]:
    if found := _matching(base, family.layers):
        return found
    raise InputError(f"{type(base).__name__} has no layers at {family.layers}; {_OTHERWISE}")


_OTHERWISE = "its family's entry is for another version of transformers"


def _shape(base: nn.Module, module: str) -> torch.Size:
    try:
        return base.get_parameter(f"{module}.weight").shape
    except AttributeError:
        raise InputError(f"{type(base).__name__} has no weight at {module}; {_OTHERWISE}") from None


def _has(base: nn.Module, name: str) -> bool:
    try:
        return base.get_parameter(name) is not None
    except AttributeError:
        return False


def _weights(base: nn.Module, family: Family | None) -> list[Site]:
    """One site a matrix, in the model's order; a tied weight counts once, under its first name."""
    if family is None:
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, Conv1D)
        wanted = {
            f"{name}.weight".removeprefix("."): int(not isinstance(module, Conv1D))
            for name, module in base.named_modules()
            if isinstance(module, kinds)
        }
    else:
        layers = _layers(base, family)
        modules = [f"{layer}.{part}" for layer in layers for part in _inner(base, layer, family)]
        for module in modules:
            _shape(base, module)
        modules += [name for path in family.also for name in _matching(base, path)]
        wanted = {f"{module}.weight": int(not family.transposed) for module in modules}
    sites = []
    for name, parameter in base.named_parameters():
        if name in wanted:
            whole = Slice(name, wanted[name], None)
            sites.append(Site(name, "weight", parameter.numel(), (whole,), whole))
    return sites


def _inner(base: nn.Module, layer: str, family: Family) -> list[str]:
    """Return the modules of a layer, relative to it, whose weights its units are made of."""
    found: list[str] = []
    if attention := family.attention:
        found += [attention.query.module, attention.key.module, attention.value.module, attention.out]
        found += [module for module in attention.positions if _has(base, f"{layer}.{module}.weight")]
    if feedforward := family.feedforward:
        found += [*(part.module for part in feedforward.inner), feedforward.out]
    if chain := family.convolutions:
        found += [f"{link}.{chain.convolution}" for link in _matching(base.get_submodule(layer), chain.chain)]
    return found


def _units(base: nn.Module, family: Family, kind: str) -> list[Site]:
    sites: list[Site] = []
    for layer in _layers(base, family):
        if kind == "head" and family.attention:
            sites.append(_heads(base, layer, family.attention, family.transposed))
        elif kind == "neuron" and family.feedforward:
            sites.append(_neurons(base, layer, family.feedforward, family.transposed))
        elif kind == "channel" and family.convolutions:
            sites += _channels(base, layer, family.convolutions)
    return sites


def _outputs(base: nn.Module, module: str, index: Tensor, outputs: int = 0) -> list[Slice]:
    """The rows of a module's weight, along its dimension `outputs`, and its bias at `index`."""
    slices = [Slice(f"{module}.weight", outputs, index)]
    if _has(base, f"{module}.bias"):
        slices.append(Slice(f"{module}.bias", 0, index))
    return slices


def _rows(base: nn.Module, layer: str, part: Part, units: int, transposed: bool) -> list[Slice]:
    """The outputs of one projection shared out evenly, in their order, over a layer's units."""
    module, outputs = f"{layer}.{part.module}", int(transposed)
    width = _shape(base, module)[outputs] // part.parts
    index = torch.arange(width).view(units, -1) + part.part * width
    return _outputs(base, module, index, outputs)


def _heads(base: nn.Module, layer: str, attention: Attention, transposed: bool) -> Site:
    left = getattr(base.config, SHRUNK_UNITS, {}).get(f"{layer}.heads")
    units = int(getattr(base.config, attention.heads)) if left is None else len(left)
    positions = [Part(name) for name in attention.positions if _has(base, f"{layer}.{name}.weight")]
    slices: list[Slice] = []
    for part in (attention.query, attention.key, attention.value, *positions):
        slices += _rows(base, layer, part, units, transposed)
    return _leaving(base, f"{layer}.heads", "head", slices, f"{layer}.{attention.out}", units, transposed)


def _neurons(base: nn.Module, layer: str, feedforward: Feedforward, transposed: bool) -> Site:
    out = f"{layer}.{feedforward.out}"
    units = _shape(base, out)[0 if transposed else 1]
    slices: list[Slice] = []
    for part in feedforward.inner:
        slices += _rows(base, layer, part, units, transposed)
    return _leaving(base, f"{layer}.neurons", "neuron", slices, out, units, transposed)


def _channels(base: nn.Module, layer: str, family: Convolutions) -> list[Site]:
    sites = []
    links = [f"{layer}.{link}" for link in _matching(base.get_submodule(layer), family.chain)]
    for link, reader in pairwise(links):
        conv, out = f"{link}.{family.convolution}", f"{reader}.{family.convolution}"
        units = _shape(base, conv)[0]
        index = torch.arange(units)[:, None]
        slices = [*_outputs(base, conv, index), *_outputs(base, f"{link}.{family.normalisation}", index)]
        sites.append(_leaving(base, f"{link}.channels", "channel", slices, out, units))
    return sites


def _leaving(
    base: nn.Module, name: str, kind: str, slices: list[Slice], out: str, units: int, transposed: bool = False
) -> Site:
    """A site whose units leave through the inputs of the module `out`, shared out evenly in their order."""
    inputs = 0 if transposed else 1
    leaving = Slice(f"{out}.weight", inputs, torch.arange(_shape(base, out)[inputs]).view(units, -1))
    return Site(name, kind, units, (*slices, leaving), leaving)
