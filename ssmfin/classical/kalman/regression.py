"""Owns regression with coefficients that move: time-varying alpha and betas, hedge ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ssmfin.classical.kalman.model import (
    Apart,
    Output,
    Parameter,
    Specification,
    State,
    Unit,
    check_count,
    columns,
    diagonal,
    unit_weights,
)
from ssmfin.classical.kalman.moments import grid, residual_variance
from ssmfin_kernels import StateSpace


@dataclass(frozen=True)
class DynamicRegression(Specification):
    """Linear regression whose coefficients are random walks, diffuse at the start.

        y_t = alpha_t + x_t' beta_t + eps_t,     alpha_{t+1} = alpha_t + eta_t,     beta_{t+1} = beta_t + zeta_t

    The innovation is the spread of a hedge before the hedge ratio learned of it. Where an x_t is missing, y_t is
    taken for missing: the coefficients move on, nothing is learned.

    Attributes:
        n_regressors: J, 1 to 20.
        intercept: whether there is an alpha.
    References:
        Durbin & Koopman (2012), section 3.6.1; Kim & Nelson (1999), State-Space Models with Regime Switching, ch. 3.
    """

    n_regressors: int = 1
    intercept: bool = True
    kind: ClassVar[str] = "dynamic_regression"

    def __post_init__(self) -> None:
        check_count("dynamic_regression.n_regressors", self.n_regressors, 1, 20)

    @property
    def shifting(self) -> Apart:
        return "component" if self.intercept else "none"

    @property
    def regressors(self) -> int:
        return self.n_regressors

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        found = [Parameter("variance_irregular", "positive", Unit(y=2))]
        if self.intercept:
            found.append(Parameter("variance_alpha", "positive", Unit(y=2)))
        betas = (
            Parameter(f"variance_beta_{j + 1}", "positive", Unit(y=2, x=-2, regressor=j))
            for j in range(self.n_regressors)
        )
        return (*found, *betas)

    @property
    def states(self) -> tuple[State, ...]:
        found = [State("alpha", Unit(y=1))] if self.intercept else []
        return (*found, *(State(f"beta_{j + 1}", Unit(y=1, x=-1, regressor=j)) for j in range(self.n_regressors)))

    def starts(self, y: Tensor, x: Tensor | None) -> Tensor:
        assert x is not None  # fit refuses a missing x
        left, _ = residual_variance(y[:, :, 0], x, self.intercept)
        J = self.n_regressors
        N = J + self.intercept
        rows = [[share * left, *([moving * left] * N)] for share in (0.9, 0.5) for moving in (1e-5, 1e-3, 3e-2)]
        if self.intercept:
            rows.append([0.5 * left, 0.3 * left, *([1e-5 * left] * J)])
            rows.append([0.5 * left, 1e-6 * left, *([1e-2 * left] * J)])
        return grid(*rows)

    def state_space(self, natural: Tensor, length: int, x: Tensor | None = None) -> StateSpace:
        assert x is not None
        irregular, *variances = columns(natural)
        N = len(variances)
        H = torch.cat([torch.ones_like(x[:, :, :1]), x], 2) if self.intercept else x  # (B, T, N)
        eye = torch.eye(N, dtype=natural.dtype, device=natural.device)
        return StateSpace(
            eye, H[:, :, None, :], diagonal(*variances), diagonal(irregular), torch.zeros_like(eye), initial_diffuse=eye
        )

    def outputs(self, natural: Tensor) -> dict[str, Output]:
        return unit_weights(self.state_names, natural)
