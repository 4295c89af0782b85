from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.tasks.task import Batches, Metric, Table, Task, allocate, stratified


@dataclass(frozen=True)
class Letters:
    """A tokenizer without a model: one token a letter, counted calls."""

    pad_id: int = 99

    def __call__(self, texts):
        return [
            {
                "input_ids": [ord(letter) for column in row for letter in column],
                "attention_mask": [1] * sum(map(len, row)),
            }
            for row in texts
        ]


def table(labels, texts=None):
    return Table.of(texts or [(f"text {'x' * (i % 7)}{i}",) for i in range(len(labels))], labels)


def task(train=None, **splits):
    train = train if train is not None else table([0, 1] * 20)
    return Task("toy", ("bad", "good"), {"train": train, **splits})


def test_accuracy_is_the_share_of_rows_whose_largest_logit_is_the_label():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 6.0]])
    assert Metric()(logits, torch.tensor([1, 0, 0, 1])) == 0.75
    with pytest.raises(InputError, match="no examples"):
        Metric()(torch.empty(0, 2), torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("counts", "n", "shares"),
    [
        ([50, 50], 10, [5, 5]),
        ([30, 70], 10, [3, 7]),
        ([1, 99], 10, [1, 9]),  # a rare class gets one
        ([10, 10, 10], 10, [4, 3, 3]),  # the remainder goes to the first
        ([10, 10, 10], 1, [1, 0, 0]),
        ([1, 1, 98], 3, [1, 1, 1]),
    ],
)
def test_shares_are_proportional_and_sum_up(counts, n, shares):
    assert allocate(np.array(counts), n).tolist() == shares


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.data())
def test_any_share_is_exact_and_near_its_proportion(counts, data):
    counts = np.array(counts)
    n = data.draw(st.integers(1, int(counts.sum())))
    taken = allocate(counts, n)
    assert taken.sum() == n
    assert (taken <= counts).all()
    assert (taken >= (n >= len(counts))).all()
    if n >= len(counts) and (counts * n >= counts.sum()).all():  # no class had to be topped up
        assert (abs(taken - counts * n / counts.sum()) < 1).all()


@given(st.lists(st.integers(0, 2), min_size=3, max_size=80), st.integers(0, 5), st.data())
def test_a_stratified_draw_is_distinct_sorted_and_a_function_of_its_seed(labels, seed, data):
    labels = np.array(labels)
    n = data.draw(st.integers(1, len(labels)))
    drawn = stratified(labels, n, seed=seed, label="draw")
    assert len(set(drawn.tolist())) == n
    assert (np.diff(drawn) > 0).all()
    assert (drawn == stratified(labels, n, seed=seed, label="draw")).all()


def test_examples_are_balanced_distinct_and_the_same_for_every_caller():
    data = task(test=table([0] * 60 + [1] * 60))  # sorted by label, as some data sets are
    drawn = data.examples("test", 30, seed=3)
    assert sum(e.label for e in drawn) == 15
    assert len({e.id for e in drawn}) == 30
    assert drawn == data.examples("test", 30, seed=3)
    assert drawn != data.examples("test", 30, seed=4)
    assert all(e.text == data.table("test").texts[int(e.id.removeprefix("test-"))] for e in drawn)


def test_all_examples_come_in_file_order():
    data = task(test=table([1, 0, 1]))
    for n in (None, 3, 200):
        assert [e.id for e in data.examples("test", n)] == ["test-0", "test-1", "test-2"]
    with pytest.raises(InputError, match="0 examples asked for"):
        data.examples("test", 0)


def test_limited_keeps_row_numbers_and_proportions():
    data = task(table([0] * 30 + [1] * 10), test=table([0, 1]))
    small = data.limited(8, seed=1)
    assert np.bincount(small.table("train").labels).tolist() == [6, 2]
    assert small.fingerprint() == data.limited(8, seed=1).fingerprint()
    assert small.fingerprint("train") != data.limited(8, seed=2).fingerprint("train")
    assert small.fingerprint("test") == data.fingerprint("test")
    ids = {e.id: e.text for e in data.examples("train")}
    assert all(ids[e.id] == e.text for e in small.examples("train"))


def test_limited_leaves_short_rows_out_of_every_split():
    rows = [("one",), ("one two",), ("one two three",), ("a b c d",)]
    data = task(table([0, 1, 0, 1], rows), test=table([0, 1], [("a",), ("a b c",)]))
    long = data.limited(min_words=3)
    assert long.table("train").texts == rows[2:]
    assert [e.id for e in long.examples("test")] == ["test-1"]
    with pytest.raises(InputError, match="min_words 5 leaves nothing of split 'train'"):
        data.limited(min_words=5)


def test_words_of_a_pair_are_counted_together():
    pairs = table([0, 1], [("a b", "c"), ("a", "b")])
    with pytest.raises(InputError, match="only one class"):
        task(pairs).limited(min_words=3)


@pytest.mark.parametrize("n", [0, 1, 41])
def test_limited_refuses_what_cannot_be_drawn(n):
    with pytest.raises(InputError, match=rf"train_examples {n} of task 'toy'; allowed: 2 .* to 40"):
        task().limited(n)


def test_a_split_that_is_not_there_is_named():
    data = Task("toy", ("bad", "good"), {"validation": table([0, 0])})
    assert len(data.examples("validation")) == 2
    with pytest.raises(InputError, match="no training data; splits it has: validation"):
        data.batches("train", Letters(), 4, 0)
    with pytest.raises(InputError, match="no split 'test'; splits it has: validation"):
        data.examples("test")
    with pytest.raises(InputError, match="no training data"):
        data.limited(10)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": table([1, 1])}, "only one class in training \\('good'\\)"),
        ({"train": table([0, 1]), "test": table([3])}, "label 3 in split 'test'.*allowed: 0 to 2"),
        ({"train": table([0, 2]), "test": table([1])}, "label 'good' in split 'test'.*unseen in training"),
        ({"train": table([0, 1, 3])}, "label 3 in split 'train'"),
        ({"train": table([0, -1])}, "label -1"),
        ({"train": table([])}, "split 'train' of task 'toy' is empty"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(splits, message):
    with pytest.raises(InputError, match=message):
        Task("toy", ("bad", "good", "odd"), splits)


def test_a_fingerprint_changes_with_any_text_label_or_name():
    rows = [("a", "b"), ("c", "d"), ("e", "f")]
    data = Task("toy", ("x", "y"), {"train": table([0, 1, 0], rows)})
    seen = {data.fingerprint("train")}
    others = [
        (rows, [1, 0, 0]),
        ([("ab", ""), ("c", "d"), ("e", "f")], [0, 1, 0]),  # the same letters, cut elsewhere
        ([("a", "b"), ("c", "d"), ("e", "g")], [0, 1, 0]),
        (rows[::-1], [0, 1, 0]),
        ([("ab",), ("cd",), ("ef",)], [0, 1, 0]),
    ]
    for texts, labels in others:
        seen.add(Task("toy", ("x", "y"), {"train": table(labels, texts)}).fingerprint("train"))
    seen.add(Task("toy", ("x", "z"), {"train": table([0, 1, 0], rows)}).fingerprint("train"))
    assert len(seen) == len(others) + 2
    assert data.fingerprint("train") == Task("other name", ("x", "y"), data.splits).fingerprint("train")
    with_test = Task("toy", ("x", "y"), {"train": data.table("train"), "test": table([0])})
    assert with_test.fingerprint() != data.fingerprint()
    assert with_test.fingerprint("train") == data.fingerprint("train")


def batches(n, size, seed=0):
    return Batches(table([i % 2 for i in range(n)]), Letters(), size=size, seed=seed)


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 3), st.integers(0, 4))
def test_every_epoch_is_a_permutation(n, size, seed, epoch):
    data = batches(n, size, seed)
    steps = [data.at(epoch * len(data) + i) for i in range(len(data))]
    assert sorted(torch.cat([b.ids for b in steps]).tolist()) == list(range(n))
    assert sorted(len(b.ids) for b in steps)[1:] == [size] * (len(data) - 1)
    assert data.examples == n
    assert len(data) == -(-n // size)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12))
def test_any_step_comes_without_the_steps_before_it(steps):
    forward = batches(50, 8, seed=5)
    for step in steps:
        there, alone = forward.at(step), batches(50, 8, seed=5).at(step)
        assert torch.equal(there.ids, alone.ids)
        assert torch.equal(there.inputs["input_ids"], alone.inputs["input_ids"])


def test_order_follows_seed_and_epoch():
    data = batches(40, 8)
    first = torch.cat([data.at(i).ids for i in range(5)])
    assert not torch.equal(first, torch.cat([data.at(i).ids for i in range(5, 10)]))
    assert not torch.equal(first, torch.cat([batches(40, 8, seed=1).at(i).ids for i in range(5)]))


def test_batches_hold_similar_lengths_in_mixed_order():
    lengths = [1 + (i * 7) % 64 for i in range(512)]
    data = Batches(Table.of([("x" * n,) for n in lengths], [i % 2 for i in range(512)]), Letters(), size=16)
    widths = [data.at(i).inputs["input_ids"].shape[1] for i in range(32)]
    waste = sum(w * 16 for w in widths) / sum(lengths) - 1
    assert waste < 0.1  # unsorted batches waste about 90%
    assert widths != sorted(widths)


def test_the_short_batch_is_no_longer_than_the_others_on_average():
    lengths = [1 + i % 50 for i in range(201)]
    data = Batches(Table.of([("x" * n,) for n in lengths], [i % 2 for i in range(201)]), Letters(), size=8)
    short = []
    for epoch in range(200):
        steps = [data.at(epoch * len(data) + i) for i in range(len(data))]
        short += [lengths[int(b.ids[0])] for b in steps if len(b.ids) == 1]
    assert len(short) == 200
    assert 20 < np.mean(short) < 31  # the mean length is 25.5; always the longest would be 50


def test_padding_by_hand():
    rows = [("ab", "c"), ("d", ""), ("efgh", "i")]
    data = Batches(table([1, 0, 1], rows), Letters(), size=2)
    first, last = data.in_order()
    assert first.ids.tolist() == [2, 0]  # longest first
    assert first.inputs["input_ids"].tolist() == [[101, 102, 103, 104, 105], [97, 98, 99, 99, 99]]
    assert first.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert first.labels.tolist() == [1, 1]
    assert last.inputs["input_ids"].tolist() == [[100]]
    assert last.labels.tolist() == [0]
    assert {t.dtype for t in (*first.inputs.values(), first.labels, first.ids)} == {torch.int64}
    assert first.extra == {}


@given(st.integers(1, 60), st.integers(1, 9))
def test_evaluation_reads_every_row_once(n, size):
    ids = torch.cat([b.ids for b in batches(n, 4).in_order(size)])
    assert sorted(ids.tolist()) == list(range(n))


def test_steps_and_sizes_below_their_range_are_refused():
    with pytest.raises(InputError, match="batch size 0"):
        batches(4, 0)
    with pytest.raises(ValueError, match="step -1"):
        batches(4, 2).at(-1)


def test_the_order_of_steps_is_frozen():
    # A resumed run of another release must see the same batches; change this only with a new format version.
    orders = [batches(10, 4, seed=7).at(step).ids.tolist() for step in range(3)]
    assert orders == [[9, 2, 4, 5], [6, 3], [0, 7, 8, 1]]
