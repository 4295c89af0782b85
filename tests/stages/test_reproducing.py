"""Every run's folder holds a recipe, a study of one stage, that does the same again."""

import json
import shutil
import tomllib
from dataclasses import replace

import pytest
from tests.kills import digest
from tests.studies.toy import make_place

from hardtack import stages
from hardtack.evaluation.attacks import DeepWordBug, EmbeddingPGD, Pruthi, WordSwap
from hardtack.evaluation.attacks.cascade import Cascade
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.select import Sparsity
from hardtack.stages import Common
from hardtack.studies import study
from hardtack.training.adversarial import Clean, FreeLB

COMMON = Common(seed=3, device="cpu", batch_size=16)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(make_place(tmp_path))
    return tmp_path


def again(folder):
    """Run a folder's recipe as a study; return the folder of its only cell."""
    shutil.rmtree(folder.parent / "again", ignore_errors=True)
    result = study(folder / "recipe.toml", out=folder.parent / "again", keep_weights=True)
    (cell,) = result["ran"]
    return folder.parent / "again" / cell


def test_each_stage_is_done_again_by_its_recipe(place):
    method = HardConcrete(sparsities=(Sparsity.parse(0.3), Sparsity.parse("0.5")), epochs=1.0, price=9.0)
    stages.train("tiny", task="task", out=place / "dense", epochs=1.0, lr=1e-3, common=COMMON)
    stages.search(
        method,
        "tiny",
        task="task",
        out=place / "search",
        objective=FreeLB(steps=2),
        warm_epochs=1.0,
        common=COMMON,
    )
    stages.retrain(
        "search/tickets/sparsity-0.5000", task="task", out=place / "subnet", epochs=1.0, common=COMMON
    )
    attack = DeepWordBug(query_limit=9)
    stages.evaluate("subnet", task="task", out=place / "rows", attacks=[attack], examples=5, common=COMMON)
    for name in ("dense", "search", "subnet", "rows"):
        first, second = digest(place / name), digest(again(place / name))
        assert first.keys() == second.keys()
        assert {file for file in first if first[file] != second[file]} == set(), name


def test_radii_and_members_of_a_cascade_are_attacked_again_by_the_recipe_and_from_a_study(place):
    stages.train("tiny", task="task", out=place / "dense", epochs=0.5, lr=1e-3, common=COMMON)
    pgd = EmbeddingPGD(radii=(0.5, 2.0), steps=2)
    cascade = Cascade((DeepWordBug(query_limit=9), Pruthi(max_words=2)))
    attacks = [*pgd.sweep(), cascade]
    stages.evaluate("dense", task="task", out=place / "rows", attacks=attacks, examples=4, common=COMMON)
    first, second = digest(place / "rows"), digest(again(place / "rows"))
    assert {file for file in first if first[file] != second[file]} == set()
    rows = [json.loads(line) for line in (place / "rows" / "rows.jsonl").read_text().splitlines()]
    assert [row["attack"] for row in rows] == [None, "embedding_pgd", "embedding_pgd", "cascade"]
    assert [row["attack_settings"]["radii"] for row in rows[1:3]] == [[0.5], [2.0]]
    assert not any("test-read-again" in row["flags"] for row in rows)  # a sweep is one reading
    (stage,) = tomllib.loads((place / "rows" / "recipe.toml").read_text())["stage"]
    assert stage["attack"] == ["embedding_pgd", "cascade"]
    assert stage["embedding_pgd"] == {"radii": [0.5, 2.0], "steps": 2}
    assert stage["cascade"] == {"members": ["deepwordbug", "pruthi"]}
    assert (stage["deepwordbug"], stage["pruthi"]) == ({"query_limit": 9}, {"max_words": 2})


def test_a_recipe_says_what_differs_from_defaults(place):
    method = HardConcrete(sparsities=(Sparsity.parse("head=0.5"), Sparsity.parse("2:4")), price=9.0)
    arguments = {"method": method, "model": 'a $ and "b"', "out": "x", "objective": Clean(), "start": "c"}
    text = stages.reproducing.recipe("search", {**arguments, "granularity": ("head",), "common": COMMON})
    assert text is not None
    assert tomllib.loads(text)["stage"] == [
        {
            "verb": "search",
            "method": "hard_concrete",
            "hard_concrete": {"price": 9.0},
            "model": 'a $$ and "b"',
            "objective": "clean",
            "from": "c",
            "granularity": ["head"],
            "seed": 3,
            "batch_size": 16,
            "device": "cpu",
            "grid": {"sparsity": ["head=0.5", "2:4"]},
        }
    ]


def test_what_has_no_text_has_no_recipe():
    attack = WordSwap(neighbours={"good": ["fine"]})
    assert stages.reproducing.recipe("evaluate", {"target": "x", "attacks": [attack]}) is None
    odd = replace(Clean(), loss=lambda logits, batch: logits.sum(1))
    assert stages.reproducing.recipe("train", {"model": "x", "objective": odd}) is None


def test_a_dry_run_leaves_none(place):
    stages.train("tiny", task="task", out=place / "dense", common=COMMON, dry_run=True)
    assert not (place / "dense").exists()
