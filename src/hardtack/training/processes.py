"""Several processes that train one model: who is who, whose rows are whose, and one reduction a step.

A launcher (`torchrun`, `accelerate launch`) starts equal processes; Accelerate's state brings them together.
The model stays plain, without a wrapper, so that an objective may run any number of backwards a step.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.state import PartialState
from accelerate.utils import get_int_from_env, parse_flag_from_env, reduce
from torch import Tensor

from hardtack.errors import InputError
from hardtack.runs import Run
from hardtack.tasks.task import Batch

T = TypeVar("T")
Moved = Sequence[tuple[Tensor, Tensor]]
"""Buffers, each with its value before the step."""

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "WORLD_SIZE")
"""Where launchers write how many processes they start, in the order in which Accelerate looks."""
OTHER_LOOPS = ("DEEPSPEED", "FSDP", "MEGATRON_LM")


class Parted(InputError):
    """Another process of the group was refused or ended; what happened stands in that process's own line."""


def started() -> int:
    """Return how many processes were started together, whether they have met yet or not."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return max(1, get_int_from_env(SIZES, 1))


def check_launcher(precision: str) -> None:
    """Refuse what a launcher was asked for where it would quietly not happen.

    Args:
        precision: what this command computes in.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", precision):
        raise InputError(
            f"accelerate launch says mixed precision {asked!r} and this command {precision!r}; allowed: "
            "--precision of this command alone, or the same in both"
        )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1":
        raise InputError(f"accelerate launch says gradient accumulation over {steps} steps; allowed: 1")
    for name in OTHER_LOOPS:
        if parse_flag_from_env(f"ACCELERATE_USE_{name}"):
            raise InputError(f"accelerate launch says {name}; allowed: plain processes (--multi_gpu or none)")
    # Without two GPUs `accelerate launch --num_processes 2` prepares an address to meet at, and starts one.
    if started() == 1 and {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= os.environ.keys():
        raise InputError(
            "accelerate launch was asked for several processes and started one; on a CPU use "
            "torchrun --nproc-per-node N -m hardtack ... (or accelerate launch --multi_gpu)"
        )


def own_device(wanted: str) -> str:
    """Return the device of this one of several processes: the GPU of its local rank, or the CPU.

    Args:
        wanted: "auto", "cpu" or "cuda"; a numbered GPU would be shared by all.
    """
    kind = wanted
    if wanted == "auto":
        kind = (
            "cuda" if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU") else "cpu"
        )
    if kind == "cpu":
        return kind
    count, here = torch.cuda.device_count(), get_int_from_env(("LOCAL_WORLD_SIZE",), started())
    if kind != "cuda" or count == 0:
        raise InputError(
            f"device {wanted!r} cannot be used by {started()} processes; allowed: cpu, auto, "
            "cuda where there are GPUs (each process takes its own)"
        )
    if here > count:
        raise InputError(f"{here} processes for {count} GPUs; allowed: a process a GPU, or --device cpu")
    return f"cuda:{get_int_from_env(('LOCAL_RANK',), 0)}"


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them; most often it is the only one.

    Attributes:
        device: where this one computes.
        rank: its number; number 0 leads: it alone writes.
        count: how many there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls, device: torch.device | str) -> "Processes":
        """Meet the others that the launcher started; alone, touch nothing."""
        device, count = torch.device(device), started()
        if count == 1:
            return cls(device)
        try:
            state = PartialState(cpu=device.type == "cpu")
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{count} processes could not meet: {str(error).splitlines()[0]}") from None
        if state.num_processes != count:
            raise InputError(
                f"{count} processes were started and {state.num_processes} met; allowed: "
                "processes started by torchrun or accelerate launch"
            )
        return cls(device, state.process_index, count)

    def shard(self, batch: Batch) -> tuple[Batch, float]:
        """Return this process's rows of a step's batch, padded like the whole, and their share of it.

        Every count-th row, so that the last short batch is spread evenly too. A process that gets none takes
        the first row at a share of 0: it does all that the others do, and nothing of it counts.
        """
        if self.count == 1:
            return batch, 1.0
        mine = torch.arange(len(batch.labels))[self.rank :: self.count]
        rows = mine if len(mine) else torch.zeros(1, dtype=torch.int64)
        inputs = {name: column[rows] for name, column in batch.inputs.items()}
        extra = {name: column[rows] for name, column in batch.extra.items()}
        share = len(mine) / len(batch.labels)
        return Batch(inputs, batch.labels[rows], batch.ids[rows], extra), share

    @torch.no_grad()
    def combine_(self, loss: float, share: float, trained: Sequence[Tensor], buffers: Moved) -> float:
        """Sum loss and gradients over the processes, and average what moved in buffers, in one reduction.

        Losses were multiplied by `share` before their backward, so that sums are means over the whole batch.
        Afterwards every process holds the same bits, because one of them added up each number.

        Args:
            loss: this process's sum of losses.
            share: its share of the batch's rows.
            trained: the optimiser's tensors; one that no process has a gradient for keeps none.
            buffers: the model's, whose change in this step is averaged; integers count steps, alike in all.

        Returns:
            The loss of the whole batch.
        """
        if self.count == 1:
            return loss
        live = [tensor for tensor in trained if tensor.requires_grad]
        moved = [(buffer, before) for buffer, before in buffers if buffer.is_floating_point()]
        pieces = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in live]
        # Changes, not values: a buffer that never moves stays what it is, to the bit, and so does infinity.
        pieces += [torch.where(buffer == before, 0, buffer - before) * share for buffer, before in moved]
        facts = [loss, *(float(tensor.grad is not None) for tensor in live)]
        pieces.append(torch.tensor(facts, dtype=torch.promote_types(trained[0].dtype, torch.float32)))
        whole = self._sum(torch.cat([piece.reshape(-1).to(self.device) for piece in pieces]))
        parts = iter(whole.split([piece.numel() for piece in pieces]))
        gradients = [next(parts) for _ in live]
        for (buffer, before), change in zip(moved, [next(parts) for _ in moved], strict=True):
            buffer.copy_(before + change.view_as(buffer))
        total, *found = next(parts).tolist()
        for tensor, gradient, processes in zip(live, gradients, found, strict=True):
            tensor.grad = gradient.view_as(tensor).to(tensor) if processes else None
        return total

    def agree(self, what: str, value: str) -> None:
        """Raise InputError, in all processes, unless all come with the same value."""
        if self.count == 1:
            return
        number = int.from_bytes(hashlib.blake2b(value.encode(), digest_size=6).digest())  # exact in float64
        mine = torch.tensor([number, -number], dtype=torch.float64, device=self.device)
        largest, smallest = self._exchange(lambda: reduce(mine, "max")).tolist()  # type: ignore[union-attr]
        if largest != -smallest:
            raise InputError(
                f"{self.count} processes differ in {what}; process {self.rank} has {value}; all need the "
                "same command, files and seed"
            )

    def open(self, folder: Path, id: str, **facts: Any) -> Run:
        """Create or continue a run: the leader holds the lock and writes, the others read along.

        Args:
            folder: where it is.
            id: its name.
            facts: what `Run.open` takes.
        """
        self.agree("the run", id)
        run = self.led(lambda: Run.open(folder, id, **facts))
        if run is None:
            if not (folder / "recipe.json").is_file():
                raise InputError(
                    f"--out {folder} is not seen by process {self.rank}; allowed: a folder that all share"
                )
            run = Run(id, writes=False, folder=folder, **{**facts, "watch": None})
        run.meet = self.meet
        return run

    def meet(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            self._exchange(PartialState().wait_for_everyone)

    def led(self, act: Callable[[], T]) -> T | None:
        """Let the leader act while the others wait; when it is refused, so are they."""
        if self.count == 1:
            return act()
        value, failure = None, None
        if self.rank == 0:
            try:
                value = act()
            except Exception as error:
                failure = error
        refused = self._sum(torch.tensor([float(failure is not None)], device=self.device))
        if failure is not None:
            raise failure
        if refused:
            raise Parted("process 0 was refused; its own line says why")
        return value

    def _sum(self, tensor: Tensor) -> Tensor:
        return self._exchange(lambda: reduce(tensor, "sum"))  # type: ignore[return-value]

    def _exchange(self, action: Callable[[], T]) -> T:
        """Run a collective; a connection that breaks means that another process ended."""
        try:
            return action()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise Parted(
                f"another process ended, its own lines say why ({' '.join(str(error).split())[:120]})"
            ) from error
