"""Calibration data streamed through a model block by block: what post-training pruning reads.

Two hidden states are carried for each batch: the dense model's and that of the model pruned so far. A block
is called with what the whole model calls it with (its masks and positions, recorded once), so any family that
lists its blocks works, and every batch keeps its own attention mask (K2). Padding enters no sum (K3), and of
all blocks only the running states are kept (K9). The model itself is never written: pruned weights are handed
to a block for the time of a call. Of a streamed model a block has weights only while it is `present`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.cache_utils import Cache

from hardtack.errors import InputError
from hardtack.methods.known import Known
from hardtack.methods.parts import Group, Matrix, Sample, Stage, refuse_empty
from hardtack.perturb import added_to_embeddings
from hardtack.prunable import Prunable, base_of, blocks_of
from hardtack.tasks.task import Batch

Weights = Mapping[str, Tensor]
"""Parameter within a stage -> what stands in for it."""


class _Enough(Exception):
    """Ends a pass whose remaining layers nobody needs."""


@dataclass
class Blocks:
    """A model's blocks, and what each of them is called with for each batch of calibration data.

    Attributes:
        model: the model, in evaluation mode.
        names: of its blocks, relative to its base.
        samples: the calibration data, those that enter the sums first.
        weights: where a streamed model's weights are, by their names in it; None for one in memory.
        first: the first batch's state before the first block.
        start: all batches' states there, once `record` has run for all.
    """

    model: nn.Module
    names: list[str]
    samples: Sequence[Sample]
    weights: Mapping[str, Tensor] | None
    first: Tensor
    start: Sequence[Tensor]
    tokens: dict[int, Tensor]
    calls: list[dict[int, tuple[tuple[Any, ...], dict[str, Any]]]]
    like: list[Callable[[Tensor], Any]]

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: nn.Module, samples: Sequence[Sample], weights: Mapping[str, Tensor] | None = None
    ) -> "Blocks":
        """Find the blocks of a model and record what they are called with for the first batch.

        Raises:
            InputError: when the family lists no blocks, or they are not simply run one after the other.
        """
        names = blocks_of(model)
        device = next(p.device for p in model.parameters() if not p.is_meta)
        samples = [
            sample._replace(batch=sample.batch._replace(inputs={k: v.to(device) for k, v in inputs.items()}))
            for sample in sorted(samples, key=lambda sample: not sample.counts)
            for inputs in [sample.batch.inputs]
        ]
        refuse_empty(samples)
        found = cls(
            model, names, samples, weights, torch.zeros((), device=device), [], {}, [{} for _ in names], []
        )
        found.like = found._outputs_of_blocks(samples[0].batch)
        found.first = found.record(0)
        return found

    @property
    def summed(self) -> range:
        """Return the numbers of the batches that enter the sums."""
        return range(sum(sample.counts for sample in self.samples))

    @torch.no_grad()
    def record(self, batch: int) -> Tensor:
        """Record what each block is called with for a batch; return its state before the first block."""
        sample, entered = self.samples[batch], []

        def note(hidden: Tensor, block: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            if block == 0:
                entered.append(hidden)
            self.calls[block][batch] = (args, kwargs)
            return hidden

        delta = sample.delta(sample.batch) if sample.delta else None
        moved = nullcontext() if delta is None else added_to_embeddings(self.model, delta)
        with self._standing_in(note), moved:
            self.model(**sample.batch.inputs)
        state = entered[-1]
        mask = sample.batch.inputs.get("attention_mask", torch.ones(state.shape[:2], device=state.device))
        if mask.shape != state.shape[:2]:
            raise InputError(
                f"{type(self.model).__name__} runs its blocks over {tuple(state.shape[:2])}, not on tokens"
            )
        self.tokens[batch] = mask.bool()
        return state

    @contextmanager
    def present(self, block: int | None) -> Iterator[None]:
        """Lend a streamed model's block its weights for a while; one in memory has them anyway."""
        if self.weights is None or block is None:
            yield
            return
        root, device = base_of(self.model).get_submodule(self.names[block]), self.first.device
        own: list[tuple[dict[str, Any], str, Any]] = []
        try:
            for name in root.state_dict():
                path, _, leaf = name.rpartition(".")
                module = root.get_submodule(path)
                value = self.weights[f"{self._prefix}{self.names[block]}.{name}"].to(device)
                table: dict[str, Any] = module._parameters if leaf in module._parameters else module._buffers
                own.append((table, leaf, table[leaf]))
                table[leaf] = (
                    nn.Parameter(value, requires_grad=False) if table is module._parameters else value
                )
            yield
        finally:
            for table, leaf, value in own:
                table[leaf] = value

    @property
    def _prefix(self) -> str:
        base = base_of(self.model)
        named = self.model.named_modules()
        return next((f"{name}." for name, module in named if module is base and name), "")

    def stages(self, view: Prunable) -> Iterator[Stage]:
        """Yield each block, then what follows them, with those of its matrices that the view may prune.

        Raises:
            InputError: at the end, when a matrix of the view was not reached.
        """
        base, prefix = base_of(self.model), self._prefix
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
            with self.present(index):
                groups = self._grouped(root, index, inside)
            yield Stage(name, root, index, groups)
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

    def run(
        self, stage: Stage, batch: int, hidden: Tensor, weights: Weights, known: Known | None = None
    ) -> Tensor:
        """Run a stage on one batch's hidden state with some of its weights replaced; logits at the end.

        What replaced matrices gave in an earlier pass with the same weights is not multiplied again where it
        is `known`.
        """
        replaced = dict(weights)
        with nullcontext() if known is None else known.answering(stage.root, batch, replaced):
            if stage.block is None:
                with self._standing_in(partial(self._resume, hidden)):
                    return functional_call(self.model, replaced, (), self.samples[batch].batch.inputs).logits
            args, kwargs = self.calls[stage.block][batch]
            return _hidden(functional_call(stage.root, replaced, (hidden, *args), kwargs))

    def inputs(
        self,
        stage: Stage,
        groups: Sequence[Group],
        batch: int,
        hidden: Tensor,
        weights: Weights,
        known: Known | None = None,
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
            self.run(stage, batch, hidden, weights, known)
        rows = [[self.rows(x, batch) for x in calls] for calls in found]
        return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in rows]

    def outputs(
        self, stage: Stage, batch: int, hidden: Tensor, weights: Weights, known: Known | None = None
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
            return self.run(stage, batch, hidden, weights, known), found

    def rows(self, x: Tensor, batch: int) -> Tensor:
        """Return the vectors of x without those of padding: [rows, width]; a view where there is none.

        What is no grid of this batch's tokens (pooled vectors, embeddings of positions) is taken whole.
        """
        tokens = self.tokens[batch]
        if x.shape[:-1] == tokens.shape and not bool(tokens.all()):
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
            return self.first

        modules = [root.get_submodule(name) for name in names]
        with torch.no_grad(), _hooked(modules, lambda n, m: m.register_forward_pre_hook(partial(note, n))):
            if index is None:
                with self._standing_in(passed):
                    self.model(**self.samples[0].batch.inputs)
            else:
                args, kwargs = self.calls[index][0]
                root(self.first, *args, **kwargs)
        groups: dict[tuple[int, ...], list[str]] = {}
        for name, inputs in seen.items():
            groups.setdefault(tuple(map(id, inputs)), []).append(name)
        return tuple(Group(tuple(wanted[name] for name in same), len(ids)) for ids, same in groups.items())

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

    def _outputs_of_blocks(self, batch: Batch) -> list[Callable[[Tensor], Any]]:
        """Run the whole model once; return how each block wraps its output, and see that they are a chain."""
        blocks = [base_of(self.model).get_submodule(name) for name in self.names]
        order: list[int] = []
        like: list[Callable[[Tensor], Any]] = []
        last: list[Tensor] = []
        broken: list[int] = []

        def enter(number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            order.append(number)
            hidden = args[0] if args else kwargs["hidden_states"]
            if last and not torch.equal(hidden, last.pop()):
                broken.append(number)
            lent.enter_context(self.present(number))

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            lent.close()
            like.append(_as_output(out))
            last[:] = [_hidden(out)]

        with (
            ExitStack() as lent,
            _hooked(blocks, lambda n, m: m.register_forward_pre_hook(partial(enter, n), with_kwargs=True)),
            _hooked(blocks, lambda n, m: m.register_forward_hook(leave)),
        ):
            self.model(**batch.inputs)
        what = type(base_of(self.model)).__name__
        if order != list(range(len(blocks))):
            raise InputError(
                f"{what} runs its {len(blocks)} block(s) {len(order)} times; blocks that layers share cannot "
                "be pruned one after the other"
            )
        if broken:
            raise InputError(
                f"{what} changes states between blocks {broken[0] - 1} and {broken[0]}, so they cannot be "
                "run apart"
            )
        return like


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
