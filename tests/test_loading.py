import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AwqConfig,
    BertForMaskedLM,
    BitsAndBytesConfig,
    GPTQConfig,
)

from hardtack.errors import InputError
from hardtack.loading import load, model_folder
from hardtack.runs import generator
from hardtack.tasks.task import Batches, Table
from hardtack.tasks.text import Encoder
from hardtack.ticket import fingerprint
from tests.toys import (
    VOCABULARY,
    logits_of,
    same_state,
    saved_toy,
    state_of,
    toy_bert,
    toy_inputs,
    toy_tokenizer,
)
from tests.zoo import TEXTS, ZOO

THREE = ("bad", "so-so", "good")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Where each toy is saved: saved("bert") is a folder that must not be changed."""
    root, folders = tmp_path_factory.mktemp("models"), {}

    def folder(name):
        if name not in folders:
            folders[name] = saved_toy(root / name, name, makers=ZOO)
        return folders[name]

    return folder


@pytest.fixture
def changed(saved, tmp_path):
    """A copy of a saved toy BERT that may be changed."""
    return Path(shutil.copytree(saved("bert"), tmp_path / "model"))


def configured(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


# ------------------------------------------------------------------------------------ what comes back


@pytest.mark.parametrize("name", TEXTS)
def test_a_saved_model_comes_back_as_it_was(saved, name):
    model = ZOO[name]()
    loaded = load(str(saved(name)))
    assert type(loaded.model) is type(model)
    assert same_state(loaded.model, state_of(model))
    assert not any(module.training for module in loaded.model.modules())
    assert not loaded.fresh_head
    assert loaded.base.id == str(saved(name))
    assert loaded.base.fingerprint == fingerprint(model)
    assert (loaded.base.head_seed, loaded.base.fresh, loaded.base.revision) == (None, (), None)
    model.config.pad_token_id = loaded.tokenizer.pad_token_id
    inputs = toy_inputs(model)
    assert torch.equal(logits_of(loaded.model, inputs), logits_of(model, inputs))


def test_the_tokenizer_comes_along(saved):
    tokenizer = load(str(saved("bert"))).tokenizer
    text = "a good film"
    assert tokenizer(text)["input_ids"] == [
        VOCABULARY.index(word) for word in ("[CLS]", *text.split(), "[SEP]")
    ]


def test_a_run_folder_stands_for_the_model_inside(saved, tmp_path):
    shutil.copytree(saved("bert"), tmp_path / "run" / "model")
    assert model_folder(str(tmp_path / "run")) == str(tmp_path / "run" / "model")
    assert model_folder(str(tmp_path / "run" / "model")) == str(tmp_path / "run" / "model")
    assert model_folder("org/name") == "org/name"
    outer, inner = load(str(tmp_path / "run")), load(str(tmp_path / "run" / "model"))
    assert outer.base.fingerprint == inner.base.fingerprint
    assert outer.base.id == str(tmp_path / "run")


def test_labels_are_the_tasks(saved):
    config = load(str(saved("bert")), ("bad", "good")).model.config
    assert config.id2label == {0: "bad", 1: "good"}
    assert config.label2id == {"bad": 0, "good": 1}
    assert config.problem_type is None
    assert load(str(saved("bert")), THREE).model.config.num_labels == 3


def test_a_trained_head_of_as_many_classes_is_kept(saved):
    loaded = load(str(saved("bert")), ("bad", "good"), trained_head=True)
    assert torch.equal(loaded.model.classifier.weight, toy_bert().classifier.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_float32_whatever_the_file_holds(tmp_path, dtype):
    model = toy_bert().to(dtype)
    model.save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert same_state(loaded.model, state_of(model.float()))


# ------------------------------------------------------------------------------------ fresh heads


def head_of(folder, seed, labels=THREE):
    torch.seed()  # whatever the loader draws
    return load(str(folder), labels, seed=seed)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "deberta-v2", "modernbert", "gemma"])
def test_equal_seeds_give_equal_heads_and_others_differ(saved, name):
    one, same, other = (head_of(saved(name), seed) for seed in (4, 4, 5))
    assert one.fresh_head
    assert one.base.head_seed == 4
    assert one.base.fresh == ()
    assert same_state(same.model, state_of(one.model))
    assert not same_state(other.model, state_of(one.model))
    assert one.base.fingerprint == other.base.fingerprint == load(str(saved(name))).base.fingerprint


def test_a_fresh_head_by_hand(saved):
    loaded = head_of(saved("bert"), 4)
    wanted = torch.empty(3, 24).normal_(0, 0.02, generator=generator(4, "head", example="classifier.weight"))
    assert torch.equal(loaded.model.classifier.weight, wanted)
    assert not loaded.model.classifier.bias.any()


def test_a_language_models_file_gets_a_fresh_head(saved):
    one, same = (head_of(saved("gpt2_lm"), 4) for _ in range(2))
    assert one.fresh_head
    assert torch.equal(one.model.score.weight, same.model.score.weight)
    assert one.base.fingerprint == load(str(saved("gpt2"))).base.fingerprint


LANGUAGE = [name for name in TEXTS if name not in ("bert", "albert", "squeezebert", "gpt2")]
CAUSAL = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_file_of_every_familys_language_model_gets_a_fresh_head(tmp_path, name):
    """Heads of language models are left out, whatever they are called and whether or not they are tied."""
    toy = ZOO[name]()
    kind = AutoModelForCausalLM if name in CAUSAL else AutoModelForMaskedLM
    torch.manual_seed(3)
    model = kind.from_config(toy.config)
    model.base_model.load_state_dict(toy.base_model.state_dict())
    model.save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    loaded = load(str(tmp_path), ("bad", "good"), seed=4)
    assert type(loaded.model) is type(toy)
    assert loaded.fresh_head
    assert loaded.base.fresh == ()
    assert loaded.base.fingerprint == fingerprint(toy)
    assert head_of(tmp_path, 4, ("bad", "good")).base == loaded.base
    head = {
        n: p
        for n, p in loaded.model.named_parameters()
        if p.data_ptr() not in _pointers(loaded.model.base_model)
    }
    assert all(p.any() == (not n.endswith("bias")) for n, p in head.items())


def _pointers(model):
    return {parameter.data_ptr() for parameter in model.parameters()}


def test_a_fresh_pooler_is_named_and_stays_out_of_the_fingerprint(tmp_path):
    """A masked-language-model checkpoint has no pooler."""
    torch.manual_seed(3)
    BertForMaskedLM(toy_bert().config).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    one, same, other = (head_of(tmp_path, seed, ("bad", "good")) for seed in (4, 4, 5))
    assert one.base.fresh == ("pooler.dense.bias", "pooler.dense.weight")
    assert one.fresh_head
    assert same_state(same.model, state_of(one.model))
    assert not torch.equal(one.model.bert.pooler.dense.weight, other.model.bert.pooler.dense.weight)
    assert one.base.fingerprint == other.base.fingerprint


def test_a_head_that_must_be_trained_is_not_drawn(saved):
    with pytest.raises(
        InputError, match=r"has no trained head for 3 classes \(classifier.bias, classifier.weight\)"
    ):
        load(str(saved("bert")), THREE, trained_head=True)
    with pytest.raises(
        InputError, match=r"has no trained head for 2 classes \(score.weight\); train it first"
    ):
        load(str(saved("gpt2_lm")), trained_head=True)


# ------------------------------------------------------------------------------------ padding


def test_a_tokenizer_without_padding_token_pads_with_its_end_token(saved):
    loaded = load(str(saved("gpt2")))
    assert loaded.tokenizer.pad_token == loaded.tokenizer.eos_token == "[SEP]"
    assert loaded.model.config.pad_token_id == loaded.tokenizer.pad_token_id == VOCABULARY.index("[SEP]")


@pytest.mark.parametrize("name", TEXTS)
def test_the_longest_row_that_the_encoder_makes_fits_the_model(saved, name):
    """RoBERTa and its kin lose a few positions, because they count from the padding's id."""
    loaded = load(str(saved(name)))
    loaded.tokenizer.model_max_length = 10**9
    encoder = Encoder.of(loaded.tokenizer, loaded.model, 10**6)
    assert encoder.max_length == {"roberta": 46, "xlm-roberta": 46, "mpnet": 46}.get(name, 48)
    (batch,) = Batches(Table.of([("good " * 60,)], [0]), encoder, size=1).in_order()
    assert batch.inputs["input_ids"].shape == (1, encoder.max_length)
    assert logits_of(loaded.model, batch.inputs).isfinite().all()


@pytest.mark.parametrize("name", TEXTS)
def test_token_types_are_optional_and_only_where_a_family_takes_them(saved, name):
    loaded = load(str(saved(name)))
    encoder = Encoder.of(loaded.tokenizer, loaded.model)
    (batch,) = Batches(Table.of([("good film",), ("a dull film",)], [0, 1]), encoder, size=2).in_order()
    assert {"input_ids", "attention_mask"} <= batch.inputs.keys()
    without = {key: value for key, value in batch.inputs.items() if key != "token_type_ids"}
    typeless = ("distilbert", "mpnet", "modernbert", *CAUSAL)
    assert ("token_type_ids" in batch.inputs) == (name not in (*typeless, "gpt2"))
    logits = logits_of(loaded.model, without)
    assert torch.equal(logits, logits_of(loaded.model, batch.inputs))


@pytest.mark.parametrize("name", TEXTS)
def test_padded_rows_have_the_logits_that_they_have_alone(saved, name):
    """A decoder reads its last token: its config must know what the batches are padded with."""
    loaded = load(str(saved(name)))
    encoder = Encoder.of(loaded.tokenizer, loaded.model)
    texts = [("good film",), ("a very dull story but the music is good",), ("bad",)]
    batches = Batches(Table.of(texts, [0, 1, 0]), encoder, size=3)
    (together,) = batches.in_order()
    logits = logits_of(loaded.model, together.inputs)
    for batch in batches.in_order(1):
        row = together.ids.tolist().index(int(batch.ids[0]))
        assert torch.allclose(logits[row], logits_of(loaded.model, batch.inputs)[0], atol=1e-5)


# ------------------------------------------------------------------------------------ refusals


def refused(folder, says, **options):
    with pytest.raises(InputError, match=says) as caught:
        load(str(folder), **options)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_what_is_no_model_is_refused(tmp_path, saved):
    refused(tmp_path, "is no model: it has no config.json$")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "is no model: it has no config.json$")
    refused(tmp_path / "nowhere", "is no model that can be reached: ")
    refused("org/no-such-model", "is no model that can be reached: ")
    refused("no such model!", "is no model that can be reached: ")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model_type": "abacus"}', '{"model_type": "bert", "hidden_size": "x"}']
)
def test_configs_that_cannot_be_read_are_refused(changed, text):
    (changed / "config.json").write_text(text)
    refused(changed, "has a config that cannot be read: ")


@pytest.mark.parametrize("name", TEXTS)
def test_a_folder_without_tokenizer_is_refused(tmp_path, name):
    saved_toy(tmp_path, name, tokenizer=False, makers=ZOO)
    refused(tmp_path, "has no tokenizer")


@pytest.mark.parametrize("content", [b"{", b"{}", b"\xff"])
def test_a_damaged_tokenizer_is_refused(changed, content):
    (changed / "tokenizer.json").write_bytes(content)
    refused(changed, "has no tokenizer that can be read: ")


def test_a_tokenizer_without_padding_and_end_token_is_refused(saved, tmp_path):
    folder = Path(shutil.copytree(saved("gpt2"), tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["eos_token"]
    path.write_text(json.dumps(settings))
    refused(folder, "has a tokenizer without a padding or end token")


QUANTISED = [
    BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16),
    BitsAndBytesConfig(load_in_8bit=True),
    GPTQConfig(bits=4, group_size=128, desc_act=False),
    AwqConfig(bits=4, group_size=128),
]


@pytest.mark.parametrize("method", QUANTISED, ids=lambda config: f"{config.quant_method}")
def test_a_quantised_model_is_refused(changed, method):
    settings = json.loads(method.to_json_string(use_diff=False))
    refused(
        configured(changed, quantization_config=settings), "is quantised; allowed: a base with float weights$"
    )


def test_a_model_of_another_trade_is_refused(changed):
    refused(configured(changed, model_type="vit"), "cannot be loaded as a text classifier: ")


def test_missing_truncated_and_pickled_weights_are_refused(changed):
    weights = changed / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (b"", content[:7], content[:1000], content[:-1]):
        weights.write_bytes(damaged)
        refused(changed, "cannot be loaded as a text classifier: ")
    weights.rename(changed / "pytorch_model.bin")
    refused(changed, "cannot be loaded as a text classifier: .* no file named model.safetensors")


@pytest.mark.parametrize("other", ["roberta", "distilbert"])
def test_weights_of_another_architecture_are_refused(changed, other):
    """Even where the head's names agree and would load."""
    refused(configured(changed, model_type=other), f"holds none of the weights of a {other} model")


def test_weights_that_lack_a_part_of_the_base_are_refused(changed):
    refused(configured(changed, num_hidden_layers=3), r"lacks weights .*: bert.encoder.layer.2.*, 16 in all")


def test_weights_of_another_size_are_refused(changed):
    refused(
        configured(changed, vocab_size=99),
        r"lacks weights .*: bert.embeddings.word_embeddings.weight, 1 in all",
    )


def test_code_beside_a_model_is_never_run_nor_asked_for(changed):
    (changed / "evil.py").write_text(f"open({str(changed / 'sprung')!r}, 'w')\nclass C: pass\n")
    auto = {
        "AutoConfig": "evil.C",
        "AutoModelForSequenceClassification": "evil.C",
        "AutoTokenizer": [None, "evil.C"],
    }
    refused(configured(changed, auto_map=auto, model_type="abacus"), "has a config that cannot be read: ")
    assert not (changed / "sprung").exists()
