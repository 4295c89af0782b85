"""The flags that several verbs share: task and folder, objectives, attacks, and what stands everywhere."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hardtack.cli.parser import Parser, add, fields, one_of, typed
from hardtack.errors import InputError

SHORT = {"word_swap": {"neighbours": "--neighbours"}}  # attack -> field -> its plain flag


def first_line(thing: object) -> str:
    """Return the first sentence of a class's documentation."""
    return (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ").strip().rstrip(".")


def add_task_and_out(parser: Parser) -> None:
    """Add --task and --out, which every stage needs."""
    group = parser.add_argument_group("data and results")
    group.add_argument(
        "--task",
        required=True,
        metavar="TASK",
        help="a built-in name (sst2, made, ...) or a folder or file of your own",
    )
    group.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="the run folder: new, empty, or of the same command, which then resumes",
    )


def add_common(parser: Parser, *, without: Collection[str] = ()) -> None:
    """Add the flags that stand everywhere: the fields of `stages.Common`, but for those of no use."""
    from hardtack.stages import Common

    useful = [setting for setting in fields(Common) if setting.name not in without]
    add(parser, useful, title="everywhere")


def common(args: argparse.Namespace) -> Any:
    """Return the `stages.Common` that was typed."""
    from hardtack.stages import Common

    return Common(**typed(args, fields(Common), owner="hardtack"))


def add_objective(parser: Parser, *, default: str = "clean", what: str = "what training minimises") -> None:
    """Add --objective and, as --OBJECTIVE.FIELD, the fields of every objective."""
    from hardtack.training.adversarial import OBJECTIVES

    parser.add_argument(
        "--objective",
        type=one_of("objective", OBJECTIVES),
        metavar="{" + ",".join(OBJECTIVES) + "}",
        default=argparse.SUPPRESS,
        help=f"{what}; its settings are the --OBJECTIVE.FIELD flags (default: {default})",
    )
    for name, cls in OBJECTIVES.items():
        if fields(cls):
            add(parser, fields(cls), title=f"--objective {name}: {first_line(cls)}", prefix=name)


def objective(args: argparse.Namespace) -> dict[str, Any]:
    """Return {"objective": instance} when one was chosen; settings of one that was not are refused."""
    from hardtack.training.adversarial import OBJECTIVES

    chosen = vars(args).get("objective")
    _refuse_settings_of_others(args, OBJECTIVES, [chosen], "--objective")
    if chosen is None:
        return {}
    cls = OBJECTIVES[chosen]
    return {"objective": cls(**typed(args, fields(cls), owner=f"--objective {chosen}", prefix=chosen))}


def add_attacks(parser: Parser) -> None:
    """Add --attack and, as --ATTACK.FIELD, the fields of every attack."""
    from hardtack.evaluation.attacks import ATTACKS

    parser.add_argument(
        "--attack",
        action="append",
        type=one_of("attack", ATTACKS),
        metavar="{" + ",".join(ATTACKS) + "}",
        default=[],
        help="an attack on the sampled examples, with its --ATTACK.FIELD flags as settings (may be repeated)",
    )
    for name, cls in ATTACKS.items():
        add(
            parser,
            fields(cls),
            title=f"--attack {name}: {first_line(cls)}",
            prefix=name,
            short=SHORT.get(name),
        )


def attacks(args: argparse.Namespace) -> tuple[Any, ...]:
    """Return one instance for each row of each attack that was chosen; settings of others are refused."""
    from hardtack.evaluation.attacks import ATTACKS, attacks_of

    chosen = list(dict.fromkeys(args.attack))
    members = vars(args).get("cascade.members", []) if "cascade" in chosen else []
    _refuse_settings_of_others(args, ATTACKS, [*chosen, *members], "--attack")

    def build(name: str, known: Mapping[str, Any]) -> Any:
        given = typed(args, fields(ATTACKS[name]), owner=f"--attack {name}", prefix=name)
        return ATTACKS[name](**{**given, **known})

    return attacks_of(chosen, members, build)


def _refuse_settings_of_others(
    args: argparse.Namespace, known: Mapping[str, type], chosen: Sequence[str | None], flag: str
) -> None:
    for name, cls in known.items():
        for setting in fields(cls):
            if name not in chosen and f"{name}.{setting.name}" in vars(args):
                raise InputError(
                    f"--{name}.{setting.flag} is a setting of {flag} {name}, which was not chosen"
                )
