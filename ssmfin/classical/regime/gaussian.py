"""Owns filter and smoother of the models whose regimes are Gaussian, through the recursions of `ssmfin_kernels`."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from ssmfin.classical.regime.chain import stationary
from ssmfin.classical.regime.model import Run, Specification, State


class GaussianSpecification(Specification):
    """Models with log f_m(z_t) = c_m - 1/2 |L_m z_t|^2 in tuple m of the present and `order` lagged regimes."""

    @property
    def order(self) -> int:
        """Lagged regimes in the state."""
        return 0

    @property
    def memory(self) -> int:
        """How many earlier rows an observation reads."""
        return 0

    @abstractmethod
    def observations(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """z (B, T, D), pattern (B, T) and the patterns (Q, P) bool, columns seen in each; in the user's units."""

    @abstractmethod
    def emission(self, parameters: np.ndarray, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """c (B, Q, M) and L (B, Q, M, R, D), in the user's units."""

    def run(self, parameters: np.ndarray, y: np.ndarray, x: np.ndarray, state: State | None) -> Run:
        from ssmfin_kernels.hidden_markov_scan import gaussian

        B, m = len(y), self.memory
        if state is None:
            recent_y, recent_x = np.full((B, m, *y.shape[2:]), np.nan), np.full((B, m, x.shape[2]), np.nan)
            carry = None
        else:
            recent_y, recent_x = state["recent_y"], state["recent_x"]
            carry = (state["tuples"], state["started"] > 0)
        whole_y, whole_x = np.concatenate([recent_y, y], 1), np.concatenate([recent_x, x], 1)
        z, pattern, patterns = self.observations(whole_y, whole_x)
        transition = self.transition(parameters)
        out = gaussian.run(
            *(z[:, m:], pattern[:, m:], *self.emission(parameters, patterns), transition, stationary(transition)),
            order=self.order,
            carry=carry,
        )
        length = whole_y.shape[1]
        following = {
            "tuples": out.tuples,
            "started": out.started.astype(np.float64),
            "recent_y": whole_y[:, length - m :],
            "recent_x": whole_x[:, length - m :],
        }
        return Run(out.predicted, out.filtered, out.steps, following)

    def smooth(self, parameters: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        from ssmfin_kernels.hidden_markov_scan import gaussian

        z, pattern, patterns = self.observations(y, x)
        transition = self.transition(parameters)
        return gaussian.smooth(
            *(z, pattern, *self.emission(parameters, patterns), transition, stationary(transition)), order=self.order
        )
