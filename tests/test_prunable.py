import time

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING, BertConfig, BertModel, GPT2Config, GPT2Model, ResNetModel
from transformers.pytorch_utils import Conv1D

from hardtack.errors import InputError
from hardtack.families import FAMILIES
from hardtack.prunable import Prunable, base_of, unlisted
from tests.toys import TOYS, toy_gpt2_lm
from tests.zoo import TEXTS, UNITS, ZOO

KINDS = ("head", "neuron")


def full(view, value=True):
    return {site.name: torch.full((site.units,), value) for site in view.sites}


# ------------------------------------------------------------------------------------ what is prunable


def test_bert_base_has_the_73_matrices_of_the_paper():
    """12 layers of four 768 x 768 and two 768 x 3072 matrices, and the pooler: 85,524,480 weights."""
    with torch.device("meta"):
        model = BertModel(BertConfig())
    view = Prunable.of(model)
    assert len(view.sites) == 73
    assert view.units == 12 * (4 * 768**2 + 2 * 768 * 3072) + 768**2 == 84_934_656 + 589_824 == 85_524_480
    without = Prunable.of(model, keep_whole=("pooler*",))
    assert (len(without.sites), without.units) == (72, 84_934_656)
    assert not [name for name in view.shapes if "LayerNorm" in name or "embeddings" in name or "bias" in name]
    units = Prunable.of(model, KINDS)
    assert [sum(s.units for s in units.sites if s.kind == kind) for kind in KINDS] == [144, 12 * 3072]


@pytest.mark.parametrize(("name", "kinds"), [("bert", ("weight", *KINDS)), ("resnet", ("weight", "channel"))])
def test_looking_at_a_model_of_full_size_takes_less_than_a_tenth_of_a_second(name, kinds):
    with torch.device("meta"):
        model = {"bert": BertModel, "resnet": ResNetModel}[name](CONFIG_MAPPING[name]())
    spent = []
    for _ in range(3):
        began = time.process_time()
        Prunable.of(model, kinds)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.1


def test_gpt2_small_has_48_matrices():
    with torch.device("meta"):
        model = GPT2Model(GPT2Config())
    view = Prunable.of(model)
    assert (len(view.sites), view.units) == (48, 12 * (768 * 2304 + 768 * 768 + 2 * 768 * 3072))


@pytest.mark.parametrize(
    ("name", "sites", "units"),
    [
        ("bert", 13, 2 * (4 * 24 * 24 + 2 * 24 * 40) + 24 * 24),
        ("albert", 7, 4 * 20 * 20 + 2 * 20 * 36 + 20 * 20),  # three layers share one
        ("gpt2", 8, 2 * (4 * 36 * 36 + 2 * 36 * 44)),
        ("distilbert", 12, 2 * (4 * 32 * 32 + 2 * 32 * 52)),
        ("roberta", 12, 2 * (4 * 32 * 32 + 2 * 32 * 52)),
        ("electra", 12, 2 * (4 * 28 * 28 + 2 * 28 * 44)),
        ("mpnet", 12, 2 * (4 * 28 * 28 + 2 * 28 * 44)),
        ("deberta-v2", 17, 2 * (6 * 28 * 28 + 2 * 28 * 44) + 3 * 28 * 28),  # positions' and a convolution
        ("deberta-v3", 12, 2 * (4 * 28 * 28 + 2 * 28 * 44)),
        ("modernbert", 12, 3 * (4 * 28 * 28 + 3 * 28 * 44)),
        ("llama", 14, 2 * (2 * 36 * 60 + 2 * 36 * 30 + 3 * 36 * 44)),
        ("qwen2", 14, 2 * (2 * 60 * 60 + 2 * 60 * 30 + 3 * 60 * 44)),
        ("gemma3_text", 14, 2 * (2 * 36 * 60 + 2 * 36 * 30 + 3 * 36 * 44)),
        ("vit", 12, 2 * (4 * 28 * 28 + 2 * 28 * 44)),  # patches are embedded: no site
        ("resnet", 9, 6 * 3 * 49 + (60 + 10 * 6 * 9 + 900) + 2 * 900 + (140 + 14 * 10 * 9 + 14 * 14 * 9)),
        ("resnet-bottleneck", 12, 6 * 3 * 49 + (96 + 24 + 144 + 64) + (448 + 112 + 441 + 196) + 833),
        ("convnext", 11, 270 + (490 + 800) + 560 + 2 * (686 + 2 * 14 * 56)),
        ("squeezebert", 13, 2 * (3 * 256 + 1024 + 2 * 416) + 1024),  # unlisted: the pooler counts, too
        ("conv", 4, 8 * 3 * 9 + 12 * 8 * 9 + 20 * 12 * 4 + 2 * 20),
    ],
)
def test_weights_by_hand(name, sites, units):
    view = Prunable.of(ZOO[name]())
    assert (len(view.sites), view.units) == (sites, units)
    assert all(site.kind == "weight" and site.name in view.shapes for site in view.sites)
    assert not [site.name for site in view.sites if "classifier" in site.name or "score" in site.name]


@pytest.mark.parametrize(
    (
        "name",
        "units",
        "widths",
    ),  # of the rows of q, k, v (and others) and the columns of the output, then of neurons
    [
        ("bert", [3, 3, 40, 40], [8]),
        ("albert", [2, 36], [10]),
        ("gpt2", [3, 3, 44, 44], [12]),
        ("distilbert", [4, 4, 52, 52], [8]),
        ("mpnet", [4, 4, 44, 44], [7]),
        ("deberta-v2", [4, 4, 44, 44], [7]),
        ("modernbert", [2, 2, 2, 44, 44, 44], [14]),
        ("llama", [3, 3, 44, 44], [10, 20]),  # a key head of 10 and the two query heads that read it
        ("qwen2", [3, 3, 44, 44], [10, 20]),
        ("qwen3", [3, 3, 44, 44], [10, 20]),
        ("gemma", [3, 3, 44, 44], [10, 20]),
        ("vit", [4, 4, 44, 44], [7]),
        ("convnext", [40, 56, 56], []),
        ("resnet", [10, 10, 14], []),
        ("resnet-bottleneck", [4, 4, 7, 7, 7, 7], []),
    ],
)
def test_units_by_hand(name, units, widths):
    view = Prunable.of(ZOO[name](), UNITS[name])
    assert [site.units for site in view.sites] == units
    for site in view.sites:
        found = {index.shape[1] for _, _, index in site.slices}
        assert found == (set(widths) if site.kind == "head" else {1})
        assert all(len(index) == site.units for _, _, index in site.slices)
        assert site.exit in site.slices


@pytest.mark.parametrize(
    ("name", "kind", "elements"),
    [
        ("bert", "head", 2 * (3 * (24 * 24 + 24) + 24 * 24)),  # rows and biases of q, k, v; columns of o
        ("bert", "neuron", 2 * (24 * 40 + 40 + 40 * 24)),
        ("albert", "head", 3 * (20 * 20 + 20) + 20 * 20),
        ("albert", "neuron", 20 * 36 + 36 + 36 * 20),
        ("gpt2", "head", 2 * (36 * 108 + 108 + 36 * 36)),
        ("gpt2", "neuron", 2 * (36 * 44 + 44 + 44 * 36)),
        ("deberta-v2", "head", 2 * (5 * (28 * 28 + 28) + 28 * 28)),
        ("deberta-v3", "head", 2 * (3 * (28 * 28 + 28) + 28 * 28)),
        ("modernbert", "head", 3 * (3 * (28 * 28 + 28) + 28 * 28)),
        ("modernbert", "neuron", 3 * (2 * (28 * 44 + 44) + 44 * 28)),
        ("llama", "head", 2 * (60 * 36 + 60 + 2 * (30 * 36 + 30) + 36 * 60)),
        ("llama", "neuron", 2 * (2 * (36 * 44 + 44) + 44 * 36)),
        ("qwen3", "head", 2 * (60 * 36 + 60 + 2 * (30 * 36 + 30) + 36 * 60)),  # and no q_norm
        ("deit", "head", 2 * (4 * 28 * 28)),  # made without biases
        ("convnext", "neuron", (10 * 40 + 40 + 40 * 10) + 2 * (14 * 56 + 56 + 56 * 14)),
        # rows of a convolution, the norm's weight and bias, the next one's inputs
        ("resnet", "channel", (10 * 6 * 9 + 20 + 900) + (900 + 20 + 900) + (14 * 10 * 9 + 28 + 14 * 14 * 9)),
    ],
)
def test_a_unit_owns_its_rows_its_biases_and_its_columns(name, kind, elements):
    view = Prunable.of(ZOO[name](), (kind,))
    assert sum(shape.numel() for shape in view.shapes.values()) == elements
    gone = view.spread(full(view, False))
    assert sum(int((~mask).sum()) for mask in gone.values()) == elements


def test_query_heads_stay_with_the_key_head_that_they_read():
    """Key head 1 of 3 (rows 10 to 19) is read by query heads 2 and 3 of 6 (rows 20 to 39)."""
    (site, _) = Prunable.of(ZOO["llama"](), ("head",)).sites
    rows = {slice_.param.split(".")[-2]: slice_.index[1].tolist() for slice_ in site.slices}
    assert rows == {
        "q_proj": [*range(20, 40)], "k_proj": [*range(10, 20)], "v_proj": [*range(10, 20)],
        "o_proj": [*range(20, 40)],
    }  # fmt: skip


def test_a_gated_neuron_is_a_row_of_each_half():
    site = Prunable.of(ZOO["modernbert"](), ("neuron",)).sites[0]
    rows = [(slice_.param.removeprefix("layers.0.mlp."), slice_.index[3].tolist()) for slice_ in site.slices]
    assert rows == [
        ("Wi.weight", [3]),
        ("Wi.bias", [3]),
        ("Wi.weight", [47]),
        ("Wi.bias", [47]),
        ("Wo.weight", [3]),
    ]


def test_inputs_of_a_matrix_are_known_in_any_module():
    """transformers' Conv1D stores [in, out], torch's modules [out, in, ...]."""
    view = Prunable.of(nn.Sequential(nn.Linear(4, 3), Conv1D(5, 3), nn.Conv2d(2, 6, 3)))
    assert [(site.exit.dim, tuple(view.shapes[site.name])) for site in view.sites] == [
        (1, (3, 4)),
        (0, (3, 5)),
        (1, (6, 2, 3, 3)),
    ]


@pytest.mark.parametrize("name", TEXTS)
def test_a_bare_encoder_has_the_same_sites_as_one_with_a_head(name):
    model = ZOO[name]()
    whole, bare = Prunable.of(model), Prunable.of(base_of(model))
    assert [site.name for site in whole.sites] == [site.name for site in bare.sites]
    assert whole.shapes == bare.shapes
    assert base_of(base_of(model)) is base_of(model) is model.base_model


def test_a_language_model_has_the_sites_of_its_decoder():
    assert Prunable.of(toy_gpt2_lm()).shapes == Prunable.of(TOYS["gpt2"]()).shapes


def test_a_plain_module_is_its_own_base():
    model = TOYS["conv"]()
    assert base_of(model) is model
    assert [site.name for site in Prunable.of(nn.Linear(3, 2)).sites] == ["weight"]


def test_a_tied_weight_counts_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    assert [site.name for site in Prunable.of(model).sites] == ["0.weight"]


def test_kinds_come_in_the_order_asked_for_and_once():
    model = TOYS["bert"]()
    view = Prunable.of(model, ("neuron", "weight", "neuron"))
    assert view.granularity == ("neuron", "weight")
    assert [site.kind for site in view.sites] == ["neuron"] * 2 + ["weight"] * 13


def test_sites_can_be_kept_whole():
    model = TOYS["bert"]()
    view = Prunable.of(model, keep_whole=("pooler*", "*.0.*"))
    assert [site.name for site in view.sites] == [
        f"encoder.layer.1.{module}.weight"
        for module in (
            "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
            "intermediate.dense", "output.dense",
        )
    ]  # fmt: skip
    assert view.keep_whole == ("pooler*", "*.0.*")
    assert set(view.shapes) == {site.name for site in view.sites}


def test_a_model_without_pooler_has_no_site_for_it():
    config = TOYS["bert"]().config
    assert len(Prunable.of(BertModel(config, add_pooling_layer=False)).sites) == 12


@pytest.mark.parametrize(
    ("name", "granularity", "keep_whole", "says"),
    [
        ("bert", ("weight",), ("*",), "nothing to prune in BertModel at granularity weight"),
        ("bert", (), (), "nothing to prune in BertModel"),
        ("bert", (), ("pooler*",), "nothing to prune in BertModel"),
        ("bert", ("heads",), (), "granularity 'heads' does not exist; did you mean 'head'"),
        ("bert", ("channel",), (), "'channel' is not known for BertModel; .* weight, head, neuron$"),
        ("squeezebert", ("head",), (), "'head' is not known for SqueezeBertModel; allowed: weight$"),
        ("convnext", ("head",), (), "'head' is not known for ConvNextModel; allowed: weight, neuron$"),
        ("resnet", ("neuron",), (), "'neuron' is not known for ResNetModel; allowed: weight, channel$"),
        ("conv", ("neuron",), (), "granularity 'neuron' is not known for ToyConv; allowed: weight$"),
    ],
)
def test_what_cannot_be_pruned_is_refused(name, granularity, keep_whole, says):
    with pytest.raises(InputError, match=says):
        Prunable.of(ZOO[name](), granularity, keep_whole)


def test_a_model_without_matrices_has_nothing_to_prune():
    with pytest.raises(InputError, match="nothing to prune in LayerNorm"):
        Prunable.of(nn.LayerNorm(3))


def test_tensors_finds_the_models_own_parameters():
    model = TOYS["bert"]()
    view = Prunable.of(model, KINDS)
    tensors = view.tensors(model)
    own = dict(model.bert.named_parameters())
    assert tensors.keys() == view.shapes.keys()
    assert all(tensors[name] is own[name] for name in tensors)


def test_tensors_refuses_another_model():
    view = Prunable.of(TOYS["bert"]())
    with pytest.raises(InputError, match=r"GPT2.* does not fit: .* should be \(24, 24\), is no such tensor"):
        view.tensors(TOYS["gpt2"]())
    wide = BertModel(
        BertConfig(hidden_size=30, num_attention_heads=3, intermediate_size=40, num_hidden_layers=2)
    )
    with pytest.raises(InputError, match=r"should be \(24, 24\), is \(30, 30\)"):
        view.tensors(wide)


def test_the_table_speaks_of_the_families_that_have_a_toy():
    config = {name: getattr(ZOO[name](), "config", None) for name in ZOO}
    found = {name: FAMILIES.get(getattr(config[name], "model_type", "")) for name in ZOO}
    assert {config[name].model_type for name in UNITS} == set(FAMILIES)
    assert {name: family.kinds[1:] for name, family in found.items() if family} == UNITS


def test_a_family_that_the_table_lacks_is_named():
    assert unlisted(ZOO["squeezebert"]()) == (
        "SqueezeBertModel is not in the table of families: each of its linear and convolution weights can "
        "go, its heads, neurons and channels are not known"
    )
    assert str(unlisted(nn.Linear(2, 2))).startswith("Linear is not in the table")
    assert [name for name in UNITS if unlisted(ZOO[name]()) or unlisted(base_of(ZOO[name]()))] == []


@pytest.mark.parametrize("kind", ["weight", "head"])
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (
            lambda base: setattr(base.encoder, "layer", nn.ModuleList()),
            "BertModel has no layers at encoder.layer",
        ),
        (
            lambda base: delattr(base.encoder.layer[1].attention.self, "key"),
            "BertModel has no weight at encoder.layer.1.attention.self.key",
        ),
    ],
)
def test_modules_that_have_been_renamed_are_an_error_and_not_left_out(kind, broken, says):
    base = ZOO["bert"]().base_model
    broken(base)
    with pytest.raises(
        InputError, match=rf"^{says}.*; its family's entry is for another version of transformers$"
    ):
        Prunable.of(base, (kind,))
