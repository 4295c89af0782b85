"""Calibration data streamed through a model block by block: what post-training pruning reads.

Two hidden states are carried for each batch: the dense model's and that of the model pruned so far. A block
is called with what the whole model calls it with (its masks and positions, recorded once), so any family that
lists its blocks works, and every batch keeps its own attention mask (K2). Padding enters no sum (K3), and of
all blocks only the running states are kept (K9). The model itself is never written: pruned weights are handed
to a block for the time of a call.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.cache_utils import Cache

from hardtack.errors import InputError
from hardtack.prunable import Prunable, base_of, blocks_of
from hardtack.tasks.task import Batch

Weights = Mapping[str, Tensor]
"""Parameter within a stage -> what stands in for it."""


class Matrix(NamedTuple):
    """A linear map of a stage.

    Attributes:
        name: its weight, relative to the base model; of a task head, relative to the model.
        module: its module within the stage.
        transposed: True where the weight is stored [in, out].
        pruned: False for one behind the blocks that is only re-fitted: a classifier, a pooler kept whole.
    """

    name: str
    module: str
    transposed: bool
    pruned: bool

    def weight(self, stored: Tensor) -> Tensor:
        """Return a stored weight as float64 [out, in]."""
        return (stored.T if self.transposed else stored).detach().double()

    def stored(self, weight: Tensor, like: Tensor) -> Tensor:
        """Return a weight [out, in] as it is stored."""
        return (weight.T if self.transposed else weight).to(like.dtype).contiguous()


class Group(NamedTuple):
    """Matrices that read the same inputs, and how often a pass of their stage calls them."""

    matrices: tuple[Matrix, ...]
    calls: int


class Stage(NamedTuple):
    """A block, or what follows the last one: its matrices, grouped in the order in which they are called.

    `block` is its number; None for what follows.
    """

    name: str
    root: nn.Module
    block: int | None
    groups: tuple[Group, ...]

    def matrices(self) -> Iterator[Matrix]:
        """Yield every matrix."""
        for group in self.groups:
            yield from group.matrices


class _Enough(Exception):
    """Ends a pass whose remaining layers nobody needs."""


@dataclass
class Blocks:
    """A model's blocks, and what each of them is called with for each batch of calibration data."""

    model: nn.Module
    names: list[str]
    batches: Sequence[Batch]
    tokens: list[Tensor]
    calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]]
    start: list[Tensor]
    like: list[Callable[[Tensor], Any]]

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, batches: Sequence[Batch]) -> "Blocks":
        """Find the blocks of a model and record what they are called with; the model is in evaluation mode.

        Raises:
            InputError: when the family lists no blocks, or they are not simply run one after the other.
        """
        names = blocks_of(model)
        blocks = [base_of(model).get_submodule(name) for name in names]
        device = next(model.parameters()).device
        batches = [
            batch._replace(inputs={key: value.to(device) for key, value in batch.inputs.items()})
            for batch in batches
        ]
        like = _shapes_of_outputs(model, blocks, batches[0])
        found = cls(model, names, batches, [], [[] for _ in blocks], [], like)
        for batch in batches:
            with found._standing_in(found._record):
                model(**batch.inputs)
            shape = found.start[-1].shape[:2]
            mask = batch.inputs.get("attention_mask", torch.ones(shape, device=device)).bool()
            if mask.shape != shape:
                raise InputError(f"{type(model).__name__} runs its blocks over {tuple(shape)}, not on tokens")
            found.tokens.append(mask)
        return found

    def stages(self, view: Prunable) -> Iterator[Stage]:
        """Yield each block, then what follows them, with those of its matrices that the view may prune.

        Raises:
            InputError: at the end, when a matrix of the view was not reached.
        """
        base = base_of(self.model)
        prefix = next(
            (f"{name}." for name, module in self.model.named_modules() if module is base and name), ""
        )
        wanted = {site.name: site.exit.dim == 0 for site in view.sites}
        left = set(wanted)
        for index, name in enumerate(self.names):
            root = base.get_submodule(name)
            inside = {
                site.removeprefix(f"{name}.").removesuffix(".weight"): Matrix(
                    site, site.removeprefix(f"{name}.").removesuffix(".weight"), transposed, True
                )
                for site, transposed in wanted.items()
                if site.startswith(f"{name}.")
            }
            left -= {matrix.name for matrix in inside.values()}
            yield Stage(name, root, index, self._grouped(root, index, inside))
        after: dict[str, Matrix] = {}
        blocks = tuple(f"{prefix}{name}." for name in self.names)
        vocabulary = getattr(self.model, "get_output_embeddings", lambda: None)()  # of a language model
        holders = Counter(id(p) for _, p in self.model.named_parameters(remove_duplicate=False))
        for module, layer in self.model.named_modules():
            name = f"{module}.weight".removeprefix(prefix)
            if name in left:
                after[module] = Matrix(name, module, wanted[name], True)
            elif (
                isinstance(layer, nn.Linear)
                and not module.startswith(blocks)
                and holders[id(layer.weight)] == 1
                and layer is not vocabulary
            ):
                after[module] = Matrix(
                    name, module, False, False
                )  # what stands before the blocks is not seen
        stage = Stage("head", self.model, None, self._grouped(self.model, None, after))
        if left := left - {matrix.name for matrix in stage.matrices()}:
            raise InputError(f"{min(left)} is in no block and not behind them; keep it whole (--keep-whole)")
        yield stage

    def run(self, stage: Stage, batch: int, hidden: Tensor, weights: Weights) -> Tensor:
        """Run a stage on one batch's hidden state with some of its weights replaced; logits at the end."""
        replaced = dict(weights)
        if stage.block is None:
            with self._standing_in(partial(self._resume, hidden)):
                return functional_call(self.model, replaced, (), self.batches[batch].inputs).logits
        args, kwargs = self.calls[stage.block][batch]
        out = functional_call(stage.root, replaced, (hidden, *args), kwargs)
        return _hidden(out)

    def inputs(
        self, stage: Stage, groups: Sequence[Group], batch: int, hidden: Tensor, weights: Weights
    ) -> list[Tensor]:
        """Return what the groups read in one batch: [rows, in] for each, without padding.

        The pass ends at the last call that is needed.
        """
        found: list[list[Tensor]] = [[] for _ in groups]

        def take(number: int, module: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[number].append(args[0])
            if all(len(f) >= group.calls for f, group in zip(found, groups, strict=True)):
                raise _Enough

        modules = [stage.root.get_submodule(group.matrices[0].module) for group in groups]
        with _hooked(modules, lambda n, m: m.register_forward_pre_hook(partial(take, n))), suppress(_Enough):
            self.run(stage, batch, hidden, weights)
        return [torch.cat([self.rows(x, batch) for x in calls]) for calls in found]

    def outputs(
        self, stage: Stage, batch: int, hidden: Tensor, weights: Weights
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Run a stage on one batch; return its output, and each matrix's outputs (name -> [rows, out])."""
        matrices = list(stage.matrices())
        found: dict[str, list[Tensor]] = {matrix.name: [] for matrix in matrices}

        def keep(number: int, module: nn.Module, args: Any, out: Tensor) -> None:
            bias = getattr(module, "bias", None)
            rows = self.rows(out, batch)
            found[matrices[number].name].append(rows if bias is None else rows - bias)

        modules = [stage.root.get_submodule(matrix.module) for matrix in matrices]
        with _hooked(modules, lambda n, m: m.register_forward_hook(partial(keep, n))):
            return self.run(stage, batch, hidden, weights), found

    def rows(self, x: Tensor, batch: int) -> Tensor:
        """Return the vectors of x without those of padding: [rows, width].

        What is no grid of this batch's tokens (pooled vectors, embeddings of positions) is taken whole.
        """
        tokens = self.tokens[batch]
        if x.shape[:-1] == tokens.shape:
            return x[tokens]
        return x.reshape(-1, x.shape[-1])

    def _grouped(self, root: nn.Module, index: int | None, wanted: Mapping[str, Matrix]) -> tuple[Group, ...]:
        """Group matrices by what they read, in the order of their first calls, on the first batch."""
        seen: dict[str, list[Tensor]] = {}
        names = list(wanted)
        behind = [index is not None]

        def note(number: int, module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if behind[0]:
                seen.setdefault(names[number], []).append(args[0])

        def passed(hidden: Tensor, block: int, rest: Any, kwargs: Any) -> Tensor:
            behind[0] = behind[0] or block == len(self.names) - 1
            return self.start[0]

        modules = [root.get_submodule(name) for name in names]
        with torch.no_grad(), _hooked(modules, lambda n, m: m.register_forward_pre_hook(partial(note, n))):
            if index is None:
                with self._standing_in(passed):
                    self.model(**self.batches[0].inputs)
            else:
                args, kwargs = self.calls[index][0]
                root(self.start[0], *args, **kwargs)
        groups: dict[tuple[int, ...], list[str]] = {}
        for name, inputs in seen.items():
            groups.setdefault(tuple(map(id, inputs)), []).append(name)
        return tuple(Group(tuple(wanted[name] for name in same), len(ids)) for ids, same in groups.items())

    def _record(self, hidden: Tensor, block: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if block == 0:
            self.start.append(hidden)
        self.calls[block].append((args, kwargs))
        return hidden

    def _resume(self, state: Tensor, hidden: Tensor, block: int, args: Any, kwargs: Any) -> Tensor:
        return state

    @contextmanager
    def _standing_in(self, take: Callable[[Tensor, int, Any, Any], Tensor]) -> Iterator[None]:
        """Let `take` answer in place of each block: the rest of the model runs at the price of no block."""
        base = base_of(self.model)
        blocks = [base.get_submodule(name) for name in self.names]

        def answer(number: int, *args: Any, **kwargs: Any) -> Any:
            kwargs = {name: _without_cache(value) for name, value in kwargs.items()}
            hidden, *rest = args or [kwargs.pop("hidden_states")]
            return self.like[number](take(hidden, number, tuple(map(_without_cache, rest)), kwargs))

        try:
            for number, block in enumerate(blocks):
                block.forward = partial(answer, number)
            yield
        finally:
            for block in blocks:
                block.__dict__.pop("forward", None)


@contextmanager
def _hooked(modules: Sequence[nn.Module], register: Callable[[int, nn.Module], Any]) -> Iterator[None]:
    handles = [register(number, module) for number, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hidden(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def _without_cache(value: Any) -> Any:
    """Leave out a decoder's memory of earlier calls: a block is called again and again on the same tokens."""
    return None if isinstance(value, Cache) else value


def _as_output(out: Any) -> Callable[[Tensor], Any]:
    """Return what wraps a hidden state as this block's output is wrapped."""
    if isinstance(out, Tensor):
        return lambda hidden: hidden
    rest = tuple(None for _ in out[1:])
    return lambda hidden: (hidden, *rest)


def _shapes_of_outputs(
    model: nn.Module, blocks: Sequence[nn.Module], batch: Batch
) -> list[Callable[[Tensor], Any]]:
    """Run the whole model once; return how each block wraps its output, and see that they form a chain."""
    entered: list[tuple[int, Tensor]] = []
    left: list[Any] = []

    def enter(number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((number, args[0] if args else kwargs["hidden_states"]))

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        left.append(out)

    with (
        _hooked(blocks, lambda n, m: m.register_forward_pre_hook(partial(enter, n), with_kwargs=True)),
        _hooked(blocks, lambda n, m: m.register_forward_hook(leave)),
    ):
        model(**batch.inputs)
    what = type(base_of(model)).__name__
    if [number for number, _ in entered] != list(range(len(blocks))):
        raise InputError(
            f"{what} runs its {len(blocks)} block(s) {len(entered)} times; blocks that layers share cannot "
            "be pruned one after the other"
        )
    for number in range(1, len(blocks)):
        if not torch.equal(entered[number][1], _hidden(left[number - 1])):
            raise InputError(
                f"{what} changes states between blocks {number - 1} and {number}, so they cannot be run apart"
            )
    return [_as_output(out) for out in left]
