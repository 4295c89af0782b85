"""The demo on a toy model at toy sizes: every stage really runs; the real one is `make demo`."""

import dataclasses
import json

import pytest
from tests.toys import saved_toy

from hardtack.reports.table import card_text
from hardtack.stages import Common, demonstrating
from hardtack.stages.demonstrating import NOTE, DemoSettings, demo

NAMES = ["dense", "dense-freelb", "robust-ticket", "no-adversary", "imp", "random"]
TOY = DemoSettings(epochs=0.2, search_epochs=0.2, round_epochs=0.1, examples=4)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    saved_toy(tmp_path / "tiny")
    monkeypatch.setattr(demonstrating, "embedded_model", lambda: str(tmp_path / "tiny"))
    monkeypatch.setattr(demonstrating, "DemoSettings", lambda: TOY)
    return tmp_path


def test_the_demo_makes_a_ticket_its_controls_and_one_card(toy):
    seen = set()
    common = Common(device="cpu")
    result = demo(out=toy / "demo", common=common, watch=lambda label, done, total: seen.add(label))
    assert [line["name"] for line in result["lines"]] == NAMES
    assert {"robust-ticket: mask learning", "imp: IMP round 1"} <= seen
    examples = set()
    for line in result["lines"]:
        assert [row["attack"] for row in line["rows"]] == [None, "deepwordbug", "word_swap"]
        assert (line["ticket"] is None) == line["name"].startswith("dense")
        assert line["sparsity"] in (None, pytest.approx(0.3, abs=0.001))
        folder = toy / "demo" / f"evaluate-{line['name']}"
        outcomes = [json.loads(text) for text in (folder / "outcomes.jsonl").read_text().splitlines()]
        examples.add(tuple(outcome["id"] for outcome in outcomes))
    assert len(examples) == 1  # the same examples, in the same order, for every model
    rows = (toy / "demo" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == [
        row["id"] for line in result["lines"] for row in line["rows"]
    ]
    card = card_text(result)
    assert NOTE in card
    assert all(f"| {name} " in card for name in NAMES)
    assert demo(out=toy / "demo", common=common) == result  # the second run finds everything done


def test_a_dry_run_writes_nothing(toy):
    plan = demo(out=toy / "demo", common=Common(device="cpu"), dry_run=True)
    assert [stage["name"] for stage in plan["stages"]] == [*NAMES, "attacks"]
    assert not (toy / "demo").exists()


@pytest.mark.slow
def test_settings_stand_in_the_record(toy):
    demo(out=toy / "demo", common=Common(device="cpu"))
    recipe = json.loads((toy / "demo" / "recipe.json").read_text())
    assert recipe["demo"] == dataclasses.asdict(TOY)
