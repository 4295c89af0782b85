"""What "plain" means for a model: everything about it that a method or objective could leave changed."""

from typing import NamedTuple

from tests.toys import same_state, state_of
from torch import Tensor, nn


class Facts(NamedTuple):
    """A model as it was: its tensors by value and identity, its flags, and what each module carries."""

    state: dict[str, Tensor]
    identities: list[tuple[str, int]]
    training: list[bool]
    trainable: list[bool]
    attributes: list[set[str]]


def facts_of(model: nn.Module) -> Facts:
    return Facts(
        state_of(model),
        [(name, id(parameter)) for name, parameter in model.named_parameters(remove_duplicate=False)],
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [set(module.__dict__) for module in model.modules()],
    )


def hooks_of(model: nn.Module) -> list[str]:
    """Name every hook of every kind that stands on the model."""
    return [
        f"{name or 'model'}.{kind}"
        for name, module in model.named_modules()
        for kind, held in module.__dict__.items()
        if "hook" in kind and isinstance(held, dict) and held
    ]


def changes(model: nn.Module, before: Facts) -> list[str]:
    """Say in words what is not as it was; empty for a plain model."""
    now = facts_of(model)
    found = {
        "hooks": hooks_of(model),
        "parametrizations": [
            name for name, m in model.named_modules() if "parametrizations" in name.split(".")
        ],
        "values": [] if same_state(model, before.state) else ["parameters or buffers differ"],
        "order or identity of parameters": [] if now.identities == before.identities else ["differ"],
        "training flags": [] if now.training == before.training else ["differ"],
        "requires_grad flags": [] if now.trainable == before.trainable else ["differ"],
        "attributes": [] if now.attributes == before.attributes else ["differ"],
        "gradients": [name for name, parameter in model.named_parameters() if parameter.grad is not None],
    }
    return [f"{what}: {', '.join(which)}" for what, which in found.items() if which]


def unusual_flags_(model: nn.Module) -> nn.Module:
    """Put part of the model into training mode and freeze part, so that flags put back by guess show."""
    for number, module in enumerate(model.modules()):
        module.training = number % 3 == 1
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 5 != 2)
    return model
