"""Fields become flags; every mistake is one line that names the value and what is allowed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardtack.cli.parser import Parser, add, fields, notation, one_of, parameters, typed
from hardtack.errors import InputError
from hardtack.select import Sparsity


@dataclass(frozen=True)
class Toy:
    """A toy. With more words."""

    rates: tuple[float, ...] = field(default=(0.5,), metadata={"help": "several"})
    warm_steps: int = field(default=100, metadata={"help": "steps at 5% of the rate"})
    rate: float = field(default=1e-3, metadata={"help": "how fast"})
    rule: Literal["last", "best"] = field(default="last", metadata={"help": "which"})
    note: str | None = field(default=None, metadata={"help": "any words"})
    table: Path | None = None
    whole: tuple[str, ...] = ()
    source: str | Path | dict | None = None
    parts: Sequence[str] = ()
    copy: bool = False
    loss: Any = field(default=None, metadata={"flag": False})


@dataclass(frozen=True)
class Needy:
    """Needs a number."""

    number: int = field(metadata={"help": "the one it needs"})


def parser(cls=Toy, prefix="", **more):
    made = Parser("hardtack toy", summary="does nothing", example="hardtack toy --rate 1")
    add(made, fields(cls), title="toy", prefix=prefix, **more)
    return made


def read(*words, cls=Toy, prefix="", **more):
    made = parser(cls, prefix, **more)
    return cls(**typed(made.parse(words), fields(cls), owner="toy", prefix=prefix))


def complaint(*words, **more):
    with pytest.raises(InputError) as caught:
        read(*words, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_typed_gives_the_defaults_of_the_dataclass():
    assert read() == Toy()


def test_every_kind_of_value():
    found = read(
        *("--rates", "0.3", "--rates", "4", "--warm-steps", "7", "--rate=2e-5", "--rule", "best"),
        *(
            "--note",
            "5",
            "--table",
            "a/b",
            "--whole",
            "x",
            "--whole",
            "y",
            "--copy",
            "--source",
            "s",
            "--parts",
            "p",
        ),
    )
    assert found == Toy((0.3, 4.0), 7, 2e-5, "best", "5", Path("a/b"), ("x", "y"), Path("s"), ("p",), True)
    assert read("--no-copy") == Toy()


def test_a_negative_number_is_a_value():
    assert read("--rate", "-1").rate == -1.0


@given(st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_as_typed(whole, number):
    found = read(f"--warm-steps={whole}", f"--rate={number!r}")
    assert (found.warm_steps, found.rate) == (whole, number)


def test_prefixed_flags_and_their_short_form():
    assert read("--toy.warm-steps", "3", prefix="toy").warm_steps == 3
    assert read("--warm", "3", prefix="toy", short={"warm_steps": "--warm"}).warm_steps == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--warm-step", "3"), "unknown flag '--warm-step'; did you mean '--warm-steps'?"),
        (("--warm_steps=3",), "unknown flag '--warm_steps'; did you mean '--warm-steps'?"),
        (("--zzz",), "unknown flag '--zzz'; `hardtack toy --help`"),
        (("-x",), "unknown flag '-x'"),
        (("--warm-steps", "3.5"), "argument --warm-steps: '3.5' is no whole number"),
        (("--rate", "fast"), "argument --rate: 'fast' is no number"),
        (("--rate", "nan"), "argument --rate: 'nan' is no number"),
        (("--rule", "bset"), "unknown value 'bset'; did you mean 'best'? allowed: best, last"),
        (("--rate",), "argument --rate: expected one argument"),
        (("stray",), "unexpected argument 'stray'"),
    ],
)
def test_mistakes_name_the_value_and_what_is_allowed(words, said):
    assert said in complaint(*words)


def test_an_unknown_flag_is_named_before_a_missing_argument():
    made = parser()
    made.add_argument("model")
    with pytest.raises(InputError, match="unknown flag '--rat'"):
        made.parse(["--rat", "1"])
    with pytest.raises(InputError, match="required: model"):
        made.parse([])


def test_flags_are_not_abbreviated():
    assert "unknown flag '--rat'" in complaint("--rat", "1")


def test_a_needed_setting_is_asked_for_with_its_help():
    assert complaint(cls=Needy) == "toy needs --number: the one it needs"
    assert complaint(cls=Needy, prefix="needy") == "toy needs --needy.number: the one it needs"
    assert read("--number", "4", cls=Needy) == Needy(4)


def test_help_shows_helps_and_defaults_and_the_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        parser().parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert "several (may be repeated; default: 0.5)" in shown
    assert "steps at 5% of the rate (default: 100)" in shown
    assert "any words" in shown
    assert "example: hardtack toy --rate 1" in shown
    assert "--loss" not in shown


def test_a_field_that_no_flag_can_hold_is_a_failure_of_ours():
    @dataclass
    class Odd:
        odd: dict = field(default_factory=dict)

    with pytest.raises(TypeError, match="mark the field with metadata="):
        parser(Odd)


def test_parameters_of_a_function_are_settings():
    def stage(model: str, *, epochs: int = 3, base: str | None = None, lr: float) -> dict:
        return {}

    helps = {"epochs": "passes", "lr": "rate"}
    made = Parser("hardtack toy", summary="does nothing", example="")
    add(made, parameters(stage, helps), title="stage")
    args = made.parse(["--lr", "0.1"])
    assert typed(args, parameters(stage, helps), owner="toy") == {"lr": 0.1}
    with pytest.raises(InputError, match="toy needs --lr: rate"):
        typed(made.parse([]), parameters(stage, helps), owner="toy")


def test_one_of_suggests_the_nearest():
    made = Parser("hardtack toy", summary="does nothing", example="")
    made.add_argument("--method", type=one_of("method", ["magnitude", "random"]))
    with pytest.raises(InputError, match="unknown method 'magnitud'; did you mean 'magnitude'"):
        made.parse(["--method", "magnitud"])


def test_a_notation_of_its_own_keeps_its_words():
    made = Parser("hardtack toy", summary="does nothing", example="")
    made.add_argument("--sparsity", type=notation(Sparsity.parse))
    assert made.parse(["--sparsity", "2:4"]).sparsity == Sparsity(banks=(2, 4))
    with pytest.raises(
        InputError, match=r"argument --sparsity: sparsity '1\.0': '1\.0' is not a fraction; allowed: 0"
    ):
        made.parse(["--sparsity", "1.0"])
