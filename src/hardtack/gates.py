"""Trainable masks: gates beside a plain model, and the context in which its weights become gate * weight.

Sources: Louizos et al. 2018 (hard-concrete distribution); constants and equations as in Zheng et al. 2022
(eq. 1-5). Liu et al. 2017 (network slimming: a plain coefficient a unit).
"""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hardtack.prunable import Prunable

GAMMA, ZETA, BETA = -0.1, 1.1, 2.0 / 3.0
"""Stretch limits and temperature of the hard-concrete distribution (eq. 2-3; beta from the released code)."""
EDGE = 1e-4
"""Uniform noise is kept this far from 0 and 1, so that its logit is finite."""
_UNIFORM = ((np.arange(2**16) + 0.5) / 2**16).clip(EDGE, 1 - EDGE)
_LOGITS = (np.log(_UNIFORM / (1 - _UNIFORM)) / BETA).astype(np.float32)
"""(log u - log(1 - u)) / beta for 16-bit uniform u: a look-up is cheaper than floats and their logarithms."""


class Gates(Protocol):
    """A factor for each unit of a view, which `gated` multiplies the model's weights by.

    `frozen` says whether the weights stand still meanwhile, so that only the gates receive gradients.
    """

    frozen: ClassVar[bool]
    view: Prunable

    def sampled(self) -> dict[str, Tensor]:
        """Return the factors of one forward in training mode: site -> [units]."""
        ...

    def expected(self) -> dict[str, Tensor]:
        """Return the factors in evaluation mode."""
        ...


class SoftGates:
    """One plain coefficient for each unit, 1 at the start, trained together with the weights.

    It multiplies the unit's exit, which equals scaling what the unit puts out. `offsets[site]` holds
    coefficient - 1, float32 [units]: near 1 float32 has steps of 6e-8, too coarse for a ranking of
    coefficients that a small learning rate moves by 1e-5; near 0 it has not.

    Args:
        view: the units.
        device: where the offsets live (the model's device).
    """

    frozen: ClassVar[bool] = False

    def __init__(self, view: Prunable, device: torch.device | str = "cpu"):
        self.view = view
        self.offsets: dict[str, nn.Parameter] = {
            site.name: nn.Parameter(torch.zeros(site.units, device=device)) for site in view.sites
        }

    def parameters(self) -> list[nn.Parameter]:
        """Return the offsets, in the order of the sites."""
        return list(self.offsets.values())

    def sampled(self) -> dict[str, Tensor]:
        """Return the coefficients: nothing is drawn."""
        return {name: 1 + offset for name, offset in self.offsets.items()}

    def expected(self) -> dict[str, Tensor]:
        """Return the coefficients."""
        return self.sampled()

    def mean_size(self, kind: str) -> Tensor:
        """Return the mean of |coefficient| over all units of a kind, a scalar with gradient."""
        sites = [site.name for site in self.view.sites if site.kind == kind]
        return (1 + torch.cat([self.offsets[name] for name in sites])).abs().mean()


class HardConcreteGates:
    """One hard-concrete gate for each prunable unit.

    A gate is sampled in training mode and deterministic in evaluation mode. `scores[site]` holds log alpha,
    float32 [units].

    Args:
        view: the units to gate.
        opening: value of the deterministic gate at the start, in (-0.1, 1.1); 0.9 means log alpha = ln 5.
        device: where the scores live (the model's device).
    """

    frozen: ClassVar[bool] = True

    def __init__(self, view: Prunable, opening: float = 0.9, device: torch.device | str = "cpu"):
        share = (opening - GAMMA) / (ZETA - GAMMA)
        start = math.log(share / (1 - share))
        self.view = view
        self.scores: dict[str, nn.Parameter] = {
            site.name: nn.Parameter(torch.full((site.units,), start, device=device)) for site in view.sites
        }
        self.stream = torch.Generator()

    def parameters(self) -> list[nn.Parameter]:
        """Return the score tensors, in the order of the sites."""
        return list(self.scores.values())

    def sampled(self) -> dict[str, Tensor]:
        """Draw a gate for each unit (eq. 1-3); `stream`, set for each step, gives the noise."""
        seeds = torch.randint(2**63 - 1, (len(self.scores),), generator=self.stream).tolist()
        with ThreadPoolExecutor(2) as pool:  # numpy draws and looks up without Python's lock
            noise = list(pool.map(_logistic, map(len, self.scores.values()), seeds))
        pairs = zip(self.scores.items(), noise, strict=True)
        return {name: _hard_concrete(score, drawn.to(score)) for (name, score), drawn in pairs}

    def expected(self) -> dict[str, Tensor]:
        """Return the deterministic gates used for evaluation: no noise and no temperature (eq. 5)."""
        return {name: _stretch(torch.sigmoid(score)) for name, score in self.scores.items()}

    def expected_open(self, mean_of: str = "sites") -> Tensor:
        """Return the expected share of gates that are not zero (eq. 4), a scalar in (0, 1) with gradient.

        Args:
            mean_of: "sites" averages each site first and then the sites (what the released code does: a gate
                of a small matrix weighs more); "gates" averages all gates, as eq. 4 is written.
        """
        shift = BETA * math.log(-GAMMA / ZETA)
        if mean_of == "gates":
            return torch.cat([torch.sigmoid(score - shift) for score in self.parameters()]).mean()
        return torch.stack([torch.sigmoid(score - shift).mean() for score in self.parameters()]).mean()

    def log_odds(self) -> dict[str, Tensor]:
        """Return log alpha for ranking, not its sigmoid, which saturates in float32 and makes ties."""
        return {name: score.detach().clone() for name, score in self.scores.items()}


def _logistic(units: int, seed: int) -> Tensor:
    """Draw logistic noise (log u - log(1 - u)) / beta, float32 [units], four values from each 64-bit draw."""
    words = np.random.SFC64(seed).random_raw(-(-units // 4)).view(np.uint16)[:units]
    noise = torch.empty(units)
    np.take(_LOGITS, words, out=noise.numpy(), mode="clip")  # the fast mode; no index is out of range
    return noise


class _HardConcrete(torch.autograd.Function):
    """clip(sigmoid(noise + log alpha / beta) * (zeta - gamma) + gamma, 0, 1), keeping one tensor."""

    @staticmethod
    def forward(ctx, score: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        soft = noise.add_(score, alpha=1 / BETA).sigmoid_()  # in place: the noise is ours alone
        ctx.save_for_backward(soft)
        return torch.add(soft.new_tensor(GAMMA), soft, alpha=ZETA - GAMMA).clamp_(0, 1)

    @staticmethod
    @once_differentiable  # a second derivative is refused instead of silently wrong
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (soft,) = ctx.saved_tensors
        low, high = -GAMMA / (ZETA - GAMMA), (1 - GAMMA) / (ZETA - GAMMA)
        # torch's own fused passes: zero outside (low, high), then times soft (1 - soft)
        inside = torch.ops.aten.hardtanh_backward(gradient, soft, low, high)
        return torch.ops.aten.sigmoid_backward(inside, soft).mul_((ZETA - GAMMA) / BETA), None


def _hard_concrete(score: Tensor, noise: Tensor) -> Tensor:
    return _HardConcrete.apply(score, noise)  # type: ignore[no-any-return]


def _stretch(soft: Tensor) -> Tensor:
    return (soft * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


@contextmanager
def gated(model: nn.Module, gates: Gates) -> Iterator[None]:
    """Multiply the model's weights by gates inside the block; undo it bit for bit on exit.

    The gates are drawn once for each forward of the whole model, in a pre-hook, and the modules read the
    stored product: a layer that is used several times (ALBERT), a weight read twice in a forward and a
    re-computed activation see one draw. Where the gates say so, all weights are frozen meanwhile and only the
    scores receive gradients; else both do.
    """
    tensors = gates.view.tensors(model)
    wanted = {id(parameter): name for name, parameter in tensors.items() if name in _gated_names(gates.view)}
    frozen = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    places = [
        (module, attribute, wanted[id(parameter)])
        for module in model.modules()
        for attribute, parameter in module._parameters.items()
        if parameter is not None and id(parameter) in wanted
    ]
    originals = [(module, dict(module._parameters)) for module in {id(m): m for m, _, _ in places}.values()]

    def store(values: Mapping[str, Tensor]) -> None:
        for module, attribute, name in places:
            module.__dict__[attribute] = values[name]

    def draw(module: nn.Module, inputs: object) -> None:
        factors = gates.view.factors(gates.sampled() if module.training else gates.expected())
        store({name: tensors[name] * factor for name, factor in factors.items()})

    for parameter, _ in frozen if gates.frozen else ():
        parameter.requires_grad_(False)
    for module, attribute, _ in places:
        del module._parameters[attribute]
    store({name: tensors[name].detach() for name in _gated_names(gates.view)})
    hook = model.register_forward_pre_hook(draw)
    try:
        yield
    finally:
        hook.remove()
        for module, attribute, _ in places:
            del module.__dict__[attribute]
        for module, parameters in originals:
            module._parameters.clear()
            module._parameters.update(parameters)  # the old order, which state dicts and optimizers rely on
        for parameter, flag in frozen:
            parameter.requires_grad_(flag)


def _gated_names(view: Prunable) -> set[str]:
    return {site.exit.param for site in view.sites}
