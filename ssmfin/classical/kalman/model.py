"""Owns what a linear Gaussian model is before its parameters are known: names, domains, units, starts, matrices.

    theta (unconstrained)  --natural-->  parameters (variances > 0, |phi| < 1)  --state_space-->  matrices F, H, Q, R

Units are declared, so that a series can be fitted at a scale of about one and its parameters taken back exactly:
with y' = (y - m) / s and x_j' = x_j / r_j a parameter of unit y^a x_j^b is theta' s^a r_j^b, plus m if a location.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ssmfin.errors import InputError
from ssmfin_kernels import StateSpace

Domain = Literal["real", "positive", "unit", "stationary"]
Apart = Literal["component", "common", "none"]


class Unit(NamedTuple):
    """y^y x^x: of the observed component and of the regressor they index."""

    y: int = 0
    x: int = 0
    component: int = 0
    regressor: int = 0


class Parameter(NamedTuple):
    """One parameter.

    Attributes:
        name: as in tables and JSON.
        domain: real; positive (exp theta); unit, (0, 1); stationary, (-1, 1) (tanh theta).
        unit: what it scales with.
        location: whether it moves with the mean of its component.
    """

    name: str
    domain: Domain = "real"
    unit: Unit = Unit()
    location: bool = False


class State(NamedTuple):
    """One element of the state: its name, and what it scales with."""

    name: str
    unit: Unit = Unit()


class Output(NamedTuple):
    """A named quantity of a model: weights (N,) or (B, N) on the state, plus offset (B,) or a number."""

    weights: Tensor
    offset: Tensor | float = 0.0


@dataclass(frozen=True)
class Specification(ABC):
    """A linear Gaussian state-space model up to its parameters; B series, K parameters, N states, P components.

    Options are the fields of the dataclass, so that `to_dict` and `kinds.specification(**d)` are inverses.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """What maximum likelihood finds, in the order of the columns of every (B, K) array."""

    @property
    @abstractmethod
    def states(self) -> tuple[State, ...]:
        """Elements of the state vector."""

    @abstractmethod
    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        """(B, S, K) natural parameters to start from, for y (B, T, P) of mean 0 and scale 1 or so, NaN missing."""

    @abstractmethod
    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        """Matrices for natural (B, K), differentiable; x (B, length, J) finite. Diffuse directions: unit variances."""

    @abstractmethod
    def outputs(self, natural: Tensor) -> dict[str, Output]:
        """Named quantities: level, slope, beta_1, ... for natural (B, K)."""

    @property
    def scaling(self) -> Apart:
        """Components have scales of their own; or one in common; or none, where the model fixes a variance."""
        return "component"

    @property
    def shifting(self) -> Apart:
        """Likewise for means: none where moving y moves more than the locations and the diffuse states."""
        return "component"

    @property
    def components(self) -> int:
        """P, observed components."""
        return 1

    @property
    def regressors(self) -> int:
        """J, columns of x."""
        return 0

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(state.name for state in self.states)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(self.outputs(torch.full((1, len(self.parameters)), 0.5, dtype=torch.float64)))

    def natural(self, theta: Tensor) -> Tensor:
        """(B, K) unconstrained -> (B, K) parameters, differentiable."""
        # rows, not strided columns: elementwise functions then give the same bits whatever the batch
        rows = theta.T.contiguous().unbind(0)
        return torch.stack([_into(row, p.domain) for row, p in zip(rows, self.parameters, strict=True)], 1)

    def free(self, natural: Tensor) -> Tensor:
        """(B, K) parameters -> (B, K) unconstrained: the inverse of `natural`, its borders moved inside."""
        rows = natural.T.contiguous().unbind(0)
        return torch.stack([_out_of(row, p.domain) for row, p in zip(rows, self.parameters, strict=True)], 1)

    def observe(self, y: Tensor) -> Tensor:
        """(B, T, P) as the user has it -> as the model takes it."""
        return y

    def to_dict(self) -> dict[str, Any]:
        """{"kind": ..., option: value, ...}, JSON."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}


def parameter_scale(spec: Specification, y_scale: Tensor, x_scale: Tensor) -> Tensor:
    """(B, K): natural parameters of the scaled series times this are those of the user's; locations come on top."""
    return torch.stack([_power(p.unit, y_scale, x_scale) for p in spec.parameters], 1)


def state_scale(spec: Specification, y_scale: Tensor, x_scale: Tensor) -> Tensor:
    """(B, N): likewise for elements of the state."""
    return torch.stack([_power(s.unit, y_scale, x_scale) for s in spec.states], 1)


def location_shift(spec: Specification, y_shift: Tensor) -> Tensor:
    """(B, K): the mean to add to those parameters that are locations."""
    zero = torch.zeros_like(y_shift[:, 0])
    return torch.stack([y_shift[:, p.unit.component] if p.location else zero for p in spec.parameters], 1)


def columns(natural: Tensor) -> tuple[Tensor, ...]:
    """(B, K) -> K vectors (B,), contiguous."""
    return natural.T.contiguous().unbind(0)


def diagonal(*entries: Tensor) -> Tensor:
    """N vectors (B,) -> diagonal matrices (B, 1, N, N), constant in time."""
    return torch.diag_embed(torch.stack(entries, -1))[:, None]


def constant(rows: list[list[float]], like: Tensor) -> Tensor:
    """A matrix of numbers, of the dtype and on the device of `like`."""
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def unit_weights(names: tuple[str, ...], like: Tensor) -> dict[str, Output]:
    """Every state as an output of its own name."""
    eye = torch.eye(len(names), dtype=like.dtype, device=like.device)
    return {name: Output(eye[j]) for j, name in enumerate(names)}


def stationary_variance(variance: Tensor, persistence: Tensor) -> Tensor:
    """Of an AR(1): sigma^2 / (1 - phi^2), without cancellation as phi -> 1."""
    return variance / ((1 - persistence) * (1 + persistence))


def check_count(what: str, value: int, least: int, most: int) -> None:
    """Refuse an option outside its range."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InputError(f"{what} is {value!r}; give a whole number from {least} to {most}.")


def _power(unit: Unit, y_scale: Tensor, x_scale: Tensor) -> Tensor:
    result = torch.ones_like(y_scale[:, 0])
    if unit.y:
        result = result * y_scale[:, unit.component] ** unit.y
    if unit.x:
        result = result * x_scale[:, unit.regressor] ** unit.x
    return result


def _into(theta: Tensor, domain: Domain) -> Tensor:
    if domain == "positive":
        return torch.exp(theta)
    if domain == "stationary":
        return torch.tanh(theta)
    if domain == "unit":  # not torch.sigmoid, whose last bit depends on the place in the batch
        return 0.5 * (1 + torch.tanh(0.5 * theta))
    return theta


def _out_of(natural: Tensor, domain: Domain) -> Tensor:
    if domain == "positive":
        return torch.log(torch.clamp(natural, min=1e-30))
    if domain == "stationary":
        inside = torch.clamp(natural, -1 + 1e-12, 1 - 1e-12)
        return 0.5 * (torch.log1p(inside) - torch.log1p(-inside))
    if domain == "unit":
        inside = torch.clamp(natural, 1e-12, 1 - 1e-12)
        return torch.log(inside) - torch.log1p(-inside)
    return natural
