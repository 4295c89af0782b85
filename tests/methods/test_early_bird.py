"""Early-bird search: its price, its stop, its scores and what it leaves, each against a reference."""

import json

import pytest
import torch
from tests.contracts.plain import changes, facts_of
from tests.toys import TOYS, toy_batches
from torch import nn

from hardtack.errors import InputError
from hardtack.methods.early_bird import EarlyBird
from hardtack.methods.search import Data
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity, draw
from hardtack.ticket import Base
from hardtack.training.adversarial import Clean, FreeLB

KINDS = ("head", "neuron")
UNITS = {"head": 6, "neuron": 80}


def calm(model: nn.Module) -> nn.Module:
    for inner in model.modules():
        if isinstance(inner, nn.Dropout):
            inner.p = 0.0
    return model


def search(run=None, objective=None, wanted=("0.5",), kinds=KINDS, examples=48, model=None, **settings):
    model = model or TOYS["bert"]()
    method = EarlyBird(sparsities=tuple(map(Sparsity.parse, wanted)), **{"lr": 1e-3, **settings})
    batches = toy_batches(model, examples=examples, size=4)
    view, data = Prunable.of(model, kinds), Data(batches, batches)
    return list(method.search(model, Base.of(model), view, data, objective or Clean(), run or Run.nowhere()))


@pytest.fixture
def gradients(monkeypatch):
    """Collects the coefficients' gradients as the optimiser meets them: the last group's."""
    seen = []

    class Recorder(torch.optim.AdamW):
        def step(self, closure=None):
            seen.append([parameter.grad.clone() for parameter in self.param_groups[-1]["params"]])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Recorder)
    return seen


class Nothing:
    """An objective of K losses that are 0 and have no slope, so that only the price is left."""

    name = "nothing"

    def __init__(self, passes: int):
        self.passes = passes

    def __call__(self, model, batch, progress, rng):
        for _ in range(self.passes):
            yield 0.0 * model(**batch.inputs).logits.sum()


# ------------------------------------------------------------------------------------ the price


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_the_price_is_added_once_a_step_for_any_number_of_passes(passes, gradients, tmp_path):
    """Check 6, by hand: the slope of price * mean |c| at c = 1 is price / units."""
    run = Run("search", 0, tmp_path)
    with pytest.raises(InputError, match="moved no coefficient"):  # equal slopes rank nothing
        search(run, Nothing(passes), examples=8, price_head=0.6, price_neuron=4.0, clip=0.0)
    assert len(gradients) == 2
    for step in gradients:
        for gradient, expected in zip(step, (0.6 / 6, 0.6 / 6, 4.0 / 80, 4.0 / 80), strict=True):
            assert gradient.tolist() == pytest.approx([expected] * len(gradient))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(0.6 + 4.0)  # |c| = 1, once


@pytest.mark.parametrize("passes", [1, 3])
def test_the_adversary_never_sees_the_price(passes, gradients):
    """With and without a price the first step's gradients differ by the price's slope and nothing else."""
    for price in (0.0, 3.0):
        search(
            objective=FreeLB(steps=passes), examples=4, price_head=price, price_neuron=price, clip=0.0,
            warmup=0.0, model=calm(TOYS["bert"]()),
        )  # fmt: skip
    free, priced = gradients
    for one, other, count in zip(free, priced, (6, 6, 80, 80), strict=True):
        assert (other - one).tolist() == pytest.approx([3.0 / count] * len(one), abs=1e-5)


def test_channels_have_a_price_of_their_own(gradients):
    from tests.zoo import ZOO

    model = ZOO["resnet"]()
    search(examples=8, kinds=("channel",), price_channel=100.0, price_head=9.0, clip=0.0, model=model)
    units = Prunable.of(model, ("channel",)).units
    mean = torch.cat(gradients[0]).mean().item()
    assert mean == pytest.approx(100.0 / units, rel=0.2)


# ------------------------------------------------------------------------------------ the stop


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "event" not in line], [
        line for line in lines if line.get("event") == "trajectory"
    ]


LOOSE = {"threshold": 0.9, "window": 3, "grid": 0.25}  # of 12 steps an epoch: a checkpoint every 3 steps


@pytest.mark.parametrize("stop", ["hamming", "rank"])
def test_it_stops_by_itself_as_soon_as_the_window_is_full_of_near_masks(stop, tmp_path):
    (ticket,) = search(Run("search", 0, tmp_path), FreeLB(steps=2), epochs=4.0, stop=stop, **LOOSE)
    steps, trajectory = log_of(tmp_path)
    assert [line["checkpoint"] for line in trajectory] == [1, 2, 3, 4]
    assert [line["step"] for line in trajectory] == [2, 5, 8, 11]
    assert [line["epochs"] for line in trajectory] == [0.25, 0.5, 0.75, 1.0]
    assert [line["settled"] for line in trajectory] == [False, False, False, True]
    assert len(steps) == 12  # of 48: the look back is all that it costs
    last = {kind: trajectory[-1][kind] for kind in KINDS}
    assert 0 <= max(last.values()) < 0.9
    found = {name: ticket.origin[name] for name in ("converged", "steps", "passes", "epochs", "distances")}
    assert found == {"converged": True, "steps": 12, "passes": 24, "epochs": 1.0, "distances": last}
    assert "note" not in ticket.origin


def test_what_never_settles_runs_to_the_cap_and_says_so(tmp_path):
    (ticket,) = search(Run("search", 0, tmp_path), epochs=0.9, grid=0.25, threshold=0.0)
    steps, trajectory = log_of(tmp_path)
    assert len(steps) == 11  # round(0.9 * 12)
    assert len(trajectory) == 3
    assert not ticket.origin["converged"]
    assert ticket.origin["note"].startswith("never converged in 11 steps (distances: head 0.")
    assert "threshold 0.0" in ticket.origin["note"]
    assert ticket.origin["note"].endswith(
        "only 3 checkpoints fit in 0.9 epochs and a window of 5 needs 6: more epochs, a smaller grid or a "
        "smaller window make room"
    )


def test_more_epochs_are_advised_only_where_the_window_had_room():
    (ticket,) = search(epochs=1.0, grid=0.25, window=3, threshold=0.0)
    assert ticket.origin["note"].endswith("the last ranking is used; more epochs may let it settle")


@pytest.mark.parametrize(("examples", "grid", "expected"), [
    (48, 0.3, [3, 7, 10]),  # every 3.6 steps of 12: the first step at or after each point
    (48, 0.01, list(range(1, 12))),  # finer than a step; the first step's learning rate is 0
    (16, 0.5, [1, 3]),
])  # fmt: skip
def test_checkpoints_lie_on_a_grid_of_epochs(examples, grid, expected, tmp_path):
    search(Run("search", 0, tmp_path), examples=examples, grid=grid, threshold=0.0)
    assert [line["step"] for line in log_of(tmp_path)[1]] == expected


def test_masks_are_those_of_the_last_step_and_tickets_come_from_one_ranking(tmp_path):
    tickets = search(Run("search", 0, tmp_path), wanted=("0.3", "head=0.5,neuron=0.2", "0.6"), **LOOSE)
    less, other, more = tickets
    for name in less.masks:
        assert (less.masks[name] | ~more.masks[name]).all()
    gone = {
        kind: sum(int((~mask).sum()) for name, mask in other.masks.items() if name.endswith(kind + "s"))
        for kind in KINDS
    }
    assert gone == {"head": 3, "neuron": 16}
    assert all(ticket.origin["steps"] == less.origin["steps"] for ticket in tickets)


# ------------------------------------------------------------------------------------ the scores


def test_coefficients_fall_where_the_loss_and_the_price_pull_them(gradients):
    """One step of AdamW moves each coefficient against its gradient's sign, by the learning rate."""
    model = calm(TOYS["bert"]())
    (ticket,) = search(examples=4, warmup=0.0, price_neuron=0.0, model=model, wanted=("neuron=0.3",))
    view = Prunable.of(TOYS["bert"](), KINDS)
    signs = {site.name: -g.sign() for site, g in zip(view.sites, gradients[0], strict=True)}
    worse = sum(int((sign < 0).sum()) for name, sign in signs.items() if name.endswith("neurons"))
    assert worse > 24  # more than go: all that go were pushed down
    for name, sign in signs.items():
        if name.endswith("neurons"):
            assert (sign[~ticket.masks[name]] < 0).all()


def test_gradient_activation_ranks_by_the_size_of_the_coefficients_gradient(gradients):
    """After one step the running mean square is (1 - beta2) g^2, so the ranking is that of |c g|."""
    (ticket,) = search(
        examples=4, warmup=0.0, lr=1e-7, score="gradient_activation", price_head=50.0,
        model=calm(TOYS["bert"]()),
    )  # fmt: skip
    view = Prunable.of(TOYS["bert"](), KINDS)
    expected = draw(
        view, {s.name: g.abs() for s, g in zip(view.sites, gradients[0], strict=True)}, Sparsity.parse(0.5)
    )
    assert all(torch.equal(ticket.masks[name], mask) for name, mask in expected.items())
    assert not torch.cat(gradients[0]).gt(5.0).all()  # the price is not in it


def test_it_learns_to_keep_the_units_that_matter():
    """Half of the neurons write nothing: their coefficient has no slope but the price's."""
    model = TOYS["bert"]()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight[:, ::2] = 0
    for score in ("coefficient", "gradient_activation"):
        (ticket,) = search(
            model=model, kinds=("neuron",), wanted=("0.5",), epochs=2.0, score=score, threshold=0.0, lr=1e-4
        )
        idle = torch.cat([mask[::2] for mask in ticket.masks.values()])
        assert idle.float().mean() < 0.35, score  # 0.5 by chance; signed c also punishes what misleads


# ------------------------------------------------------------------------------------ what it leaves


def test_the_rewound_ticket_is_the_base_bit_for_bit():
    """Check 7: weights that the ticket keeps are the pre-trained ones, whatever the search did to its own."""
    (ticket,) = search(objective=FreeLB(steps=2), lr=1e-2)
    assert not ticket.weights
    model, base = TOYS["bert"](), TOYS["bert"]()
    ticket.apply_(model)
    masks = ticket.view(base).spread(ticket.masks)
    for (name, mine), theirs in zip(model.bert.named_parameters(), base.bert.parameters(), strict=True):
        kept = masks.get(name, torch.ones_like(theirs, dtype=torch.bool))
        assert torch.equal(mine[kept], theirs[kept])
        assert not mine[~kept].any()


def test_it_trains_the_weights_too_and_puts_them_back(monkeypatch):
    model = TOYS["bert"]()
    before, moved = facts_of(model), []

    class Watched(Clean):
        def __call__(self, model, batch, progress, rng):
            moved.append(model.bert.encoder.layer[0].attention.self.query.weight.detach().clone())
            yield from Clean()(model, batch, progress, rng)

    search(objective=Watched(), model=model)
    assert changes(model, before) == []
    assert not torch.equal(moved[0], moved[-1])


class Stop(BaseException):
    pass


@pytest.mark.parametrize("settings", [
    {"stop": "hamming"}, {"stop": "rank"}, {"score": "gradient_activation", "epochs": 1.5, "threshold": 0.0},
], ids=["hamming", "rank", "saliency"])  # fmt: skip
@pytest.mark.parametrize("seconds", [0.0, pytest.param(1e9, marks=pytest.mark.slow)])
def test_killed_at_any_step_the_trajectory_and_the_stop_are_the_same(settings, seconds, tmp_path):
    settings = {"epochs": 4.0, **LOOSE, "window": 2, **settings}

    def run(folder, after):
        folder.mkdir(exist_ok=True)
        ticks = []

        def watch(label, done, total):
            ticks.append(label)
            if len(ticks) == after:
                raise Stop

        return search(Run("search", 0, folder, watch=watch, save_seconds=seconds), **settings)

    (expected,) = run(tmp_path / "whole", None)
    length = expected.origin["steps"]
    for moment in range(2, length + 1, 4):
        folder = tmp_path / f"stopped-{moment}"
        with pytest.raises(Stop):
            run(folder, moment)
        (found,) = run(folder, None)
        assert found.origin == expected.origin
        assert all(torch.equal(found.masks[name], mask) for name, mask in expected.masks.items())
        for mine, theirs in zip(log_of(folder), log_of(tmp_path / "whole"), strict=True):
            times = [line.pop("at") for line in (*mine, *theirs)]
            assert times
            assert mine == theirs


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stop": "cosine"}, "stop 'cosine' does not exist; allowed: hamming, rank"),
        ({"scope": "row"}, "scope 'row' does not exist; allowed: global, site"),
        ({"threshold": 2.5}, "threshold 2.5 is not allowed; allowed: 0 to 2"),
        ({"window": 0}, "window 0 is not allowed; allowed: 1 or more, finite"),
        ({"grid": float("inf")}, "grid inf is not allowed; allowed: 0 or more, finite"),
        ({"price_head": -1.0}, "price_head -1.0 is not allowed; allowed: 0 or more, finite"),
        (
            {"sparsities": (Sparsity.parse("2:4"),)},
            "early_bird takes fractions, e.g. 0.5 or head=0.17,neuron=0.4; no banks, not learned",
        ),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(settings, words):
    with pytest.raises(InputError) as error:
        EarlyBird(**settings)
    assert str(error.value) == words


def test_a_search_that_moved_nothing_is_an_error():
    with pytest.raises(InputError, match="1 steps moved no coefficient; choose more epochs, a higher lr"):
        search(epochs=0.01)  # its one step has the learning rate at which warm-up starts: 0


def test_a_sparsity_that_would_empty_a_layer_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match="one a site stays"):
        search(wanted=("head=0.9",), objective=None)
    with pytest.raises(InputError, match="empties"):
        search(wanted=("head=0.9",), scope="site")
