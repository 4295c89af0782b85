"""`ship` on toys: what it chooses, what lies there afterwards, what it repeats (nothing) and refuses."""

import dataclasses
import functools
import json
import shutil

import pytest
from huggingface_hub import ModelCard
from tests.forked import forked
from tests.kills import After, digest, run_killed
from tests.stages.saved import saved_task
from tests.toys import saved_toy, toy_inputs

import hardtack
from hardtack.cli import main
from hardtack.errors import InputError
from hardtack.evaluation.attacks.cascade import Cascade
from hardtack.evaluation.attacks.deepwordbug import DeepWordBug
from hardtack.evaluation.attacks.hotflip import HotFlip
from hardtack.evaluation.resources import embedded_model
from hardtack.methods.early_bird import EarlyBird
from hardtack.methods.magnitude import Magnitude
from hardtack.reports.shipped import shipped_text
from hardtack.select import Sparsity
from hardtack.stages import Common, export, ship, shipping

HALF = (Sparsity.parse(0.5),)
EARLY = EarlyBird(HALF, epochs=1.0, lr=1e-3)
NAMES = ["early_bird-sparsity-0.5000", "magnitude-sparsity-0.5000"]


def settings(place, **more):
    return {
        "task": str(place / "task"),
        "methods": (EARLY, Magnitude(HALF)),
        "attacks": (DeepWordBug(query_limit=20),),
        "examples": 8,
        "epochs": 0.5,
        "lr": 1e-3,
        "common": Common(device="cpu", batch_size=8),
        **more,
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("shipping")
    saved_toy(place / "tiny")
    saved_task(place / "task")
    return place


@pytest.fixture(scope="module")
def shipped(place):
    """What a command without limits returned, and its folder."""
    seen = set()
    out = place / "shipped"
    asked = settings(place, watch=lambda label, done, total: seen.add(label))
    result = ship(str(place / "tiny"), out=out, min_accuracy=0.0, **asked)
    assert "search-early_bird: early-bird search" in seen
    assert any(label.startswith(f"{NAMES[0]}: training") for label in seen)
    return result, out


@pytest.fixture
def measured(shipped, tmp_path):
    """A copy of its folder as it was before the choice."""
    out = tmp_path / "again"
    shutil.copytree(shipped[1], out)
    for name in ("DONE", "choice.json", "report.html", "rows.jsonl", "outcomes.jsonl"):
        (out / name).unlink()
    for name in ("model", f"measured/{shipped[0]['chosen']}-test"):
        shutil.rmtree(out / name)
    return out


def rows_in(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def contents(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_the_best_is_exported_with_its_report_and_its_test_rows(shipped):
    result, out = shipped
    assert [one["name"] for one in result["candidates"]] == NAMES
    best = max(
        result["candidates"],
        key=lambda one: (one["accuracy_under_attack"], one["accuracy"], -one["latency_ms"]),
    )
    assert result["chosen"] == best["name"]
    loaded = hardtack.load(str(out))
    assert loaded.model.config.shrunk_units
    assert loaded.model(**toy_inputs(loaded.model)).logits.shape == (6, 2)
    card = ModelCard.load(out / "model" / "README.md")
    splits = {one.dataset_split for one in card.data.eval_results}
    names = [one.metric_name for one in card.data.eval_results]
    assert (splits, names) == ({"test"}, ["accuracy", "accuracy under deepwordbug, 8 examples"])
    assert card.data.eval_results[0].metric_value == round(result["test"]["accuracy"], 4)
    assert card.data.model_name == "shipped"
    page = (out / "report.html").read_text()
    assert all(name in page for name in NAMES)


def test_every_model_is_measured_on_validation_and_only_the_chosen_one_on_test(shipped):
    result, out = shipped
    rows = rows_in(out)
    told = [(row["split"], row["attack"], row["sparsity"] is None) for row in rows]
    both = [("validation", None, False), ("validation", "deepwordbug", False)]
    first = [("validation", None, True), ("validation", "deepwordbug", True)]
    assert told == [*first, *both, *both, ("test", None, False), ("test", "deepwordbug", False)]
    assert {row["model"] for row in rows[6:]} == {str(out / "candidates" / result["chosen"])}
    assert rows[2]["parameters"] < rows[0]["parameters"]  # measured at their real size
    assert len(list(out.rglob("measured/*-test"))) == 1


def test_the_same_command_repeats_nothing(place, shipped):
    result, out = shipped
    before = contents(out)
    assert ship(str(place / "tiny"), out=out, min_accuracy=0.0, **settings(place)) == result
    assert contents(out) == before


def test_people_see_the_candidates_and_what_was_chosen(shipped):
    result, out = shipped
    shown = shipped_text(result)
    assert f"chosen: {result['chosen']}; on test, read once: {result['test']['accuracy']:.3f} clean" in shown
    assert f"model: {out}/model" in shown
    assert "limits: min_accuracy 0" in shown
    (note,) = result["notes"]
    assert note.startswith("search-early_bird: never converged in 6 steps")
    assert " ".join(shown.split()).endswith(f"note: {note}")
    assert max(map(len, shown.splitlines())) <= 120


def test_other_limits_are_refused_once_the_test_split_was_read(place, shipped):
    result, out = shipped
    with pytest.raises(InputError) as error:
        ship(str(place / "tiny"), out=out, max_latency_ms=100.0, **settings(place))
    assert str(error.value) == (
        f"--out {out} has chosen {result['chosen']} under --min-accuracy 0 and read the test split for it; "
        "allowed: the same limits, or another folder"
    )


def test_limits_that_cannot_be_met_leave_all_that_was_measured_for_the_next_attempt(place, shipped, measured):
    result, before = shipped[0], contents(measured)
    nearest = min(result["candidates"], key=lambda one: one["latency_ms"])
    (measured / "candidates" / f".{NAMES[0]}.4711.part").mkdir()  # of an export that was killed
    with pytest.raises(InputError) as error:
        ship(str(place / "tiny"), out=measured, max_latency_ms=1e-6, **settings(place))
    assert str(error.value) == (
        f"no candidate meets --max-latency-ms 1e-06 (nearest: {nearest['latency_ms']:.4g} ms by "
        f"{nearest['name']}); all that was measured stays: {measured / 'report.html'}"
    )
    assert not (measured / "model").exists()
    assert sorted(path.name for path in (measured / "candidates").iterdir()) == NAMES
    after = contents(measured)
    known = [name for name in before if not name.endswith((".lock", "report.html", "s.jsonl"))]
    assert {name: after[name] for name in known} == {name: before[name] for name in known}
    assert {row["split"] for row in rows_in(measured)} == {"validation"}
    again = ship(str(place / "tiny"), out=measured, min_accuracy=0.0, **settings(place))
    assert again["chosen"] == result["chosen"]
    assert [one["latency_ms"] for one in again["candidates"]] == [
        one["latency_ms"] for one in result["candidates"]
    ]


def test_what_is_known_to_be_wrong_is_refused_before_any_work(place, tmp_path, monkeypatch):
    for name in ("search", "retrain", "evaluate"):
        monkeypatch.setattr(shipping, name, None)
    saved_toy(place / "unlisted", "squeezebert")
    tiny, most = str(place / "tiny"), (Sparsity.parse(0.99),)
    for model, more, words in (
        (tiny, {"max_latency_ms": 0.0}, "--max-latency-ms 0 cannot be met; allowed: above 0, finite"),
        (tiny, {"min_accuracy": 1.5}, "--min-accuracy 1.5 cannot be met; allowed: 0 to 1"),
        (tiny, {"to": "dense"}, "--to 'dense' is not for ship; allowed: onnx, onnx-int8, openvino, shrink"),
        (tiny, {"examples": 0}, "examples 0; allowed: 1 or more"),
        (
            tiny,
            {"attacks": (), "min_accuracy_under_attack": 0.3},
            "--min-accuracy-under-attack needs an attack; allowed: --attack, once or more",
        ),
        (
            tiny,
            {"methods": (Magnitude(most),)},
            "sparsity 0.99 empties a layer: 6 of 6 would go, one a site stays",
        ),
        (
            tiny,
            {"methods": (Magnitude((Sparsity.parse(0.001),)),)},
            f"sparsity sparsity-0.0010 removes no unit of {tiny}; choose a larger one",
        ),
        (
            str(place / "unlisted"),
            {},
            "granularity 'head' is not known for SqueezeBertModel; allowed: weight",
        ),
        (str(place / "task"), {}, f"{place / 'task'} is no model: it has no config.json"),
    ):
        with pytest.raises(InputError) as error:
            ship(model, out=tmp_path / "out", **settings(place, **more))
        assert str(error.value) == words
    assert not (tmp_path / "out").exists()


def test_what_a_later_stage_could_not_use_is_refused_before_any_work(place, tmp_path, monkeypatch):
    for name in ("search", "retrain", "evaluate"):
        monkeypatch.setattr(shipping, name, None)
    saved_toy(place / "three", classes=3)
    three, early = (
        str(place / "three"),
        dataclasses.replace(EARLY, sparsities=(Sparsity.parse("flops=0.99"),)),
    )
    seeing = "sees gradients, of which --to onnx has none; allowed: --to shrink, or attacks that ask for"
    for more, words in (
        ({"distil_from": three}, f"{three} has 3 classes, the task 2; allowed: as many"),
        ({"distil_from": str(place / "no")}, f"{place / 'no'} is no model that can be reached: "),
        ({"attacks": (HotFlip(min_cosine=0.0),), "to": "onnx"}, f"--attack hotflip {seeing}"),
        (
            {"attacks": (Cascade(("deepwordbug", HotFlip(min_cosine=0.0))),), "to": "onnx"},
            f"--attack cascade {seeing}",
        ),
        (
            {"methods": (Magnitude((Sparsity.parse("parameters=0.99"),)),)},
            "sparsity parameters=0.99 cannot be",
        ),
        ({"methods": (Magnitude(HALF), early)}, "sparsity flops=0.99 cannot be reached: with a unit left"),
    ):
        for dry_run in (False, True):
            with pytest.raises(InputError) as error:
                ship(str(place / "tiny"), out=tmp_path / "out", dry_run=dry_run, **settings(place, **more))
            assert str(error.value).startswith(words)
            assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_run_is_named_after_its_teachers_weights_wherever_they_lie(place, tmp_path, monkeypatch):
    saved_toy(place / "teacher", seed=1)
    saved_toy(place / "another", seed=2)
    copy = shutil.copytree(place / "teacher", tmp_path / "copy")
    named = []

    def opened(*words, settings, **more):
        named.append(settings)
        raise InputError("enough")

    monkeypatch.setattr(shipping, "open_run", opened)
    for more in (
        {"distil_from": str(place / "teacher")},
        {"distil_from": str(copy), "distil_weight": 0.5, "distil_temperature": 2.0},  # the defaults
        {"distil_from": str(place / "another")},
        {"distil_from": str(copy), "distil_weight": 0.6},
        {"distil_from": str(copy), "distil_temperature": 3.0},
        {},
    ):
        with pytest.raises(InputError, match="enough"):
            ship(str(place / "tiny"), out=tmp_path / "out", **settings(place, **more))
    assert named[0] == named[1]
    assert all(one not in named[:number] for number, one in enumerate(named) if number != 1)
    assert not any(name.startswith("distil") for name in named[-1])  # as it was before there were teachers


def test_a_model_without_a_trained_head_is_refused(place, tmp_path):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(place / "tiny").bert.save_pretrained(tmp_path / "base")
    for file in (place / "tiny").glob("*token*"):
        shutil.copy(file, tmp_path / "base")
    with pytest.raises(InputError, match="has no trained head for 2 classes"):
        ship(str(tmp_path / "base"), out=tmp_path / "out", **settings(place))


def test_a_plan_sums_all_stages_and_writes_nothing(place, tmp_path):
    plan = ship(str(place / "tiny"), out=tmp_path / "out", dry_run=True, **settings(place))
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]), abs=0.1)
    names = [stage["name"] for stage in plan["stages"]]
    assert names[0] == "dense: clean task validation"
    assert [name for name in names if name.startswith(NAMES[1])] == [
        f"{NAMES[1]}: {what}"
        for what in ("retrain 3 steps", "export to shrink", "clean task validation", "deepwordbug")
    ]
    assert names[-1] == "test: export to shrink"
    assert not list(tmp_path.iterdir())


def command(place, out, *more):
    common = ("--device", "cpu", "--save-seconds", "0", "--batch-size", "8")
    how = ("--epochs", "2", "--lr", "1e-3", "--sparsity", "0.5", "--early_bird.lr", "1e-3", "--examples", "8")
    return [
        "ship",
        str(place / "tiny"),
        "--task",
        str(place / "task"),
        "--out",
        str(out),
        *common,
        *how,
        *more,
    ]


def test_limits_that_cannot_be_met_end_with_status_2_and_a_line(place, measured, capsys, monkeypatch):
    @functools.wraps(ship)  # for its parameters are the flags
    def fake(model, **asked):
        assert asked["max_latency_ms"] == 1.5
        assert [str(one) for method in asked["methods"] for one in method.sparsities] == [
            "sparsity-0.5000"
        ] * 2
        assert asked["methods"][0].lr == 1e-3
        assert [attack.name for attack in asked["attacks"]] == ["deepwordbug"]
        raise InputError("no candidate meets --max-latency-ms 1.5 (nearest: 2 ms by small)")

    monkeypatch.setattr("hardtack.stages.ship", fake)
    words = ("--max-latency-ms", "1.5", "--attack", "deepwordbug", "--json")
    assert main(command(place, measured, *words)) == 2
    shown = capsys.readouterr()
    assert shown.err == "hardtack: no candidate meets --max-latency-ms 1.5 (nearest: 2 ms by small)\n"
    assert shown.out == ""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_in_every_stage_it_ends_as_if_it_never_was(place, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_killed(command(place, whole), (), start=forked)
    stops = ("measured/dense", "search-early_bird", f"retrained/{NAMES[0]}", f"candidates/{NAMES[0]}")
    stops += (f"measured/{NAMES[0]}", f"retrained/{NAMES[1]}", "report.html", "model")
    moments = [After(killed / stop, 0.02) for stop in stops]
    assert len(run_killed(command(place, killed), moments, start=forked).kills) >= 6
    timed = ("report.html", "README.md")  # they show milliseconds
    mine, theirs = (digest(folder, left_out=(*timed, "DONE")) for folder in (killed, whole))
    assert mine == theirs
    (first, second) = (json.loads((folder / "DONE").read_text()) for folder in (killed, whole))
    assert first["chosen"] == second["chosen"]
    logs = list(killed.rglob("log.jsonl"))
    for log in logs:  # each stage began again at most where a kill struck it
        assert log.read_text().count('"event": "resumed"') <= 2


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "onnx-int8", "openvino"])
def test_other_programs_are_measured_as_they_are(place, tmp_path, to):
    more = {"methods": (Magnitude(HALF),), "to": to, "max_latency_ms": 1000.0}
    result = ship(str(place / "tiny"), out=tmp_path / "out", **settings(place, **more))
    (one,) = result["candidates"]
    program = "openvino" if to == "openvino" else "onnxruntime"
    assert (result["dense"]["runtime"].split()[0], one["runtime"].split()[0]) == ("torch", program)
    file = "openvino_model.xml" if to == "openvino" else "model.onnx"
    assert (tmp_path / "out" / "model" / file).is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_embedded_model_is_shipped_through_kills(tmp_path):
    """The real thing at a small size: train, ship at half size, killed in the middle of two stages."""
    few = ("--task", "made", "--train-examples", "192", "--max-length", "48", "--device", "cpu")
    few += ("--save-seconds", "1", "--lr", "1e-4", "--epochs")
    dense, out = tmp_path / "dense", tmp_path / "shipped"
    run_killed(["train", embedded_model(), "--out", str(dense), *few, "2"], (), start=forked)
    words = ["ship", str(dense), "--out", str(out), *few, "1", "--sparsity", "0.5", "--examples", "20"]
    words += ["--min-accuracy", "0.5"]
    moments = [After(out / "search-early_bird" / "log.jsonl", 2.0), After(out / "retrained" / NAMES[1], 2.0)]
    assert len(run_killed(words, moments, start=forked).kills) == 2
    result = json.loads((out / "DONE").read_text())
    small = hardtack.load(str(out))
    assert small.model.num_parameters() < hardtack.load(str(dense)).model.num_parameters() - 4_000_000
    rows = rows_in(out)
    assert [row["split"] for row in rows].count("test") == 2
    assert result["test"]["accuracy"] > 0.5
    card = ModelCard.load(out / "model" / "README.md")
    assert card.data.eval_results[0].metric_value == round(result["test"]["accuracy"], 4)


def test_an_export_that_is_pushed_stays_where_the_hub_cannot_be_reached(place, shipped, tmp_path):
    retrained = shipped[1] / "retrained" / NAMES[1]
    with pytest.raises(InputError, match="'nobody' is no name on the hub"):
        export(retrained, to="shrink", out=tmp_path / "small", push_to="nobody")
    assert not (tmp_path / "small").exists()
    with pytest.raises(InputError, match="--push me/small did not work: the hub is switched off here"):
        export(retrained, to="shrink", out=tmp_path / "small", push_to="me/small")
    assert hardtack.load(str(tmp_path / "small")).model.config.shrunk_units


def test_python_names_it():
    assert hardtack.ship is ship
