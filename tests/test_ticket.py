import dataclasses
import json
import os
import pickle
import re
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import hardtack
from hardtack import ticket as ticket_module
from hardtack.errors import InputError
from hardtack.prunable import Prunable, base_of
from hardtack.ticket import Base, Ticket, fingerprint
from hardtack.ticketfile import FORMAT, MAX_JSON_BYTES
from tests.toys import STRUCTURED, TEXT, TOYS, logits_of, same_state, state_of, toy_gpt2_lm, toy_inputs

KINDS = ("head", "neuron")


def drawn(model, granularity=("weight",), share=0.4, seed=0, **origin):
    """A random ticket of this model in which each site keeps its first unit and loses its last."""
    view = Prunable.of(model, granularity)
    rng = torch.Generator().manual_seed(seed)
    masks = {site.name: torch.rand(site.units, generator=rng) >= share for site in view.sites}
    for mask in masks.values():
        mask[0], mask[-1] = True, False
    return Ticket.of(Base.of(model, "toy", head_seed=3), view, masks, **origin)


def same_masks(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def saved(tmp_path):
    """A folder with the ticket of a toy BERT."""
    drawn(TOYS["bert"](), method="random", settings={"sparsities": [0.3]}).save(tmp_path / "ticket")
    return tmp_path / "ticket"


def edited(folder, **changes):
    record = json.loads((folder / "ticket.json").read_text())
    (folder / "ticket.json").write_text(json.dumps({**record, **changes}))


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


# ------------------------------------------------------------------------------------ hold

OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.5),
    "sgd": lambda parameters: torch.optim.SGD(
        parameters, lr=0.001, momentum=0.9, weight_decay=0.1, nesterov=True
    ),
}


def pruned(model, ticket):
    """Every (parameter, mask of pruned positions), without the code under test's own handle."""
    spread = ticket.view(model).spread(ticket.masks)
    own = dict(base_of(model).named_parameters())
    return [(own[name], ~mask) for name, mask in spread.items()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("name", "granularity"), [("bert", KINDS), ("gpt2", ("weight",)), ("albert", ("weight",))]
)
def test_hold_keeps_zeros_through_weight_decay_and_momentum(name, granularity, optimizer):
    model = TOYS[name]().train()
    ticket = drawn(model, granularity)
    stepper = OPTIMIZERS[optimizer](model.parameters())
    model(**toy_inputs(model)).logits.sum().backward()
    stepper.step()  # unheld: the optimiser remembers a momentum for every weight
    held = ticket.hold_(model)
    live = state_of(model)
    for step in range(3):
        stepper.zero_grad()
        model(**toy_inputs(model, seed=step)).logits.pow(2).sum().backward()
        held.gradients_()
        assert all(not parameter.grad[mask].any() for parameter, mask in pruned(model, ticket))
        stepper.step()
        assert any(parameter[mask].any() for parameter, mask in pruned(model, ticket))  # decay, momentum
        held.weights_()
        assert all(not parameter[mask].any() for parameter, mask in pruned(model, ticket))
    assert not same_state(model, live)


def test_held_gradients_of_live_weights_are_untouched_and_missing_ones_stay_missing():
    model = TOYS["bert"]()
    ticket = drawn(model)
    held = ticket.hold_(model)
    held.gradients_()
    assert all(parameter.grad is None for parameter in model.parameters())
    model(**toy_inputs(model)).logits.sum().backward()
    model.bert.pooler.dense.weight.grad = None
    before = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    held.gradients_()
    assert model.bert.pooler.dense.weight.grad is None
    spread = ticket.view(model).spread(ticket.masks)
    for name, gradient in before.items():
        mask = spread.get(name.removeprefix("bert."), torch.tensor(True))
        assert torch.equal(model.get_parameter(name).grad, gradient * mask)


def test_hold_fits_a_model_that_has_moved_on_from_its_base():
    model = TOYS["bert"]()
    ticket = drawn(model)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.add_(1)
    ticket.hold_(model)
    assert all(not parameter[mask].any() for parameter, mask in pruned(model, ticket))


def test_hold_refuses_a_model_without_the_masks_tensors():
    with pytest.raises(InputError, match="ticket does not fit"):
        drawn(TOYS["bert"]()).hold_(TOYS["distilbert"]())


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


def test_saving_over_a_ticket_replaces_it_and_leaves_nothing_else(saved):
    model = TOYS["bert"]()
    other = dataclasses.replace(drawn(model, seed=9), weights={"pooler.dense.bias": torch.ones(24)})
    other.save(saved)
    assert same_masks(Ticket.load(saved).masks, other.masks)
    drawn(model).save(saved)
    assert Ticket.load(saved).weights == {}
    assert os.listdir(saved.parent) == ["ticket"]


@pytest.mark.parametrize("step", ["save_arrays", "os.replace 1", "os.replace 2"])
def test_a_save_that_fails_leaves_the_old_ticket(saved, monkeypatch, step):
    old = Ticket.load(saved).masks
    replace, calls = os.replace, []

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    def replace_or_fail(*arguments):
        calls.append(arguments)
        return fail() if step == f"os.replace {len(calls)}" else replace(*arguments)

    if step == "save_arrays":
        monkeypatch.setattr(ticket_module, step, fail)
    monkeypatch.setattr(ticket_module.os, "replace", replace_or_fail)
    with pytest.raises(OSError, match="No space left"):
        drawn(TOYS["bert"](), seed=9).save(saved)
    assert os.listdir(saved.parent) == ["ticket"]
    assert same_masks(Ticket.load(saved).masks, old)


def test_no_reader_ever_sees_a_part_of_a_ticket(saved, monkeypatch):
    """Between any two changes of the folder's name there is a whole ticket or none."""
    replace, seen = os.replace, []

    def watched(source, target):
        replace(source, target)
        seen.append(sorted(os.listdir(saved)) if saved.exists() else None)

    monkeypatch.setattr(ticket_module.os, "replace", watched)
    drawn(TOYS["bert"](), seed=9).save(saved)
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


# ------------------------------------------------------------------------------------ refusals


def refused(folder, says):
    with pytest.raises(InputError, match=says) as caught:
        Ticket.load(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_ticket_is_refused(tmp_path, saved):
    refused(tmp_path / "nowhere", "nowhere is no ticket: it has no ticket.json")
    refused(tmp_path, r"is no ticket: it has no ticket\.json")
    (saved / "masks.safetensors").unlink()
    refused(saved, r"masks\.safetensors is missing")


@pytest.mark.parametrize("keep", [0, 4, 8, 40, 0.5, -1])
def test_truncated_masks_are_refused(saved, keep):
    path = saved / "masks.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    refused(saved, r"masks\.safetensors is no safetensors file")


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000, '{"format": 1'])
def test_a_record_that_is_not_json_is_refused(saved, text):
    (saved / "ticket.json").write_text(text)
    refused(saved, r"ticket\.json is not JSON")


def test_a_record_that_is_not_text_is_refused(saved):
    (saved / "ticket.json").write_bytes(b"\xff\xfe{}")
    refused(saved, r"ticket\.json is not JSON")


@pytest.mark.parametrize(
    ("record", "found"),
    [({"format": FORMAT + 1}, FORMAT + 1), ({"format": "1"}, "'1'"), ({}, None), ([], "'list'")],
)
def test_another_format_is_refused(saved, record, found):
    (saved / "ticket.json").write_text(json.dumps(record))
    refused(saved, rf"ticket\.json has ticket format {found}; this version reads {FORMAT}")


def test_an_oversized_record_is_refused_before_it_is_read(saved):
    with open(saved / "ticket.json", "wb") as stream:
        stream.truncate(MAX_JSON_BYTES + 1)
    refused(saved, rf"has {MAX_JSON_BYTES + 1} bytes; allowed: {MAX_JSON_BYTES}")


BASE = {"id": "toy", "fingerprint": "0" * 32, "revision": None, "head_seed": None, "fresh": []}


@pytest.mark.parametrize(
    "change",
    [
        {"units": []},
        {"units": {}},
        {"units": None},
        {"units": {"a": "9"}},
        {"units": {"a": 9.5}},
        {"units": {"a": -8}},
        {"units": {"a": 0}},
        {"units": {"a": float("inf")}},
        {"base": {}},
        {"base": None},
        {"base": "toy"},
        {"base": {**BASE, "colour": 1}},
        {"base": {**BASE, "fresh": 3}},
        {"base": {**BASE, "id": 3}},
        {"base": {**BASE, "fresh": [3]}},
        {"granularity": None},
        {"granularity": [["weight"]]},
        {"keep_whole": 4},
        {"origin": 5},
        {"origin": None},
    ],
)
def test_a_record_of_the_wrong_shape_is_refused(saved, change):
    edited(saved, **change)
    refused(saved, r"ticket\.json is no ticket record: ")


def test_a_record_that_lacks_a_part_is_refused(saved):
    record = json.loads((saved / "ticket.json").read_text())
    for part in ("base", "granularity", "keep_whole", "units", "origin"):
        (saved / "ticket.json").write_text(
            json.dumps({key: value for key, value in record.items() if key != part})
        )
        refused(saved, f"is no ticket record: '{part}'")


def test_declared_sizes_that_are_not_the_files_are_refused(saved):
    units = json.loads((saved / "ticket.json").read_text())["units"]
    edited(saved, units={**units, "pooler.dense.weight": 10**15})
    refused(saved, r"pooler\.dense\.weight is U8 \(72,\), declared U8 \(125000000000000,\)")


def test_masks_of_other_sites_are_refused(saved):
    units = json.loads((saved / "ticket.json").read_text())["units"]
    edited(saved, units={**units, "extra": 8})
    refused(saved, r"masks\.safetensors holds other sites than ticket\.json names: extra")
    del units["pooler.dense.weight"]
    edited(saved, units=units)
    refused(saved, r"holds other sites than ticket\.json names: pooler\.dense\.weight")


def test_masks_of_another_type_are_refused(saved):
    units = json.loads((saved / "ticket.json").read_text())["units"]
    save_file(
        {name: torch.zeros(-(-count // 8)) for name, count in units.items()}, saved / "masks.safetensors"
    )
    refused(saved, r"is F32 \(.*\), declared U8")


def test_weights_of_another_type_are_refused(saved):
    save_file({"pooler.dense.bias": torch.zeros(24, dtype=torch.int64)}, saved / "weights.safetensors")
    refused(saved, r"weights\.safetensors: pooler\.dense\.bias is I64 \(24,\), declared F32 of any shape")


def test_a_header_that_claims_more_than_the_file_holds_is_refused(saved):
    header = json.dumps({"a": {"dtype": "U8", "shape": [10**15], "data_offsets": [0, 10**15]}}).encode()
    (saved / "masks.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    edited(saved, units={"a": 8 * 10**15})
    refused(saved, r"masks\.safetensors is no safetensors file")


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["masks.safetensors", "weights.safetensors", "ticket.json"])
def test_nothing_is_executed_on_loading(saved, name):
    (saved / name).write_bytes(pickle.dumps(Trap(saved / "sprung")))
    refused(saved, name.replace(".", r"\."))
    assert not (saved / "sprung").exists()


def test_there_is_no_pickle_in_the_package():
    sources = Path(hardtack.__file__).parent.rglob("*.py")
    wanted = re.compile(r"\b(pickle|cPickle|dill|cloudpickle|joblib|shelve|torch\.load|torch\.save)\b(?! )")
    assert not [(path.name, found) for path in sources for found in wanted.findall(path.read_text())]
