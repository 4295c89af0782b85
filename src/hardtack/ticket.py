"""The product: a ticket is boolean masks (and weights, if the method changed them) beside a named base model.

On disk it is a folder: `ticket.json`, `masks.safetensors` (one bit a unit) and, if weights changed,
`weights.safetensors`. Nothing is executed on loading, and sizes are checked against the declared ones before
memory is taken.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.prunable import Prunable, base_of
from hardtack.storage import write_tensors
from hardtack.ticketfile import FORMAT, Packed, read_arrays, read_record

_multiply_ = torch._foreach_mul_  # pyright: ignore[reportPrivateImportUsage] - all tensors in one call


@dataclass(frozen=True)
class Base:
    """The model that a ticket rewinds to.

    Attributes:
        id: hub id or folder it was loaded from.
        revision: hub commit, if known.
        head_seed: seed of the fresh task head; None where the checkpoint brought one.
        fingerprint: hash of the base model's tensors without the head and without freshly drawn ones.
        fresh: names (relative to the base model) that the checkpoint lacked and that were drawn anew.
    """

    id: str
    fingerprint: str
    revision: str | None = None
    head_seed: int | None = None
    fresh: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, id: str = "", *, revision: str | None = None, head_seed: int | None = None,
           fresh: Iterable[str] = ()) -> "Base":  # fmt: skip
        """Describe `model` as a base."""
        names = tuple(fresh)
        return cls(id, fingerprint(model, names), revision, head_seed, names)


def fingerprint(model: nn.Module, without: Iterable[str] = ()) -> str:
    """Return a hash of the base model's parameters and persistent buffers, by name, type, shape and bits.

    The task head is outside the base model and never counts. The hash (XXH3, 128 bits) finds mix-ups; it is
    no signature.
    """
    base, skipped = base_of(model), set(without)
    tensors = dict(base.named_parameters())
    tensors |= {name: buffer for name, buffer in base.state_dict().items() if name not in tensors}
    return digest_of({name: tensor for name, tensor in tensors.items() if name not in skipped})


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors by name, type, shape and bits, in the order of their names."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Held:
    """Keeps one model's pruned weights at zero; made by `Ticket.hold_`, with the masks spread once."""

    def __init__(self, pairs: Iterable[tuple[nn.Parameter, Tensor]]):
        self.parameters, self.masks = map(list, zip(*pairs, strict=True))

    @torch.no_grad()
    def weights_(self) -> None:
        """Set the pruned weights to zero."""
        _multiply_(self.parameters, self.masks)

    @torch.no_grad()
    def gradients_(self) -> None:
        """Set the pruned weights' gradients to zero, so that neither clipping nor momentum sees them."""
        pairs = zip(self.parameters, self.masks, strict=True)
        live = [(parameter.grad, mask) for parameter, mask in pairs if parameter.grad is not None]
        if live:
            gradients, masks = map(list, zip(*live, strict=True))
            _multiply_(gradients, masks)


@dataclass(frozen=True)
class Ticket:
    """A sparse subnetwork of a base model.

    Attributes:
        base: what the ticket rewinds to.
        masks: site -> bool [units], True = kept.
        granularity: the kinds of unit, which say how masks spread over tensors.
        weights: parameters that the method changed, named relative to the base model, or those of a task
            head relative to the whole model; empty for a pure mask.
        origin: how it was found: method, settings, start model, seed, run.
        keep_whole: name patterns that were not prunable.
    """

    base: Base
    masks: Mapping[str, Tensor]
    granularity: tuple[str, ...] = ("weight",)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    keep_whole: tuple[str, ...] = ()

    @classmethod
    def of(cls, base: Base, view: Prunable, masks: Mapping[str, Tensor], **origin: Any) -> "Ticket":
        """Make a pure-mask ticket over the units of `view`."""
        return cls(base, dict(masks), view.granularity, {}, origin, view.keep_whole)

    def units(self) -> int:
        """Return the number of prunable units."""
        return sum(self.sizes().values())

    def sizes(self) -> Mapping[str, int]:
        """Return the number of units of each site."""
        if isinstance(self.masks, Packed):
            return self.masks.units
        return {name: mask.numel() for name, mask in self.masks.items()}

    def sparsity(self) -> float:
        """Return the fraction of the prunable units that is removed."""
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / self.units()

    def digest(self) -> str:
        """Return a hash of the masks, the changed weights and the base, which names the ticket in run ids."""
        weights = {f"weight {name}": value for name, value in self.weights.items()}
        return f"{self.base.fingerprint}-{digest_of({**self.masks, **weights})}"

    def overlap(self, other: "Ticket") -> float:
        """Return the share of kept units in common, |A and B| / |A or B|, of tickets with the same sites."""
        if {n: m.shape for n, m in self.masks.items()} != {n: m.shape for n, m in other.masks.items()}:
            raise InputError("tickets with different sites have no overlap")
        both = sum(int((mask & other.masks[name]).sum()) for name, mask in self.masks.items())
        either = sum(int((mask | other.masks[name]).sum()) for name, mask in self.masks.items())
        return both / either if either else 1.0

    def view(self, model: nn.Module) -> Prunable:
        """Return the prunable units of `model` that this ticket speaks of.

        Raises:
            InputError: when the model has other sites, or sites of another size.
        """
        view = Prunable.of(model, self.granularity, self.keep_whole)
        wanted, found = self.sizes(), {site.name: site.units for site in view.sites}
        if name := next((name for name in wanted if found.get(name) != wanted[name]), None):
            raise InputError(
                f"ticket does not fit {type(model).__name__}: site {name} has {wanted[name]} units "
                f"in the ticket, {found.get(name, 'none')} in the model"
            )
        if missing := found.keys() - wanted.keys():
            raise InputError(f"ticket does not fit {type(model).__name__}: it has no mask for {min(missing)}")
        return view

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Write the ticket into its base: changed weights, then zeros.

        The pruned parameters get new memory: a loaded base is a private mapping of its file, in which every
        page that is written in place faults (4 times slower, bench/ticket.py). The check runs beside it.

        Raises:
            InputError: when `model` is not the ticket's base (by its fingerprint) or its units do not fit.
        """
        view = self.view(model)
        tensors = {**dict(model.named_parameters()), **dict(base_of(model).named_parameters())}
        weights = self.weights
        if base_of(model) is model:  # a bare encoder: a ticket that was found on a classifier fits it too
            weights = {name: value for name, value in weights.items() if name in tensors}
        for name, value in weights.items():
            if name not in tensors or tensors[name].shape != value.shape:
                raise InputError(f"ticket's weight {name} {tuple(value.shape)} does not fit this model")
        pruned = view.pruned()
        sources = [self.weights.get(name, tensors[name].detach()) for name in pruned]

        def product(name: str, source: Tensor, room: Tensor) -> Tensor:  # bits become bools while in cache
            return _product(source, view.spread_over(name, self.masks), room)

        with ThreadPoolExecutor(2) as pool:
            check = pool.submit(fingerprint, model, self.base.fresh)
            products = list(pool.map(product, pruned, sources, _room(sources)))
            found = check.result()
        if found != self.base.fingerprint:
            raise InputError(
                f"ticket belongs to another base: {self.base.id} with fingerprint {self.base.fingerprint}, "
                f"this is {found}"
            )
        for name, value in weights.items():
            tensors[name].copy_(value)
        for name, value in zip(pruned, products, strict=True):
            tensors[name].data = value.to(tensors[name].device, tensors[name].dtype)

    def hold_(self, model: nn.Module) -> Held:
        """Zero the pruned weights of `model` and return the handle that keeps them zero while it trains.

        Raises:
            InputError: when a mask finds no tensor in the model.
        """
        view = self.view(model)
        tensors = view.tensors(model)
        held = Held((tensors[name], mask.to(tensors[name])) for name, mask in view.spread(self.masks).items())
        held.weights_()
        return held

    def save(self, folder: Path | str) -> None:
        """Write the ticket's folder; a ticket that stands there is replaced once the new one is complete.

        Raises:
            InputError: when something else than a ticket stands there.
        """
        folder = Path(folder)
        is_ticket = (folder / "ticket.json").is_file()
        if folder.exists() and not is_ticket and not (folder.is_dir() and not any(folder.iterdir())):
            raise InputError(f"{folder} is no ticket and not empty; a ticket needs a folder of its own")
        mine = f".{folder.name}.{os.getpid()}"
        temporary, old = folder.with_name(f"{mine}.part"), folder.with_name(f"{mine}.old.part")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            masks, weights = temporary / "masks.safetensors", temporary / "weights.safetensors"
            write_tensors(masks, self.masks, ((name, _bits(self.masks[name])) for name in sorted(self.masks)))
            if self.weights:  # one at a time: they may lie on disk, being more than memory holds
                floats = ((name, self.weights[name].float()) for name in sorted(self.weights))
                write_tensors(weights, self.weights, floats)
            record = {
                "format": FORMAT,
                "base": dataclasses.asdict(self.base),
                "granularity": self.granularity,
                "keep_whole": self.keep_whole,
                "units": dict(self.sizes()),
                "sparsity": self.sparsity(),
                "origin": dict(self.origin),
            }
            (temporary / "ticket.json").write_text(json.dumps(record, indent=1) + "\n")
            if folder.exists():
                os.replace(folder, old)  # two renames: whatever kills us, no half of a ticket stands there
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if old.exists():
                shutil.rmtree(old) if folder.exists() else os.replace(old, folder)

    @classmethod
    def load(cls, folder: Path | str) -> "Ticket":
        """Read a ticket's folder.

        Raises:
            InputError: when a file is missing, malformed, of another format, or not of the declared sizes.
        """
        folder = Path(folder)
        record = read_record(folder)
        try:
            units = dict(record["units"])
            base = Base(**{**record["base"], "fresh": tuple(record["base"]["fresh"])})
            kinds, whole = tuple(record["granularity"]), tuple(record["keep_whole"])
            origin = dict(record["origin"])
            if not units or not all(isinstance(count, int) and count > 0 for count in units.values()):
                raise ValueError("units must be whole numbers above 0, one a site, of one site or more")
            words = (base.id, base.fingerprint, *base.fresh, *kinds, *whole)
            if not all(isinstance(word, str) for word in words):
                raise ValueError("names must be strings")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{folder / 'ticket.json'} is no ticket record: {error}") from None
        shapes = {name: (-(-count // 8),) for name, count in units.items()}
        packed = read_arrays(folder / "masks.safetensors", shapes, "U8")
        changed = folder / "weights.safetensors"
        weights = read_arrays(changed, None, "F32") if changed.exists() else {}
        return cls(base, Packed(packed, units), kinds, weights, origin, whole)


def _bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def _room(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return uninitialised tensors of these shapes and types, side by side in one allocation (huge pages)."""
    sizes = [weight.numel() * weight.element_size() for weight in weights]
    parts = torch.from_numpy(np.empty(sum(sizes), np.uint8)).split(sizes)
    return [part.view(weight.dtype).view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def _product(weight: Tensor, mask: Tensor, out: Tensor) -> Tensor:
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return weight * mask.to(weight.device)
    np.multiply(weight.numpy(), mask.numpy(), out=out.numpy())  # casts bools in cache, without Python's lock
    return out
