"""What is refused on reading a ticket, in one line each, before memory is taken."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import hardtack
from hardtack.errors import InputError
from hardtack.ticket import Ticket
from hardtack.ticketfile import FORMAT, MAX_JSON_BYTES
from tests.tickets import edited

# ------------------------------------------------------------------------------------ refusals


def refused(folder, says):
    with pytest.raises(InputError, match=says) as caught:
        Ticket.load(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_ticket_is_refused(tmp_path, saved_ticket):
    refused(tmp_path / "nowhere", "nowhere is no ticket: it has no ticket.json")
    refused(tmp_path, r"is no ticket: it has no ticket\.json")
    (saved_ticket / "masks.safetensors").unlink()
    refused(saved_ticket, r"masks\.safetensors is missing")


@pytest.mark.parametrize("keep", [0, 4, 8, 40, 0.5, -1])
def test_truncated_masks_are_refused(saved_ticket, keep):
    path = saved_ticket / "masks.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    refused(saved_ticket, r"masks\.safetensors is no safetensors file")


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000, '{"format": 1'])
def test_a_record_that_is_not_json_is_refused(saved_ticket, text):
    (saved_ticket / "ticket.json").write_text(text)
    refused(saved_ticket, r"ticket\.json is not JSON")


def test_a_record_that_is_not_text_is_refused(saved_ticket):
    (saved_ticket / "ticket.json").write_bytes(b"\xff\xfe{}")
    refused(saved_ticket, r"ticket\.json is not JSON")


@pytest.mark.parametrize(
    ("record", "found"),
    [({"format": FORMAT + 1}, FORMAT + 1), ({"format": "1"}, "'1'"), ({}, None), ([], "'list'")],
)
def test_another_format_is_refused(saved_ticket, record, found):
    (saved_ticket / "ticket.json").write_text(json.dumps(record))
    refused(saved_ticket, rf"ticket\.json has ticket format {found}; this version reads {FORMAT}")


def test_an_oversized_record_is_refused_before_it_is_read(saved_ticket):
    with open(saved_ticket / "ticket.json", "wb") as stream:
        stream.truncate(MAX_JSON_BYTES + 1)
    refused(saved_ticket, rf"has {MAX_JSON_BYTES + 1} bytes; allowed: {MAX_JSON_BYTES}")


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
def test_a_record_of_the_wrong_shape_is_refused(saved_ticket, change):
    edited(saved_ticket, **change)
    refused(saved_ticket, r"ticket\.json is no ticket record: ")


def test_a_record_that_lacks_a_part_is_refused(saved_ticket):
    record = json.loads((saved_ticket / "ticket.json").read_text())
    for part in ("base", "granularity", "keep_whole", "units", "origin"):
        (saved_ticket / "ticket.json").write_text(
            json.dumps({key: value for key, value in record.items() if key != part})
        )
        refused(saved_ticket, f"is no ticket record: '{part}'")


def test_declared_sizes_that_are_not_the_files_are_refused(saved_ticket):
    units = json.loads((saved_ticket / "ticket.json").read_text())["units"]
    edited(saved_ticket, units={**units, "pooler.dense.weight": 10**15})
    refused(saved_ticket, r"pooler\.dense\.weight is U8 \(72,\), declared U8 \(125000000000000,\)")


def test_masks_of_other_sites_are_refused(saved_ticket):
    units = json.loads((saved_ticket / "ticket.json").read_text())["units"]
    edited(saved_ticket, units={**units, "extra": 8})
    refused(saved_ticket, r"masks\.safetensors holds other sites than ticket\.json names: extra")
    del units["pooler.dense.weight"]
    edited(saved_ticket, units=units)
    refused(saved_ticket, r"holds other sites than ticket\.json names: pooler\.dense\.weight")


def test_masks_of_another_type_are_refused(saved_ticket):
    units = json.loads((saved_ticket / "ticket.json").read_text())["units"]
    save_file(
        {name: torch.zeros(-(-count // 8)) for name, count in units.items()},
        saved_ticket / "masks.safetensors",
    )
    refused(saved_ticket, r"is F32 \(.*\), declared U8")


def test_weights_of_another_type_are_refused(saved_ticket):
    save_file({"pooler.dense.bias": torch.zeros(24, dtype=torch.int64)}, saved_ticket / "weights.safetensors")
    refused(
        saved_ticket, r"weights\.safetensors: pooler\.dense\.bias is I64 \(24,\), declared F32 of any shape"
    )


def test_a_header_that_claims_more_than_the_file_holds_is_refused(saved_ticket):
    header = json.dumps({"a": {"dtype": "U8", "shape": [10**15], "data_offsets": [0, 10**15]}}).encode()
    (saved_ticket / "masks.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    edited(saved_ticket, units={"a": 8 * 10**15})
    refused(saved_ticket, r"masks\.safetensors is no safetensors file")


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["masks.safetensors", "weights.safetensors", "ticket.json"])
def test_nothing_is_executed_on_loading(saved_ticket, name):
    (saved_ticket / name).write_bytes(pickle.dumps(Trap(saved_ticket / "sprung")))
    refused(saved_ticket, name.replace(".", r"\."))
    assert not (saved_ticket / "sprung").exists()


def test_there_is_no_pickle_in_the_package():
    sources = Path(hardtack.__file__).parent.rglob("*.py")
    wanted = re.compile(r"\b(pickle|cPickle|dill|cloudpickle|joblib|shelve|torch\.load|torch\.save)\b(?! )")
    assert not [(path.name, found) for path in sources for found in wanted.findall(path.read_text())]
