import dataclasses
import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardtack import ticket as ticket_module
from hardtack.errors import InputError
from hardtack.prunable import Prunable, base_of
from hardtack.ticket import Base, Ticket, fingerprint
from tests.tickets import drawn, same_masks
from tests.toys import STRUCTURED, TEXT, TOYS, logits_of, same_state, state_of, toy_gpt2_lm, toy_inputs

KINDS = ("head", "neuron")


# ------------------------------------------------------------------------------------ numbers


def test_sparsity_and_overlap_by_hand():
    base = Base("toy", "0" * 32)
    one = Ticket(base, {"a": torch.tensor([True, True, False]), "b": torch.tensor([False, True])})
    other = Ticket(base, {"a": torch.tensor([True, False, True]), "b": torch.tensor([False, True])})
    assert (one.units(), one.sparsity()) == (5, pytest.approx(0.4))
    assert one.overlap(other) == other.overlap(one) == 2 / 4
    assert one.overlap(one) == 1.0
    with pytest.raises(InputError, match="different sites"):
        one.overlap(Ticket(base, {"a": torch.tensor([True, False, True])}))


def test_a_ticket_of_a_view_remembers_what_was_prunable():
    model = TOYS["bert"]()
    view = Prunable.of(model, KINDS, keep_whole=("*.0.heads",))
    ticket = Ticket.of(
        Base.of(model), view, {site.name: torch.ones(site.units).bool() for site in view.sites}, seed=1
    )
    assert (ticket.granularity, ticket.keep_whole, ticket.origin) == (KINDS, ("*.0.heads",), {"seed": 1})
    assert [site.name for site in ticket.view(model).sites] == [site.name for site in view.sites]


# ------------------------------------------------------------------------------------ fingerprint


@pytest.mark.parametrize("name", TEXT)
def test_the_fingerprint_ignores_the_head(name):
    model = TOYS[name]()
    before = fingerprint(model)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if not parameter_name.startswith(model.base_model_prefix + "."):
                parameter.add_(1)
    assert fingerprint(model) == before == fingerprint(base_of(model)) == fingerprint(TOYS[name](classes=4))


def test_the_fingerprint_ignores_which_head():
    assert fingerprint(toy_gpt2_lm()) == fingerprint(TOYS["gpt2"]())


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "conv"])
def test_the_fingerprint_sees_one_flipped_bit_anywhere(name):
    model = TOYS[name]()
    whole = fingerprint(model)
    base = base_of(model)
    for tensor in (*base.parameters(), *(b for b in base.buffers() if b.is_floating_point())):
        bits = tensor.detach().view(-1).view(torch.int32)
        bits[-1] ^= 1
        assert fingerprint(model) != whole
        bits[-1] ^= 1
    assert fingerprint(model) == whole


def test_the_fingerprint_sees_type_shape_and_name_and_not_flags():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False))
    whole = fingerprint(model)
    shaped = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        shaped[0].weight.copy_(model[0].weight.view(2, 3))
    assert fingerprint(shaped) != whole
    assert fingerprint(torch.nn.Sequential(torch.nn.ReLU(), model[0])) != whole
    assert fingerprint(model.eval().requires_grad_(False)) == whole
    assert fingerprint(model.half()) != whole


def test_the_fingerprint_leaves_out_what_was_drawn_anew():
    model, other = TOYS["bert"](), TOYS["bert"]()
    torch.nn.init.normal_(other.bert.pooler.dense.weight)
    fresh = ("pooler.dense.weight",)
    assert fingerprint(model) != fingerprint(other)
    assert fingerprint(model, fresh) == fingerprint(other, fresh)
    ticket = dataclasses.replace(drawn(model), base=Base.of(model, fresh=fresh))
    ticket.apply_(other)


def test_a_tickets_digest_names_its_masks_its_weights_and_its_base(tmp_path):
    model = TOYS["bert"]()
    ticket = drawn(model, KINDS)
    heads = ticket.masks["encoder.layer.1.heads"].clone()
    heads[1] = ~heads[1]
    weights = {"pooler.dense.bias": torch.ones(24)}
    others = [
        dataclasses.replace(ticket, masks={**ticket.masks, "encoder.layer.1.heads": heads}),
        dataclasses.replace(ticket, weights=weights),
        dataclasses.replace(ticket, weights={"pooler.dense.bias": torch.zeros(24)}),
        dataclasses.replace(ticket, base=Base.of(TOYS["bert"](seed=1))),
    ]
    assert len({other.digest() for other in (ticket, *others)}) == 5
    for number, one in enumerate((ticket, others[1])):
        one.save(tmp_path / str(number))
        assert Ticket.load(tmp_path / str(number)).digest() == one.digest()


# ------------------------------------------------------------------------------------ apply


@pytest.mark.parametrize("name", TOYS)
def test_apply_zeroes_exactly_what_the_mask_says(name):
    model = TOYS[name]()
    before = state_of(model)
    ticket = drawn(model)
    ticket.apply_(model)
    spread = ticket.view(model).spread(ticket.masks)
    prefix = next((f"{n}." for n, m in model.named_modules() if m is base_of(model) and n), "")
    for parameter_name, parameter in model.named_parameters():
        mask = spread.get(parameter_name.removeprefix(prefix))
        wanted = before[parameter_name] if mask is None else before[parameter_name].masked_fill(~mask, 0)
        assert torch.equal(parameter, wanted)
    zeros = sum(int((base_of(model).get_parameter(param) == 0).sum()) for param in spread)
    assert zeros == sum(int((~mask).sum()) for mask in ticket.masks.values())


@pytest.mark.parametrize("name", STRUCTURED)
def test_apply_of_heads_and_neurons_changes_the_logits(name):
    model = TOYS[name]()
    inputs = toy_inputs(model)
    clean = logits_of(model, inputs)
    drawn(model, KINDS).apply_(model)
    assert not torch.allclose(logits_of(model, inputs), clean, atol=0.1)


def test_a_ticket_of_a_classifier_fits_the_bare_encoder():
    model = TOYS["bert"]()
    ticket = drawn(model)
    ticket.apply_(model.bert)
    zeros = sum(int((parameter == 0).sum()) for parameter in model.bert.parameters())
    assert zeros == round(ticket.sparsity() * ticket.units())


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2_lm"])
def test_an_applied_model_keeps_its_parameters_and_saves_like_any_other(tmp_path, name):
    model = toy_gpt2_lm() if name == "gpt2_lm" else TOYS[name]()
    identities = [id(parameter) for parameter in model.parameters()]
    drawn(model).apply_(model)
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert same_state(again, state_of(model))
    drawn(again).hold_(again)
    torch.optim.SGD(again.parameters(), lr=0.1).step()


def test_apply_writes_changed_weights_first_and_then_zeros():
    model = TOYS["bert"]()
    changed = {"pooler.dense.weight": torch.randn(24, 24), "pooler.dense.bias": torch.randn(24)}
    ticket = dataclasses.replace(drawn(model), weights=changed)
    ticket.apply_(model)
    mask = ticket.masks["pooler.dense.weight"].view(24, 24)
    assert torch.equal(model.bert.pooler.dense.weight, changed["pooler.dense.weight"] * mask)
    assert torch.equal(model.bert.pooler.dense.bias, changed["pooler.dense.bias"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TOYS["bert"](seed=1), "belongs to another base: toy with fingerprint [0-9a-f]{32}, this is"),
        (lambda: TOYS["gpt2"](), r"does not fit GPT2.*: site encoder.* 576 units .* none in the model"),
        (lambda: TOYS["conv"](), "ticket does not fit ToyConv"),
    ],
)
def test_apply_refuses_another_base_and_another_model_and_touches_neither(make, says):
    ticket, other = drawn(TOYS["bert"]()), make()
    before = state_of(other)
    with pytest.raises(InputError, match=says) as caught:
        ticket.apply_(other)
    assert "\n" not in str(caught.value)
    assert same_state(other, before)


def test_apply_refuses_masks_of_other_sites_or_sizes():
    model = TOYS["bert"]()
    ticket = drawn(model)
    short = {**ticket.masks, "pooler.dense.weight": torch.ones(575).bool()}
    with pytest.raises(InputError, match="has 575 units in the ticket, 576 in the model"):
        dataclasses.replace(ticket, masks=short).apply_(model)
    less = {name: mask for name, mask in ticket.masks.items() if not name.startswith("pooler")}
    with pytest.raises(InputError, match=r"it has no mask for pooler.dense.weight"):
        dataclasses.replace(ticket, masks=less).apply_(model)


def test_apply_refuses_weights_that_do_not_fit_before_it_writes_any():
    model = TOYS["bert"]()
    before = state_of(model)
    for name, shape in (("pooler.dense.weight", (24, 25)), ("no.such", (1,))):
        weights = {"pooler.dense.bias": torch.zeros(24), name: torch.zeros(shape)}
        with pytest.raises(InputError, match=f"weight {name} .* does not fit"):
            dataclasses.replace(drawn(model), weights=weights).apply_(model)
        assert same_state(model, before)


# ------------------------------------------------------------------------------------ files


@given(
    st.dictionaries(
        st.text("abc.é 0/", min_size=1, max_size=8),
        st.lists(st.booleans(), min_size=1, max_size=70),
        min_size=1,
        max_size=5,
    ),
    st.dictionaries(st.text("xyz", min_size=1, max_size=4), st.integers(0, 9), max_size=3),
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)),
)
def test_tickets_come_back_as_they_were_saved(masks, weights, note):
    ticket = Ticket(
        Base("hub/model", "f" * 32, revision="abc", head_seed=4, fresh=("pooler.dense.weight",)),
        {name: torch.tensor(mask) for name, mask in masks.items()},
        ("head", "neuron"),
        {name: torch.randn(size, 2) for name, size in weights.items()},
        {"method": "toy", "note": note},
        ("pooler*",),
    )
    with tempfile.TemporaryDirectory() as folder:
        ticket.save(Path(folder) / "deep" / "ticket")
        back = Ticket.load(str(Path(folder) / "deep" / "ticket"))
    assert list(back.masks) == list(ticket.masks)
    assert same_masks(back.masks, ticket.masks)
    assert same_masks(back.weights, ticket.weights)
    assert all(mask.dtype == torch.bool for mask in back.masks.values())
    assert dataclasses.replace(back, masks={}, weights={}) == dataclasses.replace(
        ticket, masks={}, weights={}
    )
    assert back.sparsity() == ticket.sparsity()


@pytest.mark.parametrize("name", TOYS)
def test_a_loaded_ticket_makes_the_same_model(tmp_path, name):
    model, again = TOYS[name](), TOYS[name]()
    ticket = drawn(model)
    ticket.save(tmp_path / "ticket")
    ticket.apply_(model)
    Ticket.load(tmp_path / "ticket").apply_(again)
    assert same_state(again, state_of(model))


def test_changed_weights_are_kept_in_float32(tmp_path):
    model = TOYS["bert"]()
    weights = {
        "pooler.dense.weight": torch.randn(24, 24, dtype=torch.float64).t(),
        "pooler.dense.bias": torch.ones(24),
    }
    dataclasses.replace(drawn(model), weights=weights).save(tmp_path / "ticket")
    assert sorted(os.listdir(tmp_path / "ticket")) == [
        "masks.safetensors",
        "ticket.json",
        "weights.safetensors",
    ]
    back = Ticket.load(tmp_path / "ticket").weights
    assert all(torch.equal(back[name], weights[name].float()) for name in weights)


@pytest.mark.parametrize("sizes", [[2_000_003], [1] * 300, [7, 100_001] * 40])
def test_a_ticket_takes_one_bit_a_unit_and_at_most_64_kib(tmp_path, sizes):
    masks = {f"encoder.layer.{n}.weight": torch.rand(size) < 0.7 for n, size in enumerate(sizes)}
    Ticket(Base("toy", "0" * 32), masks, origin={"method": "random", "seed": 0}).save(tmp_path / "ticket")
    taken = sum(path.stat().st_size for path in (tmp_path / "ticket").iterdir())
    assert taken <= sum(sizes) / 8 + 64 * 1024


def test_saving_over_a_ticket_replaces_it_and_leaves_nothing_else(saved_ticket):
    model = TOYS["bert"]()
    other = dataclasses.replace(drawn(model, seed=9), weights={"pooler.dense.bias": torch.ones(24)})
    other.save(saved_ticket)
    assert same_masks(Ticket.load(saved_ticket).masks, other.masks)
    drawn(model).save(saved_ticket)
    assert Ticket.load(saved_ticket).weights == {}
    assert os.listdir(saved_ticket.parent) == ["ticket"]


@pytest.mark.parametrize("step", ["write_tensors", "os.replace 1", "os.replace 2"])
def test_a_save_that_fails_leaves_the_old_ticket(saved_ticket, monkeypatch, step):
    old = Ticket.load(saved_ticket).masks
    replace, calls = os.replace, []

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    def replace_or_fail(*arguments):
        calls.append(arguments)
        return fail() if step == f"os.replace {len(calls)}" else replace(*arguments)

    if step == "write_tensors":
        monkeypatch.setattr(ticket_module, step, fail)
    monkeypatch.setattr(ticket_module.os, "replace", replace_or_fail)
    with pytest.raises(OSError, match="No space left"):
        drawn(TOYS["bert"](), seed=9).save(saved_ticket)
    assert os.listdir(saved_ticket.parent) == ["ticket"]
    assert same_masks(Ticket.load(saved_ticket).masks, old)


def test_no_reader_ever_sees_a_part_of_a_ticket(saved_ticket, monkeypatch):
    """Between any two changes of the folder's name there is a whole ticket or none."""
    replace, seen = os.replace, []

    def watched(source, target):
        replace(source, target)
        seen.append(sorted(os.listdir(saved_ticket)) if saved_ticket.exists() else None)

    monkeypatch.setattr(ticket_module.os, "replace", watched)
    drawn(TOYS["bert"](), seed=9).save(saved_ticket)
    assert seen == [None, ["masks.safetensors", "ticket.json"]]


def test_save_leaves_a_folder_of_something_else_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is no ticket and not empty"):
        drawn(TOYS["bert"]()).save(tmp_path)
    with pytest.raises(InputError, match="is no ticket and not empty"):
        drawn(TOYS["bert"]()).save(tmp_path / "thesis.tex")
    assert os.listdir(tmp_path) == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    drawn(TOYS["bert"]()).save(tmp_path / "empty")
