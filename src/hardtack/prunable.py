"""What may go: the prunable units of one model as index sets; nothing above this file knows architectures.

A *site* is a group of units of one kind (the weights of one matrix, the heads of one layer, the neurons of
one feed-forward block). A *slice* says which positions of one tensor belong to each unit. Names are relative
to the base model, so a ticket found on a classifier fits the bare encoder too.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hardtack.errors import InputError, nearest
from hardtack.families import FAMILIES, Family, Part

KINDS = ("weight", "head", "neuron", "channel")


class Slice(NamedTuple):
    """The positions of each unit along one dimension of one tensor.

    `index` is int64 [units, width]; None means that every element is a unit, and `dim` is then the inputs'
    dimension.
    """

    param: str
    dim: int
    index: Tensor | None  # pyright: ignore[reportIncompatibleMethodOverride] - of tuple, which nobody calls


class Site(NamedTuple):
    """A group of prunable units; their output leaves through `exit`, the inputs of a linear map."""

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
            model: any module; families of the table know heads and neurons, others only weights (every linear
                or convolution weight under the base model).
            granularity: one or more of "weight", "head", "neuron", "channel".
            keep_whole: shell-style patterns of site names to leave out, e.g. "pooler*".

        Raises:
            InputError: for an unknown kind, a kind that this family has not, or when nothing is left to
                prune.
        """
        kinds, patterns = tuple(dict.fromkeys(granularity)), tuple(keep_whole)
        base = base_of(model)
        family = FAMILIES.get(getattr(getattr(base, "config", None), "model_type", ""))
        sites: list[Site] = []
        for kind in kinds:
            if kind not in KINDS:
                raise InputError(f"granularity {kind!r} does not exist{nearest(kind, KINDS)}")
            if kind == "weight":
                sites += _weights(base, family)
            elif kind in ("head", "neuron") and family is not None:
                sites += _heads(base, family) if kind == "head" else _neurons(base, family)
            else:
                raise InputError(
                    f"granularity {kind!r} is not known for {type(base).__name__}; allowed: weight"
                    + (", head, neuron" if family else "")
                )
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


def _along(dim: int, rank: int) -> list[int]:
    return [-1 if axis == dim else 1 for axis in range(rank)]


def _layers(base: nn.Module, family: Family) -> list[str]:
    pattern = re.compile(re.escape(family.layers).replace(r"\*", r"\d+"))
    return [name for name, _ in base.named_modules() if pattern.fullmatch(name)]


def _elements(base: nn.Module, name: str, inputs: int = 1) -> Site:
    parameter = base.get_parameter(name)
    whole = Slice(name, inputs, None)
    return Site(name, "weight", parameter.numel(), (whole,), whole)


def _weights(base: nn.Module, family: Family | None) -> list[Site]:
    if family is None:
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, Conv1D)
        first = {
            name for name, _ in base.named_parameters()
        }  # a tied weight counts once, under its first name
        found = [
            (f"{name}.weight".removeprefix("."), int(not isinstance(module, Conv1D)))
            for name, module in base.named_modules()
            if isinstance(module, kinds)
        ]
        return [_elements(base, name, inputs) for name, inputs in found if name in first]
    modules = dict.fromkeys(
        (family.query.module, family.key.module, family.value.module, family.attention_out)
    )
    inner = (*modules, *family.ffn_in, family.ffn_out)
    names = [f"{layer}.{module}.weight" for layer in _layers(base, family) for module in inner]
    held = {name for name, _ in base.named_parameters()}
    names += [f"{module}.weight" for module in family.also if f"{module}.weight" in held]
    return [_elements(base, name, int(not family.transposed)) for name in names]


def _outputs(base: nn.Module, module: str, index: Tensor, transposed: bool) -> list[Slice]:
    """The rows of a module's weight and its bias at `index` (positions among its outputs)."""
    slices = [Slice(f"{module}.weight", 1 if transposed else 0, index)]
    if getattr(base.get_submodule(module), "bias", None) is not None:
        slices.append(Slice(f"{module}.bias", 0, index))
    return slices


def _heads(base: nn.Module, family: Family) -> list[Site]:
    heads = int(getattr(base.config, family.heads))
    sites = []
    for layer in _layers(base, family):
        out_name = f"{layer}.{family.attention_out}.weight"
        entry = 0 if family.transposed else 1  # the input dimension of the output projection
        width = base.get_parameter(out_name).shape[entry]
        index = torch.arange(width).view(heads, width // heads)
        slices: list[Slice] = []
        for part in (family.query, family.key, family.value):
            slices += _outputs(
                base, f"{layer}.{part.module}", index + _offset(base, layer, part, family), family.transposed
            )
        leaving = Slice(out_name, entry, index)
        sites.append(Site(f"{layer}.heads", "head", heads, (*slices, leaving), leaving))
    return sites


def _offset(base: nn.Module, layer: str, part: Part, family: Family) -> int:
    outputs = base.get_parameter(f"{layer}.{part.module}.weight").shape[1 if family.transposed else 0]
    return part.part * (outputs // part.parts)


def _neurons(base: nn.Module, family: Family) -> list[Site]:
    sites = []
    for layer in _layers(base, family):
        out_name = f"{layer}.{family.ffn_out}.weight"
        entry = 0 if family.transposed else 1
        width = base.get_parameter(out_name).shape[entry]
        index = torch.arange(width)[:, None]
        slices: list[Slice] = []
        for module in family.ffn_in:
            slices += _outputs(base, f"{layer}.{module}", index, family.transposed)
        leaving = Slice(out_name, entry, index)
        sites.append(Site(f"{layer}.neurons", "neuron", width, (*slices, leaving), leaving))
    return sites
