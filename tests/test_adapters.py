"""PEFT adapters: merged into their base when that is asked for, and a plain model afterwards."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file

from hardtack.errors import InputError
from hardtack.loading import load
from hardtack.prunable import Prunable
from hardtack.runs import generator
from hardtack.ticket import Ticket
from tests.tickets import drawn
from tests.toys import logits_of, saved_toy, state_of, toy_inputs
from tests.zoo import ZOO

TARGETS = {
    "bert": ["query", "value"],
    "llama": ["q_proj", "gate_proj"],
    "gpt2": ["c_attn"],
    "modernbert": ["Wqkv"],
}


def adapter_of(folder, base, name="bert", classes=2, config=None):
    """Save an adapter of a saved toy as PEFT does, and return the wrapped model that it was saved from."""
    model = ZOO[name](classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft, at what it saves and wraps
        config = config or LoraConfig(
            task_type=TaskType.SEQ_CLS, r=3, target_modules=TARGETS[name], lora_alpha=5
        )
        wrapped = get_peft_model(model, config)
        rng = generator(1, "adapter")
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.3)
        wrapped.save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**settings, "base_model_name_or_path": str(base)})
    )
    return wrapped.eval()


@pytest.fixture
def saved(tmp_path):
    """A base, an adapter of it, and the wrapped model."""
    base = saved_toy(tmp_path / "base")
    return base, tmp_path / "adapter", adapter_of(tmp_path / "adapter", base)


@pytest.mark.parametrize("name", TARGETS)
def test_a_merged_model_is_plain_and_says_what_the_wrapped_one_says(tmp_path, name):
    base = saved_toy(tmp_path / "base", name, makers=ZOO)
    wrapped = adapter_of(tmp_path / "adapter", base, name)
    loaded = load(str(tmp_path / "adapter"), merge_adapter=True)
    plain = ZOO[name]()
    plain.config.pad_token_id = wrapped.config.pad_token_id = loaded.tokenizer.pad_token_id
    inputs = toy_inputs(plain)
    assert torch.allclose(logits_of(loaded.model, inputs), logits_of(wrapped, inputs), atol=1e-5)
    assert not torch.allclose(logits_of(loaded.model, inputs), logits_of(plain, inputs), atol=0.1)
    assert [(n, type(m)) for n, m in loaded.model.named_modules()] == [
        (n, type(m)) for n, m in plain.named_modules()
    ]
    assert list(state_of(loaded.model)) == list(state_of(plain))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not any(module.training for module in loaded.model.modules())
    assert not hasattr(loaded.model, "peft_config")
    assert not loaded.fresh_head  # the adapter's own head
    assert loaded.base.head_seed is None


def test_merging_by_hand_and_what_no_adapter_touches_keeps_its_bits(saved):
    base, folder, _ = saved
    before, after = (
        load(str(base)).model.state_dict(),
        load(str(folder), merge_adapter=True).model.state_dict(),
    )
    tensors, touched = load_file(folder / "adapter_model.safetensors"), set()
    for name in before:
        a = tensors.get(f"base_model.model.{name.removesuffix('weight')}lora_A.weight")
        whole = tensors.get(f"base_model.model.{name}")
        if a is not None:
            b = tensors[f"base_model.model.{name.removesuffix('weight')}lora_B.weight"]
            wanted = (before[name].double() + b.double() @ a.double() * 5 / 3).float()
            torch.testing.assert_close(after[name], wanted, rtol=1e-6, atol=1e-7)
            touched.add(name)
        elif whole is not None:
            assert torch.equal(after[name], whole)
            touched.add(name)
        else:
            assert torch.equal(after[name], before[name])
    assert len(touched) == 2 * 2 + 2  # query and value of two layers, the head's weight and bias


def test_the_adapters_tokenizer_comes_first(saved, tmp_path):
    base, folder, _ = saved
    assert load(str(folder), merge_adapter=True).tokenizer.model_max_length == 48
    for path in base.glob("tokenizer*"):
        shutil.copy(path, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 17}))
    assert load(str(folder), merge_adapter=True).tokenizer.model_max_length == 17


def test_a_ticket_found_on_an_adapter_names_it_and_fits_again(saved, tmp_path):
    _, folder, _ = saved
    found = load(str(folder), merge_adapter=True)
    assert found.base.id == str(folder)
    ticket = drawn(found.model, method="random")
    ticket = Ticket.of(found.base, Prunable.of(found.model), ticket.masks)
    ticket.save(tmp_path / "ticket")
    again = Ticket.load(tmp_path / "ticket")
    torch.manual_seed(99)
    loaded = load(again.base.id, merge_adapter=True)
    again.apply_(loaded.model)
    assert sum(int((p == 0).sum()) for p in loaded.model.parameters()) > 1000
    with pytest.raises(InputError, match="belongs to another base"):
        again.apply_(load(str(saved[0])).model)


def test_an_adapter_here_is_no_commit_of_the_hub_though_its_base_is(tmp_path, monkeypatch):
    """A card shows the whole name of what has a commit, and of a folder the last part."""
    base = saved_toy(tmp_path / "models--org--base" / "snapshots" / ("a" * 40))
    (tmp_path / "models--org--base" / "refs").mkdir()
    (tmp_path / "models--org--base" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    adapter_of(tmp_path / "adapter", "org/base")
    assert load("org/base").base.revision == "a" * 40
    assert load(str(tmp_path / "adapter"), merge_adapter=True).base.revision is None
    assert load(str(base)).base.revision is None


def test_merging_takes_nothing_from_torchs_random_stream(saved):
    states = []
    for name in saved[:2]:
        torch.manual_seed(5)
        load(str(name), merge_adapter=True)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


# ------------------------------------------------------------------------------------ heads


def test_the_number_of_classes_is_the_adapters(tmp_path):
    base = saved_toy(tmp_path / "base")
    wrapped = adapter_of(tmp_path / "adapter", base, classes=3)
    loaded = load(str(tmp_path / "adapter"), merge_adapter=True, trained_head=True)
    assert loaded.model.config.num_labels == 3
    inputs = toy_inputs(loaded.model)
    assert torch.allclose(logits_of(loaded.model, inputs), logits_of(wrapped, inputs), atol=1e-5)


def test_a_head_for_other_classes_is_drawn_anew_or_refused(saved):
    _, folder, _ = saved
    one, same, other = (load(str(folder), ("a", "b", "c"), seed=s, merge_adapter=True) for s in (4, 4, 5))
    assert one.fresh_head
    assert one.base.head_seed == 4
    wanted = torch.empty(3, 24).normal_(0, 0.02, generator=generator(4, "head", example="classifier.weight"))
    assert torch.equal(one.model.classifier.weight, wanted)
    assert torch.equal(same.model.classifier.weight, wanted)
    assert one.base.fingerprint == other.base.fingerprint
    with pytest.raises(InputError, match="has no trained head for 3 classes"):
        load(str(folder), ("a", "b", "c"), merge_adapter=True, trained_head=True)


def test_an_adapter_without_a_head_takes_the_bases(tmp_path):
    base = saved_toy(tmp_path / "base")
    adapter_of(tmp_path / "adapter", base, config=LoraConfig(r=2, target_modules=["query"]))
    loaded = load(str(tmp_path / "adapter"), merge_adapter=True, trained_head=True)
    assert torch.equal(loaded.model.classifier.weight, load(str(base)).model.classifier.weight)
    assert load(str(tmp_path / "adapter"), ("a", "b", "c"), merge_adapter=True).fresh_head


# ------------------------------------------------------------------------------------ refusals


def refused(folder, says, **options):
    with pytest.raises(InputError, match=says) as caught:
        load(str(folder), **{"merge_adapter": True, **options})
    assert "\n" not in str(caught.value)


def configured(folder, **changes):
    path = Path(folder) / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_adapter_that_nobody_asked_to_merge_is_refused(saved):
    base, folder, _ = saved
    line = rf"^{folder} is an adapter of {base}, no model; merge_adapter \(--merge-adapter\) merges it$"
    refused(folder, line, merge_adapter=False)
    assert load(str(base), merge_adapter=True).base == load(str(base)).base  # a model is loaded as ever


def test_the_missing_library_is_named(saved, monkeypatch):
    monkeypatch.setattr("hardtack.loading.find_spec", lambda name: None)
    refused(saved[1], r"^merging an adapter needs the extra 'lora': pip install 'hardtack\[lora\]'$")


def test_pickled_and_damaged_adapters_are_refused(saved):
    _, folder, _ = saved
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:50])
    refused(folder, "has an adapter_model.safetensors that cannot be read: ")
    weights.rename(folder / "adapter_model.bin")
    refused(folder, "has no adapter_model.safetensors; allowed: safetensors, no pickled adapters$")


def test_tensors_that_do_not_belong_to_the_config_are_refused(saved):
    _, folder, _ = saved
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, weights)
    refused(folder, f"cannot be merged into .*: its tensors are not those of its config: {first}")
    save_file({**tensors, first.replace("query", "key"): tensors[first].clone()}, weights)
    refused(folder, "cannot be merged into .*: its tensors are not those of its config: .*key.lora_A")
    save_file({**tensors, first: tensors[first][:2].contiguous()}, weights)
    refused(folder, "cannot be merged into .*size mismatch")
    save_file({**tensors, first: tensors[first] * torch.nan}, weights)
    refused(folder, "cannot be merged into .*NaN")


def test_configs_that_name_no_base_are_refused(saved):
    base, folder, _ = saved
    configured(folder, base_model_name_or_path=None)
    refused(folder, "is an adapter whose config names no base: ")
    (folder / "adapter_config.json").write_text("{")
    refused(folder, "is an adapter whose config names no base: ")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base / "gone")}))
    refused(folder, f"^{folder}'s base {base / 'gone'} is no model that can be reached: ")


def test_kinds_that_cannot_be_merged_are_refused(tmp_path):
    base = saved_toy(tmp_path / "base")
    config = PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3)
    adapter_of(tmp_path / "adapter", base, config=config)
    refused(tmp_path / "adapter", "cannot be merged into ")


def test_an_adapter_of_a_quantised_base_is_refused(saved):
    base, folder, _ = saved
    path = base / "config.json"
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": settings}))
    refused(folder, f"^{folder}'s base {base} is quantised; allowed: a base with float weights$")


def test_code_named_by_an_adapter_is_never_run(saved):
    _, folder, _ = saved
    (folder / "evil.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\n")
    configured(folder, auto_mapping={"base_model_class": "Evil", "parent_library": "evil"})
    load(str(folder), merge_adapter=True)
    configured(folder, megatron_config={"a": 1}, megatron_core="evil")
    refused(folder, "cannot be merged into ")
    assert not (folder / "sprung").exists()
