"""A loop that is stopped goes on bit for bit; one whose numbers break keeps the state before them."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.toys import TOYS, same_state, state_of, toy_batches
from tests.training.fitting import TOTAL, adamw, half
from torch import nn

from hardtack.errors import InputError
from hardtack.runs import Run
from hardtack.schedule import Constant, WarmupDecay
from hardtack.tasks.task import Batch
from hardtack.training.adversarial import PGD, Clean, FreeLB
from hardtack.training.loop import fit_steps

# ------------------------------------------------------------------------------------------- resume


def folder_run(folder: Path, seconds: float = 0.0, seed: int = 3) -> Run:
    folder.mkdir(exist_ok=True)
    return Run("train", seed, folder, save_seconds=seconds)


def log_of(folder: Path) -> list[dict]:
    """The log but for times and the events that say that it was resumed."""
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "at"} for line in found if line.get("event") != "resumed"]


def logged(steps, run: Run, stop: int | None = None) -> None:
    """Log each step as a stage does, and stop after one as a kill would."""
    for step in steps:
        run.log(step=step.index, loss=step.loss, norm=step.grad_norm)
        if step.index == stop:
            break


def begin(toy: str, objective, run: Run, ticket=None, make=adamw):
    model = TOYS[toy]()
    optimizer = make(model)
    batches = toy_batches(model, examples=20, size=4)
    lr = WarmupDecay(0.01, 0.4)
    steps = fit_steps(
        model,
        batches,
        objective,
        optimizer,
        total=TOTAL,
        lr=lr,
        run=run,
        hold=None if ticket is None else ticket(model),
    )
    return model, optimizer, steps


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)


@pytest.mark.parametrize(
    ("toy", "objective", "ticket", "make"),
    [
        ("bert", Clean(), None, adamw),
        ("bert", FreeLB(steps=2), None, adamw),
        ("gpt2", PGD(steps=1), None, sgd),
        ("albert", FreeLB(steps=2), half, adamw),
        ("conv", Clean(), half, sgd),
    ],
    ids=["clean", "freelb", "pgd-sgd", "freelb-held", "batch-norm-held"],
)
def test_stopped_at_any_step_and_continued_equals_uninterrupted(toy, objective, ticket, make, tmp_path):
    run = folder_run(tmp_path / "whole")
    whole, optimizer, steps = begin(toy, objective, run, ticket, make)
    logged(steps, run)
    expected = state_of(whole)
    for moment in (0, 2, TOTAL - 1):
        folder = tmp_path / f"stopped-{moment}"
        for stop in (moment, min(moment + 2, TOTAL - 1), None):
            run = folder_run(folder)
            model, again, steps = begin(toy, objective, run, ticket, make)
            logged(steps, run, stop)
        assert same_state(model, expected), moment
        moments, others = (o.state_dict()["state"] for o in (again, optimizer))
        assert moments.keys() == others.keys()
        for number in moments:
            assert moments[number].keys() == others[number].keys()
            assert all(torch.equal(moments[number][name], others[number][name]) for name in moments[number])
        assert log_of(folder) == log_of(tmp_path / "whole")


@pytest.mark.parametrize("saved", range(TOTAL))
def test_continues_from_the_last_saved_state_and_says_what_it_repeats(saved, tmp_path):
    run = folder_run(tmp_path / "whole", 1e9)
    whole, _, steps = begin("bert", Clean(), run)
    logged(steps, run)
    run = folder_run(tmp_path / "stopped", 1e9)
    _, _, steps = begin("bert", Clean(), run)
    for step in steps:
        run.log(step=step.index, loss=step.loss, norm=step.grad_norm)
        run.save_seconds = 0.0 if step.index + 1 == saved else 1e9
        if step.index == TOTAL - 1:
            break
    indices = []
    run = folder_run(tmp_path / "stopped", 1e9)
    model, _, steps = begin("bert", Clean(), run)
    for step in steps:
        run.log(step=step.index, loss=step.loss, norm=step.grad_norm)
        indices.append(step.index)
    assert indices == list(range(saved, TOTAL))
    assert same_state(model, state_of(whole))
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    events = [json.loads(line) for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    (resumed,) = [line for line in events if line.get("event") == "resumed"]
    assert resumed["step"] == saved
    assert 0 <= resumed["redone_seconds"] < 60


def test_every_resumption_is_counted_also_between_two_saved_states(tmp_path, monkeypatch):
    moments = iter(range(1000))
    monkeypatch.setattr("hardtack.runs.time.time", lambda: float(next(moments)))
    for stop in (1, 3, None):
        run = folder_run(tmp_path / "run", 1e9)
        _, _, steps = begin("bert", Clean(), run)
        logged(steps, run, stop)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    # Steps 0, 1 at seconds 0, 1; resumed at 2, steps 0 to 3 at 3 to 6; resumed at 7.
    assert [(line["at"], line["redone_seconds"]) for line in lines[:2]] == [(2.0, 1.0), (7.0, 4.0)]
    assert [line["step"] for line in lines[2:]] == list(range(TOTAL))


def test_an_uninterrupted_run_saves_as_often_as_asked(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(Run, "keep", lambda self, name, tensors, **facts: kept.append((name, facts["step"])))
    for seconds in (0.0, 1e9):
        _, _, steps = begin("bert", Clean(), folder_run(tmp_path / "run", seconds))
        list(steps)
    each_step = [("begun", 0), *(("fit", step) for step in range(TOTAL))]
    assert kept == [*each_step, ("begun", 0)]


def test_parts_of_one_run_resume_apart_and_draw_apart(tmp_path):
    run = folder_run(tmp_path / "run")
    states = {}
    for part in ("a", "b"):
        model, _, steps = begin("bert", Clean(), run.part(part))
        list(steps)
        states[part] = state_of(model)
    assert not same_state(model, states["a"])
    model, _, steps = begin("bert", Clean(), folder_run(tmp_path / "run").part("a"))
    assert [step.index for step in steps] == [TOTAL - 1]
    assert same_state(model, states["a"])


# ------------------------------------------------------------------------------- numbers that break


class Poisoned:
    """Batches of which one holds what makes the loss or its gradient not finite."""

    def __init__(self, model: nn.Module, step: int, value: float):
        self.batches, self.step, self.value = toy_batches(model, examples=20, size=4), step, value

    def at(self, step: int) -> Batch:
        batch = self.batches.at(step)
        if step == self.step:
            batch = batch._replace(extra={"poison": torch.tensor(self.value)})
            if "pixel_values" in batch.inputs:
                batch = batch._replace(inputs={"pixel_values": batch.inputs["pixel_values"] * self.value})
        return batch


def poisoned(model, batch, progress, rng):
    loss = model(**batch.inputs).logits.logsumexp(1).mean()
    if "poison" in batch.extra:
        value = float(batch.extra["poison"])
        extra = next(model.parameters()).flatten()[0] * value
        # A root at 0 is finite, but its slope is not.
        loss = loss + ((extra - extra.detach()).abs() + 0 if value == 0 else extra)
        if value == 0:
            loss = loss + (extra - extra.detach()).sqrt()
    yield loss


@pytest.mark.parametrize(
    ("toy", "value"), [("bert", math.nan), ("bert", math.inf), ("bert", 0.0), ("conv", math.nan)],
    ids=["nan", "infinite", "infinite-slope", "nan-in-batch-norm"],
)  # fmt: skip
def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_state_before_it(toy, value, tmp_path):
    bad = 3
    good = TOYS[toy]()
    list(
        fit_steps(
            good,
            Poisoned(good, 99, value),
            poisoned,
            adamw(good),
            total=bad,
            lr=Constant(0.01),
            run=Run.nowhere(3),
        )
    )
    model, run = TOYS[toy](), folder_run(tmp_path / "run", 1e9)
    with pytest.raises(InputError) as error:
        list(
            fit_steps(
                model,
                Poisoned(model, bad, value),
                poisoned,
                adamw(model),
                total=TOTAL,
                lr=Constant(0.01),
                run=run,
            )
        )
    words = str(error.value)
    assert f"at step {bad} of {TOTAL}" in words
    assert "the state before it is kept" in words
    assert "0.01" in words
    assert "\n" not in words
    assert same_state(model, state_of(good)), "the model in memory"
    kept = load_file(tmp_path / "run" / "scratch" / "fit.safetensors")
    for number, parameter in enumerate(good.parameters()):
        assert torch.equal(kept[f"trained.{number}"], parameter)
    for name, buffer in good.named_buffers():
        assert torch.equal(kept[f"buffer.{name}"], buffer)
    assert run.kept("fit")[1]["step"] == bad
    assert not any(module.training for module in model.modules())
    # The same command again meets the same step; with that batch repaired it goes on.
    again = TOYS[toy]()
    steps = fit_steps(
        again, Poisoned(again, 99, value), poisoned, adamw(again), total=TOTAL, lr=Constant(0.01),
        run=folder_run(tmp_path / "run", 1e9),
    )  # fmt: skip
    assert [step.index for step in steps] == list(range(bad, TOTAL))
