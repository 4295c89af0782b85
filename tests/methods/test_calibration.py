"""Which examples calibrate, and on which the distance to the dense model is measured."""

import pytest
import torch
from tests.contracts.plain import changes, facts_of
from tests.toys import toy_batches, toy_encoder, toy_task
from tests.zoo import ZOO

from hardtack.errors import InputError
from hardtack.methods.blocks import Blocks
from hardtack.methods.calibration import PROBES, described, samples
from hardtack.methods.obs import Obs
from hardtack.methods.retention import Retention
from hardtack.methods.search import Data
from hardtack.methods.states import record_
from hardtack.methods.sums import gather
from hardtack.methods.wanda import Wanda
from hardtack.perturb import added_to_embeddings, norms
from hardtack.prunable import Prunable
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.tasks.task import Batches, Table
from hardtack.ticket import Base
from hardtack.training.adversarial import PGD, Clean, FreeLB

HALF = (Sparsity.parse("0.5"),)


def data_of(model, attacked: int = 30, examples: int = 80) -> Data:
    wrong = toy_task(train=max(attacked, 2), seed=9).table("train")
    others = Batches(wrong, toy_encoder(model), size=8) if attacked else None
    return Data(toy_batches(model, examples=examples), None, attacked=others)


def drawn(method, objective=None, **sizes):
    model = ZOO["bert"]()
    return model, samples(method, model, data_of(model, **sizes), objective or Clean(), Run.nowhere())


def counts(found) -> dict:
    sums: dict = {}
    for sample in found:
        key = (sample.kind, sample.counts)
        sums[key] = sums.get(key, 0) + len(sample.batch.ids)
    return sums


@pytest.mark.parametrize(
    ("share", "calibration", "expected"),
    [
        (0.0, 20, {("clean", True): 20, ("attacked", False): 30}),
        (0.5, 20, {("clean", True): 10, ("attacked", True): 10}),
        (0.3, 5, {("clean", True): 3, ("attacked", True): 2}),
        (1.0, 20, {("attacked", True): 20, ("clean", False): PROBES}),
        (1.0, 50, {("attacked", True): 30, ("clean", False): PROBES}),  # fewer, as there are not so many
    ],
)
def test_shares_are_exact_and_other_kinds_are_probed(share, calibration, expected):
    _, found = drawn(Wanda(calibration=calibration, attacked=share))
    assert counts(found) == expected


def test_without_attacked_sentences_only_clean_ones_are_read():
    _, found = drawn(Wanda(calibration=20), attacked=0)
    assert counts(found) == {("clean", True): 20}
    with pytest.raises(InputError, match=r"attacked 0\.5 of the calibration examples, and no attacked"):
        drawn(Wanda(calibration=20, attacked=0.5), attacked=0)


def test_an_adversarial_objective_perturbs_what_calibrates_and_clean_inputs_are_probed():
    _, found = drawn(Obs(calibration=20, attacked=0.5), FreeLB(steps=2))
    assert counts(found) == {("perturbed", True): 20, ("clean", False): PROBES, ("attacked", False): 30}


@pytest.mark.parametrize("objective", [FreeLB(steps=3, radius=0.2), PGD(steps=2)])
def test_perturbed_states_are_those_of_the_objective_s_last_loss(objective):
    """The same inputs as where the model trains on the end of the ascent; nothing of the model changes."""
    model = ZOO["bert"]()
    before = facts_of(model)
    run = Run.nowhere(3)
    found = samples(Wanda(calibration=8), model, data_of(model, 0), objective, run)
    blocks = Blocks.of(model, found)
    assert changes(model, before) == []
    batch = blocks.samples[0].batch
    delta = objective.perturbation(model, batch, run.rng)
    steps = objective.steps - isinstance(objective, FreeLB)
    longest = objective.start / 3**0.5 * 1.2 + steps * objective.step_size
    assert (norms(delta) <= (objective.radius or longest) * 1.0001).all()
    assert (delta[~batch.inputs["attention_mask"].bool()] == 0).all()
    seen = []
    handle = model.bert.encoder.layer[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with torch.no_grad(), added_to_embeddings(model, delta):
        model(**batch.inputs)
    handle.remove()
    assert torch.equal(seen[0], blocks.first)
    plain = Blocks.of(model, samples(Wanda(calibration=8), model, data_of(model, 0), Clean(), run)).first
    assert 0 < (plain - blocks.first).abs().max() < 1


def test_the_loss_rises_along_a_perturbation():
    model = ZOO["bert"]()
    (batch,) = toy_batches(model, examples=16, size=16).in_order()
    objective = PGD(steps=5, step_size=0.5, start=0.0, radius=0.0)
    delta = objective.perturbation(model, batch, Run.nowhere().rng)
    losses = []
    for moved in (torch.zeros_like(delta), delta):
        with torch.no_grad(), added_to_embeddings(model, moved):
            losses.append(objective.loss(model(**batch.inputs).logits, batch).sum())
    assert losses[1] > losses[0]


def test_probes_enter_no_sum():
    model = ZOO["bert"]()
    view = Prunable.of(model)
    grams = []
    for attacked in (30, 0):
        found = samples(Obs(calibration=20), model, data_of(model, attacked), Clean(), Run.nowhere())
        blocks = Blocks.of(model, found)
        record_(blocks, Run.nowhere())
        stage = next(blocks.stages(view))
        with torch.no_grad():
            sums = gather(Obs().rule(), blocks, stage, stage.groups, blocks.start, {}, banks=False)
        grams.append(sums[0].gram)
        assert described(blocks)["examples"] == 20
    assert torch.equal(*grams)


@pytest.mark.parametrize(
    ("objective", "share", "kinds"),
    [(Clean(), 0.0, ("clean", "attacked")), (Clean(), 1.0, ("clean", "attacked")),
     (FreeLB(steps=2), 0.0, ("clean", "attacked", "perturbed"))],
)  # fmt: skip
def test_a_ticket_says_how_far_each_layer_went_for_each_kind_of_input(objective, share, kinds):
    model = ZOO["bert"]()
    method = Retention(sparsities=HALF, calibration=24, attacked=share)
    before = facts_of(model)
    search = method.search(
        model, Base.of(model), Prunable.of(model), data_of(model), objective, Run.nowhere()
    )
    (ticket,) = search
    assert changes(model, before) == []
    distance = ticket.origin["distance"]
    assert distance.keys() == set(kinds)
    for apart in distance.values():
        assert apart.keys() == {"first", "mean"}
        assert all(len(values) == 2 and all(0 < value < 1 for value in values) for values in apart.values())


def test_what_calibrates_is_kept_best():
    """Attacked sentences that calibrate end nearer to the dense model than where they do not."""
    model = ZOO["bert"]()
    apart = {}
    for share in (0.0, 1.0):
        method = Retention(sparsities=(Sparsity.parse("0.7"),), calibration=30, attacked=share)
        data = data_of(model, examples=48)
        (ticket,) = method.search(model, Base.of(model), Prunable.of(model), data, Clean(), Run.nowhere())
        apart[share] = ticket.origin["distance"]["attacked"]["mean"][-1]
    assert apart[1.0] < apart[0.0]


def test_an_example_without_tokens_is_refused_by_its_number():
    class Blank:
        pad_id = 0

        def __call__(self, texts):
            rows = [[5, 6, 7], [5, 6], []]
            return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]

    model = ZOO["bert"]()
    data = Data(Batches(Table.of([("a",), ("b",), ("c",)], [0, 1, 1]), Blank(), size=2), None)
    search = Wanda(sparsities=HALF).search(
        model, Base.of(model), Prunable.of(model), data, Clean(), Run.nowhere()
    )
    with pytest.raises(InputError, match=r"^calibration example 2 has no tokens; allowed: texts of 1 token"):
        next(search)


def test_pictures_have_no_embeddings_to_perturb():
    model = ZOO["vit"]()
    data = Data(toy_batches(model, examples=8), None)
    search = Wanda(sparsities=HALF).search(
        model, Base.of(model), Prunable.of(model), data, FreeLB(), Run.nowhere()
    )
    with pytest.raises(InputError, match="has no word embeddings to perturb; allowed objective: clean"):
        next(search)
