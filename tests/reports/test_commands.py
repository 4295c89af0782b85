"""Commands rebuilt from recipes parse, on the real command line, to the settings that the recipes hold."""

import shlex

import pytest
from tests.reports.made import COMMON, record, row, study

from hardtack.cli.parser import Parser, fields
from hardtack.cli.verbs import VERBS
from hardtack.evaluation.attacks import ATTACKS
from hardtack.methods import METHODS
from hardtack.reports.commands import command_words, commands
from hardtack.reports.gather import gather
from hardtack.select import Sparsity
from hardtack.stages.common import Common, settings_of
from hardtack.training.adversarial import OBJECTIVES

RECIPE = {"task": "toy", "task_from": "data/toy", "common": COMMON}
FIT = {"epochs": 3.0, "lr": 2e-5, "weight_decay": 0.01, "warmup": 0.1, "epoch_rule": "last"}


def parsed(words):
    """Parse as the command line does; an unknown flag is an error."""
    assert words[0] == "hardtack"
    verb = VERBS[words[1]]
    parser = Parser(words[1], summary=verb.SUMMARY, example="")
    verb.flags(parser, words[2:])
    return vars(parser.parse(words[2:]))


def test_train_and_retrain():
    recipe = {
        **RECIPE,
        "kind": "train",
        "model": "org/m",
        "fit": FIT,
        "objective": {"name": "clean", "loss": "cross_entropy"},
    }
    (words,) = command_words(recipe, out="runs/a b")
    args = parsed(words)
    assert (args["model"], args["task"], args["out"], args[".epochs"]) == (
        "org/m",
        "data/toy",
        "runs/a b",
        3.0,
    )
    assert (args["objective"], args[".max_length"], args[".epoch_rule"]) == ("clean", 48, "last")
    recipe |= {"kind": "retrain", "ticket": "runs/s/tickets/t", "base_from": "elsewhere"}
    args = parsed(command_words(recipe, out="x")[0])
    assert (args["ticket"], args[".base"]) == ("runs/s/tickets/t", "elsewhere")


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_search(method):
    instance = METHODS[method]()
    recipe = {
        **RECIPE,
        "kind": "search",
        "method": method,
        "model": "m",
        "start": "runs/dense",
        "settings": settings_of(instance, all=True),
    }
    recipe |= {"granularity": ["head", "neuron"], "keep_whole": ["pooler*"], "warm_epochs": None}
    args = parsed(command_words(recipe, out="x")[0])
    assert args["start"] == "runs/dense"
    assert args[".granularity"] == ["head", "neuron"]
    assert [str(one) for one in args["sparsity"]] == [str(one) for one in instance.sparsities]
    typed = {
        setting.name: args[f".{setting.name}"]
        for setting in fields(METHODS[method])
        if f".{setting.name}" in args
    }
    assert typed == {name: getattr(instance, name) for name in typed}
    assert {setting.name for setting in fields(METHODS[method])} == {*typed}


@pytest.mark.parametrize("typed", ["0.3", "head=0.17,neuron=0.4", "2:4", "learned"])
def test_every_way_to_say_a_sparsity(typed):
    recipe = {
        **RECIPE,
        "kind": "search",
        "method": "random",
        "model": "m",
        "settings": {"sparsities": [str(Sparsity.parse(typed))]},
    }
    (found,) = parsed(command_words(recipe, out="x")[0])["sparsity"]
    assert found == Sparsity.parse(typed)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective(objective):
    instance = OBJECTIVES[objective]()
    recipe = {
        **RECIPE,
        "kind": "train",
        "model": "m",
        "objective": {"name": objective, **settings_of(instance, all=True)},
    }
    args = parsed(command_words(recipe, out="x")[0])
    assert args["objective"] == objective
    for setting in fields(type(instance)):
        assert args[f"{objective}.{setting.name}"] == getattr(instance, setting.name)


def test_common_settings_come_back():
    common = Common(seed=3, max_length=99, train_examples=70, text_column="t")
    recipe = {**RECIPE, "kind": "train", "model": "m", "common": settings_of(common, all=True)}
    args = parsed(command_words(recipe, out="x")[0])
    known = {name: args[f".{name}"] for name in ("seed", "max_length", "train_examples", "text_column")}
    assert known == {"seed": 3, "max_length": 99, "train_examples": 70, "text_column": "t"}


def test_an_evaluation_takes_its_attacks_from_its_rows():
    settings = ATTACKS["deepwordbug"]().settings()
    rows = [
        row("dense"),
        row("dense", "HF", attack_settings=settings),
        row(
            "dense",
            "HF",
            attack="word_swap",
            attack_settings={"name": "word_swap", "neighbours": "ab" * 16, "words": 9},
        ),
        row("dense", "H" * 7, attack_settings=settings),
        row("dense", task="books", shifted_from="toy"),
    ]
    recipe = {**RECIPE, "kind": "evaluate", "target": "runs/dense", "shifted_from": {"books": "data/books"}}
    two, seven = (parsed(words) for words in command_words(recipe, out="x", rows=rows))
    assert (two["attack"], two[".examples"], two[".split"]) == (["deepwordbug", "word_swap"], 2, "test")
    assert (seven["attack"], seven[".examples"]) == (["deepwordbug"], 7)
    assert two[".shifted"] == ["data/books"]
    assert str(two["word_swap.neighbours"]) == "FILE"


def test_an_evaluation_of_other_labels_says_how_they_were_mapped_and_broken_down():
    label_map = {"groups": {"entailment": ["entailment"], "other": ["neutral", "against"]}, "how": "sum"}
    cases = {"subcase": {"a": {"examples": 2, "accuracy": 1.0}}}
    rows = [row("dense"), row("dense", task="hans", shifted_from="toy", label_map=label_map, by=cases)]
    (found,) = command_words({**RECIPE, "kind": "evaluate", "target": "runs/dense"}, out="x", rows=rows)
    args = parsed(found)
    assert args[".shifted"] == ["hans"]
    assert args[".label_map"] == ["entailment=entailment,other=neutral+against"]
    assert (args[".merge"], args[".by"]) == ("sum", ["subcase"])


def test_a_whole_studys_commands_read_as_they_are_typed(tmp_path):
    found = commands(gather([study(tmp_path)]))
    assert len(found) == 5
    for command in found:
        parsed(shlex.split(command.words.replace("\\\n", " ")))
        assert command.facts[0].startswith("run ")


def test_the_demo():
    (words,) = command_words({"kind": "demo", "common": {**COMMON, "seed": 4}}, out="runs/demo")
    assert words == ["hardtack", "demo", "--seed", "4", "--out", "runs/demo"]


def test_rows_that_lie_in_two_folders_belong_to_the_one_that_measured_them(tmp_path):
    """A demo's folder holds the rows of its evaluations too."""
    study(tmp_path)
    file = tmp_path / "evaluate-dense" / "rows.jsonl"
    record(tmp_path, kind="demo")
    (tmp_path / "rows.jsonl").write_text(file.read_text())
    (tmp_path / "outcomes.jsonl").write_text(file.with_name("outcomes.jsonl").read_text())
    found = {command.title: command.words for command in commands(gather([tmp_path]))}
    assert "--attack deepwordbug" in found[f"{tmp_path.name}/evaluate-dense"]
