"""Iterative pruning: the published schedules, true rewinding, and tickets between rounds."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.toys import TOYS, same_state, state_of, toy_batches
from torch import nn

import hardtack.methods.iterative as module
from hardtack.errors import InputError
from hardtack.methods.iterative import Iterative
from hardtack.methods.magnitude import Magnitude
from hardtack.methods.search import Data
from hardtack.prunable import Prunable
from hardtack.runs import Run, generator
from hardtack.select import Sparsity
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Clean
from hardtack.training.loop import fit_steps

DOUBLE_WIN = (
    "20.00 36.00 48.80 59.04 67.23 73.79 79.03 83.22 86.58 89.26 "
    "91.41 93.13 94.50 95.60 96.48 97.19 97.75 98.20 98.56"
).split()
"""Percent of zeros after each of the published 19 rounds."""


def rounded(number: Fraction) -> int:
    return (2 * number.numerator + number.denominator) // (2 * number.denominator)


def search(model: nn.Module, wanted, run: Run | None = None, kinds=("weight",), **fields) -> list[Ticket]:
    method = Iterative(
        sparsities=tuple(Sparsity.parse(str(each)) for each in wanted), **{"epochs": 1.0, **fields}
    )
    batches = toy_batches(model, examples=8, size=4)
    view = Prunable.of(model, kinds)
    found = method.search(model, Base.of(model), view, Data(batches, batches), Clean(), run or Run.nowhere())
    return list(found)


def gone(ticket: Ticket) -> int:
    return sum(int((~mask).sum()) for mask in ticket.masks.values())


@pytest.fixture
def untrained(monkeypatch):
    """Leaves the training out."""
    monkeypatch.setattr(module, "fit_steps", lambda *args, **settings: iter(()))


def shaken(model, batches, objective, optimizer, *, run, hold, **settings):
    """In place of training: other weights, drawn anew in each round; some of the live ones are exactly 0."""
    rng = run.rng("shaken")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=rng).mul_(torch.rand(parameter.shape, generator=rng) > 0.1)
    hold.hold_(model)
    return iter(())


class Wide(nn.Module):
    """A matrix that is big enough for percentages with two decimals."""

    def __init__(self, rows: int = 400, columns: int = 500):
        super().__init__()
        self.inner = nn.Linear(columns, rows)
        with torch.no_grad():
            self.inner.weight.normal_(generator=generator(0, "wide"))


# ---------------------------------------------------------------------------------------- schedules


def test_the_geometric_schedule_leaves_the_published_zeros_after_19_rounds(untrained):
    wanted = [f"{float(percent) / 100:.4f}" for percent in DOUBLE_WIN]
    tickets = search(Wide(), wanted)
    assert [f"{100 * ticket.sparsity():.2f}" for ticket in tickets] == DOUBLE_WIN
    expected, zeros = [], 0
    for _ in DOUBLE_WIN:  # the sum of the rounded cuts
        zeros += rounded(Fraction("0.2") * (200_000 - zeros))
        expected.append(zeros)
    assert [gone(ticket) for ticket in tickets] == expected
    assert [ticket.origin["round"] for ticket in tickets] == list(range(19))
    for lower, higher in pairwise(tickets):
        assert (lower.masks["inner.weight"] | ~higher.masks["inner.weight"]).all()


@pytest.mark.parametrize("toy", TOYS)
def test_the_linear_schedule_cuts_a_tenth_of_each_matrix_a_round(toy, untrained):
    tickets = search(TOYS[toy](), [f"0.{tenth}" for tenth in range(1, 10)], schedule="linear", share=0.1)
    for tenths, ticket in enumerate(tickets, 1):
        assert ticket.origin["round"] == tenths - 1
        for name, mask in ticket.masks.items():
            assert int((~mask).sum()) == rounded(Fraction(tenths, 10) * mask.numel()), name
    for lower, higher in pairwise(tickets):
        assert all((lower.masks[name] | ~higher.masks[name]).all() for name in lower.masks)


def test_the_linear_schedule_stops_before_it_has_cut_everything(untrained):
    between, last = search(TOYS["bert"](), ["0.92", "0.95"], schedule="linear", share=0.1)
    assert between.origin["round"] == last.origin["round"] == 9
    for name, mask in last.masks.items():
        assert int((~mask).sum()) == rounded(Fraction("0.95") * mask.numel()), name


@pytest.mark.parametrize(
    ("wanted", "share", "schedule", "rounds"),
    [
        (("0.2",), 0.2, "geometric", 0),
        (("0.1", "0.36"), 0.2, "geometric", 1),
        (("0.3",), 0.2, "geometric", 1),
        (("0.9856",), 0.2, "geometric", 18),
        (("0.9",), 0.1, "linear", 8),
        (("0.05",), 0.1, "linear", 0),
    ],
)
def test_trains_once_less_than_it_cuts(wanted, share, schedule, rounds, monkeypatch):
    trained = []

    def fit(*args, total, **settings):
        trained.append(total)
        return iter(())

    monkeypatch.setattr(module, "fit_steps", fit)
    search(Wide(20, 50), wanted, share=share, schedule=schedule, epochs=1.5)
    assert trained == [3] * rounds  # one and a half epochs of two steps
    method = Iterative(tuple(map(Sparsity.parse, wanted)), share=share, schedule=schedule, epochs=1.5)
    assert method.steps(2) == sum(trained)


# ----------------------------------------------------------------------------- the first cut, rewinding


@pytest.mark.parametrize("toy", TOYS)
def test_round_0_is_one_shot_magnitude_before_any_training(toy, monkeypatch):
    def never(*args, **settings):
        raise AssertionError("the first cut comes before any training")

    monkeypatch.setattr(module, "fit_steps", never)
    model = TOYS[toy]()
    (ticket,) = search(model, ["0.2"])
    one_shot = Magnitude(sparsities=(Sparsity(fraction=0.2),))
    (expected,) = one_shot.search(
        model, Base.of(model), Prunable.of(model), Data(None, None), None, Run.nowhere()
    )
    assert all(torch.equal(ticket.masks[name], mask) for name, mask in expected.masks.items())
    tensors = Prunable.of(model).tensors(model)
    weights = torch.cat([tensors[name].detach().abs().flatten() for name in ticket.masks])
    kept = torch.cat(list(ticket.masks.values()))
    assert int((~kept).sum()) == rounded(Fraction(len(weights), 5))
    assert weights[~kept].max() <= weights[kept].min()


@pytest.mark.parametrize("toy", TOYS)
def test_every_round_starts_from_theta_0_and_ranks_what_training_made_of_it(toy, monkeypatch):
    model = TOYS[toy]()
    view, theta_0 = Prunable.of(model), state_of(model)
    starts, holds, ends = [], [], []

    def watched(model, batches, objective, optimizer, *, hold, **settings):
        starts.append(same_state(model, theta_0))
        holds.append({name: mask.clone() for name, mask in hold.masks.items()})
        assert optimizer.state == {}, "moments of an earlier round"
        yield from fit_steps(model, batches, objective, optimizer, hold=hold, **settings)
        ends.append({name: weight.detach().clone().flatten() for name, weight in view.tensors(model).items()})

    monkeypatch.setattr(module, "fit_steps", watched)
    tickets = search(model, ["0.2", "0.36", "0.488", "0.5904"], lr=0.05, epochs=2.0)
    assert starts == [True, True, True]
    assert same_state(model, theta_0)
    for before, end, hold, after in zip(tickets[:-1], ends, holds, tickets[1:], strict=True):
        assert all(torch.equal(hold[name], before.masks[name]) for name in hold)
        alive = np.concatenate([before.masks[name].numpy() for name in end])
        weights = np.concatenate([end[name].numpy() for name in end])
        assert not weights[~alive].any(), "pruned weights came back"
        moved = np.concatenate([theta_0_of(theta_0, name).numpy() for name in end])
        assert np.mean(weights[alive] != moved[alive]) > 0.9, "nothing was trained"
        # Remove the smallest fifth of what is alive, by hand.
        places = np.flatnonzero(alive)
        order = places[np.argsort(np.abs(weights[places]), kind="stable")]
        expected = alive.copy()
        expected[order[: rounded(Fraction(len(places), 5))]] = False
        found = np.concatenate([after.masks[name].numpy() for name in end])
        assert (found == expected).all()


def theta_0_of(state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    (value,) = [value for key, value in state.items() if key == name or key.endswith(f".{name}")]
    return value.flatten()


# ------------------------------------------------------------------------------- between the rounds


def test_a_wanted_sparsity_between_rounds_does_not_disturb_the_path(monkeypatch):
    monkeypatch.setattr(module, "fit_steps", shaken)
    alone = search(TOYS["bert"](), ["0.2", "0.36", "0.488"])
    more = search(TOYS["bert"](), ["0.1", "0.2", "0.25", "0.3", "0.36", "0.4", "0.488"])
    assert [ticket.origin["round"] for ticket in more] == [0, 0, 1, 1, 1, 2, 2]
    for ticket, expected in zip([more[1], more[4], more[6]], alone, strict=True):
        assert all(torch.equal(ticket.masks[name], mask) for name, mask in expected.masks.items())


@given(
    wanted=st.lists(st.integers(0, 97), min_size=1, max_size=5, unique=True),
    share=st.sampled_from([0.1, 0.2, 0.25, 0.5]),
    schedule=st.sampled_from(["geometric", "linear"]),
)
@settings(max_examples=15)
def test_any_wanted_sparsities_are_exact_and_nested_whatever_training_does(wanted, share, schedule):
    fractions = sorted(f"0.{percent:02d}" for percent in wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fit_steps", shaken)
        tickets = search(TOYS["bert"](), fractions, share=share, schedule=schedule)
    assert [ticket.origin["wanted"] for ticket in tickets] == [f"sparsity-{each}00" for each in fractions]
    for ticket, fraction in zip(tickets, fractions, strict=True):
        done, units = ticket.origin["round"], ticket.units()
        if schedule == "linear":
            exact = sum(rounded(Fraction(fraction) * mask.numel()) for mask in ticket.masks.values())
        elif abs(float(fraction) - (1 - (1 - share) ** (done + 1))) < 5e-5:
            exact = 0
            for _ in range(done + 1):
                exact += rounded(Fraction(str(share)) * (units - exact))
        else:
            exact = rounded(Fraction(fraction) * units)
        assert gone(ticket) == exact
    for lower, higher in pairwise(tickets):
        assert all((lower.masks[name] | ~higher.masks[name]).all() for name in lower.masks)


def test_only_a_round_s_own_sparsity_gets_the_path_s_count(untrained):
    # 10 units, cut by half: 5, then 3 of 5 (2.5 rounds up), so the path stands at 8 where 7.5 is named.
    model = Wide(2, 5)
    five, seven, path, nine = search(model, ["0.5", "0.7", "0.75", "0.85"], share=0.5)
    assert [gone(ticket) for ticket in (five, seven, path, nine)] == [5, 7, 8, 9]
    assert [ticket.origin["round"] for ticket in (five, seven, path, nine)] == [0, 1, 1, 2]


def test_heads_and_neurons_are_each_ranked_among_their_own(untrained):
    model = TOYS["bert"]()
    with torch.no_grad():  # were they ranked together, every neuron would go before any head
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight.mul_(1e-3)
            layer.intermediate.dense.weight.mul_(1e-3)
            layer.intermediate.dense.bias.mul_(1e-3)
    (ticket,) = search(model, ["0.5"], kinds=("head", "neuron"))
    counts = {}
    for site in Prunable.of(model, ("head", "neuron")).sites:
        counts[site.kind] = counts.get(site.kind, 0) + int((~ticket.masks[site.name]).sum())
    assert counts == {"head": 3, "neuron": 40}


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedule": "cubic"}, "schedule 'cubic' does not exist; allowed: geometric, linear"),
        ({"share": 0.0}, "share 0.0 is not allowed; allowed: 0 < share < 1"),
        ({"share": 1.0}, "share 1.0 is not allowed; allowed: 0 < share < 1"),
        (
            {"sparsities": (Sparsity.parse("2:4"),)},
            "iterative takes plain fractions, e.g. 0.3; kinds, banks and costs are for others",
        ),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(fields, words):
    with pytest.raises(InputError) as error:
        Iterative(**fields)
    assert str(error.value) == words


def test_a_share_that_cuts_nothing_is_refused_before_any_more_training(monkeypatch):
    trained = []
    monkeypatch.setattr(module, "fit_steps", lambda *args, **settings: iter(trained.append(1) or ()))
    with pytest.raises(InputError, match=r"cuts none of the 2 weight units left, so sparsity 0\.9 is out"):
        search(Wide(2, 5), ["0.2", "0.9"])
    assert len(trained) == 6  # 8, 6, 5, 4, 3, 2 of 10 are left, and a fifth of 2 is none
