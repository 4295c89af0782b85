"""The only training loop of the project: an iterator of steps that the caller drives.

Every random number of a step is a function of (seed, step): batch order, dropout, starts and gate noise. So a run that is
killed and started again continues bit for bit from its last saved state.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.runs import Run
from hardtack.tasks.task import Batch
from hardtack.ticket import Ticket
from hardtack.training.adversarial import Objective

PRECISIONS = ("fp32", "bf16")


class Step(NamedTuple):
    """What one optimiser step did; `loss` is the sum of its losses, `grad_norm` the norm before clipping."""

    index: int
    progress: float
    loss: float
    grad_norm: float


class Unclipped(NamedTuple):
    """A loss whose gradient is added after clipping, e.g. a price on open gates."""

    loss: Tensor


class StepSource(Protocol):
    """Batches that can be asked for by step, without replaying earlier ones."""

    def at(self, step: int) -> Batch: ...


def fit_steps(
    model: nn.Module,
    batches: StepSource,
    objective: Objective,
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

    The model is put in training mode for each step and gets its flags back when the loop ends, however it ends. If `run` has a
    folder, the trained tensors, buffers and optimiser are saved there every `run.save_seconds`, and a new call continues.

    Args:
        model: a plain module, called as `model(**batch.inputs)`.
        batches: `at(step)` gives the batch of a step.
        objective: generator of losses; each gets a backward, those wrapped in `Unclipped` after clipping.
        optimizer: over whatever is trained (weights or gate scores); its learning rate is set at every step.
        total: number of steps.
        lr: learning rate as a function of progress in [0, 1).
        run: where states and progress go; `Run.nowhere()` for none.
        clip: bound on the gradients' joint norm over the optimiser's tensors; 0 means no clipping.
        hold: a ticket whose pruned weights stay zero: their gradients go before clipping, the weights after the step.
        precision: "fp32" or "bf16".
        label: name of this work in progress bars.

    Raises:
        InputError: at a loss or gradient that is not finite, naming the step; the last good state is saved first.
    """
    if precision not in PRECISIONS:
        reason = " (its scaled gradients overflow the perturbations)" if precision == "fp16" else ""
        raise InputError(f"precision {precision!r} is not allowed{reason}; allowed: {', '.join(PRECISIONS)}")
    accelerator = Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no", cpu=next(model.parameters()).device.type == "cpu"
    )
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = hold.hold_(model) if hold is not None else None
    flags = [(module, module.training) for module in model.modules()]
    first = _restore_(run, model, trained, optimizer)
    if held is not None:
        held.weights_()
    saved = time.monotonic()
    try:
        for index in range(first, total):
            if time.monotonic() - saved > run.save_seconds:
                _save(run, model, trained, optimizer, index)
                saved = time.monotonic()
            progress = index / total
            for group in optimizer.param_groups:
                group["lr"] = lr(progress)
            model.train()
            batch = _to(batches.at(index), next(model.parameters()).device)
            loss, late = _accumulate(accelerator, model, batch, objective, progress, run, index)
            if held is not None:
                held.gradients_()
            norm = torch.nn.utils.clip_grad_norm_(trained, clip if clip > 0 else math.inf)
            for extra in late:
                accelerator.backward(extra.loss)
                loss += float(extra.loss.detach())
            if not (math.isfinite(loss) and math.isfinite(float(norm))):
                _save(run, model, trained, optimizer, index)
                raise InputError(
                    f"{label}: loss {loss}, gradient norm {float(norm)} at step {index} of {total}; "
                    f"the state before it is kept; try a lower learning rate than {lr(progress):.3g}"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if held is not None:
                held.weights_()
            run.tick(label, index + 1, total)
            yield Step(index, progress, loss, float(norm))
    finally:
        optimizer.zero_grad(set_to_none=True)
        for module, flag in flags:
            module.training = flag


def _accumulate(
    accelerator: Accelerator,
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    progress: float,
    run: Run,
    index: int,
) -> tuple[float, list[Unclipped]]:
    """Run one objective to its end, with a backward for each loss; returns the losses' sum and the unclipped ones."""

    def rng(name: str, example: int | None = None) -> torch.Generator:
        return run.rng(name, index, example)

    total, late, inner = 0.0, [], 0
    losses = objective(model, batch, progress, rng)
    try:
        while True:
            # Dropout takes no generator: seed torch's own stream by (seed, step, inner step), and give it back after.
            with torch.random.fork_rng(), accelerator.autocast():
                torch.manual_seed(run.key("dropout", index, inner))
                loss = next(losses, None)
            if loss is None:
                return total, late
            inner += 1
            if isinstance(loss, Unclipped):
                late.append(loss)
            else:
                accelerator.backward(loss)
                total += float(loss.detach())
    finally:
        losses.close()  # type: ignore[attr-defined]


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    inputs = {name: value.to(device, non_blocking=True) for name, value in batch.inputs.items()}
    extra = {name: value.to(device) for name, value in batch.extra.items()}
    return Batch(inputs, batch.labels.to(device), batch.ids, extra)


def _save(run: Run, model: nn.Module, trained: list[Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Keep everything that moves: trained tensors, buffers, optimiser. What is not trained is as it was at the start."""
    tensors = {f"trained.{number}": tensor for number, tensor in enumerate(trained)}
    tensors |= {f"buffer.{name}": buffer for name, buffer in model.named_buffers()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"state.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    run.keep("fit", tensors, step=step, log_bytes=run.log_size())


@torch.no_grad()
def _restore_(run: Run, model: nn.Module, trained: list[Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Put the last saved state back and return the step to go on with; 0 when there is none."""
    kept = run.kept("fit")
    if kept is None:
        return 0
    tensors, facts = kept
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
    redone = run.cut_log(facts["log_bytes"])
    run.log(event="resumed", step=facts["step"], redone_seconds=round(redone, 3))
    return int(facts["step"])
