"""Tables that hand-written pages take by the directive `facts`: all from registries, none by hand."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import hardtack
from hardtack.cli.parser import NO_DEFAULT, fields
from hardtack.cli.verbs import VERBS
from hardtack.errors import InputError
from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.flags import FLAGS
from hardtack.families import FAMILIES
from hardtack.methods import METHODS
from hardtack.methods.search import Search
from hardtack.prunable import KINDS, Prunable
from hardtack.select import Sparsity
from hardtack.stages import Common
from hardtack.training.adversarial import OBJECTIVES
from hardtack_docs.plain import code, inline, markdown, table

NEEDS = {
    "weights": "weights only",
    "inputs": "texts without labels",
    "labels": "texts with labels",
}
EPOCH = 1000  # steps, to read off how many epochs a method trains
SPARSITIES = (0.3, 0.9)


def first_line(thing: object) -> str:
    """Return the first sentence of a docstring, on one line."""
    return " ".join((thing.__doc__ or "").strip().split("\n\n")[0].split())


def cost(method: type[Search]) -> str:
    """Say how many passes over the training data a search takes, for a low and a high sparsity."""
    passes = OBJECTIVES[method.minimises]().passes
    epochs = {
        wanted: method(sparsities=(Sparsity(fraction=wanted),)).steps(EPOCH) / EPOCH  # type: ignore[call-arg]
        for wanted in SPARSITIES
    }
    if not any(epochs.values()):
        return "no training"
    each = f"{passes} a step, `{method.minimises}`"
    if len(set(epochs.values())) == 1:
        return f"{epochs[SPARSITIES[0]] * passes:g} passes ({each})"
    return ", ".join(f"{count * passes:g} passes at {at}" for at, count in epochs.items()) + f" ({each})"


def start(method: type[Search]) -> str:
    """Say where a search starts."""
    return {"base": "the base", "finetuned": "a fine-tuned model (`--from`)"}[method.starts]


def methods() -> str:
    """Compare the methods that exist."""
    head = ("Method", "Take it when", "Needs", "Starts from", "Costs", "Gives")
    rows = [
        (
            f"[{inline(name)}](/methods/{name}.md)",
            inline(method.advice),
            NEEDS[method.needs],
            start(method),
            cost(method),
            inline(method.gives),
        )
        for name, method in METHODS.items()
    ]
    return table(head, rows)


def verbs() -> str:
    """List the verbs."""
    rows = [(f"[{name}](/verbs/{name}.md)", inline(verb.SUMMARY)) for name, verb in VERBS.items()]
    return table(("Verb", "What it does"), rows)


def settings(cls: type, prefix: str = "") -> str:
    """List the fields of a dataclass as flags; a line that says so where there is none."""
    rows = [
        (
            code(f"--{prefix}{setting.flag}"),
            "needed"
            if setting.default is NO_DEFAULT
            else "-"
            if setting.default in (None, ())
            else code(setting.default),
            inline(setting.help),
        )
        for setting in fields(cls)
    ]
    return table(("Flag", "Default", "Meaning"), rows) if rows else "It has no settings."


def common() -> str:
    """List the flags that stand everywhere."""
    return settings(Common)


def objectives() -> str:
    """Describe the objectives, each with its settings."""
    return _described(
        OBJECTIVES, "--objective", lambda cls: f"Passes a step, at the defaults: {cls().passes}."
    )


def attacks() -> str:
    """Describe the attacks, each with its settings."""
    return _described(ATTACKS, "--attack", lambda cls: f"Version {cls.version}.")


def _described(registry: Mapping[str, type], flag: str, fact: Callable[[Any], str]) -> str:
    parts = []
    for name, cls in registry.items():
        parts += [f"## {inline(name)}", f"`{flag} {name}`. {fact(cls)}", markdown(cls.__doc__, level=3)]
        parts += ["### Settings", settings(cls, f"{name}.")]
    return "\n\n".join(parts)


def families() -> str:
    """Say which kinds of unit each family has, by asking for them: on its default shape, without weights."""
    import torch
    from transformers import AutoConfig, AutoModel

    rows = []
    for name in FAMILIES:
        with torch.device("meta"):
            model = AutoModel.from_config(AutoConfig.for_model(name))
        found = []
        for kind in KINDS:
            try:
                view = Prunable.of(model, (kind,))
            except InputError:  # this family has none of the kind
                found.append("-")
            else:
                found.append(f"{view.units:,} in {len(view.sites):,}")
        rows.append((code(name), *found))
    rows.append(("any other", "every linear and convolution weight", *("-" for _ in KINDS[1:])))
    return table(("`model_type`", *KINDS), rows)


def functions() -> str:
    """Document every public function of `hardtack` from its docstring."""
    names = (name for name in hardtack.__all__ if inspect.isfunction(getattr(hardtack, name)))
    lines = "\n".join(f".. autofunction:: hardtack.{name}" for name in names)
    return f"```{{eval-rst}}\n{lines}\n```"


def flags() -> str:
    """Give each flag of a row its paragraph: raised if, why, what to do."""
    parts = []
    for name, text in FLAGS.items():
        parts.append(f"### {inline(name)}")
        for part in ("Why: ", "What to do: "):
            text = text.replace(part, f"\n\n**{part.strip()}** ")
        parts.append(inline(text.replace("**", "\0")).replace("\0", "**"))
    return "\n\n".join(parts)


TABLES: Mapping[str, Callable[[], str]] = {
    "methods": methods,
    "verbs": verbs,
    "common": common,
    "objectives": objectives,
    "attacks": attacks,
    "families": families,
    "flags": flags,
    "functions": functions,
}
