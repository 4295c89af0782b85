"""A tracker shows what the log says, read back from TensorBoard's files; the log stays the record."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.toys import TOYS, toy_batches
from tests.training.fitting import adamw

from hardtack.errors import InputError
from hardtack.runs import Run
from hardtack.schedule import Constant
from hardtack.training import trackers
from hardtack.training.adversarial import Clean
from hardtack.training.loop import fit_steps
from hardtack.training.trackers import Tracker, check_tracker


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read back what TensorBoard would draw: name -> (step, value) of each point."""
    events = EventAccumulator(str(folder / "trackers" / trackers.PROJECT))
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def tracked(folder: Path) -> Run:
    run = Run.open(folder, "toy/seed-0", recipe={}, seed=0, save_seconds=0.0)
    run.mirror = Tracker("tensorboard", folder / "trackers")
    return run


def test_every_number_with_a_step_is_shown_under_its_part_and_event(tmp_path):
    with tracked(tmp_path / "run") as run:
        run.log(event="ticket", name="sparsity-0.3000", sparsity=0.3)  # no step: no point of a curve
        run.log(step=0, note="words are not shown", good=True)
        assert not (tmp_path / "run" / "trackers").exists()
        run.log(step=0, loss=2.5, grad_norm=4)
        run.part("round-1").log(step=0, loss=1.5)
        run.log(step=1, loss=0.5, grad_norm=3)
        run.log(event="validation", step=1, accuracy=0.75)
    assert shown(tmp_path / "run") == {
        "loss": [(0, 2.5), (1, 0.5)],
        "grad_norm": [(0, 4.0), (1, 3.0)],
        "round-1/loss": [(0, 1.5)],
        "validation/accuracy": [(1, 0.75)],
    }
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 6


def test_a_resumed_run_goes_on_with_its_steps(tmp_path):
    folder = tmp_path / "run"
    for stop in (2, None):
        model = TOYS["bert"]()
        with tracked(folder) as run:
            for step in fit_steps(
                model, toy_batches(model), Clean(), adamw(model), total=6, lr=Constant(1e-3), run=run
            ):
                run.log(step=step.index, loss=step.loss)
                if step.index == stop:
                    break
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert list(losses) == list(range(6))
    points = shown(folder)["loss"]
    assert dict(points) == pytest.approx(losses)
    assert {step for step, _ in points} == set(losses)
    assert len(list((folder / "trackers").rglob("events.*"))) == 2


def test_no_tracker_is_the_default_and_a_process_that_only_reads_shows_nothing(tmp_path):
    check_tracker(None)
    run = Run(
        "toy/seed-0", folder=tmp_path, writes=False, mirror=Tracker("tensorboard", tmp_path / "trackers")
    )
    run.log(step=0, loss=1.0)
    run.part("round-1").log(step=0, loss=1.0)
    run.close()
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_does_not_exist_or_is_not_installed_is_refused_in_one_line(monkeypatch):
    check_tracker("tensorboard")
    with pytest.raises(InputError, match="tracker 'tensorbord' does not exist; did you mean 'tensorboard'"):
        check_tracker("tensorbord")
    with pytest.raises(InputError, match="tracker 'all' does not exist"):
        check_tracker("all")
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    words = (
        r"tracker 'tensorboard' is not installed: pip install 'hardtack\[tensorboard\]'; installed here: none"
    )
    with pytest.raises(InputError, match=words):
        check_tracker("tensorboard")
    with pytest.raises(InputError, match="tracker 'wandb' is not installed: pip install 'wandb'") as caught:
        check_tracker("wandb")
    assert "\n" not in str(caught.value)
