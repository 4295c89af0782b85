"""Knowledge retention, and what it shares with OBS and Wanda: targets, counts, records, kills, refusals."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from tests.contracts.plain import changes, facts_of
from tests.toys import logits_of, toy_batches
from tests.zoo import ZOO

from hardtack.errors import InputError
from hardtack.methods import METHODS
from hardtack.methods.obs import Obs
from hardtack.methods.retention import Retention
from hardtack.methods.search import Data
from hardtack.methods.sums import gram
from hardtack.methods.wanda import Wanda
from hardtack.prunable import Prunable, base_of
from hardtack.runs import Run, generator
from hardtack.select import Sparsity
from hardtack.tasks.task import Batches, Table
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Clean

ALL = (Wanda, Obs, Retention)
HALF = Sparsity.parse("0.5")


def prune(
    method: Any, toy: str = "bert", batches: Any = None, run: Run | None = None, **asked: Any
) -> list[Ticket]:
    model = ZOO[toy]()
    data = Data(batches or toy_batches(model, examples=40), None)  # type: ignore[arg-type]
    view = Prunable.of(model, **asked)
    return list(method.search(model, Base.of(model), view, data, Clean(), run or Run.nowhere()))


def only(tickets: list[Ticket]) -> Ticket:
    (ticket,) = tickets
    return ticket


def total_error(ticket: Ticket) -> float:
    """The reconstruction error summed over the pruned matrices, each relative to its dense outputs."""
    return sum(ticket.origin["reconstruction_error"][name] for name in ticket.masks)


@pytest.mark.parametrize("toy", ["bert", "gpt2", "llama", "vit", "deberta-v3"])
@pytest.mark.parametrize("refit", [0, 30])
def test_adaptive_is_nearer_than_half_adaptive_and_that_than_static(toy, refit):
    """Check 3: measured on the sparse path against dense outputs, on calibration data."""
    half = total_error(only(prune(Retention(sparsities=(HALF,), adaptive="half", refit=refit), toy)))
    full = total_error(only(prune(Retention(sparsities=(HALF,), refit=refit), toy)))
    static = total_error(only(prune(Obs(sparsities=(HALF,), refit=refit), toy)))
    wanda = total_error(only(prune(Wanda(sparsities=(HALF,)), toy)))
    assert full < min(half, static)
    if refit:  # without, the sweep's own error hides what half of the adaptation gains
        assert half < static < wanda


def test_the_recorded_error_is_that_of_the_outputs():
    """Worked out again from two whole models: the ticket's, and the dense one."""
    model, pruned = ZOO["bert"](), ZOO["bert"]()
    batches = toy_batches(model, examples=10, size=10)
    ticket = only(prune(Retention(sparsities=(HALF,)), batches=batches))
    ticket.apply_(pruned)
    name, module = "encoder.layer.1.output.dense.weight", "encoder.layer.1.output.dense"
    outputs = []
    (batch,) = batches.in_order()
    for each in (model, pruned):
        linear = base_of(each).get_submodule(module)
        handle = linear.register_forward_hook(lambda m, args, out: outputs.append((out - m.bias).double()))
        logits_of(each, batch.inputs)
        handle.remove()
    tokens = batch.inputs["attention_mask"].bool()
    dense, sparse = (out[tokens] for out in outputs)
    expected = float((sparse - dense).square().sum() / dense.square().sum())
    assert ticket.origin["reconstruction_error"][name] == pytest.approx(expected, rel=1e-3)


def test_the_recorded_distance_is_that_of_the_blocks_outputs():
    model, pruned = ZOO["bert"](), ZOO["bert"]()
    batches = toy_batches(model, examples=10, size=10)
    ticket = only(prune(Wanda(sparsities=(HALF,)), batches=batches))
    ticket.apply_(pruned)
    (batch,) = batches.in_order()
    with torch.no_grad():
        a, b = (each(**batch.inputs, output_hidden_states=True).hidden_states[-1] for each in (model, pruned))
    cosine = torch.nn.functional.cosine_similarity
    found = {name: apart[1] for name, apart in ticket.origin["distance"]["clean"].items()}
    assert found["first"] == pytest.approx(float((1 - cosine(a[:, 0], b[:, 0])).mean()), abs=1e-5)
    means = []
    for x, y, length in zip(a, b, batch.inputs["attention_mask"].sum(1), strict=True):
        means.append(1 - cosine(x[:length].mean(0), y[:length].mean(0), dim=0))
    assert found["mean"] == pytest.approx(float(torch.stack(means).mean()), abs=1e-5)


def test_at_sparsity_0_nothing_changes():
    """Check 2: on dense inputs the adapted weight is the dense one, at any ridge."""
    for method in (Obs, Retention):
        ticket = only(prune(method(sparsities=(Sparsity.parse("0"),), ridge=0.1)))
        model = ZOO["bert"]()
        for name, value in ticket.weights.items():
            own = dict(model.named_parameters()) | dict(base_of(model).named_parameters())
            assert torch.allclose(value, own[name], atol=1e-5), name


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("scope", ["row", "site", "global"])
@pytest.mark.parametrize("toy", ["bert", "gpt2"])
def test_counts_are_exact_in_every_scope(method, scope, toy):
    """Check 4; GPT-2 stores its weights the other way round."""
    ticket = only(prune(method(sparsities=(Sparsity.parse("0.3"),), scope=scope), toy))
    view = Prunable.of(ZOO[toy]())
    if scope == "global":
        gone = sum(int((~mask).sum()) for mask in ticket.masks.values())
        assert gone == int(0.3 * view.units + 0.5)
    for site in view.sites:
        mask = ticket.masks[site.name].view(view.shapes[site.name]).movedim(site.exit.dim, 1)
        if scope == "row":
            assert ((~mask).sum(1) == int(0.3 * mask.shape[1] + 0.5)).all()
        elif scope == "site":
            assert int((~mask).sum()) == int(0.3 * mask.numel() + 0.5)


@pytest.mark.parametrize("method", ALL)
def test_every_bank_keeps_n_and_biases_are_left_alone(method):
    """Checks 4 and 5; K4, K5 and K7."""
    ticket = only(prune(method(sparsities=(Sparsity.parse("2:4"),))))
    view = Prunable.of(ZOO["bert"]())
    for name, mask in ticket.masks.items():
        assert (mask.view(*view.shapes[name]).view(-1, 4).sum(1) == 2).all()
    assert not [name for name in ticket.weights if name.endswith("bias")]
    assert bool(ticket.weights) == (method is not Wanda)


class Padded(Batches):
    """Batches padded to one length, whatever the longest row is."""

    width = 20

    def _collate(self, rows):
        batch = super()._collate(rows)
        room = self.width - batch.inputs["input_ids"].shape[1]
        wider = {key: torch.nn.functional.pad(value, (0, room)) for key, value in batch.inputs.items()}
        return batch._replace(inputs=wider)


class PaddedMore(Padded):
    """The same, to twice the length."""

    width = 40


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("toy", ["bert", "mpnet", "deberta-v3", "modernbert", "gpt2"])
def test_padding_changes_nothing(method, toy):
    """Check 6."""
    model = ZOO[toy]()
    made = toy_batches(model, examples=40)
    found = []
    for kind in (Padded, PaddedMore):
        batches = kind.__new__(kind)
        batches.__dict__.update(made.__dict__)
        found.append(only(prune(method(sparsities=(HALF,)), toy, batches)))
    less, more = found
    same = sum(int((less.masks[name] == more.masks[name]).sum()) for name in less.masks)
    assert same >= 0.998 * less.units()  # float32 sums of other shapes can turn a near tie
    assert total_error(less) == pytest.approx(total_error(more), rel=0.01)
    assert less.origin["calibration"] == more.origin["calibration"]


def test_the_head_is_refitted_and_travels_with_the_ticket():
    ticket = only(prune(Retention(sparsities=(HALF,))))
    half = only(prune(Retention(sparsities=(HALF,), adaptive="half")))
    assert "classifier.weight" in ticket.weights
    assert "classifier.weight" not in half.weights
    model = ZOO["bert"]()
    before = model.classifier.weight.clone()
    ticket.apply_(model)
    assert torch.equal(model.classifier.weight, ticket.weights["classifier.weight"])
    assert not torch.equal(model.classifier.weight, before)
    encoder = base_of(ZOO["bert"]())
    ticket.apply_(encoder)  # the bare encoder has no head to take it
    assert torch.equal(encoder.pooler.dense.weight, base_of(model).pooler.dense.weight)


def test_what_is_kept_whole_is_fitted_behind_the_blocks_and_left_alone_inside():
    ticket = only(prune(Retention(sparsities=(HALF,)), keep_whole=("pooler*", "encoder.layer.0*")))
    assert not [name for name in ticket.masks if name.startswith(("pooler", "encoder.layer.0"))]
    assert not [name for name in ticket.weights if name.startswith("encoder.layer.0")]
    assert "pooler.dense.weight" in ticket.weights
    assert (ticket.weights["pooler.dense.weight"] != 0).all()


def test_a_pruned_model_stays_near_the_dense_one_s_logits():
    model = ZOO["bert"]()
    batches = toy_batches(model, examples=48)
    apart = {}
    for method in (METHODS["magnitude"], *ALL):
        pruned = ZOO["bert"]()
        only(prune(method(sparsities=(HALF,)), batches=batches)).apply_(pruned)
        apart[method.name] = sum(
            float((logits_of(pruned, b.inputs) - logits_of(model, b.inputs)).square().sum())
            for b in batches.in_order()
        )
    assert apart["retention"] < apart["obs"] < min(apart["wanda"], apart["magnitude"])


class Killed(BaseException):
    """Ends a search as a kill does: what was not on disk is gone."""


@pytest.mark.parametrize("scope", ["row", pytest.param("global", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ALL)
def test_a_search_killed_after_any_block_goes_on_bit_for_bit(method, scope, tmp_path):
    made = method(sparsities=(HALF, Sparsity.parse("0.7")), scope=scope, calibration=30)
    whole = prune(made, run=Run("search", 3, None))
    for moment in range(1, 7):
        folder, ticks = tmp_path / str(moment), []
        folder.mkdir()

        def watch(label: str, done: int, total: int, ticks=ticks, moment=moment) -> None:
            ticks.append(done)
            if len(ticks) == moment:
                raise Killed

        with pytest.raises(Killed):
            prune(made, run=Run("search", 3, folder, watch=watch))
        run = Run("search", 3, folder, watch=lambda label, done, total, ticks=ticks: ticks.append(done))
        found = prune(made, run=run)
        assert len(ticks) == 6, moment  # no block was done twice
        for expected, ticket in zip(whole[-len(found) :], found, strict=True):
            assert ticket.origin == expected.origin
            assert ticket.digest() == expected.digest()
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert any(line.get("event") == "resumed" for line in lines)


def test_the_seed_draws_the_sentences_and_all_are_read_where_there_are_not_more():
    method = Wanda(sparsities=(HALF,), calibration=10)
    first, again, other = (prune(method, run=Run("x", seed))[0] for seed in (0, 0, 1))
    assert first.digest() == again.digest() != other.digest()
    assert first.origin["calibration"]["examples"] == 10
    assert prune(Wanda(sparsities=(HALF,), calibration=500))[0].origin["calibration"]["examples"] == 40


def test_few_rows_are_said_with_the_ridge_that_decides():
    ticket = only(prune(Obs(sparsities=(HALF,), calibration=20)))
    assert ticket.origin["note"] == (
        "calibration rows are fewer than the inputs of pooler.dense.weight: there the ridge of 0.0001 "
        "decides where the data do not"
    )
    assert "note" not in only(prune(Wanda(sparsities=(HALF,), calibration=20))).origin


def test_exact_removal_does_better_than_the_sweep():
    errors = {
        solver: total_error(only(prune(Obs(sparsities=(HALF,), solver=solver, refit=0))))
        for solver in ("blocked", "exact")
    }
    assert errors["exact"] < errors["blocked"]


@pytest.mark.parametrize("method", [Obs, Retention])
def test_another_start_than_the_base_is_refused(method):
    model = ZOO["bert"]()
    other = Base.of(ZOO["bert"](seed=1))
    search = method().search(
        model, other, Prunable.of(model), Data(toy_batches(model), None), Clean(), Run.nowhere()
    )
    before = facts_of(model)
    with pytest.raises(
        InputError, match="so its tickets fit no other base; allowed: the fine-tuned model itself"
    ):
        next(search)
    assert changes(model, before) == []


def test_a_pure_mask_may_rewind_to_another_base():
    model, other = ZOO["bert"](), ZOO["bert"](seed=1)
    data = Data(toy_batches(model), None)
    (ticket,) = Wanda().search(model, Base.of(other), Prunable.of(model), data, Clean(), Run.nowhere())
    ticket.apply_(other)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"calibration": 0}, "calibration 0 is not allowed; allowed: 1 or more examples"),
        ({"scope": "layer"}, "scope 'layer' does not exist; allowed: global, site, row"),
        ({"ridge": -1.0}, "ridge -1.0 is not allowed; allowed: 0 or more, finite"),
        ({"ridge": float("nan")}, "ridge nan is not allowed; allowed: 0 or more, finite"),
        ({"solver": "fast"}, "solver 'fast' does not exist; allowed: blocked, exact"),
        (
            {"solver": "exact", "scope": "site"},
            "solver exact takes the same count from each row; scope 'site' needs blocked",
        ),
        ({"refit": -1}, "refit -1 is not allowed; allowed: 0 or more steps"),
        ({"adaptive": "no"}, "adaptive 'no' does not exist; allowed: full, half"),
    ],
)  # fmt: skip
def test_settings_that_prune_nothing_are_refused(settings, line):
    with pytest.raises(InputError) as caught:
        Retention(**settings)
    assert str(caught.value) == line


def test_broken_inputs_are_refused_in_one_line():
    model = ZOO["bert"]()
    with torch.no_grad():
        base_of(model).encoder.layer[1].attention.output.LayerNorm.weight[3] = float("nan")
    data = Data(toy_batches(model), None)
    with pytest.raises(
        InputError, match=r"inputs of encoder\.layer\.1\.intermediate\.dense\.weight hold NaN"
    ):
        next(Obs().search(model, Base.of(model), Prunable.of(model), data, Clean(), Run.nowhere()))


def test_banks_that_do_not_divide_are_refused_before_anything_is_read():
    with pytest.raises(InputError, match=r"banks 3:7 do not divide the 24 inputs of encoder\.layer\.0"):
        Obs(sparsities=(Sparsity.parse("3:7"),)).check(Prunable.of(ZOO["bert"]()))


def test_wanda_by_hand_in_the_first_block():
    """|w| times the norm over all tokens, the lowest half of each row."""
    model = ZOO["bert"]()
    batches = toy_batches(model, examples=40)
    ticket = only(prune(Wanda(sparsities=(HALF,)), batches=batches))
    linear, squares = model.bert.encoder.layer[0].intermediate.dense, torch.zeros(24)
    for batch in batches.in_order():
        inputs = []
        handle = linear.register_forward_pre_hook(lambda m, args, found=inputs: found.append(args[0]))
        logits_of(model, batch.inputs)
        handle.remove()
        squares += inputs[0][batch.inputs["attention_mask"].bool()].square().sum(0)
    scores = linear.weight.detach().abs() * squares.sqrt()
    kept = ticket.masks["encoder.layer.0.intermediate.dense.weight"].view(scores.shape)
    for row, mask in zip(scores, kept, strict=True):
        assert row[mask].min() >= row[~mask].max()
        assert int(mask.sum()) == 12


@pytest.mark.parametrize("width", [5, 64, 1024, 1037])
def test_a_gram_matrix_made_of_panels_is_the_product(width):
    x = torch.randn(50, width, generator=generator(0, "rows"))
    exact = x.double().T @ x.double()
    found = gram(x)
    assert found.dtype == torch.float64
    assert (found - exact).abs().max() < 1e-4


def test_drawn_rows_are_stratified_and_in_order_takes_them():
    table = Table.of([("word " * (1 + i % 5),) for i in range(40)], [int(i % 4 == 0) for i in range(40)])
    batches = Batches(table, lambda texts: [{"input_ids": [1] * len(t.split())} for (t,) in texts], size=7)
    rows = batches.drawn(12, 5)
    assert len(set(rows.tolist())) == 12
    assert int(table.labels[rows].sum()) == 3
    assert np.array_equal(batches.drawn(40, 1), np.arange(40))
    got = list(batches.in_order(only=rows))
    assert sorted(torch.cat([batch.ids for batch in got]).tolist()) == rows.tolist()
    lengths = torch.cat([(batch.inputs["input_ids"] != 0).sum(1) for batch in got]).tolist()
    assert lengths == sorted(lengths, reverse=True)


def test_methods_say_their_settings_once():
    names = {field.name for field in dataclasses.fields(Obs)}
    assert names < {field.name for field in dataclasses.fields(Retention)}
    assert {"calibration", "scope"} < {field.name for field in dataclasses.fields(Wanda)}


@pytest.mark.parametrize("method", [Obs, Retention])
def test_a_ticket_s_rows_are_the_least_squares_optimum_on_their_masks(method):
    """Check 1, on a model: of the first block's inputs, which are alike in both models, solved directly."""
    model = ZOO["bert"]()
    batches = toy_batches(model, examples=40)
    ticket = only(prune(method(sparsities=(HALF,), refit=300), batches=batches))
    name = "encoder.layer.0.attention.self.value.weight"
    W = base_of(model).get_parameter(name).detach().double()
    H = torch.zeros(24, 24, dtype=torch.float64)
    for batch in batches.in_order():
        x = model.bert.embeddings(batch.inputs["input_ids"])[batch.inputs["attention_mask"].bool()].detach()
        H += (x.T @ x).double()
    H += 1e-4 * H.diagonal().mean() * torch.eye(24)
    mask = ticket.masks[name].view(W.shape)
    for row, kept, found in zip(W, mask, ticket.weights[name].double(), strict=True):
        direct = torch.zeros(24, dtype=torch.float64)
        direct[kept] = torch.linalg.solve(H[kept][:, kept], (H @ row)[kept])
        assert torch.allclose(found, direct, rtol=1e-4, atol=1e-4)
