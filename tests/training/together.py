"""A command for the tests of several processes: trains toys and writes down what each process ends with.

    torchrun --nproc-per-node 2 tests/training/together.py FOLDER CASE...

Every process runs the same cases one after another and leaves FOLDER/CASE-RANK.safetensors: the tensors it
ended with, and its losses in the metadata. Alone, it does the same as number 0.
"""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tests.toys import TOYS, toy_batches
from tests.training.fitting import adamw, without_dropout_
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.methods import METHODS
from hardtack.methods.search import Data
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.schedule import Constant, WarmupDecay
from hardtack.select import Sparsity
from hardtack.storage import save_tensors
from hardtack.tasks.task import Batch
from hardtack.ticket import Base
from hardtack.training.adversarial import Clean, FreeLB
from hardtack.training.loop import fit_steps

STEPS = 50
ROWS, SIZE = 49, 16  # four steps an epoch, the last of one row: a second process has none then
SPARSITIES = (0.3, 0.5, 0.7)
Result = tuple[dict[str, Tensor], dict]


def fit(
    toy: str, objective, steps: int = STEPS, *, dropout: bool = False, wide: bool = False, **settings
) -> Result:
    """Train a toy and return its state, losses and norms."""
    model = TOYS[toy]() if dropout else without_dropout_(TOYS[toy]())
    if wide:
        model.double()
    batches = toy_batches(model, examples=ROWS, size=SIZE)
    done = fit_steps(
        model,
        batches,
        objective,
        adamw(model),
        total=steps,
        lr=WarmupDecay(3e-3),
        run=Run.nowhere(5),
        **settings,
    )
    taken = list(done)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return state, {"losses": [step.loss for step in taken], "norms": [step.grad_norm for step in taken]}


def exact() -> Result:
    """Train in float64, where rounding is 1e-16: what is left of a difference would be a mistake."""

    def objective(model: nn.Module, batch: Batch, progress: float, rng):
        for _ in range(2):
            yield nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels) / 2

    return fit("bert", objective, wide=True)


def find(method: str, objective=None, **settings) -> Result:
    """Search tickets of a toy and return their masks and what its loop logged."""
    model = without_dropout_(TOYS["bert"]())
    data = Data(toy_batches(model, examples=ROWS, size=SIZE), toy_batches(model, "validation"))
    wanted = tuple(Sparsity(fraction=value) for value in SPARSITIES)
    run, losses = Run.nowhere(5), []
    run.log = lambda **numbers: losses.append(numbers.get("loss", math.nan))
    run.part = lambda label: run
    masks = {}
    chosen = METHODS[method](sparsities=wanted, **settings)
    for ticket in chosen.search(model, Base.of(model), Prunable.of(model), data, objective or Clean(), run):
        masks |= {f"{ticket.origin['wanted']}/{name}": mask for name, mask in ticket.masks.items()}
    return masks, {"losses": [loss for loss in losses if loss == loss]}


def batch_norm() -> Result:
    """Three steps at a rate of 0: only the statistics move."""
    model = TOYS["conv"]()
    batches = toy_batches(model, examples=12, size=5)
    steps = fit_steps(model, batches, Clean(), adamw(model), total=3, lr=Constant(0.0), run=Run.nowhere(5))
    losses = [step.loss for step in steps]
    return {name: buffer.clone() for name, buffer in model.named_buffers()}, {"losses": losses}


def dropout() -> Result:
    """With dropout on; the first draw of each step is kept, which shows whose masks are whose."""
    drawn = []

    def objective(model: nn.Module, batch: Batch, progress: float, rng):
        drawn.append(torch.rand(4))
        yield from FreeLB(steps=2)(model, batch, progress, rng)

    state, facts = fit("bert", objective, 5, dropout=True)
    return state, facts | {"drawn": [numbers.tolist() for numbers in drawn]}


def partly() -> Result:
    """Only the process that has row 0 uses the second tensor; nobody uses the third."""
    model = nn.ParameterList([torch.full((3,), float(number)) for number in (1, 2, 3)])
    batch = Batch({"x": torch.arange(5.0)}, torch.zeros(5).long(), torch.arange(5), {})

    def objective(model, batch: Batch, progress: float, rng):
        loss = batch.inputs["x"] * model[0].sum()
        if 0 in batch.ids:
            loss = loss + model[1].sum()
        yield loss.mean()

    class Same:
        def at(self, step: int) -> Batch:
            return batch

    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
    (step,) = fit_steps(
        model, Same(), objective, optimizer, total=1, lr=Constant(0.1), run=Run.nowhere(), clip=0.0
    )
    return model.state_dict(), {"losses": [step.loss], "norms": [step.grad_norm]}


def crash() -> Result:
    """Process 1 breaks at its third step; the others must not wait for it for ever."""

    def objective(model: nn.Module, batch: Batch, progress: float, rng):
        if progress >= 0.3 and os.environ.get("RANK") == "1":
            raise ZeroDivisionError("process 1 broke")
        yield from Clean()(model, batch, progress, rng)

    return fit("bert", objective, 10)


def unlike() -> Result:
    """The second process starts from other weights."""
    model = TOYS["bert"](seed=int(os.environ.get("RANK", "0")))
    batches = toy_batches(model, examples=ROWS, size=SIZE)
    list(fit_steps(model, batches, Clean(), adamw(model), total=2, lr=Constant(1e-3), run=Run.nowhere()))
    return {}, {}


def nan() -> Result:
    """One row is poison from step 3 on; whoever has it, all stop there with one line."""
    model = without_dropout_(TOYS["bert"]())
    batches = toy_batches(model, examples=ROWS, size=SIZE)
    poison = int(batches.at(3).ids[-1])

    def objective(model: nn.Module, batch: Batch, progress: float, rng):
        (loss,) = Clean()(model, batch, progress, rng)
        yield loss * (math.nan if progress >= 0.3 and poison in batch.ids else 1.0)

    said = ""
    try:
        list(
            fit_steps(model, batches, objective, adamw(model), total=10, lr=Constant(1e-3), run=Run.nowhere())
        )
    except InputError as error:
        said = str(error)
    return dict(model.state_dict()), {"said": said}


CASES: dict[str, Callable[[], Result]] = {
    "clean": lambda: fit("bert", Clean()),
    "exact": exact,
    "freelb": lambda: fit("bert", FreeLB(steps=3)),
    "bf16": lambda: fit("bert", FreeLB(steps=2), 8, precision="bf16"),
    "hard_concrete": lambda: find("hard_concrete", FreeLB(steps=3), epochs=STEPS / 4),
    "iterative": lambda: find("iterative", epochs=2.5, lr=1e-3),
    "magnitude": lambda: find("magnitude"),
    "random": lambda: find("random"),
    "batch_norm": batch_norm,
    "dropout": dropout,
    "partly": partly,
    "nan": nan,
    "crash": crash,
    "unlike": unlike,
}


def write(folder: Path, case: str) -> None:
    tensors, facts = CASES[case]()
    save_tensors(folder / f"{case}-{os.environ.get('RANK', '0')}.safetensors", tensors, **facts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        write(Path(sys.argv[1]), name)
