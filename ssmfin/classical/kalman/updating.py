"""Owns the next observation of a whole panel: what does not change from step to step is prepared once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmfin.classical.kalman.filtering import Carry, Filtered, Scaled, scaled_data
from ssmfin.classical.kalman.fitting import KalmanFit
from ssmfin_kernels import StateSpace, kalman_filter


class Updater:
    """A filter that waits for the next step of B series: under a millisecond for 2,000 local levels.

    Equal, step by step, to `filter_series` over all steps at once.

    Args:
        fit: parameters of B series.
        carry: the state after the last step seen (`Filtered.carry`).

    >>> from ssmfin.classical.kalman.filtering import filter_series
    >>> from ssmfin.classical.kalman.trends import LocalLevel
    >>> level = KalmanFit.at(LocalLevel(), [[1.0, 0.5]])
    >>> updater = Updater(level, filter_series(level, [[3.0]]).carry)
    >>> updater.update([4.0]).output("level")[0].item()
    3.6
    """

    def __init__(self, fit: KalmanFit, carry: Carry) -> None:
        self.fit = fit
        self._scaled = Scaled.of(fit)
        spec = fit.specification
        fixed = None if spec.regressors else spec.state_space(self._scaled.natural, 1)
        self._fixed = None if fixed is None else self._scaled.with_carry(fixed, carry)
        self._carry: Carry | None = carry
        self._last: Filtered | None = None

    @property
    def carry(self) -> Carry:
        """The state after the last step: to store, and to go on from."""
        if self._carry is None and self._last is not None:
            self._carry = self._last.carry
        assert self._carry is not None
        return self._carry

    def update(self, y: Any, x: Any = None) -> Filtered:
        """Take in one step; the state moves on.

        Args:
            y: (B,) or (B, P), NaN = missing.
            x: (B, J), where the model has regressors.
        Returns:
            Filtered, of one step.
        Raises:
            InputError: a shape does not fit, or a value is infinite; the state stays as it was.
        """
        step = np.asarray(y, dtype=np.float64)[:, None]
        regressors = None if x is None else np.asarray(x, dtype=np.float64)[:, None]
        data = scaled_data(self.fit, self._scaled, step, regressors)
        model = self._started(data.x)
        moments = kalman_filter(data.y, model)
        result = Filtered(self.fit, self._scaled, model, moments, data.y, False)
        self._last, self._carry = result, None
        return result

    def _started(self, x: Any) -> StateSpace:
        """The model of this step, from the state of the last one."""
        if self._fixed is None:
            model = self._scaled.with_carry(self.fit.specification.state_space(self._scaled.natural, 1, x), self._carry)
        else:
            model = self._fixed
        if self._last is None:
            return model
        last = self._last._moments
        return model._replace(
            initial_mean=last.final_mean, initial_covariance=last.final_covariance, initial_diffuse=last.final_diffuse
        )
