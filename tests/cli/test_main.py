"""The command line as a contract: verbs, flags, exit statuses, one line for a mistake, JSON for programs."""

import errno
import functools
import inspect
import json
import subprocess
import sys

import pytest

from hardtack.cli import main, overview
from hardtack.cli.parser import Parser, fields
from hardtack.cli.verbs import VERBS
from hardtack.errors import InputError
from hardtack.evaluation.attacks import ATTACKS, DeepWordBug
from hardtack.evaluation.attacks.cascade import Cascade
from hardtack.evaluation.attacks.pruthi import Pruthi
from hardtack.evaluation.attacks.word_swap import WordSwap
from hardtack.methods import METHODS
from hardtack.methods.hard_concrete import HardConcrete
from hardtack.select import Sparsity
from hardtack.training.adversarial import OBJECTIVES, FreeLB

PLAN = {
    "stages": [{"name": "warm-up", "seconds": 90.0, "bytes": 2_000_000}],
    "seconds": 90.0,
    "bytes": 2_000_000,
}
RESULT = {"rows": [], "lines": [], "note": "a toy", "seconds": 1.0, "folder": "x", "best": float("nan")}
TASK = ("--task", "made", "--out", "runs/x")


@pytest.fixture
def calls(monkeypatch):
    """Replace every stage by one of the same signature that records how it was called."""
    from hardtack import stages

    recorded = {}

    def replace(name, original):
        @functools.wraps(original)
        def stage(*values, watch=None, dry_run=False, **named):
            inspect.signature(original).bind(*values, watch=watch, dry_run=dry_run, **named)
            watch("work", 1, 2)
            print("chatter of a library")
            recorded[name] = (*values, named)
            return PLAN if dry_run else RESULT | {"run": name}

        monkeypatch.setattr(stages, name, stage)

    for name in ("demo", "train", "search", "retrain", "evaluate"):
        replace(name, getattr(stages, name))
    return recorded


def refused(capsys, *words):
    """Run a command that must be refused; return its one line."""
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.endswith("\n")
    return shown.err


def test_help_is_fast_and_imports_no_model_library():
    code = "import sys; from hardtack.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, modules = done.stdout.splitlines()
    assert not {"torch", "transformers", "datasets", "scipy", "numpy"} & set(modules.split())
    assert "\n".join(shown) == overview()
    for name, verb in VERBS.items():
        assert f"  {name}" in overview()
        assert verb.EXAMPLE in overview()


def test_the_verbs_of_the_contract():
    assert list(VERBS) == [
        "demo", "train", "search", "retrain", "evaluate", "soup", "export", "ship", "study",
        "show", "compare", "report", "runs", "resources",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr()
    assert f"example:\n  {VERBS[verb].EXAMPLE}" in shown.out
    assert shown.out.startswith(f"usage: hardtack {verb}")
    assert "--json" in shown.out
    assert "--dry-run" in shown.out
    assert ("--seed" in shown.out) == (verb != "resources")  # it draws nothing
    assert shown.err == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_parses(verb):
    words = VERBS[verb].EXAMPLE.split()
    assert words[:2] == ["hardtack", verb]
    parser = Parser(f"hardtack {verb}", summary=VERBS[verb].SUMMARY, example="")
    VERBS[verb].flags(parser, words[2:])
    parser.parse(words[2:])


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_help_lists_its_fields(method, capsys):
    assert main(["search", method, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{setting.flag} " in shown for setting in fields(METHODS[method]))
    assert "--sparsity" in shown


def test_every_field_can_be_a_flag_and_is_explained():
    from hardtack.stages import Common

    for cls in (*METHODS.values(), *OBJECTIVES.values(), *ATTACKS.values(), Common):
        for setting in fields(cls):
            assert setting.help, f"{cls.__name__}.{setting.name} has no help"


def test_train_hands_its_flags_down(calls, capsys):
    words = (
        "train",
        "tiny",
        *TASK,
        "--objective",
        "freelb",
        "--freelb.steps",
        "2",
        "--epochs",
        "5",
        "--seed",
        "3",
    )
    assert main(words) == 0
    model, named = calls["train"]
    assert (model, named["task"], named["out"], named["epochs"]) == ("tiny", "made", "runs/x", 5)
    assert named["objective"] == FreeLB(steps=2)
    assert named["common"].seed == 3
    assert "lr" not in named  # defaults live in the stage


def test_search_builds_its_method(calls, capsys):
    words = (
        "search",
        "hard_concrete",
        "tiny",
        *TASK,
        "--from",
        "tuned",
        "--sparsity",
        "0.3",
        "--sparsity",
        "2:4",
    )
    assert main((*words, "--price-begin", "0.2", "--granularity", "head", "--warm-epochs", "1")) == 0
    method, model, named = calls["search"]
    assert method == HardConcrete(sparsities=(Sparsity(0.3), Sparsity(banks=(2, 4))), price_begin=0.2)
    assert (model, named["start"], named["granularity"], named["warm_epochs"]) == (
        "tiny",
        "tuned",
        ("head",),
        1,
    )


def test_retrain_hands_its_flags_down(calls, capsys):
    assert main(("retrain", "ticket", *TASK, "--base", "moved", "--epoch-rule", "best")) == 0
    ticket, named = calls["retrain"]
    assert (ticket, named["base"], named["epoch_rule"]) == ("ticket", "moved", "best")


def test_evaluate_builds_its_attacks(calls, capsys, tmp_path):
    table = tmp_path / "neighbours.jsonl"
    table.write_text('{"word": "good", "neighbours": ["fine"]}\n')
    words = ("evaluate", "tiny", *TASK, "--attack", "deepwordbug", "--deepwordbug.query-limit", "500")
    assert (
        main((*words, "--shifted", "a", "--shifted", "b", "--examples", "20", "--split", "validation")) == 0
    )
    _, named = calls["evaluate"]
    assert named["attacks"] == (DeepWordBug(query_limit=500),)
    assert (named["shifted"], named["examples"], named["split"]) == (("a", "b"), 20, "validation")


def test_members_of_a_cascade_have_the_flags_of_their_names(calls, tmp_path):
    table = tmp_path / "table.jsonl"
    table.write_text('{"word": "good", "neighbors": ["fine"]}\n')
    words = ["--attack", "cascade", "--cascade.members", "word_swap", "--cascade.members", "pruthi"]
    words += ["--word_swap.neighbours", str(table), "--pruthi.max-words", "2", "--cascade.query-limit", "9"]
    assert main(["evaluate", "tiny", *TASK, *words]) == 0
    (cascade,) = calls["evaluate"][1]["attacks"]
    assert cascade == Cascade((WordSwap(table), Pruthi(max_words=2)), query_limit=9)


def test_a_sweep_is_a_row_for_each_radius(calls):
    radii = ("--embedding_pgd.radii", "0.5", "--embedding_pgd.radii", "2")
    assert main(["evaluate", "tiny", *TASK, "--attack", "embedding_pgd", *radii]) == 0
    found = [attack.radii for attack in calls["evaluate"][1]["attacks"]]
    assert found == [(0.5,), (2.0,)]


def test_demo_has_a_default_folder(calls, capsys):
    assert main(("demo",)) == 0
    assert calls["demo"][0]["out"] == "runs/demo"


@pytest.mark.parametrize("words", [("train", "tiny", *TASK), ("demo",), ("evaluate", "tiny", *TASK)])
def test_json_is_all_there_is_on_standard_output(calls, capsys, words):
    assert main((*words, "--json")) == 0
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    assert json.loads(shown.out) == RESULT | {"run": words[0], "best": None}  # NaN is no JSON
    assert "chatter of a library" in shown.err


def test_dry_run_prints_the_plan(calls, capsys):
    assert main(("train", "tiny", *TASK, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "| warm-up | 1 min 30 s | 2.0 MB |" in shown
    assert "nothing was run" in shown
    assert main(("train", "tiny", *TASK, "--dry-run", "--json")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == PLAN


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serch",), "unknown verb 'serch'; did you mean 'search'? allowed: compare, demo"),
        (("--jsno",), "unknown flag '--jsno'"),
        (("demo", "--uot", "x"), "unknown flag '--uot'; did you mean '--out'?"),
        (("demo", "--seed", "one"), "argument --seed: 'one' is no whole number"),
        (("train",), "the following arguments are required: MODEL, --task, --out"),
        (("train", "tiny", *TASK, "--lr", "high"), "argument --lr: 'high' is no number"),
        (
            ("train", "tiny", *TASK, "--objective", "freelbb"),
            "unknown objective 'freelbb'; did you mean 'freelb'?",
        ),
        (
            ("train", "tiny", *TASK, "--freelb.steps", "3"),
            "--freelb.steps is a setting of --objective freelb",
        ),
        (("train", "tiny", *TASK, "--objective", "pgd", "--pgd.step", "3"), "did you mean '--pgd.steps'?"),
        (("train", "tiny", "more", *TASK), "unexpected argument 'more'"),
        (
            ("search", "hard_concret", "tiny", *TASK),
            "'hard_concret' is none; did you mean 'hard_concrete'? allowed:",
        ),
        (("search", "--seed", "1", "random", "tiny"), "METHOD comes first"),
        (("search",), "required: METHOD, MODEL, --task, --out"),
        (
            ("search", "random", "tiny", *TASK, "--sparsity", "1"),
            "'1' is not a fraction; allowed: 0 <= sparsity < 1",
        ),
        (
            ("search", "random", "tiny", *TASK, "--sparsity", "hed=0.2"),
            "kind 'hed' does not exist; allowed: weight",
        ),
        (("search", "random", "tiny", *TASK, "--price", "1"), "unknown flag '--price'"),
        (("retrain", "ticket", *TASK, "--epochs"), "argument --epochs: expected one argument"),
        (
            ("evaluate", "tiny", *TASK, "--attack", "deepwordbog"),
            "did you mean 'deepwordbug'? allowed: bae-minilm",
        ),
        (("evaluate", "tiny", *TASK, "--attack", "word_swap"), "word_swap"),
        (
            ("evaluate", "tiny", *TASK, "--neighbours", "x"),
            "--word_swap.neighbours is a setting of --attack word_swap",
        ),
        (
            ("evaluate", "tiny", *TASK, "--attack", "deepwordbug", "--deepwordbug.max-distance", "0"),
            "max_distance = 0; allowed: 1 and more",
        ),
        (
            ("evaluate", "tiny", *TASK, "--attack", "deepwordbug", "--deepwordbug.columns", "third"),
            "unknown value 'third'",
        ),
        (("evaluate", "tiny", *TASK, "--precision", "bf16"), "unknown flag '--precision'"),
        (("demo", "--text-column", "words"), "unknown flag '--text-column'"),
        (("show", "sst3"), "did you mean 'sst2'?"),
        (("show",), "required: THING"),
        (("compare", "nowhere"), "'nowhere' is no folder"),
        (("compare", "nowhere", "--seed", "x"), "'x' is no whole number"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(calls, capsys, words, said):
    assert said in refused(capsys, *words)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            InputError("NaN loss at step 7;\nthe last good state is kept"),
            2,
            "NaN loss at step 7; the last good state",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/log.jsonl"),
            2,
            "No space left on device: 'runs/x/",
        ),
        (MemoryError(), 2, "out of memory"),
        (KeyboardInterrupt(), 130, "the same command resumes"),
    ],
)
def test_what_stops_a_run_is_one_line(calls, capsys, monkeypatch, error, status, said):
    from hardtack import stages

    def stop(*, out, common, watch, dry_run):
        raise error

    monkeypatch.setattr(stages, "demo", stop)
    assert main(["demo"]) == status
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert said in shown.err


def test_a_failure_of_ours_has_a_traceback_and_status_1(calls, capsys, monkeypatch):
    from hardtack import stages

    def fail(*, out, common, watch, dry_run):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(stages, "demo", fail)
    assert main(["demo"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_show_and_compare_have_nothing_to_plan(capsys):
    for words in (("show", "anything"), ("compare", "a", "b")):
        assert main((*words, "--dry-run")) == 0
        assert "| all   | 0.0 s | 0 bytes |" in capsys.readouterr().out


def test_the_installed_command(tmp_path):
    command = [sys.executable, "-c", "import sys; from hardtack.cli import main; sys.exit(main())"]
    wrong = subprocess.run([*command, "compare", "nowhere"], capture_output=True, text=True, cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    (tmp_path / "train.csv").write_text(
        "text,label\n" + "".join(f"text number {i},{i % 2}\n" for i in range(40))
    )
    shown = subprocess.run([*command, "show", ".", "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["kind"] == "task"
