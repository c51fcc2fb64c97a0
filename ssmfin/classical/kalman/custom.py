"""Owns models of one's own: parameters by name, matrices as a function of them, and nothing else.

    def level_with_two_noises(natural, length, x):           # natural (B, 2), columns as declared
        noise, level = natural.T.contiguous()                  # (B,) each
        one = natural.new_ones(1, 1)
        Q, R = level[:, None, None, None], noise[:, None, None, None]
        return StateSpace(one, one, Q, R, 0 * one, initial_diffuse=one)

    spec = Custom(
        given=(Parameter("variance_irregular", "positive"), Parameter("variance_level", "positive")),
        elements=("level",),
        build=level_with_two_noises,
        begin=((1.0, 0.1), (1.0, 10.0)),                       # natural parameters to start from
    )

Rules: torch operations only, so that gradients flow; matrices (N, N) or (B or 1, T or 1, N, N); every row of a result
a function of the same row of `natural`, so that series do not see each other. Domains of parameters (`Parameter`)
bring positivity and stationarity. Declare units (`Unit(y=2)` for a variance of y) and scaling="component" to have
series of any scale fitted alike; without them the model sees y as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ssmfin.classical.kalman.model import Apart, Output, Parameter, Specification, State, unit_weights
from ssmfin.errors import InputError
from ssmfin_kernels import StateSpace

Build = Callable[[Tensor, int, Tensor | None], StateSpace]
Begin = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Custom(Specification):
    """A model given by a function from natural parameters to matrices.

    Attributes:
        given: parameters, in the order of the columns `build` gets.
        elements: names of states, or `State`s with units.
        build: (natural (B, K), length, x or None) -> StateSpace.
        begin: S starting points of K natural parameters each, or (y (B, T, P), x) -> (B, S, K).
        n_components: P.
        n_regressors: J.
        named: (natural (B, K)) -> {name: Output}; None: each state under its own name.
        scale, shift: as `Specification.scaling` and `.shifting`; "none" unless units are declared.

    >>> def build(natural, length, x):
    ...     noise, level = (v[:, None, None, None] for v in natural.T.contiguous())
    ...     one = natural.new_ones(1, 1)
    ...     return StateSpace(one, one, level, noise, 0 * one, initial_diffuse=one)
    >>> two = (Parameter("variance_irregular", "positive"), Parameter("variance_level", "positive"))
    >>> spec = Custom(given=two, elements=("level",), build=build, begin=((1.0, 0.1),))
    >>> spec.parameter_names, spec.state_names
    (('variance_irregular', 'variance_level'), ('level',))
    """

    given: tuple[Parameter, ...]
    elements: tuple[str | State, ...]
    build: Build
    begin: Sequence[Sequence[float]] | Begin
    n_components: int = 1
    n_regressors: int = 0
    named: Callable[[Tensor], dict[str, Output]] | None = field(default=None)
    scale: Apart = "none"
    shift: Apart = "none"
    kind: ClassVar[str] = "custom"

    @property
    def scaling(self) -> Apart:
        return self.scale

    @property
    def shifting(self) -> Apart:
        return self.shift

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(self.given)

    @property
    def states(self) -> tuple[State, ...]:
        return tuple(e if isinstance(e, State) else State(e) for e in self.elements)

    @property
    def components(self) -> int:
        return self.n_components

    @property
    def regressors(self) -> int:
        return self.n_regressors

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        if callable(self.begin):
            return self.begin(y, x)
        points = torch.tensor([list(row) for row in self.begin], dtype=y.dtype, device=y.device)
        if points.ndim != 2 or points.shape[1] != len(self.given):
            raise InputError(
                f"custom.begin has shape {tuple(points.shape)}; give rows of {len(self.given)}, one a parameter."
            )
        return points.expand(y.shape[0], *points.shape)

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        return self.build(natural, length, x)

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        return unit_weights(self.state_names, natural) if self.named is None else self.named(natural)

    def to_dict(self) -> dict[str, Any]:
        """Not the functions: whoever reads it back gives the specification again."""
        return {"kind": self.kind, "parameters": list(self.parameter_names), "states": list(self.state_names)}
