"""Units really taken out: the same answers, the sizes on record, and folders that only open right."""

import copy
import json
import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, BertForSequenceClassification

from hardtack import shrunk
from hardtack.errors import InputError
from hardtack.loading import load
from hardtack.prunable import Prunable
from tests.tickets import random_masks
from tests.toys import logits_of, saved_toy, toy_inputs
from tests.zoo import IMAGES, UNITS, ZOO, toy_of

TEXTS = {name: kinds for name, kinds in UNITS.items() if name not in IMAGES}
WITHOUT_SDPA = ("mpnet", "deberta-v2", "deberta-v3", "gemma2", "resnet", "resnet-bottleneck", "convnext")
"""Families whose attention transformers writes out itself, or that have none."""


@torch.no_grad()
def masked(model, masks, kinds):
    """A copy with all that belongs to removed units at zero."""
    twin = copy.deepcopy(model)
    view = Prunable.of(twin, kinds)
    tensors = view.tensors(twin)
    for param, mask in view.spread(masks).items():
        tensors[param].mul_(mask)
    return twin


def smaller(model, masks):
    twin = copy.deepcopy(model)
    shrunk.shrink_(twin, masks)
    return twin


def same(one, other):
    return float((one - other).abs().max()) <= 1e-5 * max(1.0, float(other.abs().max()))


@pytest.fixture(autouse=True)
def calm():
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(before)
    transformers.logging.enable_progress_bar()


# ------------------------------------------------------------------------------------ the same answers


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("name", "kinds"), UNITS.items())
def test_a_shrunk_model_answers_as_the_masked_one(name, kinds, attention):
    """Check 2 of the specification, for every family of the table."""
    model = ZOO[name]()
    if attention == "sdpa":
        if name in WITHOUT_SDPA:
            assert model.config._attn_implementation in ("eager", None)
            return
        model.set_attn_implementation("sdpa")
    elif hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    inputs, masks = toy_inputs(model), random_masks(Prunable.of(model, kinds))
    zeros, small = masked(model, masks, kinds), smaller(model, masks)
    assert same(logits_of(small, inputs), logits_of(zeros, inputs))
    assert not torch.allclose(logits_of(small, inputs), logits_of(model, inputs), atol=0.1)
    view = Prunable.of(model, kinds)
    gone = sum(int((~mask).sum()) for mask in view.spread(masks).values())
    assert small.num_parameters() == model.num_parameters() - gone
    assert shrunk.is_shrunk(small)
    assert not shrunk.is_shrunk(model)


@pytest.mark.parametrize(("name", "kinds"), UNITS.items())
def test_a_shrunk_model_has_the_units_that_are_left_and_can_be_shrunk_again(name, kinds):
    """MPNet's layers go on reading their own heads of the shared bias."""
    model = ZOO[name]()
    inputs, first = toy_inputs(model), random_masks(Prunable.of(model, kinds))
    small = smaller(model, first)
    view = Prunable.of(small, kinds)
    assert {site.name: site.units for site in view.sites} == {n: int(m.sum()) for n, m in first.items()}
    second = {site.name: torch.ones(site.units, dtype=torch.bool) for site in view.sites}
    for mask in second.values():
        mask[0] = len(mask) == 1
    twice = {name: mask.clone() for name, mask in first.items()}
    for name_, mask in twice.items():
        mask[mask.nonzero().flatten()[~second[name_]]] = False
    found = logits_of(smaller(small, second), inputs)
    assert same(found, logits_of(masked(model, twice, kinds), inputs))
    assert same(found, logits_of(smaller(model, twice), inputs))


@pytest.mark.parametrize("name", ["bert", "mpnet", "gpt2", "deberta-v2"])
def test_a_shrunk_model_learns_as_the_masked_one(name):
    model = ZOO[name]()
    inputs, masks = toy_inputs(model), random_masks(Prunable.of(model, UNITS[name]))
    zeros, small = masked(model, masks, UNITS[name]), smaller(model, masks)
    for each in (zeros, small):
        each(**inputs).logits.square().sum().backward()
    shared = {n: p for n, p in zeros.named_parameters() if p.shape == small.get_parameter(n).shape}
    assert len(shared) > 5
    for param, theirs in shared.items():
        mine = small.get_parameter(param).grad
        assert (mine is None) == (theirs.grad is None), param
        assert mine is None or torch.allclose(mine, theirs.grad, rtol=1e-3, atol=1e-2), param


@pytest.mark.parametrize(("name", "kinds"), UNITS.items())
def test_what_a_shrunk_model_holds_can_be_written_back_to_where_it_was(name, kinds):
    """The full model then answers as the smaller one, and has zeros where units were taken out."""
    model = ZOO[name]()
    masks = random_masks(Prunable.of(model, kinds))
    small = smaller(model, masks)
    torch.manual_seed(5)
    with torch.no_grad():
        for tensor in small.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    shrunk.fill_(model, small, masks)
    inputs = toy_inputs(model)
    assert same(logits_of(model, inputs), logits_of(small, inputs))
    tensors = Prunable.of(model, kinds).tensors(model)
    for param, mask in Prunable.of(model, kinds).spread(masks).items():
        assert not bool(tensors[param][~mask].any()), param


def test_only_tickets_of_whole_units_that_empty_no_site_leave_a_smaller_model():
    model = ZOO["bert"]()
    view = Prunable.of(model, ("head", "neuron"))
    full = {site.name: torch.ones(site.units, dtype=torch.bool) for site in view.sites}
    some = {name: mask.clone() for name, mask in full.items()}
    first = next(iter(some))
    some[first][0] = False
    none = some | {first: torch.zeros_like(some[first])}
    assert shrunk.is_cut_by(some, view)
    assert not shrunk.is_cut_by(full, view)
    assert not shrunk.is_cut_by(none, view)
    single = Prunable.of(model, ("weight",))
    masks = {site.name: torch.zeros(site.units, dtype=torch.bool) for site in single.sites}
    for mask in masks.values():
        mask[0] = True
    assert not shrunk.is_cut_by(masks, single)


# ------------------------------------------------------------------------------------ folders


def written(folder, name="bert", masks=None):
    """A shrunk toy's folder, its model and inputs."""
    saved_toy(folder, name, makers=ZOO)
    model = ZOO[name]()
    view = Prunable.of(model, UNITS[name])
    shrunk.shrink_(model, masks(view) if masks else random_masks(view))
    (folder / "model.safetensors").unlink()
    shrunk.save(model, folder)
    return model, toy_inputs(model)


@pytest.mark.parametrize("name", TEXTS)
def test_written_and_loaded_in_one_line_it_is_the_same_model(name, tmp_path):
    model, inputs = written(tmp_path, name)
    loaded = load(str(tmp_path))
    assert type(loaded.model) is type(model)
    assert not loaded.fresh_head
    loaded.model.config.pad_token_id = model.config.pad_token_id  # the toy tokenizers' differs
    assert same(logits_of(loaded.model, inputs), logits_of(model, inputs))
    assert {n for n, _ in loaded.model.named_buffers()} == {n for n, _ in model.named_buffers()}
    assert loaded.model.config.shrunk_units == model.config.shrunk_units
    again = tmp_path / "again"
    shrunk.save(loaded.model, again)
    first, second = load_file(tmp_path / "model.safetensors"), load_file(again / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_plain_transformers_refuses_it_instead_of_opening_it_wrong(tmp_path):
    written(tmp_path)
    for opener in (AutoConfig, AutoModelForSequenceClassification):
        with pytest.raises(ValueError, match=shrunk.MODEL_TYPE):
            opener.from_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        BertForSequenceClassification.from_pretrained(tmp_path)


def even_neurons(count):
    def masks(view):
        return {
            site.name: torch.arange(site.units) % 7 < count for site in view.sites if site.kind == "neuron"
        }

    return masks


PLAIN = {"gpt2": "n_inner", "distilbert": "hidden_dim"}


@pytest.mark.parametrize("name", TEXTS)
def test_even_widths_make_an_ordinary_folder(name, tmp_path):
    model, inputs = written(tmp_path, name, even_neurons(3))
    assert not shrunk.is_shrunk(model)
    config = json.loads((tmp_path / "config.json").read_text())
    attribute = PLAIN.get(name, "intermediate_size")
    width = sum(number % 7 < 3 for number in range(getattr(ZOO[name]().config, attribute)))
    assert config["model_type"] == model.config.model_type
    assert config[attribute] == width
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(logits_of(theirs.eval(), inputs), logits_of(model, inputs))


def test_one_layer_left_whole_is_not_even():
    model = ZOO["bert"]()
    mask = torch.arange(40) < 9
    shrunk.shrink_(model, {"encoder.layer.1.neurons": mask})
    assert model.config.shrunk_units == {"encoder.layer.1.neurons": 9}
    shrunk.shrink_(model, {"encoder.layer.0.neurons": mask})
    assert not shrunk.is_shrunk(model)
    assert model.config.intermediate_size == 9


def test_what_loses_nothing_is_not_on_record():
    model = ZOO["bert"]()
    masks = {
        site.name: torch.ones(site.units, dtype=torch.bool) for site in Prunable.of(model, ("head",)).sites
    }
    shrunk.shrink_(model, masks | even_neurons(4)(Prunable.of(model, ("neuron",))))
    assert not shrunk.is_shrunk(model)  # all heads are there, and all layers are alike
    assert model.config.intermediate_size == 24


def test_a_head_that_was_never_trained_is_not_written(tmp_path):
    model, _ = written(tmp_path)
    shrunk.save(model, tmp_path / "bare", head=False)
    assert not any(key.startswith("classifier") for key in load_file(tmp_path / "bare" / "model.safetensors"))


# ------------------------------------------------------------------------------------ damaged folders


def changed(folder, change):
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("shrunk_from"), "is no config of a shrunk model: 'shrunk_from'"),
        (lambda c: c.update(shrunk_from="nothing"), "is no config of a shrunk model"),
        (lambda c: c.update(shrunk_units={}), "has to name a size above 0 for each site"),
        (lambda c: c["shrunk_units"].update({"encoder.layer.0.neurons": 0}), "a size above 0"),
        (lambda c: c["shrunk_units"].update({"encoder.layer.0.heads": [1, 1]}), "a size above 0"),
        (lambda c: c["shrunk_units"].update({"encoder.layer.0.heads": 2}), "heads as lists"),
        (lambda c: c["shrunk_units"].update({"encoder.layer.7.heads": [0]}), "names encoder.layer.7.heads"),
        (lambda c: c["shrunk_units"].update({"encoder.layer.0.heads": [5]}), "6 units; allowed: up to 3"),
        (
            lambda c: c["shrunk_units"].update({"encoder.layer.0.neurons": 11}),
            "by shrunk_units of config.json",
        ),
        (lambda c: c.update(hidden_size=3 * 10**6), "by shrunk_units of config.json"),
        (lambda c: c.update(intermediate_size=10**9), "a tensor 1000000000 wide; allowed: up to 16777216"),
        (lambda c: c.update(vocab_size=10**7), "by shrunk_units of config.json"),
        (lambda c: c.update(num_attention_heads=5), "cannot be built"),
        (
            lambda c: c.update(num_hidden_layers=10**7),
            "num_hidden_layers 10000000 in config.json; allowed: up to TENSORS, the files' tensors",
        ),
    ],
)
def test_a_folder_whose_sizes_do_not_fit_is_refused_in_one_line_before_memory_is_taken(
    change, words, tmp_path
):
    written(tmp_path)
    changed(tmp_path, change)
    words = words.replace("TENSORS", str(len(load_file(tmp_path / "model.safetensors"))))
    with pytest.raises(InputError) as error:
        load(str(tmp_path))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("index", ["no JSON", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": []}}'])
def test_a_damaged_index_is_refused_in_one_line_unless_all_weights_lie_beside_it(tmp_path, index):
    written(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    load(str(tmp_path))  # transformers takes model.safetensors first, too
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    with pytest.raises(
        InputError, match=r"has a model\.safetensors\.index\.json that cannot be read"
    ) as error:
        load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_weights_in_several_files_are_read_where_their_index_says(tmp_path):
    model, _ = written(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    names = sorted(tensors)
    places = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(names)}
    for part in set(places.values()):
        held = {name: tensors[name] for name in names if places[name] == part}
        save_file(held, tmp_path / part, metadata={"format": "pt"})
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    loaded = load(str(tmp_path)).model
    inputs = toy_inputs(model)
    assert torch.equal(logits_of(loaded, inputs), logits_of(model, inputs))


def test_missing_and_damaged_weights_are_refused_in_one_line(tmp_path):
    written(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("bert.encoder.layer.0.output.dense.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"layer\.0\.output\.dense\.weight is missing in the file"):
        load(str(tmp_path))
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no safetensors file"):
        load(str(tmp_path))
    path.unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors; allowed: weights in safetensors"):
        load(str(tmp_path))


def test_an_even_decoder_is_the_one_that_its_config_describes():
    model = toy_of("llama")
    shrunk.shrink_(model, even_neurons(2)(Prunable.of(model, ("neuron",))))
    twin = type(model)(model.config)
    twin.load_state_dict(model.state_dict())
    inputs = toy_inputs(model)
    assert torch.equal(logits_of(twin.eval(), inputs), logits_of(model, inputs))
