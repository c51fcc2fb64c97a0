"""Owns the switching Kalman models: a level, a trend or an autoregression seen with noise, its variances by regime."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from ssmfin.classical.regime.chain import stationary
from ssmfin.classical.regime.model import (
    Run,
    Specification,
    State,
    Switching,
    check_choice,
    permuted_transition,
)
from ssmfin.errors import InputError

if TYPE_CHECKING:
    from ssmfin.classical.regime.kim_problem import KimProblem
    from ssmfin_kernels.hidden_markov_scan.switching import SwitchingModel

DIFFUSE = 1e6  # variance of a state of which nothing is known, in units of the data's variance at its first rows


@dataclass(frozen=True)
class SwitchingKalman(Specification):
    """A state-space model whose parameters are those of the present regime, by Kim's approximate filter.

        local_level         y_t = level_t + eps_t,   level_t = level_{t-1} + drift_s + eta_t
        local_linear_trend  the same with drift_s + slope_{t-1},   slope_t = slope_{t-1} + zeta_t
        autoregression      y_t = drift_s + a_t + eps_t,   a_t = phi a_{t-1} + eta_t    (drift: the mean of y)

    with s = s_t, and variances state, slope and noise of eta, zeta and eps. Levels and slopes start unknown: a variance
    of 1e6 of the data's, and as many first observations left out of the likelihood as there are of them.

    Args:
        regimes, variance_floor: as for `Specification`; the floor is on the noise.
        state: which of the three.
        drift: "switching", "common" or "zero".
        state_variance, noise_variance: "switching" or "common".
    References:
        Kim (1994), Journal of Econometrics 60, 1-22.

    >>> SwitchingKalman(noise_variance="common").parameter_names[4:]
    ('state_variance_0', 'state_variance_1', 'noise_variance')
    """

    kind = "switching_kalman"
    state: Literal["local_level", "local_linear_trend", "autoregression"] = "local_level"
    drift: Literal["switching", "common", "zero"] = "zero"
    state_variance: Switching = "switching"
    noise_variance: Switching = "switching"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("state", self.state, ("local_level", "local_linear_trend", "autoregression"))
        check_choice("drift", self.drift, ("switching", "common", "zero"))
        check_choice("state_variance", self.state_variance, ("switching", "common"))
        check_choice("noise_variance", self.noise_variance, ("switching", "common"))
        if "switching" not in (self.drift, self.state_variance, self.noise_variance):
            raise InputError("nothing of this model switches; set drift or a variance to 'switching'.")

    @cached_property
    def columns(self) -> tuple[tuple[str, bool], ...]:
        """Names of the parameters, and whether each switches."""
        names = [("drift", self.drift == "switching")] if self.drift != "zero" else []
        names += [("ar1", False)] if self.state == "autoregression" else []
        names += [("state_variance", self.state_variance == "switching")]
        names += [("slope_variance", False)] if self.state == "local_linear_trend" else []
        return (*names, ("noise_variance", self.noise_variance == "switching"))

    @property
    def emission_names(self) -> tuple[str, ...]:
        K = self.regimes
        return tuple(
            text
            for name, switches in self.columns
            for text in ([f"{name}_{k}" for k in range(K)] if switches else [name])
        )

    @property
    def free_count(self) -> int:
        return self.regimes * (self.regimes - 1) + len(self.emission_names)

    @property
    def states(self) -> int:
        """n."""
        return 2 if self.state == "local_linear_trend" else 1

    @property
    def burn(self) -> int:
        """Observations that the unknown states use up."""
        return 0 if self.state == "autoregression" else self.states

    def by_regime(self, emission: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> (N, K); of an emission row (N, E), real or complex."""
        result, place, K = {}, 0, self.regimes
        for name, switches in self.columns:
            width = K if switches else 1
            own = emission[:, place : place + width]
            result[name] = own if switches else np.repeat(own, K, 1)
            place += width
        return result

    def whole(self, parts: dict[str, np.ndarray]) -> np.ndarray:
        """The inverse of `by_regime`."""
        return np.concatenate([parts[name] if switches else parts[name][:, :1] for name, switches in self.columns], 1)

    def model(
        self, transition: np.ndarray, p: np.ndarray, parts: dict[str, np.ndarray], size: np.ndarray
    ) -> SwitchingModel:
        """Matrices of N models; size (N,): variance of the data, the unit of the unknown start."""
        from ssmfin_kernels.hidden_markov_scan.switching import SwitchingModel

        N, K, n = len(p), self.regimes, self.states
        dtype = np.result_type(transition, *parts.values())
        F, Q, covariance = (np.zeros((N, K, n, n), dtype) for _ in range(3))
        H, c, mean, d = (np.zeros(shape, dtype) for shape in ((N, K, n), (N, K, n), (N, K, n), (N, K)))
        H[:, :, 0] = 1.0
        Q[:, :, 0, 0] = parts["state_variance"]
        drift = parts.get("drift", np.zeros((N, K)))
        if self.state == "autoregression":
            phi = parts["ar1"]
            F[:, :, 0, 0], d = phi, d + drift
            covariance[:, :, 0, 0] = parts["state_variance"] / (1 - phi * phi)
        else:
            F[:, :, 0, 0], c[:, :, 0] = 1.0, drift
            covariance[:, :, range(n), range(n)] = DIFFUSE * size[:, None, None]
            if n == 2:
                F[:, :, 0, 1] = F[:, :, 1, 1] = 1.0
                Q[:, :, 1, 1] = parts["slope_variance"]
        return SwitchingModel(F, H, Q, parts["noise_variance"], c, d, transition, p, mean, covariance)

    def problem(self, y: np.ndarray, x: np.ndarray) -> KimProblem:
        from ssmfin.classical.regime.kim_problem import KimProblem

        return KimProblem(self, y)

    def run(self, parameters: np.ndarray, y: np.ndarray, x: np.ndarray, state: State | None) -> Run:
        from ssmfin_kernels.hidden_markov_scan.switching import switching_filter

        model, origin, seen = self._placed(parameters, y, state)
        out = switching_filter(y - origin[:, None], model, burn=self.burn, seen=seen)
        following = {
            "p": np.exp(out.log_p),
            "mean": out.mean,
            "covariance": out.covariance,
            "seen": out.seen.astype(np.float64),
            "origin": origin,
        }
        return Run(out.predicted, out.filtered, out.steps, following)

    def smooth(self, parameters: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        from ssmfin_kernels.hidden_markov_scan.switching import switching_filter, switching_smoother

        model, origin, _ = self._placed(parameters, y, None)
        filtered = switching_filter(y - origin[:, None], model, burn=self.burn)
        return switching_smoother(self.transition(parameters), filtered)

    def signature(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = self.by_regime(parameters[:, self.regimes**2 :])
        variance = np.stack([parts["state_variance"], parts["noise_variance"]], 2)
        if self.drift != "switching":
            return np.zeros((*variance.shape[:2], 0)), variance
        total = variance.sum(2, keepdims=True)
        return parts["drift"][:, :, None], total

    def order_key(self, parameters: np.ndarray) -> np.ndarray:
        parts = self.by_regime(parameters[:, self.regimes**2 :])
        if "switching" in (self.state_variance, self.noise_variance):
            total: np.ndarray = parts["state_variance"] + parts["noise_variance"]
            return total
        return parts["drift"]

    def permute(self, parameters: np.ndarray, order: np.ndarray) -> np.ndarray:
        rows = np.arange(len(order))[:, None]
        parts = self.by_regime(parameters[:, self.regimes**2 :])
        moved = self.whole({name: part[rows, order] for name, part in parts.items()})
        return np.concatenate([permuted_transition(parameters, order), moved], 1)

    def _placed(
        self, parameters: np.ndarray, y: np.ndarray, state: State | None
    ) -> tuple[SwitchingModel, np.ndarray, np.ndarray | None]:
        """Matrices, origin of the level (the first observation), and the observations before; from a state, if any."""
        parts = self.by_regime(parameters[:, self.regimes**2 :])
        transition = self.transition(parameters)
        size = (parts["state_variance"] + parts["noise_variance"]).sum(1)
        model = self.model(transition, stationary(transition), parts, size)
        if state is None:
            return model, first_observed(y, self.burn > 0), None
        origin = np.where(state["seen"] > 0, state["origin"], first_observed(y, self.burn > 0))
        going = model._replace(p=state["p"], mean=state["mean"], covariance=state["covariance"])
        return going, origin, state["seen"].astype(np.int64)


def first_observed(y: np.ndarray, wanted: bool) -> np.ndarray:
    """(B,): the first observation of each series, or 0 where there is none or it is not wanted."""
    if not y.shape[1]:
        return np.zeros(len(y))
    at = np.argmax(~np.isnan(y), axis=1)
    first = y[np.arange(len(y)), at]
    return np.where(np.isnan(first) | (not wanted), 0.0, first)
