import itertools
import math
from decimal import ROUND_HALF_UP, Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardtack.errors import InputError
from hardtack.prunable import Prunable
from hardtack.select import Sparsity, checked, cut, draw, round_half_up
from tests.toys import STRUCTURED, TOYS

# ------------------------------------------------------------------------------------ sparsities

BOTH = Sparsity(per_kind=(("head", 0.17), ("neuron", 0.4)))


@pytest.mark.parametrize(
    ("text", "wanted", "name"),
    [
        ("0.5", Sparsity(fraction=0.5), "sparsity-0.5000"),
        (0.3, Sparsity(fraction=0.3), "sparsity-0.3000"),
        (0, Sparsity(fraction=0.0), "sparsity-0.0000"),
        ("-0", Sparsity(fraction=0.0), "sparsity-0.0000"),
        (" 1e-3 ", Sparsity(fraction=0.001), "sparsity-0.0010"),
        ("head=0.17,neuron=0.4", BOTH, "head-0.1700_neuron-0.4000"),
        ("neuron = 0.4, head=.17", BOTH, "head-0.1700_neuron-0.4000"),
        ("2:4", Sparsity(banks=(2, 4)), "banks-2of4"),
        ("1:16", Sparsity(banks=(1, 16)), "banks-1of16"),
        ("learned", Sparsity(learned=True), "learned"),
        ("parameters=0.5", Sparsity(cost=("parameters", 0.5)), "parameters-0.5000"),
        ("flops = .25", Sparsity(cost=("flops", 0.25)), "flops-0.2500"),
        ("latency=0.1", Sparsity(cost=("latency", 0.1)), "latency-0.1000"),
    ],
)
def test_sparsities_are_read_and_named(text, wanted, name):
    assert Sparsity.parse(text) == wanted
    assert str(Sparsity.parse(text)) == name
    assert Sparsity.parse(wanted) is wanted


@pytest.mark.parametrize(
    "text",
    "1|1.0|-0.1|30%|nan|inf||half|0.5,0.6|4:4|0:4|5:4|2:4:8|-2:4|2.0:4|head=1|head=|=0.5|head=0.1,|"
    "head=0.1,neck=0.2|head=0.1,head=0.2|Learned|flops=1|flops=|flops=0.5,head=0.2|flops=0.1,flops=0.1|"
    "latency=20ms|parameters=0.12345".split("|"),
)
def test_other_sparsities_are_refused_in_one_line_that_names_them(text):
    with pytest.raises(InputError, match="sparsity") as caught:
        Sparsity.parse(text)
    assert "\n" not in str(caught.value)
    assert repr(text.strip()) in str(caught.value)


@given(st.integers(0, 9999), st.integers(0, 9999))
def test_a_name_tells_four_decimals_and_no_two_share_it(one, two):
    first, second = Sparsity.parse(one / 10000), Sparsity.parse(str(two / 10000))
    assert Sparsity.parse(str(first).removeprefix("sparsity-")) == first
    assert (str(first) == str(second)) == (one == two)


def test_fractions_by_kind():
    assert Sparsity.parse("0.3").of("head") == Sparsity.parse("0.3").of("weight") == 0.3
    both = Sparsity.parse("head=0.17,neuron=0.4")
    assert [both.of(kind) for kind in ("head", "neuron", "weight")] == [0.17, 0.4, 0.0]


@given(st.integers(0, 999_999), st.integers(1, 200_000_000))
def test_counts_round_halves_up_as_on_paper(millionths, units):
    exact = Decimal(millionths) / 1_000_000 * units
    assert round_half_up(millionths / 1_000_000 * units) == exact.to_integral_value(ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("number", "wanted"), [(0.5, 1), (1.5, 2), (2.5, 3), (2.4999, 2), (0.285 * 100, 29), (0, 0)]
)
def test_halves_go_up(number, wanted):
    assert round_half_up(number) == wanted


# ------------------------------------------------------------------------------------ cut


def sorted_cut(scores, count, eligible=None):
    """The same by a plain sort: lowest first, among equals the later position first."""
    flat = scores.flatten().tolist()
    able = [True] * len(flat) if eligible is None else eligible.flatten().tolist()
    order = sorted(
        (position for position in range(len(flat)) if able[position]), key=lambda at: (flat[at], -at)
    )
    mask = torch.ones(len(flat), dtype=torch.bool)
    mask[torch.tensor(order[:count], dtype=torch.long)] = False
    return mask.view(scores.shape)


def test_cut_by_hand():
    scores = torch.tensor([[3.0, 1.0, 2.0], [1.0, 0.0, 1.0]])
    kept = [cut(scores, count).int().flatten().tolist() for count in range(7)]
    assert kept == [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0, 1],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


@given(st.data())
def test_cut_equals_a_plain_sort_with_many_ties(data):
    scores = torch.tensor(
        data.draw(st.lists(st.integers(-3, 3), min_size=1, max_size=40)), dtype=torch.float32
    )
    eligible = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))), dtype=torch.bool
    )
    count = data.draw(st.integers(0, len(scores)))
    assert torch.equal(cut(scores, count), sorted_cut(scores, count))
    some = min(count, int(eligible.sum()))
    assert torch.equal(cut(scores, some, eligible), sorted_cut(scores, some, eligible))


@pytest.mark.parametrize("levels", [1, 7, 5000])
def test_cut_equals_a_plain_sort_on_a_long_vector(levels):
    scores = torch.randint(levels, (100, 307)).float() / 7 - levels / 14
    for count in (0, 1, 4321, 30_699, 30_700):
        assert torch.equal(cut(scores, count), sorted_cut(scores, count))


def test_cut_takes_signed_zeros_for_equal():
    assert cut(torch.tensor([0.0, -0.0, 0.0, -0.0]), 2).tolist() == [True, True, False, False]


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_cut_is_invariant_under_strictly_increasing_maps(seed, size):
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randint(-20, 20, (size,), generator=rng).double()
    count = int(torch.randint(size + 1, (), generator=rng))
    mask = cut(scores, count)
    for image in (
        scores * 3 + 100,
        scores.pow(3),
        torch.exp(scores / 4),
        torch.sigmoid(scores / 8),
        scores.float(),
    ):
        assert torch.equal(cut(image, count), mask)


@given(st.integers(0, 10_000), st.integers(2, 200))
def test_larger_cuts_contain_smaller_ones(seed, size):
    rng = torch.Generator().manual_seed(seed)
    scores = torch.randint(5, (size,), generator=rng).float()
    small, large = sorted(torch.randint(size + 1, (2,), generator=rng).tolist())
    assert not (cut(scores, large) & ~cut(scores, small)).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(InputError, match="NaN or infinity"):
        cut(torch.tensor([1.0, bad, 0.0]), 1)


def test_cut_changes_nothing_it_was_given():
    scores = torch.randn(9, requires_grad=True)
    before = scores.detach().clone()
    assert not cut(scores, 3).requires_grad
    assert torch.equal(scores, before)


# ------------------------------------------------------------------------------------ draw


def random_scores(view, levels=None, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {
        site.name: torch.randn(site.units, generator=rng)
        if levels is None
        else torch.randint(levels, (site.units,), generator=rng).float()
        for site in view.sites
    }


VIEWS = {name: Prunable.of(TOYS[name]()) for name in TOYS}
UNITS = {name: Prunable.of(TOYS[name](), ("head", "neuron")) for name in STRUCTURED}


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("scope", ["global", "site", "row"])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.517, 0.8])
def test_exact_counts_of_weights(name, scope, fraction):
    view = VIEWS[name]
    masks = draw(view, random_scores(view, levels=6), Sparsity(fraction=fraction), scope)
    gone = {site: int((~mask).sum()) for site, mask in masks.items()}
    assert list(masks) == [site.name for site in view.sites]
    if scope == "global":
        assert sum(gone.values()) == round_half_up(fraction * view.units)
        return
    for site in view.sites:
        if scope == "site":
            assert gone[site.name] == round_half_up(fraction * site.units)
        else:
            per_row = by_output(view, site, masks[site.name])
            assert set((~per_row).sum(1).tolist()) == {round_half_up(fraction * per_row.shape[1])}


def by_output(view, site, mask):
    """A mask as [outputs, inputs], told apart by the type of the module and not by the code under test."""
    shape = view.shapes[site.name]
    transposed = site.name.startswith("h.")  # GPT-2's layers
    return mask.view(shape).t() if transposed else mask.view(shape[0], -1)


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2", "distilbert"])
@pytest.mark.parametrize("banks", [(2, 4), (1, 4), (1, 2)])
@pytest.mark.parametrize("levels", [None, 2])
def test_banks_keep_exactly_n_of_m_inputs_of_each_output(name, banks, levels):
    view = VIEWS[name]
    keep, size = banks
    scores = random_scores(view, levels)
    masks = draw(view, scores, Sparsity(banks=banks))
    for site in view.sites:
        per_bank = by_output(view, site, masks[site.name]).reshape(-1, size)
        assert (per_bank.sum(1) == keep).all()
        ranked = by_output(view, site, scores[site.name]).reshape(-1, size)
        for row in range(0, len(ranked), 97):
            assert torch.equal(per_bank[row], sorted_cut(ranked[row], size - keep))


def test_banks_that_do_not_divide_the_inputs_are_refused():
    view = VIEWS["bert"]
    with pytest.raises(
        InputError, match=r"banks 2:5 do not divide the 24 inputs of encoder.layer.0.attention"
    ):
        draw(view, random_scores(view), Sparsity(banks=(2, 5)))
    conv = VIEWS["conv"]  # 3 channels of 9 taps
    with pytest.raises(InputError, match=r"do not divide the 27 inputs of convs.0.weight"):
        draw(conv, random_scores(conv), Sparsity(banks=(2, 4)))


def test_ties_go_by_position_across_sites():
    """All scores equal: the first of the whole model stay."""
    view = VIEWS["bert"]
    masks = draw(view, {site.name: torch.zeros(site.units) for site in view.sites}, Sparsity(fraction=0.02))
    joined = torch.cat(list(masks.values()))
    kept = view.units - round_half_up(0.02 * view.units)
    assert joined[:kept].all()
    assert not joined[kept:].any()


@pytest.mark.parametrize("name", STRUCTURED)
def test_exact_counts_of_heads_and_neurons_each_apart(name):
    view = UNITS[name]
    masks = draw(view, random_scores(view), Sparsity.parse("head=0.4,neuron=0.25"))
    for kind, fraction in (("head", 0.4), ("neuron", 0.25)):
        parts = [masks[site.name] for site in view.sites if site.kind == kind]
        total = sum(part.numel() for part in parts)
        assert sum(int((~part).sum()) for part in parts) == round_half_up(fraction * total)


def test_kinds_that_are_not_named_stay_whole_and_unknown_ones_are_refused():
    view = UNITS["bert"]
    masks = draw(view, random_scores(view), Sparsity.parse("neuron=0.5"))
    assert all(masks[site.name].all() for site in view.sites if site.kind == "head")
    with pytest.raises(InputError, match=r"head-0.5000 names 'head'; allowed: weight"):
        draw(VIEWS["bert"], random_scores(VIEWS["bert"]), Sparsity.parse("head=0.5"))


@given(st.integers(0, 1000), st.integers(0, 4), st.none() | st.integers(1, 3))
def test_every_site_keeps_its_best_head(seed, gone, levels):
    """Six heads in two layers: up to four may go, and never a layer's last."""
    view = Prunable.of(TOYS["bert"](), ("head",))
    scores = random_scores(view, levels, seed)
    masks = draw(view, scores, Sparsity(fraction=gone / 6))
    assert sum(int((~mask).sum()) for mask in masks.values()) == gone
    for site in view.sites:
        assert masks[site.name][scores[site.name].argmax()]


def test_a_floor_moves_no_head_that_need_not_move():
    """With ties the later position still goes first."""
    view = Prunable.of(TOYS["bert"](), ("head",))
    scores = {site.name: torch.zeros(3) for site in view.sites}
    masks = [draw(view, scores, Sparsity(fraction=gone / 6)) for gone in range(5)]
    kept = [[mask.int().tolist() for mask in step.values()] for step in masks]
    assert kept == [
        [[1, 1, 1], [1, 1, 1]],
        [[1, 1, 1], [1, 1, 0]],
        [[1, 1, 1], [1, 0, 0]],
        [[1, 1, 0], [1, 0, 0]],
        [[1, 0, 0], [1, 0, 0]],
    ]


def test_more_heads_than_the_floor_allows_are_refused():
    view = Prunable.of(TOYS["bert"](), ("head",))
    with pytest.raises(InputError, match=r"empties a layer: 5 of 6 would go, one a site stays"):
        draw(view, random_scores(view), Sparsity(fraction=0.8))


@pytest.mark.parametrize("name", STRUCTURED)
@pytest.mark.parametrize("levels", [None, 3])
def test_sparser_tickets_lie_inside_denser_ones(name, levels):
    for view in (VIEWS[name], UNITS[name]):
        scores = random_scores(view, levels)
        path = [draw(view, scores, Sparsity(fraction=fraction)) for fraction in (0.1, 0.2, 0.45)]
        for dense, sparse in itertools.pairwise(path):
            assert not any((sparse[site] & ~dense[site]).any() for site in dense)


@pytest.mark.parametrize("scope", ["global", "site", "row"])
def test_draws_are_invariant_under_monotone_maps(scope):
    """Check 4 of the method's specification."""
    view = VIEWS["gpt2"]
    scores = random_scores(view, levels=40)
    wanted = draw(view, scores, Sparsity(fraction=0.37), scope)
    for image in (lambda s: s * 2 - 5, lambda s: torch.exp(s.double() / 8), lambda s: s.pow(3)):
        masks = draw(
            view, {site: image(score) for site, score in scores.items()}, Sparsity(fraction=0.37), scope
        )
        assert all(torch.equal(masks[site], wanted[site]) for site in wanted)


def test_an_emptied_site_is_refused():
    view = VIEWS["bert"]
    scores = random_scores(view)
    scores["pooler.dense.weight"] -= 100
    with pytest.raises(InputError, match=r"sparsity-0.5000 empties pooler.dense.weight \(0 of 576 kept\)"):
        draw(view, scores, Sparsity(fraction=0.5))
    assert draw(view, scores, Sparsity(fraction=0.5), "site")["pooler.dense.weight"].sum() == 288
    heads = Prunable.of(TOYS["albert"](), ("head",))
    with pytest.raises(InputError, match=r"empties encoder.albert_layer_groups.0.albert_layers.0.heads"):
        draw(heads, random_scores(heads), Sparsity(fraction=0.9), "site")


def test_checked_hands_masks_through():
    masks = {"a": torch.tensor([True, False])}
    assert checked(masks, "learned") == masks
    with pytest.raises(InputError, match=r"learned empties b \(0 of 3 kept\)"):
        checked({**masks, "b": torch.zeros(3, dtype=torch.bool)}, "learned")


@pytest.mark.parametrize(
    ("sparsity", "scope", "says"),
    [
        (Sparsity(fraction=0.5), "layer", "scope 'layer' does not exist; allowed: global, site, row"),
        (Sparsity(learned=True), "global", "'learned' is for methods that close units themselves"),
        (Sparsity(fraction=0.2), "row", "scope 'row' does not fit granularity 'head'"),
        (Sparsity(banks=(2, 4)), "global", "banks 2:4 do not fit granularity 'head'"),
    ],
)
def test_what_does_not_fit_is_refused(sparsity, scope, says):
    view = UNITS["bert"]
    with pytest.raises(InputError, match=says):
        draw(view, random_scores(view), sparsity, scope)


@pytest.mark.parametrize("how", [Sparsity(fraction=0.5), Sparsity(banks=(2, 4))])
@pytest.mark.parametrize("scope", ["global", "site", "row"])
def test_nan_scores_are_refused_whatever_the_scope(how, scope):
    view = VIEWS["bert"]
    scores = random_scores(view)
    scores["pooler.dense.weight"][3] = math.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        draw(view, scores, how, scope)
