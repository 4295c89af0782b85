"""A model whose blocks are read from its files one at a time is pruned as one in memory, bit for bit."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.toys import saved_toy, toy_batches
from tests.zoo import ZOO

from hardtack.errors import InputError
from hardtack.loading import load
from hardtack.methods.obs import Obs
from hardtack.methods.retention import Retention
from hardtack.methods.search import Data
from hardtack.methods.wanda import Wanda
from hardtack.prunable import Prunable, base_of, blocks_of
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.stages.streaming import streamed
from hardtack.ticket import Ticket, fingerprint
from hardtack.training.adversarial import Clean, FreeLB

LABELS = ("bad", "good")
WANTED = (Sparsity.parse("0.5"), Sparsity.parse("2:4"))
FAMILIES = ("bert", "roberta", "distilbert", "electra", "mpnet", "gpt2", "llama", "gemma3_text", "modernbert")


def saved(folder: Path, toy: str = "bert") -> Path:
    return saved_toy(folder / "model", toy, makers=ZOO)


def found(method, folder: Path, out: Path, *, stream: bool, objective=None) -> dict[str, Ticket]:
    """Search as the stage does: what is handed over is saved, then loaded, with what came of it."""
    loaded, weights = streamed(str(folder), LABELS) if stream else (load(str(folder), LABELS), None)
    data = Data(toy_batches(loaded.model, examples=40), None, weights=weights)
    out.mkdir()
    view = Prunable.of(loaded.model)
    tickets = {}
    for ticket in method.search(
        loaded.model, loaded.base, view, data, objective or Clean(), Run("search", 3, out)
    ):
        place = out / ticket.origin["wanted"]
        ticket.save(place)
        tickets[place.name] = Ticket.load(place)
    return tickets


@pytest.mark.parametrize("toy", FAMILIES)
def test_streamed_retention_equals_that_in_memory(toy, tmp_path):
    method, folder = Retention(sparsities=WANTED[:1]), saved(tmp_path, toy)
    whole = found(method, folder, tmp_path / "whole", stream=False)
    parts = found(method, folder, tmp_path / "parts", stream=True)
    compare(whole, parts, 1)


@pytest.mark.parametrize(
    "method", [Wanda(WANTED), Obs(WANTED, scope="site"), Retention(WANTED, adaptive="half")]
)
def test_every_method_and_every_sparsity(method, tmp_path):
    folder = saved(tmp_path)
    whole = found(method, folder, tmp_path / "whole", stream=False)
    compare(whole, found(method, folder, tmp_path / "parts", stream=True), 2)


def compare(whole: Mapping[str, Ticket], parts: Mapping[str, Ticket], count: int) -> None:
    assert list(whole) == list(parts)
    assert len(whole) == count
    for name, ticket in whole.items():
        assert ticket.digest() == parts[name].digest()
        assert ticket.origin == parts[name].origin
        assert ticket.base == parts[name].base
        assert list(ticket.masks) == list(parts[name].masks)


@pytest.mark.parametrize("toy", FAMILIES)
def test_only_what_stands_around_the_blocks_is_in_memory(toy, tmp_path):
    folder = saved(tmp_path, toy)
    plain, (loaded, weights) = load(str(folder), LABELS), streamed(str(folder), LABELS)
    assert loaded.base == plain.base
    assert loaded.head == plain.head
    assert fingerprint(plain.model) == loaded.base.fingerprint
    state = plain.model.state_dict()
    assert {name: weights[name].dtype for name in weights} == {name: state[name].dtype for name in state}
    assert all(torch.equal(weights[name], state[name]) for name in weights)
    blocks = tuple(f"{name}." for name in blocks_of(loaded.model))
    for name, parameter in base_of(loaded.model).named_parameters():
        assert parameter.is_meta == name.startswith(blocks), name
    assert loaded.model.config.pad_token_id == plain.model.config.pad_token_id


def test_half_precision_and_several_files(tmp_path):
    folder = saved(tmp_path)
    model = load(str(folder), LABELS).model.half()
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("*.safetensors"))) == 2
    whole = found(Retention(WANTED[:1]), folder, tmp_path / "whole", stream=False)
    compare(whole, found(Retention(WANTED[:1]), folder, tmp_path / "parts", stream=True), 1)


class Counting(Mapping):
    """The weights of a streamed model; it counts the blocks whose weights somebody still holds."""

    def __init__(self, weights: Mapping, blocks: tuple[str, ...]):
        self.weights, self.blocks, self.held, self.most = weights, blocks, {}, 0

    def __getitem__(self, name: str) -> torch.Tensor:
        import weakref

        tensor = self.weights[name].clone()
        self.held = {key: ref for key, ref in self.held.items() if ref() is not None}
        self.held[name] = weakref.ref(tensor)
        whose = {block for block in self.blocks for key in self.held if f".{block}." in f".{key}"}
        self.most = max(self.most, len(whose))
        return tensor

    def __iter__(self):
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def test_one_block_is_in_memory_at_a_time_and_states_and_results_are_on_disk(tmp_path):
    folder = saved(tmp_path, "modernbert")
    loaded, weights = streamed(str(folder), LABELS)
    counting = Counting(weights, tuple(blocks_of(loaded.model)))
    run = Run("search", 0, tmp_path, watch=lambda *tick: None)
    data = Data(toy_batches(loaded.model, examples=40), None, weights=counting)
    method = Retention(WANTED[:1])
    (ticket,) = [
        (
            type(t.masks).__name__,
            type(t.weights).__name__,
            sorted(p.name for p in run.scratch.rglob("*.safe*")),
        )
        for t in method.search(loaded.model, loaded.base, Prunable.of(loaded.model), data, Clean(), run)
    ]
    count = len(blocks_of(loaded.model))
    assert counting.most == 1 < count
    kept = [f"block-{number}.safetensors" for number in range(count + 1)]
    assert ticket[:2] == ("Stored", "Stored")
    assert set(kept) | {"start.safetensors"} <= set(ticket[2])
    assert len(ticket[2]) <= len(kept) + 2  # the states behind the last block, of which nothing is read
    assert all(p.is_meta for name in blocks_of(loaded.model)
               for p in base_of(loaded.model).get_submodule(name).parameters())  # fmt: skip


class Killed(BaseException):
    """Ends a search as a kill does."""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["states", "block", "start", "log"])
def test_a_streamed_search_killed_at_any_write_goes_on_bit_for_bit(what, tmp_path, monkeypatch):
    """Just before each state, each block's result and each line of the log is written."""
    folder = saved(tmp_path)
    method = Retention(WANTED, calibration=24)
    whole = found(method, folder, tmp_path / "whole", stream=True)
    from hardtack import runs, storage

    writers = {"log": (runs, "append")}.get(what, (storage, "write_tensors"))
    real, done = getattr(*writers), 0
    for moment in range(1, 20):
        calls = []

        def write(path, *arguments, calls=calls, moment=moment, **more):
            calls.append(path)
            if len([c for c in calls if what == "log" or c.name.startswith(f".{what}")]) == moment:
                raise Killed
            return real(path, *arguments, **more)

        out, tickets = tmp_path / f"{what}-{moment}", {}
        monkeypatch.setattr(*writers, write)
        try:
            found(method, folder, out, stream=True)
        except Killed:
            done += 1
        else:
            break
        finally:
            monkeypatch.setattr(*writers, real)
        tickets = {
            place.name: Ticket.load(place) for place in out.glob("*-*") if (place / "ticket.json").exists()
        }
        out.rename(tmp_path / "kept")
        tickets |= again(method, folder, tmp_path / "kept")
        (tmp_path / "kept").rename(out)
        compare(whole, {name: tickets[name] for name in whole}, 2)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        blocks = [(line["part"], line["block"]) for line in lines if "reconstruction_error" in line]
        assert len(blocks) == len(set(blocks)) == 6, moment
    assert done >= {"start": 1, "states": 4, "block": 6, "log": 6}[what]


def again(method, folder: Path, out: Path) -> dict[str, Ticket]:
    loaded, weights = streamed(str(folder), LABELS)
    data = Data(toy_batches(loaded.model, examples=40), None, weights=weights)
    tickets = {}
    for ticket in method.search(
        loaded.model, loaded.base, Prunable.of(loaded.model), data, Clean(), Run("search", 3, out)
    ):
        ticket.save(out / ticket.origin["wanted"])
        tickets[ticket.origin["wanted"]] = Ticket.load(out / ticket.origin["wanted"])
    return tickets


def test_what_streaming_cannot_do_is_refused_in_one_line(tmp_path):
    folder = saved(tmp_path)
    with pytest.raises(
        InputError, match=r"classifier\.weight \[3, 24\]; allowed with stream: a trained model"
    ):
        streamed(str(folder), ("a", "b", "c"))
    with pytest.raises(InputError, match="scope global compares the weights of the whole model"):
        found(Obs(WANTED[:1], scope="global"), folder, tmp_path / "a", stream=True)
    with pytest.raises(InputError, match=r"objective freelb needs the whole model in memory \(stream\)"):
        found(Obs(WANTED[:1]), folder, tmp_path / "b", stream=True, objective=FreeLB())
    model = load(str(folder), LABELS).model
    base_of(model).save_pretrained(tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "bare" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r"bare has no such tensor for bert\.embeddings"):
        streamed(str(tmp_path / "bare"), LABELS)


def test_a_damaged_file_is_refused_by_the_search_in_one_line(tmp_path):
    folder = saved(tmp_path)
    with safe_open(folder / "model.safetensors", framework="pt") as stream:
        assert stream.keys()
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot be read"):
        streamed(str(folder), LABELS)
