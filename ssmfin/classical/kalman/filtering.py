"""Owns the filter, which uses data up to t alone, the state it carries on, and the smoother, of another type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssmfin.classical.kalman import arrays
from ssmfin.classical.kalman.fitting import KalmanFit, nulls
from ssmfin.classical.kalman.model import parameter_scale, state_scale
from ssmfin.classical.smoothed import Smoothed
from ssmfin.errors import InputError
from ssmfin_kernels import StateSpace, kalman_filter, kalman_smoother
from ssmfin_kernels.kalman_scan import OUTPUTS, KalmanFiltered
from ssmfin_kernels.kalman_scan.memory import empty

SMALL = 2**14  # observations: below, a second run takes longer than to keep everything


@dataclass(frozen=True)
class Carry:
    """The predicted state of the next step, in the user's units: all that a filter knows of the past.

    Attributes:
        mean: (B, N).
        covariance: (B, N, N), the finite part.
        diffuse: (B, N, N), zero once every direction of the state has been seen.
    """

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray

    def select(self, index: Sequence[int] | np.ndarray) -> Carry:
        """The series of an index, in its order."""
        rows = np.asarray(index)
        return Carry(self.mean[rows], self.covariance[rows], self.diffuse[rows])

    def to_dict(self) -> dict[str, Any]:
        """Nested lists; NaN (a series without parameters) becomes null."""
        parts = {"mean": self.mean, "covariance": self.covariance, "diffuse": self.diffuse}
        return {name: nulls(part) for name, part in parts.items()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Carry:
        """The inverse of `to_dict`."""
        try:
            return cls(*(np.array(saved[name], dtype=np.float64) for name in ("mean", "covariance", "diffuse")))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the saved Kalman state is unreadable ({error}); filter the history again.") from None


class Scaled(NamedTuple):
    """A fit in the units of arithmetic: what the kernels get."""

    natural: Tensor  # (B, K), ones where there are no parameters
    y_scale: Tensor  # (B, P)
    x_scale: Tensor  # (B, J)
    state: Tensor  # (B, N)
    usable: Tensor  # (B,) bool

    @classmethod
    def of(cls, fit: KalmanFit) -> Scaled:
        spec = fit.specification
        y_scale, x_scale = torch.from_numpy(fit.y_scale), torch.from_numpy(fit.x_scale)
        usable = torch.from_numpy(fit.usable)
        natural = torch.from_numpy(fit.parameters) / parameter_scale(spec, y_scale, x_scale)
        natural = torch.where(usable[:, None], natural, 0.5)
        return cls(natural, y_scale, x_scale, state_scale(spec, y_scale, x_scale), usable)

    def with_carry(self, model: StateSpace, carry: Carry | None) -> StateSpace:
        """The model, started from a carried state."""
        if carry is None:
            return model
        B, N = self.state.shape
        if carry.mean.shape != (B, N):
            raise InputError(
                f"carry holds {carry.mean.shape[0]} series of {carry.mean.shape[-1]} states, the fit {B} of {N}; "
                "give the carry of the same series under the same model."
            )
        square = self.state[:, :, None] * self.state[:, None, :]
        parts = (
            torch.from_numpy(carry.mean) / self.state,
            torch.from_numpy(carry.covariance) / square,
            torch.from_numpy(carry.diffuse) / square,
        )
        mean, covariance, diffuse = (
            torch.where(self.usable.reshape(B, *[1] * (part.ndim - 1)), part, 0.0) for part in parts
        )
        return model._replace(initial_mean=mean, initial_covariance=covariance, initial_diffuse=diffuse)


class Filtered:
    """What is known of B series at every t from data up to t; in the user's units, numpy, computed when asked for.

    predicted: before y_t is seen. filtered: after. NaN while the diffuse start leaves a direction of the state
    unknown, and in series without parameters. N states, P components. Moments that the filter did not keep come from
    a second run of it over the same data, to the same bits: that takes less time than to write what few ask for.
    """

    def __init__(
        self, fit: KalmanFit, scaled: Scaled, model: StateSpace, moments: KalmanFiltered, y: Tensor, first: bool
    ) -> None:
        self.fit = fit
        self._scaled, self._model, self._moments, self._y, self._first = scaled, model, moments, y, first

    @property
    def specification(self) -> Any:
        return self.fit.specification

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names for `output`."""
        return self.fit.specification.output_names

    def output(self, name: str, *, predicted: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance (B, T) of a named quantity (level, slope, beta_1, ...), filtered or predicted.

        Raises:
            InputError: the model has no such output.
        """
        known = self.fit.specification.outputs(torch.from_numpy(self.fit.parameters))
        if name not in known:
            raise InputError(f"{self.fit.specification.kind} has no output {name!r}; known: {', '.join(known)}.")
        mean = self.predicted_state if predicted else self.filtered_state
        covariance = self.predicted_covariance if predicted else self.filtered_covariance
        return combine(known[name], mean, covariance)

    @cached_property
    def diffuse(self) -> np.ndarray:
        """(B, T) bool: before y_t, some direction of the state was unknown."""
        found: np.ndarray = self._moments.diffuse.numpy()
        return found

    @cached_property
    def _still_diffuse(self) -> np.ndarray:
        """(B, T) bool: after y_t."""
        last = (self._moments.final_diffuse != 0).flatten(1).any(1).numpy()
        return np.concatenate([self.diffuse[:, 1:], last[:, None]], 1)

    @cached_property
    def predicted_state(self) -> np.ndarray:
        """(B, T, N), E(alpha_t | y_1 .. y_{t-1})."""
        return self._states(self._predicted.predicted_mean, self.diffuse)

    @cached_property
    def predicted_covariance(self) -> np.ndarray:
        """(B, T, N, N)."""
        return self._states(self._predicted.predicted_covariance, self.diffuse)

    @cached_property
    def filtered_state(self) -> np.ndarray:
        """(B, T, N), E(alpha_t | y_1 .. y_t)."""
        return self._states(self._moments.filtered_mean, self._still_diffuse, within=True)

    @cached_property
    def filtered_covariance(self) -> np.ndarray:
        """(B, T, N, N)."""
        return self._states(self._moments.filtered_covariance, self._still_diffuse, within=True)

    @cached_property
    def predicted_mean(self) -> np.ndarray:
        """(B, T, P), of y_t given the past; also where y_t is missing."""
        H, d = self._observation
        state = self._predicted.predicted_mean[:, :, None]
        mean = torch.mul(H[..., 0], state[..., 0], out=empty(*self._y.shape))
        for j in range(1, H.shape[3]):
            mean += H[..., j] * state[..., j]
        return self._observed(mean + d if self._model.observation_intercept is not None else mean, 1)

    @cached_property
    def predicted_variance(self) -> np.ndarray:
        """(B, T, P), of that prediction."""
        return self._observed(self._innovations.innovation_covariance.diagonal(dim1=2, dim2=3), 2)

    @cached_property
    def innovation_covariance(self) -> np.ndarray:
        """(B, T, P, P)."""
        scale = self._scaled.y_scale
        square = (scale[:, :, None] * scale[:, None, :])[:, None]
        return self._masked(_times(self._innovations.innovation_covariance, square), self.diffuse)

    @cached_property
    def innovation(self) -> np.ndarray:
        """(B, T, P), y_t less its prediction; NaN where missing."""
        return self._observed(self._innovations.innovation, 1)

    @cached_property
    def standardised_innovation(self) -> np.ndarray:
        """(B, T, P), innovation over its standard deviation, by component; N(0, 1) if the model is right."""
        deviation = np.sqrt(self.predicted_variance)
        result: np.ndarray = np.divide(self.innovation, deviation, out=deviation)
        return result

    @cached_property
    def gain(self) -> np.ndarray:
        """(B, T, N, P), P_t H' F_t^-1: what one unit of innovation moves the filtered state by."""
        H, _ = self._observation
        cross = self._predicted.predicted_covariance @ H.mT  # (B, T, N, P)
        spread = self._innovations.innovation_covariance
        if spread.shape[-1] == 1:
            gain = cross / spread
        else:
            spread = torch.where(torch.from_numpy(self._known)[:, :, None, None], spread, torch.eye(H.shape[2]).to(H))
            gain = torch.linalg.solve(spread, cross.mT).mT
        unit = self._scaled.state[:, None, :, None] / self._scaled.y_scale[:, None, None, :]
        return self._masked(gain * unit, self.diffuse)

    @cached_property
    def log_score(self) -> np.ndarray:
        """(B, T), log p(y_t | y_1 .. y_{t-1}) nats; NaN where all of y_t is missing, or while diffuse."""
        missing = torch.isnan(self._y)
        scores = self._moments.log_likelihood_steps
        if bool((self._scaled.y_scale != 1).any()):
            scores = scores - (~missing * self._scaled.y_scale.log()[:, None]).sum(2)
        if bool(missing.any()):
            scores = torch.where(missing.all(2), torch.nan, scores)
        return self._masked(scores, self.diffuse)

    @cached_property
    def log_likelihood(self) -> np.ndarray:
        """(B,), of these steps given those before; diffuse at a start. NaN without parameters."""
        total = self._moments.log_likelihood
        if bool((self._scaled.y_scale != 1).any()):
            seen = (~torch.isnan(self._y)).sum(1)
            total = total - (seen * self._scaled.y_scale.log()).sum(1)
        if self._first:
            start = self._model.initial_diffuse
            if start is not None:
                unknown = start.diagonal(dim1=-2, dim2=-1) > 0
                total = total + torch.where(unknown, self._scaled.state.log(), 0.0).sum(1)
        return np.where(self.fit.usable, total.numpy(), np.nan)

    @cached_property
    def carry(self) -> Carry:
        """The state from which `filter_series` goes on."""
        unit = self._scaled.state
        square = unit[:, :, None] * unit[:, None, :]
        m = self._moments
        parts = (m.final_mean * unit, m.final_covariance * square, m.final_diffuse * square)
        keep = self._scaled.usable
        return Carry(*(torch.where(keep.reshape(-1, *[1] * (p.ndim - 1)), p, torch.nan).numpy() for p in parts))

    @cached_property
    def _predicted(self) -> KalmanFiltered:
        return self._with("predicted_mean")

    @cached_property
    def _innovations(self) -> KalmanFiltered:
        return self._with("innovation")

    def _with(self, name: str) -> KalmanFiltered:
        """The moments that `filter_series` kept if this is among them, else those of a second run."""
        if getattr(self._moments, name) is not None:
            return self._moments
        return kalman_filter(self._y, self._model, outputs=(name.removesuffix("_mean"),))

    @cached_property
    def _observation(self) -> tuple[Tensor, Tensor]:
        H, d = self._model.observation, self._model.observation_intercept
        H = H[None, None] if H.ndim == 2 else H
        return H, H.new_zeros(1) if d is None else d

    @cached_property
    def _known(self) -> np.ndarray:
        known: np.ndarray = ~self.diffuse & self.fit.usable[:, None]
        return known

    def _states(self, values: Tensor, unknown: np.ndarray, *, within: bool = False) -> np.ndarray:
        unit = self._scaled.state
        if values.ndim == 4:
            unit = unit[:, :, None] * unit[:, None, :]
        return self._masked(_times(values, unit[:, None], within), unknown)

    def _observed(self, values: Tensor, power: int) -> np.ndarray:
        return self._masked(_times(values, self._scaled.y_scale[:, None] ** power), self.diffuse)

    def _masked(self, values: Tensor, unknown: np.ndarray) -> np.ndarray:
        """NaN where unknown, written to `values`: whoever else reads them wants the same NaN."""
        array: np.ndarray = values.numpy()
        steps = np.flatnonzero(unknown.any(0))
        if len(steps):  # most often the first few
            some = slice(int(steps[0]), int(steps[-1]) + 1)
            array[:, some][unknown[:, some]] = np.nan
        if not self.fit.usable.all():
            array[~self.fit.usable] = np.nan
        return array


def filter_series(fit: KalmanFit, y: Any, x: Any = None, *, carry: Carry | None = None) -> Filtered:
    """Run the filter forward in time; what it says of t depends on y_1 .. y_t alone, bit for bit.

    Args:
        fit: parameters of B series (`fit`, `KalmanFit.at`).
        y: (B, T) or (B, T, P), NaN = missing.
        x: (B, T, J) or (T, J) where the model has regressors.
        carry: `Filtered.carry` of the steps before; None starts afresh. Runs put together this way equal one run.
    Returns:
        Filtered.
    Raises:
        InputError: shapes do not fit, or a value is infinite.
    References:
        Durbin & Koopman (2012), sections 4.3 and 5.2.

    >>> from ssmfin.classical.kalman.trends import LocalLevel
    >>> level = KalmanFit.at(LocalLevel(), [[1.0, 0.5]])
    >>> filter_series(level, [[3.0, 4.0, np.nan]]).output("level")[0]
    array([[3. , 3.6, 3.6]])
    """
    scaled = Scaled.of(fit)
    data = scaled_data(fit, scaled, y, x)
    model = scaled.with_carry(fit.specification.state_space(scaled.natural, data.y.shape[1], data.x), carry)
    y_kept = _own(data.y, y)
    kept = OUTPUTS if y_kept.numel() <= SMALL else ("filtered", "log_likelihood")
    moments = kalman_filter(y_kept, model, outputs=kept)
    return Filtered(fit, scaled, model, moments, y_kept, carry is None)


def smooth(fit: KalmanFit, y: Any, x: Any = None) -> Smoothed:
    """Moments of the state given the whole sample: for exploration only; the harness refuses the result.

    Args:
        fit, y, x: as for `filter_series`.
    Returns:
        Smoothed.
    References:
        Durbin & Koopman (2012), sections 4.4 and 5.3.
    """
    scaled = Scaled.of(fit)
    data = scaled_data(fit, scaled, y, x)
    model = fit.specification.state_space(scaled.natural, data.y.shape[1], data.x)
    moments = kalman_smoother(data.y, model)
    lost = ~fit.usable
    unit = scaled.state[:, None]
    mean = (moments.mean * unit).numpy()
    covariance = (moments.covariance * unit[:, :, :, None] * unit[:, :, None, :]).numpy()
    mean[lost], covariance[lost] = np.nan, np.nan
    log_likelihood = filter_series(fit, y, x).log_likelihood
    named = fit.specification.outputs(torch.from_numpy(fit.parameters))
    outputs = {name: combine(output, mean, covariance) for name, output in named.items()}
    return Smoothed(fit.specification.state_names, mean, covariance, log_likelihood, outputs)


def scaled_data(fit: KalmanFit, scaled: Scaled, y: Any, x: Any) -> arrays.Data:
    """y and x in the units of arithmetic; nothing shifted: a mean of the sample would be known too early."""
    data = arrays.as_data(fit.specification, y, x)
    if data.y.shape[0] != len(fit.reason):
        raise InputError(f"y holds {data.y.shape[0]} series, the fit {len(fit.reason)}; give the same series.")
    if data.broken:
        b, t = next(iter(data.broken.items()))
        raise InputError(
            f"series {b} has an infinite value at step {t} ({len(data.broken)} series have one); "
            "replace it by NaN, which means missing."
        )
    y_scaled = data.y if bool((scaled.y_scale == 1).all()) else data.y / scaled.y_scale[:, None]
    if not bool(scaled.usable.all()):
        y_scaled = torch.where(scaled.usable[:, None, None], y_scaled, torch.nan)
    return arrays.Data(y_scaled, None if data.x is None else data.x / scaled.x_scale[:, None], {})


def _own(values: Tensor, given: Any) -> Tensor:
    """`values`, copied if they lie in the user's memory: what is asked for later must not see what he writes there."""
    if isinstance(given, Tensor):
        fresh = values.untyped_storage().data_ptr() != given.untyped_storage().data_ptr()
    else:
        fresh = isinstance(given, np.ndarray) and not np.may_share_memory(values.numpy(), given)
    return values if fresh else empty(*values.shape).copy_(values)


def _times(values: Tensor, unit: Tensor, within: bool = False) -> Tensor:
    """values * unit: `values` themselves if nothing changes, in their memory if `within`, else in fresh memory."""
    if bool((unit == 1).all()):
        return values
    return torch.mul(values, unit, out=values if within else empty(*values.shape))


def combine(output: Any, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """w'alpha + offset and w'Pw, (B, T) each; summed in order over the states that count."""
    weights = np.atleast_2d(output.weights.numpy())  # (1 or B, N)
    used = np.flatnonzero((weights != 0).any(0))
    total = _sum([(weights[:, j, None], mean[:, :, j]) for j in used], mean.shape[:2])
    spread = _sum(
        [((weights[:, j] * weights[:, k])[:, None], covariance[:, :, j, k]) for j in used for k in used], mean.shape[:2]
    )
    offset = output.offset
    if isinstance(offset, Tensor):
        total += offset.numpy()[:, None]
    elif offset:
        total += offset
    return total, spread


def _sum(terms: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...]) -> np.ndarray:
    """Weights times values, summed in order."""
    if not terms:
        return np.zeros(shape)
    total: np.ndarray = np.multiply(*terms[0])
    for weight, values in terms[1:]:
        total += weight * values
    return total
