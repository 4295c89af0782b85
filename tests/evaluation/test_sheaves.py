import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardtack.evaluation.sheaves import Halving, Sheaf, out_of_memory, padded, plan

LENGTHS = st.lists(st.integers(0, 40), max_size=60)


def rows_of(lengths):
    return [{"input_ids": list(range(1, n + 1)), "attention_mask": [1] * n} for n in lengths]


def cost(sheaves, price):
    return sum(len(s.rows) * s.width + price for s in sheaves)


@given(LENGTHS, st.integers(1, 200), st.integers(0, 60))
def test_every_row_goes_once_within_the_budget(lengths, budget, price):
    sheaves = plan(rows_of(lengths), budget=budget, price=price)
    assert sorted(i for s in sheaves for i in s.positions.tolist()) == list(range(len(lengths)))
    for s in sheaves:
        own = [lengths[i] for i in s.positions]
        assert [len(row["input_ids"]) for row in s.rows] == own == sorted(own, reverse=True)
        assert s.width == max(1, own[0])
        assert len(s.rows) * s.width <= budget or len(s.rows) == 1


@given(LENGTHS, st.integers(40, 200), st.integers(0, 60))
def test_no_simple_plan_is_cheaper(lengths, budget, price):
    best = cost(plan(rows_of(lengths), budget=budget, price=price), price)
    widths = [max(1, n) for n in lengths]

    def run(count, width):  # neighbouring lengths, padded to one width, in as few batches as hold them
        return count * width + price * -(-count // max(1, budget // width))

    assert best <= sum(run(widths.count(width), width) for width in set(widths))  # a run for each length
    assert best <= (run(len(widths), max(widths)) if widths else 0)  # one run for all
    middle = sorted(widths, reverse=True)
    for cut in range(1, len(middle)):
        if middle[cut] < middle[cut - 1]:  # every cut into two runs
            assert best <= run(cut, middle[0]) + run(len(middle) - cut, middle[cut])


def test_plans_by_hand():
    # 3 of length 9 and 3 of length 8: together they cost 6 * 9 + price, apart 27 + 24 + 2 * price.
    rows = rows_of([8, 9, 8, 9, 8, 9])
    assert [s.positions.tolist() for s in plan(rows, budget=100, price=4)] == [[1, 3, 5, 0, 2, 4]]
    assert [s.positions.tolist() for s in plan(rows, budget=100, price=2)] == [[1, 3, 5], [0, 2, 4]]
    # What does not fit one batch is cut evenly.
    assert [len(s.rows) for s in plan(rows_of([8] * 9), budget=32, price=4)] == [3, 3, 3]
    assert plan([], budget=10, price=1) == []
    assert [s.width for s in plan(rows_of([0, 0]), budget=10, price=1)] == [1]


def test_the_same_lengths_are_planned_alike():
    lengths = np.random.default_rng(0).integers(1, 30, 50).tolist()
    one, two = (plan(rows_of(lengths), budget=64, price=16) for _ in range(2))
    assert [s.positions.tolist() for s in one] == [s.positions.tolist() for s in two]


def test_short_rows_are_padded_under_a_mask_of_zeros():
    rows = [{"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1]}, {"input_ids": [8], "attention_mask": [1]}]
    inputs = padded(Sheaf(np.arange(2), rows, 3), 9, torch.device("cpu"))
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


# ------------------------------------------------------------------ memory


def test_a_batch_is_halved_until_it_fits_and_later_ones_before_they_fail():
    tried = []

    def forward(sheaf):
        tried.append(len(sheaf.rows))
        if len(sheaf.rows) * sheaf.width > 40:
            raise torch.OutOfMemoryError("out of memory")
        return torch.tensor([len(row["input_ids"]) for row in sheaf.rows])

    halving = Halving()
    lengths = [9, 9, 8, 7, 7, 6, 6, 5, 3]
    (sheaf,) = plan(rows_of(lengths), budget=1000, price=1000)
    assert torch.cat(halving(forward, sheaf)).tolist() == lengths
    assert tried == [9, 5, 3, 2, 4]  # 81 and 45 tokens fail; 3 * 9, 2 * 7 and 4 * 6 fit
    tried.clear()
    assert torch.cat(halving(forward, sheaf)).tolist() == lengths
    assert tried == [3, 2, 4]


def test_one_text_that_does_not_fit_is_an_error_and_so_is_every_other_failure():
    def full(sheaf):
        raise MemoryError

    def broken(sheaf):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    (sheaf,) = plan(rows_of([3, 3, 3]), budget=100, price=1)
    with pytest.raises(MemoryError):
        Halving()(full, sheaf)
    with pytest.raises(RuntimeError, match="mat1"):
        Halving()(broken, sheaf)


def test_what_counts_as_out_of_memory():
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert not out_of_memory(RuntimeError("shapes"))
    assert not out_of_memory(ValueError("out of memory"))


def test_a_real_allocation_that_cannot_be_made_is_recognised():
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**55, dtype=torch.float64)
    assert out_of_memory(failed.value)
