import os

import pytest
import torch

from hardtack import storage
from hardtack.storage import append, load_tensors, save_tensors, write_atomic


def test_write_atomic_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_atomic(path, "one\n")
    write_atomic(path, b"two\n")
    assert path.read_bytes() == b"two\n"
    assert os.listdir(tmp_path) == ["rows.jsonl"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_write_atomic_keeps_the_old_content_when_it_fails(tmp_path, monkeypatch, broken):
    path = tmp_path / "rows.jsonl"
    write_atomic(path, "old")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_save_tensors_keeps_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    save_tensors(path, {"a": torch.ones(2)}, step=1)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(path, {"a": torch.zeros(2)}, step=2)
    tensors, facts = load_tensors(path)
    assert torch.equal(tensors["a"], torch.ones(2))
    assert facts == {"step": 1}
    assert os.listdir(tmp_path) == ["state.safetensors"]


def test_tensors_come_back_bit_for_bit_with_their_facts(tmp_path):
    tensors = {
        "turned": torch.randn(3, 4).t(),
        "mask": torch.tensor([True, False]),
        "half": torch.randn(5).bfloat16(),
        "scalar": torch.tensor(7),
        "odd": torch.tensor([float("nan"), -0.0, float("inf")]),
    }
    save_tensors(tmp_path / "x.safetensors", tensors, step=3, note={"lr": [0.1, None]})
    back, facts = load_tensors(tmp_path / "x.safetensors")
    assert facts == {"step": 3, "note": {"lr": [0.1, None]}}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        if tensor.is_floating_point():
            assert torch.equal(
                back[name].contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8)
            )
        else:
            assert torch.equal(back[name], tensor)


def test_append_adds_a_whole_line(tmp_path):
    append(tmp_path / "log", b"one\n")
    append(tmp_path / "log", b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
