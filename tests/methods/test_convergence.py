"""The stop rule against hand arithmetic, and on trajectories whose end is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.toys import TOYS

from hardtack.methods.convergence import Convergence, hamming, rank_distance, tells_apart
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity, draw

VIEW = Prunable.of(TOYS["bert"](), ("head", "neuron"))  # 2 layers of 3 heads and 40 neurons
KINDS = ("head", "neuron")


def scores_of(seed, view=VIEW):
    rng = torch.Generator().manual_seed(seed)
    return {site.name: torch.rand(site.units, generator=rng) for site in view.sites}


def watcher(run=None, wanted=("0.5",), **settings):
    settings = {"scope": "global", "rule": "hamming", "window": 3, "threshold": 0.1, **settings}
    return Convergence(VIEW, [Sparsity.parse(one) for one in wanted], run=run or Run.nowhere(), **settings)


# ------------------------------------------------------------------------------------ distances


def test_hamming_by_hand():
    """Check 4: one of six heads, and three of eighty neurons, are not the same."""
    one = {site.name: torch.ones(site.units, dtype=torch.bool) for site in VIEW.sites}
    other = {name: mask.clone() for name, mask in one.items()}
    other["encoder.layer.1.heads"][2] = False
    other["encoder.layer.0.neurons"][:2] = False
    other["encoder.layer.1.neurons"][7] = False
    assert hamming(VIEW, one, other) == pytest.approx({"head": 1 / 6, "neuron": 3 / 80})


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from([0.1, 0.25, 0.5, 0.66]))
def test_hamming_is_a_distance_within_its_bounds(one, other, sparsity):
    wanted = Sparsity(fraction=sparsity)
    first, second = (draw(VIEW, scores_of(seed), wanted) for seed in (one, other))
    there, back = hamming(VIEW, first, second), hamming(VIEW, second, first)
    assert there == back
    assert hamming(VIEW, first, first) == {"head": 0.0, "neuron": 0.0}
    for kind, units in (("head", 6), ("neuron", 80)):
        gone = round(sparsity * units + 1e-9)
        assert 0 <= there[kind] <= 2 * min(gone, units - gone) / units + 1e-6


def test_rank_distance_by_hand():
    """Heads 1 2 3 / 4 5 6 against 2 1 3 / 4 5 6: rho = 1 - 6 * 2 / (6 * 35); within sites 1 - 6 * 2 / 24."""
    one = scores_of(0) | {
        "encoder.layer.0.heads": torch.tensor([0.1, 0.2, 0.3]),
        "encoder.layer.1.heads": torch.tensor([4.0, 5.0, 6.0]),
    }
    other = one | {"encoder.layer.0.heads": torch.tensor([0.2, 0.1, 0.3])}
    assert rank_distance(VIEW, one, other) == pytest.approx({"head": 12 / 210, "neuron": 0.0}, abs=1e-6)
    by_site = rank_distance(VIEW, one, other, "site")
    assert by_site == pytest.approx({"head": (0.5 + 0.0) / 2, "neuron": 0.0}, abs=1e-6)
    opposite = {name: -score for name, score in one.items()}
    assert rank_distance(VIEW, one, opposite) == pytest.approx({"head": 2.0, "neuron": 2.0})


def test_equal_scores_rank_nothing():
    flat = {site.name: torch.zeros(site.units) for site in VIEW.sites}
    assert rank_distance(VIEW, flat, flat) == {"head": 1.0, "neuron": 1.0}
    assert not tells_apart(VIEW, flat)
    assert not tells_apart(VIEW, flat | {"encoder.layer.0.heads": torch.tensor([0.0, 1.0, 0.0])})
    assert tells_apart(VIEW, scores_of(1))


# ------------------------------------------------------------------------------------ when it stops


def stopped_at(watch, trajectory):
    for number, scores in enumerate(trajectory, 1):
        if watch.look(number, scores)[1]:
            return number
    return None


@pytest.mark.parametrize("rule", ["hamming", "rank"])
@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 10**6))
def test_a_trajectory_that_freezes_at_t_stops_at_t_plus_window(rule, freezes, window, seed):
    """Check 5: never before; every checkpoint before the freeze differs from all others."""
    before = [scores_of(seed + number) for number in range(1, freezes)]
    frozen = scores_of(seed)
    masks = [draw(VIEW, scores, Sparsity.parse(0.5)) for scores in (*before, frozen)]
    apart = [hamming(VIEW, a, b) for i, a in enumerate(masks) for b in masks[:i]]
    watch = watcher(window=window, rule=rule, threshold=0.05)
    if any(max(each.values()) < 0.05 for each in apart):
        return  # two random draws may agree by chance
    assert stopped_at(watch, [*before, *[frozen] * (window + 3)]) == freezes + window


def test_every_kind_and_every_sparsity_has_to_settle():
    still, moving = scores_of(0), [scores_of(seed) for seed in range(1, 9)]
    heads = [s | {n: still[n] for n in still if n.endswith("neurons")} for s in moving]
    neurons = [s | {n: still[n] for n in still if n.endswith("heads")} for s in moving]
    assert stopped_at(watcher(), [still] * 4) == 4
    assert stopped_at(watcher(), heads) is None
    assert stopped_at(watcher(), neurons) is None
    assert stopped_at(watcher(wanted=("head=0.5",)), neurons) == 4  # nothing else is drawn
    # The upper half keeps its order and the lower one does not: only the half that goes is the same.
    half = []
    for seed in range(8):
        scores = {}
        for name, score in still.items():
            low = score < score.median()
            scores[name] = torch.where(low, scores_of(seed)[name] - 5, score)
        half.append(scores)
    assert stopped_at(watcher(wanted=("neuron=0.475",)), half) == 4
    assert stopped_at(watcher(wanted=("neuron=0.475", "neuron=0.25")), half) is None


def test_reports_the_largest_distance_of_the_window():
    watch = watcher(window=2, wanted=("head=0.5",))
    base = scores_of(3)
    names = ("encoder.layer.0.heads", "encoder.layer.1.heads")
    orders = ([1, 2, 3, 4, 5, 6], [1, 2, 4, 3, 5, 6], [4, 5, 6, 1, 2, 3], [4, 5, 6, 1, 2, 3])
    found = []
    for number, order in enumerate(orders, 1):
        values = torch.tensor(order, dtype=torch.float).split(3)
        found.append(watch.look(number, base | dict(zip(names, values, strict=True)))[0])
    # Floors keep the best head of each layer: the third scores cut heads 3, 4 and the first of layer 0.
    assert found[0] == {}
    assert found[1]["head"] == pytest.approx(hamming(VIEW, *drawn(base, names, orders[0], orders[1]))["head"])
    wanted = max(hamming(VIEW, *drawn(base, names, orders[2], o))["head"] for o in orders[:2])
    assert found[2]["head"] == pytest.approx(wanted, abs=1e-6)
    assert found[3]["head"] == pytest.approx(
        hamming(VIEW, *drawn(base, names, orders[3], orders[1]))["head"], abs=1e-6
    )


def drawn(base, names, *orders):
    found = []
    for order in orders:
        values = torch.tensor(order, dtype=torch.float).split(3)
        found.append(draw(VIEW, base | dict(zip(names, values, strict=True)), Sparsity.parse("head=0.5")))
    return found


@pytest.mark.parametrize("rule", ["hamming", "rank"])
def test_another_process_goes_on_with_the_same_history(rule, tmp_path):
    trajectory = [scores_of(seed) for seed in range(4)] + [scores_of(9)] * 5
    whole = watcher(rule=rule)
    expected = [whole.look(number, scores) for number, scores in enumerate(trajectory, 1)]
    assert expected[-2][1]
    for cut in range(1, len(trajectory)):
        run = Run("search", 0, tmp_path / f"{rule}-{cut}")
        first, second = watcher(run, rule=rule), watcher(run, rule=rule)
        found = [first.look(number, scores) for number, scores in enumerate(trajectory[:cut], 1)]
        assert second.distances(cut) == found[-1][0]
        again = max(1, cut - 1)  # its last saved state was before the last checkpoint
        found = found[: again - 1]
        found += [second.look(number, trajectory[number - 1]) for number in range(again, len(trajectory) + 1)]
        assert found == expected
