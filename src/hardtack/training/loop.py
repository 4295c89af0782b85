"""The only training loop of the project: an iterator of steps that the caller drives.

Every random number of a step is a function of (seed, step): batch order, dropout, starts and gate noise. So a
run that is killed and started again continues bit for bit from its last saved state.

Started as several processes, each takes its rows of the step's batch, and gradients are summed once a step.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.runs import Run
from hardtack.tasks.task import Batch
from hardtack.ticket import Ticket
from hardtack.training.adversarial import Stream
from hardtack.training.processes import Processes

PRECISIONS = ("fp32", "bf16")


class Step(NamedTuple):
    """What one optimiser step did; `loss` is the sum of its losses, `grad_norm` the norm before clipping."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride] - a step's number, not tuple.index
    progress: float
    loss: float
    grad_norm: float


class Unclipped(NamedTuple):
    """A loss whose gradient is added after clipping, e.g. a price on open gates.

    It depends on what is trained and not on the batch: each of several processes computes it for itself.
    """

    loss: Tensor


class StepSource(Protocol):
    """Batches that can be asked for by step, without replaying earlier ones."""

    def at(self, step: int) -> Batch:
        """Return the batch of a step, all rows of it also where several processes share them."""
        ...


class Losses(Protocol):
    """Yields the losses of one step, each a mean over the batch's rows, or a price beside them."""

    def __call__(
        self, model: nn.Module, batch: Batch, progress: float, rng: Stream, /
    ) -> Iterator[Tensor] | Iterator[Tensor | Unclipped]:
        """Start the losses of one step."""
        ...


def decayed(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return an optimiser's parameter groups: weight decay on matrices, none on biases and norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def fit_steps(
    model: nn.Module,
    batches: StepSource,
    objective: Losses,
    optimizer: torch.optim.Optimizer,
    *,
    total: int,
    lr: Callable[[float], float],
    run: Run,
    clip: float = 1.0,
    hold: Ticket | None = None,
    precision: str = "fp32",
    label: str = "training",
) -> Iterator[Step]:
    """Train for `total` optimiser steps, yielding after each.

    The model is put in training mode for each step and gets its flags back when the loop ends, however it
    ends; gradients that were there before are dropped. If `run` has a folder, trained tensors, buffers and
    optimiser are saved there every `run.save_seconds`, and a new call continues.

    Args:
        model: a plain module, called as `model(**batch.inputs)`.
        batches: `at(step)` gives the batch of a step, the same in each of several processes.
        objective: generator of losses; each gets a backward, those wrapped in `Unclipped` after clipping.
        optimizer: over whatever is trained (weights or gate scores); its rate is set at every step.
        total: number of steps.
        lr: learning rate as a function of progress in [0, 1).
        run: where states and progress go; `Run.nowhere()` for none.
        clip: bound on the gradients' joint norm over the optimiser's tensors; 0 means no clipping.
        hold: a ticket whose pruned weights stay zero: their gradients go before clipping, the weights after
            the step.
        precision: "fp32" or "bf16".
        label: name of this work in progress bars.

    Raises:
        InputError: at a loss or gradient that is not finite, naming the step; the state before it is kept.
    """
    check_precision(precision)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device = trained[0].device  # where the model is too; gated, it may have no parameter of its own left
    processes = Processes.joined(device)
    held = hold.hold_(model) if hold is not None else None
    flags = [(module, module.training) for module in model.modules()]
    first = _restore_(run, model, trained, optimizer)
    if processes.count > 1:
        processes.agree("the start", f"step {first}, weights {_digest(trained):.17g}")
    if held is not None:
        held.weights_()
    saved = time.monotonic()
    _drop_gradients_(model, optimizer)
    try:
        for index in range(first, total):
            if time.monotonic() - saved >= run.save_seconds:
                _save(run, model, trained, optimizer, index)
                saved = time.monotonic()
            progress = index / total
            for group in optimizer.param_groups:
                group["lr"] = lr(progress)
            model.train()
            batch, share = processes.shard(batches.at(index))
            batch = _to(batch, device)
            before = [(buffer, buffer.clone()) for buffer in model.buffers()]  # forwards move statistics
            losses = _losses(objective, model, batch, progress, run, index)
            loss, late = _accumulate(losses, run, index, processes, share, precision)
            # Before masks and clip: these act on the whole batch's gradient, as in one process.
            loss = processes.combine_(loss, share, trained, before)
            if held is not None:
                held.gradients_()
            norm = torch.nn.utils.clip_grad_norm_(trained, clip if clip > 0 else math.inf)
            for extra in late:
                extra.loss.backward()
                loss += float(extra.loss.detach())
            if not (math.isfinite(loss) and math.isfinite(float(norm))):
                for buffer, value in before:
                    buffer.copy_(value)
                if all(bool(tensor.isfinite().all()) for tensor in trained):
                    _save(run, model, trained, optimizer, index)  # else the last saved state is the last good
                raise InputError(
                    f"{label}: loss {loss}, gradient norm {float(norm)} at step {index} of {total}; "
                    f"the state before it is kept; try a lower learning rate than {lr(progress):.3g}"
                )
            optimizer.step()
            _drop_gradients_(model, optimizer)
            if held is not None:
                held.weights_()
            run.tick(label, index + 1, total)
            yield Step(index, progress, loss, float(norm))
    finally:
        _drop_gradients_(model, optimizer)
        for module, flag in flags:
            module.training = flag


def check_precision(precision: str) -> None:
    """Refuse a precision that the loop does not compute in."""
    if precision not in PRECISIONS:
        reason = " (its scaled gradients overflow the perturbations)" if precision == "fp16" else ""
        raise InputError(f"precision {precision!r} is not allowed{reason}; allowed: {', '.join(PRECISIONS)}")


def _losses(
    objective: Losses, model: nn.Module, batch: Batch, progress: float, run: Run, index: int
) -> Generator[Tensor | Unclipped]:
    """Start the objective only when its first loss is asked for, under that loss's random stream."""

    def rng(name: str, example: int | None = None) -> torch.Generator:
        return run.rng(name, index, example)

    yield from objective(model, batch, progress, rng)


def _accumulate(
    losses: Generator[Tensor | Unclipped],
    run: Run,
    index: int,
    processes: Processes,
    share: float,
    precision: str,
) -> tuple[float, list[Unclipped]]:
    """Drive the losses of one step to their end, with a backward for each.

    Returns:
        The sum of the losses, and the unclipped ones, whose backward is still to come.
    """
    total, late, inner = 0.0, [], 0
    device = processes.device
    devices = [device] if device.type == "cuda" else []
    dropout = f"dropout-{processes.rank}" if processes.rank else "dropout"  # other rows, other masks
    try:
        while True:
            # Dropout takes no generator: seed torch's own stream by (seed, step, inner step); give it back.
            with (
                torch.random.fork_rng(devices=devices),
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
            ):
                torch.manual_seed(run.key(dropout, index, inner))
                loss = next(losses, None)
            if loss is None:
                return total, late
            inner += 1
            if isinstance(loss, Unclipped):
                late.append(loss)
            else:
                if processes.count > 1:  # before the backward: perturbations see the whole batch's scale
                    loss = loss * share
                loss.backward()
                total += float(loss.detach())
    finally:
        losses.close()  # undo whatever the objective has open before anyone sees the model again


def _drop_gradients_(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Drop all gradients, also of weights that get some but are not trained: else those would pile up."""
    optimizer.zero_grad(set_to_none=True)
    model.zero_grad(set_to_none=True)


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    inputs = {name: value.to(device, non_blocking=True) for name, value in batch.inputs.items()}
    extra = {name: value.to(device) for name, value in batch.extra.items()}
    return Batch(inputs, batch.labels.to(device), batch.ids, extra)


def _digest(tensors: list[Tensor]) -> float:
    return sum(float(tensor.detach().double().nan_to_num().sum()) for tensor in tensors)


def _save(
    run: Run, model: nn.Module, trained: list[Tensor], optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Keep everything that moves: trained tensors, buffers, optimiser; the rest is as it was at the start."""
    tensors = {f"trained.{number}": tensor for number, tensor in enumerate(trained)}
    tensors |= {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"state.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    run.keep("fit", tensors, step=step, log_bytes=run.log_size())


@torch.no_grad()
def _restore_(run: Run, model: nn.Module, trained: list[Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Put the last saved state back and return the step to go on with; 0 when there is none."""
    kept, begun = run.kept("fit"), run.kept("begun")
    if kept is None and begun is None:
        # A run killed before its first saved state cuts its log back to here.
        run.keep("begun", {}, step=0, log_bytes=run.log_size())
        return 0
    tensors, facts = kept or begun or ({}, {})
    buffers = dict(model.named_buffers())
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "trained":
            trained[int(rest)].copy_(value)
        elif kind == "buffer":
            buffers[rest].copy_(value)
        else:
            number, _, field = rest.partition(".")
            state.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    run.clock.catch_up(facts["seconds"])
    redone = run.cut_log(facts["log_bytes"])
    run.log(event="resumed", step=facts["step"], redone_seconds=round(redone, 3))
    return int(facts["step"])
