"""A comparison against hand-computed numbers, and the refusals of what cannot be compared."""

import json

import pytest
from scipy.stats import binomtest

from hardtack.errors import InputError
from hardtack.reports.compare import compare, compare_text, seed_note

DENSE = "MMMMHHHHHHHHFFFFFFFF"  # 20 examples: 4 missed, 8 held, 8 fell
ROBUST = "MMMMHHHHHHHHHHHHHHFF"  # 6 of those that fell hold
STATUS = {"M": "missed", "H": "held", "F": "fell"}


def row(letters, **more):
    held, fell, n = letters.count("H"), letters.count("F"), len(letters)
    return {
        **{
            "id": "r",
            "model": "tiny",
            "ticket": None,
            "method": "dense",
            "objective": "clean",
            "granularity": None,
        },
        **{
            "sparsity": 0.0,
            "task": "toy",
            "split": "test",
            "seed": 0,
            "attack": "deepwordbug",
            "examples": n,
        },
        **{
            "clean_accuracy": (held + fell) / n,
            "accuracy_under_attack": held / n,
            "attack_success_rate": 0.5,
        },
        **{
            "mean_queries": 12.5,
            "attack_settings": {"name": "deepwordbug", "query_limit": 0},
            "shifted_from": None,
        },
        **{"data_fingerprint": "aa", "flags": []},
        **more,
    }


def write(folder, *rows_and_letters):
    """Write a run folder from (row, letters) pairs; letters None = a clean row without outcomes."""
    folder.mkdir(parents=True)
    rows, outcomes = [], []
    for one, letters in rows_and_letters:
        rows.append(json.dumps(one))
        for i, letter in enumerate(letters or ""):
            line = {"row": one["id"], "id": f"test-{i}", "status": STATUS[letter], "queries": 3}
            outcomes.append(json.dumps(line))
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "outcomes.jsonl").write_text("".join(f"{line}\n" for line in outcomes))
    return folder


@pytest.fixture
def dense(tmp_path):
    return write(tmp_path / "dense", (row(DENSE, id="d"), DENSE))


def robust(tmp_path, letters=ROBUST, name="robust", **more):
    return write(
        tmp_path / name,
        (row(letters, **{"id": "r", "method": "hard_concrete", "sparsity": 0.3, **more}), letters),
    )


def test_rates_intervals_and_differences_by_hand(tmp_path, dense):
    result = compare([dense, robust(tmp_path)])
    (group,) = result["tables"]
    assert (group["task"], group["split"], group["attack"], group["examples"]) == (
        "toy",
        "test",
        "deepwordbug",
        20,
    )
    first, second = group["rows"]
    assert (first["clean_accuracy"], first["accuracy_under_attack"]) == (16 / 20, 8 / 20)
    assert (second["clean_accuracy"], second["accuracy_under_attack"]) == (16 / 20, 14 / 20)
    # Wilson for 8 of 20 by hand: centre (0.4 + z^2/40) / (1 + z^2/20), z = 1.959964: 0.2188 to 0.6134
    assert first["accuracy_under_attack_low"] == pytest.approx(0.2188, abs=5e-5)
    assert first["accuracy_under_attack_high"] == pytest.approx(0.6134, abs=5e-5)
    (difference,) = group["differences"]
    under, clean = difference["accuracy_under_attack"], difference["clean_accuracy"]
    assert under["difference"] == pytest.approx(6 / 20)
    assert 0.05 <= under["low"] <= 0.15  # the mean of 20 draws of 6 ones and 14 zeros: 0.3 -+ 2 * 0.1025
    assert 0.45 <= under["high"] <= 0.55
    assert under["verdict"] == "higher"
    # six examples changed, all for the better: p = 2 * 0.5^6
    assert under["mcnemar_p"] == pytest.approx(2 * 0.5**6)
    assert under["mcnemar_p"] == pytest.approx(binomtest(6, 6).pvalue)
    assert (clean["difference"], clean["low"], clean["high"]) == (0.0, 0.0, 0.0)
    assert (clean["verdict"], clean["mcnemar_p"]) == ("no difference", 1.0)
    assert result["note"] == "1 seed: a look, no claim (a claim needs 5)"


def test_the_first_folder_is_the_yardstick(tmp_path, dense):
    (group,) = compare([robust(tmp_path), dense])["tables"]
    assert (group["differences"][0]["number"], group["differences"][0]["against"]) == (2, 1)
    assert group["differences"][0]["accuracy_under_attack"]["verdict"] == "lower"


def test_the_same_numbers_twice(tmp_path, dense):
    folders = [dense, robust(tmp_path)]
    assert compare(folders) == compare(folders)
    assert json.loads(json.dumps(compare(folders))) == compare(folders)


def test_clean_and_attack_are_two_tables(tmp_path):
    clean = {"attack": None, "accuracy_under_attack": None, "mean_queries": None, "attack_settings": None}
    folders = [
        write(tmp_path / name, (row(DENSE, id="c", examples=500, **clean), None), (row(DENSE, id="a"), DENSE))
        for name in ("one", "two")
    ]
    result = compare(folders)
    assert [(t["attack"], t["examples"], len(t["differences"])) for t in result["tables"]] == [
        (None, 500, 0),
        ("deepwordbug", 20, 1),
    ]


def test_seeds_are_paired_and_summed_up(tmp_path):
    folders = [
        write(tmp_path / f"{name}-{seed}", (row(letters, id=f"s{seed}", seed=seed, method=name), letters))
        for name, letters in (("dense", DENSE), ("robust", ROBUST))
        for seed in (0, 1)
    ]
    result = compare(folders)
    (group,) = result["tables"]
    # the yardstick's second seed is in a folder of its own; each difference is between equal seeds
    assert [(line["number"], line["against"], line["seed"]) for line in group["differences"]] == [
        (3, 1, 0),
        (4, 2, 1),
    ]
    (over,) = group["over_seeds"]
    assert (over["seeds"], over["numbers"]) == (2, [3, 4])
    attacked = over["accuracy_under_attack"]
    assert attacked["mean"] == pytest.approx(0.3)
    assert attacked["standard_deviation"] == pytest.approx(0.0)  # both seeds differ alike
    # 20 examples a seed, 40 in all: differences of variance 0.21 (6 of 20 are 1, the rest 0) or more
    assert 0.1 < attacked["low"] < 0.2 < 0.4 < attacked["high"] < 0.5
    assert (attacked["verdict"], attacked["matching"]) == ("higher", True)
    assert over["double_win"] == (over["clean_accuracy"]["mean"] >= 0)  # equal seeds: no spread to allow for
    assert result["note"].startswith("2 seeds: a look, no claim")
    text = compare_text(result)
    assert "#3, #4 over 2 seeds, over seeds and examples: under attack +0.300" in text
    # two seeds times two measures: four tests in the table
    tests = [
        line[name] for line in group["differences"] for name in ("clean_accuracy", "accuracy_under_attack")
    ]
    smallest = min(test["mcnemar_p"] for test in tests)
    assert min(test["holm_p"] for test in tests) == pytest.approx(min(1, 4 * smallest))


def test_a_seed_without_a_partner_is_named(tmp_path, dense):
    pairs = [(row(ROBUST, id=f"s{seed}", seed=seed, method="random"), ROBUST) for seed in (0, 7)]
    (group,) = compare([dense, write(tmp_path / "two", *pairs)])["tables"]
    assert group["without_pair"] == ["two seed 7"]
    assert len(group["differences"]) == 1


def test_rows_of_one_folder_are_compared_with_its_first(tmp_path):
    both = write(
        tmp_path / "both", (row(DENSE, id="d"), DENSE), (row(ROBUST, id="r", method="hard_concrete"), ROBUST)
    )
    (group,) = compare([both])["tables"]
    assert [line["id"] for line in group["differences"]] == ["r"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_fingerprint": "bb"}, "data fingerprint is 'aa' and 'bb'"),
        ({"examples": 19}, "examples is 20 and 19"),
        (
            {"attack_settings": {"name": "deepwordbug", "query_limit": 5}},
            "attack setting query_limit is 0 and 5",
        ),
        ({"task": "other"}, "nothing to compare"),
        ({"attack": "word_swap"}, "nothing to compare"),
    ],
)
def test_what_was_measured_differently_is_refused_in_one_line(tmp_path, dense, change, said):
    with pytest.raises(InputError) as caught:
        compare([dense, robust(tmp_path, **change)])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_examples_are_refused(tmp_path, dense):
    other = robust(tmp_path)
    file = other / "outcomes.jsonl"
    file.write_text(file.read_text().replace("test-0", "test-99"))
    with pytest.raises(InputError, match="attacked different examples at seed 0"):
        compare([dense, other])


def test_missing_outcomes_and_folders_are_refused(tmp_path, dense):
    other = robust(tmp_path)
    (other / "outcomes.jsonl").unlink()
    with pytest.raises(InputError, match="no outcomes of row r"):
        compare([dense, other])
    with pytest.raises(InputError, match="named twice"):
        compare([dense, dense])
    with pytest.raises(InputError, match="is no folder"):
        compare([dense, tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no rows\.jsonl"):
        compare([dense, tmp_path / "empty"])


def test_a_torn_line_is_named(tmp_path, dense):
    with open(dense / "rows.jsonl", "a") as stream:
        stream.write('{"id": "x", "ta')
    with pytest.raises(InputError, match=r"rows\.jsonl line 2 is no JSON object"):
        compare([dense, robust(tmp_path)])


def test_text_fits_100_columns_and_says_everything(tmp_path, dense):
    text = compare_text(compare([dense, robust(tmp_path)]))
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "toy, split test, attack deepwordbug, 20 examples",
        "0.400 [0.219, 0.613]",
        "differences, paired over the same examples:",
        "| 2 - 1 |",
        "+0.300 [+0.100, +0.500]",
        "higher",
        "0.0312",
        "1 seed: a look, no claim",
    ):
        assert part in text


def test_rows_of_several_radii_are_compared_radius_by_radius(tmp_path):
    def at(radius, letters, **more):
        settings = {"name": "embedding_pgd", "radii": [radius]}
        return row(letters, attack="embedding_pgd", attack_settings=settings, id=f"{radius}", **more), letters

    first = write(tmp_path / "dense", at(0.5, DENSE), at(1.0, "M" * 4 + "F" * 16))
    method = {"method": "hard_concrete"}
    other = write(tmp_path / "robust", at(0.5, ROBUST, **method), at(2.0, "F" * 20, **method))
    result = compare([first, other])
    (group,) = result["tables"]
    assert group["title"] == "toy, split test, attack embedding_pgd, radii [0.5]"
    assert [line["accuracy_under_attack"] for line in group["rows"]] == [0.4, 0.7]
    title = "toy, split test, attack embedding_pgd, radii"
    assert result["not_compared"] == [f"{title} [1.0]: only in dense", f"{title} [2.0]: only in robust"]
    assert title in compare_text(result)


def test_seeds_are_counted_for_each_model(tmp_path, dense):
    others = [robust(tmp_path, name=f"robust-{seed}", seed=seed) for seed in range(5)]
    assert compare([dense, *others])["note"] == "1 seed: a look, no claim (a claim needs 5)"
    more = [write(tmp_path / f"dense-{seed}", (row(DENSE, id="d", seed=seed), DENSE)) for seed in range(1, 5)]
    assert compare([dense, *others, *more])["note"] == "5 seeds"


def test_seed_note():
    assert [seed_note(n) for n in (1, 4, 5)] == [
        "1 seed: a look, no claim (a claim needs 5)",
        "4 seeds: a look, no claim (a claim needs 5)",
        "5 seeds",
    ]
