import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model
from transformers.pytorch_utils import Conv1D

from hardtack.errors import InputError
from hardtack.families import FAMILIES
from hardtack.prunable import Prunable, base_of
from tests.toys import STRUCTURED, TEXT, TOYS, toy_gpt2_lm

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
        ("conv", 4, 8 * 3 * 9 + 12 * 8 * 9 + 20 * 12 * 4 + 2 * 20),
    ],
)
def test_weights_by_hand(name, sites, units):
    view = Prunable.of(TOYS[name]())
    assert (len(view.sites), view.units) == (sites, units)
    assert all(site.kind == "weight" and site.name in view.shapes for site in view.sites)
    assert not [site.name for site in view.sites if "classifier" in site.name or "score" in site.name]


@pytest.mark.parametrize(
    ("name", "units"), [("bert", [3, 3, 40, 40]), ("albert", [2, 36]), ("gpt2", [3, 3, 44, 44])]
)
def test_heads_and_neurons_by_hand(name, units):
    view = Prunable.of(TOYS[name](), KINDS)
    assert [site.units for site in view.sites] == units
    for site in view.sites:
        width = {"bert": 8, "albert": 10, "gpt2": 12}[name] if site.kind == "head" else 1
        assert all(index.shape == (site.units, width) for _, _, index in site.slices)
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
    ],
)
def test_a_unit_owns_its_rows_its_biases_and_its_columns(name, kind, elements):
    view = Prunable.of(TOYS[name](), (kind,))
    assert sum(shape.numel() for shape in view.shapes.values()) == elements
    gone = view.spread(full(view, False))
    assert sum(int((~mask).sum()) for mask in gone.values()) == elements


def test_inputs_of_a_matrix_are_known_in_any_module():
    """transformers' Conv1D stores [in, out], torch's modules [out, in, ...]."""
    view = Prunable.of(nn.Sequential(nn.Linear(4, 3), Conv1D(5, 3), nn.Conv2d(2, 6, 3)))
    assert [(site.exit.dim, tuple(view.shapes[site.name])) for site in view.sites] == [
        (1, (3, 4)),
        (0, (3, 5)),
        (1, (6, 2, 3, 3)),
    ]


@pytest.mark.parametrize("name", TEXT)
def test_a_bare_encoder_has_the_same_sites_as_one_with_a_head(name):
    model = TOYS[name]()
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
        ("distilbert", ("head",), (), "'head' is not known for DistilBertModel; allowed: weight$"),
        ("conv", ("neuron",), (), "granularity 'neuron' is not known for ToyConv; allowed: weight$"),
    ],
)
def test_what_cannot_be_pruned_is_refused(name, granularity, keep_whole, says):
    with pytest.raises(InputError, match=says):
        Prunable.of(TOYS[name](), granularity, keep_whole)


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


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_speaks_of_families_that_have_a_toy(family):
    assert family in STRUCTURED


VIEWS = {name: Prunable.of(TOYS[name](), KINDS) for name in STRUCTURED}

# ------------------------------------------------------------------------------------ spread and pooled


def brute_force(view, site, unit):
    """Yield (parameter, bool of its shape) for each tensor that a unit of a site has a part in."""
    for param, dim, index in site.slices:
        part = torch.zeros(view.shapes[param], dtype=torch.bool)
        if index is None:
            part.view(-1)[unit] = True
        else:
            for position in index[unit].tolist():
                part.select(dim, position).fill_(True)
        yield param, part


@pytest.mark.parametrize("name", STRUCTURED)
@pytest.mark.parametrize("kinds", [("head",), ("neuron",), KINDS])
def test_spread_equals_brute_force(name, kinds):
    model = TOYS[name]()
    view = Prunable.of(model, kinds)
    masks = {site.name: torch.rand(site.units) < 0.6 for site in view.sites}
    wanted = {param: torch.ones(shape, dtype=torch.bool) for param, shape in view.shapes.items()}
    for site in view.sites:
        for unit in (~masks[site.name]).nonzero().flatten().tolist():
            for param, part in brute_force(view, site, unit):
                wanted[param] &= ~part
    spread = view.spread(masks)
    assert spread.keys() == wanted.keys()
    assert all(torch.equal(spread[param], wanted[param]) for param in wanted)
    assert all(mask.dtype == torch.bool and mask.is_contiguous() for mask in spread.values())


@pytest.mark.parametrize("name", TOYS)
def test_spread_of_weights_is_the_mask_in_the_tensors_shape(name):
    model = TOYS[name]()
    view = Prunable.of(model)
    masks = {site.name: torch.rand(site.units) < 0.5 for site in view.sites}
    for param, mask in view.spread(masks).items():
        assert torch.equal(mask.flatten(), masks[param])
        assert mask.shape == dict(base_of(model).named_parameters())[param].shape


def test_spread_of_two_kinds_is_their_intersection():
    model = TOYS["gpt2"]()
    both = Prunable.of(model, ("weight", "head"))
    masks = {site.name: torch.rand(site.units) < 0.7 for site in both.sites}
    parts = [Prunable.of(model, (kind,)).spread(masks) for kind in ("weight", "head")]
    for param, mask in both.spread(masks).items():
        wanted = torch.stack([part[param] for part in parts if param in part]).all(0)
        assert torch.equal(mask, wanted)


@pytest.mark.parametrize("name", STRUCTURED)
def test_pooled_equals_brute_force(name):
    view = Prunable.of(TOYS[name](), KINDS)
    values = {param: torch.randn(shape, dtype=torch.float64) for param, shape in view.shapes.items()}
    pooled = view.pooled(values)
    for site in view.sites:
        assert pooled[site.name].shape == (site.units,)
        for unit in {0, 1, site.units - 1}:
            wanted = sum(values[param][part].sum() for param, part in brute_force(view, site, unit))
            assert float(pooled[site.name][unit]) == pytest.approx(float(wanted), abs=1e-9)


@pytest.mark.parametrize("name", TOYS)
def test_pooled_weights_are_the_values_themselves(name):
    view = Prunable.of(TOYS[name]())
    values = {param: torch.randn(shape) for param, shape in view.shapes.items()}
    assert all(torch.equal(pooled, values[site].flatten()) for site, pooled in view.pooled(values).items())


@pytest.mark.parametrize("name", STRUCTURED)
def test_heads_and_neurons_each_cover_their_tensors_once(name):
    """Summing ones over all units counts every element of q, k, v, o (and of the feed-forward block) once."""
    for kind in KINDS:
        view = Prunable.of(TOYS[name](), (kind,))
        ones = {param: torch.ones(shape) for param, shape in view.shapes.items()}
        total = sum(float(pooled.sum()) for pooled in view.pooled(ones).values())
        assert total == sum(shape.numel() for shape in view.shapes.values())


@given(st.integers(0, 10_000), st.sampled_from(STRUCTURED))
def test_pooled_and_spread_agree(seed, name):
    """What spread removes for one unit is exactly what pooled sums up for it."""
    view = VIEWS[name]
    rng = torch.Generator().manual_seed(seed)
    values = {param: torch.rand(shape, generator=rng).double() for param, shape in view.shapes.items()}
    site = view.sites[int(torch.randint(len(view.sites), (), generator=rng))]
    unit = int(torch.randint(site.units, (), generator=rng))
    masks = full(view)
    masks[site.name][unit] = False
    removed = sum(float(values[param][~mask].sum()) for param, mask in view.spread(masks).items())
    assert removed == pytest.approx(float(view.pooled(values)[site.name][unit]))
