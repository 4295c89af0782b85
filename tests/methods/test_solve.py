"""The linear algebra of post-training pruning against hand arithmetic, brute force and direct solves."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hardtack.errors import InputError
from hardtack.methods import solve
from hardtack.methods.solve import (
    Budget,
    Factor,
    adapted,
    pruned,
    refitted,
    removed,
    removed_exactly,
    saliency,
)
from hardtack.runs import generator

NAN = float("nan")


def problem(
    outputs: int, inputs: int, rows: int = 200, seed: int = 0, ridge: float = 1e-4
) -> tuple[Tensor, Factor]:
    """Weights and the factor of inputs that depend on each other, as real ones do."""
    rng = generator(seed, "problem")
    mixing = torch.randn(inputs, inputs, generator=rng, dtype=torch.float64)
    X = torch.randn(rows, inputs, generator=rng, dtype=torch.float64) @ mixing
    W = torch.randn(outputs, inputs, generator=rng, dtype=torch.float64)
    return W, Factor.of(X.T @ X, ridge, "w")


def error(new: Tensor, W: Tensor, factor: Factor) -> float:
    return float((((new - W) @ factor.hessian) * (new - W)).sum())


def best_on(kept: list[int], w: Tensor, H: Tensor) -> Tensor:
    """The row that is 0 outside `kept` and nearest to w in H, solved directly."""
    out = torch.zeros_like(w)
    out[kept] = torch.linalg.solve(H[kept][:, kept], (H @ w)[kept])
    return out


def test_two_inputs_by_hand():
    # H = [[2, 1], [1, 2]], H^-1 = [[2, -1], [-1, 2]] / 3, w = (1, 3)
    H = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    factor = Factor.of(H, 0.0, "w")
    W = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    assert torch.allclose(factor.inverse_diagonal(), torch.tensor([2 / 3, 2 / 3], dtype=torch.float64))
    assert torch.allclose(saliency(W, factor), torch.tensor([[1.5, 13.5]], dtype=torch.float64))
    new, mask = removed_exactly(W, factor, Budget(1))
    assert mask.tolist() == [[False, True]]
    assert torch.allclose(new, torch.tensor([[0.0, 3.5]], dtype=torch.float64))  # 3 - (1 / (2/3)) * (-1/3)
    assert error(new, W, factor) == pytest.approx(1.5)


@pytest.mark.parametrize(("panel", "chunk"), [(512, 2**28), (3, 64 * 2), (7, 64), (1, 64 * 5)])
def test_a_factor_is_that_of_the_inverse_with_the_ridge_added_once(panel, chunk, monkeypatch):
    monkeypatch.setattr(solve, "PANEL", panel)  # real widths take several panels, and several chunks
    monkeypatch.setattr(solve, "CHUNK", chunk)
    _, factor = problem(1, 7)
    gram = torch.diag(torch.tensor([1.0, 3.0]))
    assert torch.allclose(Factor.of(gram, 0.5, "w").hessian, torch.diag(torch.tensor([2.0, 4.0])).double())
    inverse = torch.linalg.inv(factor.hessian)
    assert torch.allclose(factor.inverse_diagonal(), inverse.diagonal())
    assert torch.allclose(factor.inverse_times(torch.eye(7).double()), inverse)
    shuffled = factor.hessian[factor.order][:, factor.order]
    assert torch.allclose(torch.linalg.inv(shuffled), factor.upper.T @ factor.upper)
    assert torch.equal(factor.upper, factor.upper.triu())


def test_exact_removal_of_a_4x4_layer_is_the_greedy_one_by_brute_force():
    W, factor = problem(4, 4)
    new, mask = removed_exactly(W, factor, Budget(2))
    for row in range(4):
        kept = [0, 1, 2, 3]
        for _ in range(2):
            current = best_on(kept, W[row], factor.hessian)
            tried = {
                p: error(best_on([k for k in kept if k != p], W[row], factor.hessian), W[row], factor)
                for p in kept
            }
            kept.remove(min(tried, key=tried.__getitem__))
            assert not torch.equal(current, best_on(kept, W[row], factor.hessian))
        assert mask[row].nonzero().flatten().tolist() == kept
        assert torch.allclose(new[row], best_on(kept, W[row], factor.hessian))
        every = [
            error(best_on(list(pair), W[row], factor.hessian), W[row], factor)
            for pair in combinations(range(4), 2)
        ]
        assert error(new[row], W[row], factor) >= min(every) - 1e-9


@pytest.mark.parametrize("budget", [Budget(9), Budget(0, banks=(2, 4)), Budget(0, banks=(3, 6))])
def test_exact_removal_leaves_the_optimum_on_its_mask(budget):
    """Check 1: the constrained least-squares solution for the same removed set."""
    W, factor = problem(5, 24)
    new, mask = removed_exactly(W, factor, budget)
    for row in range(5):
        direct = best_on(mask[row].nonzero().flatten().tolist(), W[row], factor.hessian)
        assert torch.allclose(new[row], direct, rtol=1e-6, atol=1e-8)


def test_refitting_reaches_the_same_optimum_from_any_guess():
    W, factor = problem(6, 30, ridge=1e-3)
    _, mask = removed(W, factor, Budget(13))
    found = refitted(W, torch.zeros_like(W), mask, factor, 300)
    again = refitted(W, W, mask, factor, 300)
    assert torch.allclose(found, again, rtol=1e-6, atol=1e-8)
    for row in range(6):
        direct = best_on(mask[row].nonzero().flatten().tolist(), W[row], factor.hessian)
        assert torch.allclose(found[row], direct, rtol=1e-6, atol=1e-8)
    assert (found[~mask] == 0).all()


def test_refitting_a_row_that_keeps_nothing_or_all_is_harmless():
    W, factor = problem(2, 8)
    mask = torch.tensor([[False] * 8, [True] * 8])
    found = refitted(W, W.clone(), mask, factor, 50)
    assert (found[0] == 0).all()
    assert torch.equal(found[1], W[1])


@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 6),
    inputs=st.integers(2, 150),
    share=st.floats(0, 0.99),
    scope=st.sampled_from(["row", "site"]),
    seed=st.integers(0, 5),
)
def test_counts_are_exact_over_every_width_of_the_sweep(outputs, inputs, share, scope, seed):
    W, factor = problem(outputs, inputs, seed=seed)
    gone = int(share * inputs * (1 if scope == "row" else outputs))
    for solver in ("blocked", "exact") if scope == "row" and inputs < 40 else ("blocked",):
        new, mask = pruned(W, factor, Budget(gone, scope), solver, 3)
        counts = (~mask).sum(1) if scope == "row" else (~mask).sum()[None]
        assert (counts == gone).all()
        assert torch.equal(new != 0, mask)  # no kept weight is zero by itself


@pytest.mark.parametrize("solver", ["blocked", "exact"])
@pytest.mark.parametrize("banks", [(2, 4), (1, 2), (32, 64), (5, 8)])
def test_every_bank_keeps_exactly_n(solver, banks):
    """Check 5, and K7: what a full bank keeps must stay."""
    W, _ = problem(3, 128)
    rng = generator(1, "bank inputs")
    X = torch.randn(300, 128, generator=rng, dtype=torch.float64)
    factor = Factor.of(X.T @ X, 1e-4, "w", mixed=False)
    new, mask = pruned(W, factor, Budget(0, banks=banks), solver, 5)
    assert (mask.view(3, -1, banks[1]).sum(2) == banks[0]).all()
    assert torch.equal(new != 0, mask)


def test_the_sweep_lies_between_exact_removal_and_magnitude():
    W, factor = problem(16, 192, rows=500)
    budget = Budget(96)
    exact = error(removed_exactly(W, factor, budget)[0], W, factor)
    swept, mask = removed(W, factor, budget)
    fitted = error(refitted(W, swept, mask, factor, 100), W, factor)
    by_size = error(W * budget.mask(W.abs()), W, factor)
    assert max(exact, fitted) < error(swept, W, factor) < by_size


def test_a_sweep_leaves_its_arguments_alone_and_a_budget_of_0_changes_nothing():
    W, factor = problem(4, 70)
    before, upper = W.clone(), factor.upper.clone()
    removed(W, factor, Budget(30))
    removed_exactly(W, factor, Budget(30))
    assert torch.equal(W, before)
    assert torch.equal(factor.upper, upper)
    new, mask = pruned(W, factor, Budget(0), "blocked", 0)
    assert torch.allclose(new, W)
    assert mask.all()


def test_adapted_weights_are_the_ridge_solution_around_the_dense_weight():
    rng = generator(3, "paths")
    Z = torch.randn(60, 9, generator=rng, dtype=torch.float64)
    X = Z + 0.3 * torch.randn(60, 9, generator=rng, dtype=torch.float64)
    W = torch.randn(5, 9, generator=rng, dtype=torch.float64)
    factor = Factor.of(X.T @ X, 0.1, "w")
    ridge = 0.1 * (X.T @ X).diagonal().mean()
    found = adapted(W, factor, X.T @ Z @ W.T)
    # min over V of |X V^T - Z W^T|^2 + ridge |V - W|^2, as one least-squares problem
    stacked = torch.cat([X, ridge.sqrt() * torch.eye(9, dtype=torch.float64)])
    targets = torch.cat([Z @ W.T, ridge.sqrt() * W.T])
    assert torch.allclose(found.T, torch.linalg.lstsq(stacked, targets).solution)
    assert torch.equal(adapted(W, Factor.of(Z.T @ Z, 0.1, "w"), Z.T @ Z @ W.T), W)  # check 2


def test_fewer_rows_than_inputs_leave_what_the_data_do_not_show():
    rng = generator(4, "few")
    X = torch.randn(3, 12, generator=rng, dtype=torch.float64)
    Z = torch.randn(3, 12, generator=rng, dtype=torch.float64)
    W = torch.randn(4, 12, generator=rng, dtype=torch.float64)
    new = adapted(W, Factor.of(X.T @ X, 1e-6, "w"), X.T @ Z @ W.T)
    assert torch.allclose(X @ new.T, Z @ W.T, atol=1e-3)
    unseen = torch.linalg.qr(X.T, mode="complete").Q[:, 3:]  # directions that no row has
    assert torch.allclose(new @ unseen, W @ unseen, atol=1e-8)


@pytest.mark.parametrize(
    ("gram", "ridge", "line"),
    [
        ([[1.0, NAN], [0.0, 1.0]], 1e-4, "the inputs of w hold NaN or infinity on the calibration data"),
        ([[0.0, 0.0], [0.0, 0.0]], 1e-4, "the inputs of w are all zero on the calibration data"),
        ([[1.0, 1.0], [1.0, 1.0]], 0.0, "the Hessian of w is singular at ridge 0.0; choose a larger ridge"),
    ],
)
def test_a_hessian_that_cannot_be_used_is_refused_in_one_line(gram, ridge, line):
    with pytest.raises(InputError) as caught:
        Factor.of(torch.tensor(gram), ridge, "w")
    assert str(caught.value) == line
