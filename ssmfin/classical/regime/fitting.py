"""Owns maximum likelihood of regime models: starts, quasi-Newton in the curvature's units, the best of several ends.

From each start the log-likelihood is expanded once, by differences of its exact gradient, and variables v taken with

    free = free_0 + C v,   C C' = |H|^-1,   H the Hessian at the start

so that a unit of v is about one nat in every direction: batched BFGS then needs few steps, and its tolerance on the
gradient by v bounds what is left to gain, about tolerance^2 / 2 nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.classical.regime.arrays import as_regressors, as_series, as_starts
from ssmfin.classical.regime.identity import match, ordering
from ssmfin.classical.regime.model import Specification
from ssmfin.classical.regime.problem import Problem
from ssmfin.classical.regime.result import CONVERGED, FAILED, NOT_CONVERGED, ORDERED, RegimeFit
from ssmfin.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_FLATTEST = 0.1  # curvature (nats) below which a direction is taken to be flat
_STEP = 1e-4  # of the differences


def fit(
    spec: Specification,
    y: Any,
    x: Any = None,
    *,
    starts: Any = 8,
    follow: int = 2,
    max_iterations: int = 200,
    tolerance: float = 1e-4,
    standard_errors: bool = False,
    previous: RegimeFit | None = None,
) -> RegimeFit:
    """Maximum likelihood of a regime model, all series at once, each by itself.

        max over theta of  sum_t log p(y_t | y_1 .. y_{t-1}; theta),   the first regime drawn from the stationary chain

    The likelihood has several maxima, and none where a regime's variance goes to zero on a few equal values: several
    starts from the data are improved by EM, the best that differ followed by BFGS on exact gradients, and the best
    end with variances above their floor wins (spec.variance_floor; the reason says when only others were found). A
    series that cannot be fitted changes no bit of the others; its status and reason say so.

    Args:
        spec: the model.
        y: (B, T), or (B, T, P) for vectors; NaN = missing, also before and after a series.
        x: (B, T, X) or (T, X); where one is missing at t, so is the row.
        starts: how many starts from the data, or parameters (B, N) or (B, S, N) in the user's units, tried beside them.
        follow: how many of them are followed to the end.
        max_iterations: steps of the optimiser.
        tolerance: on the gradient, in units in which the log-likelihood has curvature one.
        standard_errors: whether to compute them.
        previous: a fit of the same series under the same specification, whose numbering of regimes is kept where
            the regimes can be told (`identity.py`).
    Returns:
        RegimeFit.
    Raises:
        InputError: shapes do not fit. Never for the content of a series.
    References:
        Hamilton (1989), Econometrica 57; Hamilton (1990), Journal of Econometrics 45; Kim (1994), same journal 60.

    >>> wild = np.sin(np.arange(400.0) ** 2) * np.where(np.arange(400) % 100 < 60, 1.0, 5.0)
    >>> from ssmfin.classical.regime import MarkovRegression
    >>> found = fit(MarkovRegression(mean="zero"), [wild, np.ones(400)])
    >>> found.status.tolist(), found.reason[1]
    (['converged', 'failed'], 'is constant; there is nothing to tell regimes apart by: leave it out.')
    """
    y = as_series(spec, y)
    B, T = y.shape[:2]
    x = as_regressors(spec, x, (B, T))
    given = None if isinstance(starts, int) else as_starts(spec, starts, B)
    count = starts if isinstance(starts, int) else 8
    if count < 1 or follow < 1:
        raise InputError(f"starts is {count} and follow {follow}; give at least one of each.")
    _check_previous(spec, previous, B)
    problem: Problem = spec.problem(y, x)
    N = len(spec.parameter_names)
    parameters, log_likelihood = np.full((B, N), np.nan), np.full(B, np.nan)
    status, iterations = np.full(B, FAILED, dtype="<U13"), np.zeros(B, dtype=np.int64)
    reason = dict(problem.reason)
    errors = np.full((B, N), np.nan) if standard_errors else None
    series = np.array([b for b in range(B) if b not in reason], dtype=np.int64)
    if len(series):
        begin = problem.starts(series, count, follow)
        if given is not None:
            own = given[series]
            warm = problem.free(own.reshape(-1, N), np.repeat(series, own.shape[1]))
            begin = np.concatenate([warm.reshape(len(series), own.shape[1], -1), begin], 1)
        ends = _follow(problem, begin, series, tolerance, max_iterations)
        found = problem.parameters(ends.free, series)
        order = ordering(spec.order_key(found))
        parameters[series], log_likelihood[series] = spec.permute(found, order), ends.value
        iterations[series] = ends.iterations
        broken = ~np.isfinite(ends.value) | ~np.isfinite(parameters[series]).all(1)
        status[series] = np.where(broken, FAILED, np.where(ends.converged, CONVERGED, NOT_CONVERGED))
        for n, b in enumerate(series):
            reason[int(b)] = _reason(spec, bool(broken[n]), ends, n, max_iterations, tolerance)
        if errors is not None:
            raw = _standard_errors(problem, ends.free, series)
            errors[series] = spec.permute(raw, order)
        parameters[status == FAILED], log_likelihood[status == FAILED] = np.nan, np.nan
    matching = tuple(ORDERED for _ in range(B))
    if previous is not None:
        renamed, matching = match(spec.signature(previous.parameters), spec.signature(parameters))
        parameters = spec.permute(parameters, renamed)
        errors = None if errors is None else spec.permute(errors, renamed)
    words = tuple(reason.get(b, "") for b in range(B))
    return RegimeFit(
        spec, parameters, log_likelihood, status, words, matching, iterations, problem.observations, errors
    )


class _Ends:
    """Where each series ended: the best of its starts."""

    def __init__(
        self,
        free: np.ndarray,
        value: np.ndarray,
        iterations: np.ndarray,
        converged: np.ndarray,
        spiked: np.ndarray,
        norm: np.ndarray,
    ) -> None:
        self.free, self.value, self.iterations, self.norm = free, value, iterations, norm
        self.converged, self.spiked = converged, spiked


def _follow(problem: Problem, begin: np.ndarray, series: np.ndarray, tolerance: float, max_iterations: int) -> _Ends:
    """Quasi-Newton from every start (n, S, U); the best end of each series, spikes last."""
    import torch

    from ssmfin.classical import optimize

    n, S, U = begin.shape
    origin, owner = begin.reshape(n * S, U), np.repeat(series, S)
    C = _directions(problem, origin, owner)

    def negative(v: Tensor, jobs: Tensor) -> tuple[Tensor, Tensor]:
        rows = jobs.numpy()
        free = origin[rows] + _times(C[rows], v.numpy())
        value, gradient = problem.value_and_gradient(free, owner[rows])
        return torch.from_numpy(-value), torch.from_numpy(-_times(C[rows].transpose(0, 2, 1), gradient))

    found = optimize.minimize(
        negative,
        torch.zeros(n * S, 1, U, dtype=torch.float64),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    free = origin + _times(C, found.theta.numpy())
    status, norm = found.status.numpy(), found.grad_norm.numpy()
    value = np.where(np.isfinite(found.value.numpy()), -found.value.numpy(), -np.inf)
    # where rounding ends the descent: the gradient bounds what is left to gain, norm^2 / 2 nats
    converged = (status == optimize.CONVERGED) | ((status == optimize.STUCK) & (norm <= 1e-2))
    spiked = problem.at_floor(free)
    # among ends as good, one that converged
    rank = value - np.where(spiked, 1e200, 0.0) - np.where(converged, 0.0, 1e-6)
    best = np.argmax(rank.reshape(n, S), axis=1) + S * np.arange(n)
    return _Ends(free[best], value[best], found.iterations.numpy()[best], converged[best], spiked[best], norm[best])


def _directions(problem: Problem, free: np.ndarray, index: np.ndarray) -> np.ndarray:
    """C (N, U, U) with C C' = |H|^-1, H the negative Hessian at `free` (N, U)."""
    hessian = _hessian(problem, free, index, central=False)
    bad = ~np.isfinite(hessian).all((1, 2))
    hessian[bad] = np.eye(free.shape[1]) * np.maximum(problem.observations[index[bad]], 1)[:, None, None]
    values, vectors = np.linalg.eigh(hessian)
    return np.asarray(vectors / np.sqrt(np.maximum(np.abs(values), _FLATTEST))[:, None, :])


def _hessian(problem: Problem, free: np.ndarray, index: np.ndarray, *, central: bool = True) -> np.ndarray:
    """(N, U, U) negative Hessian of the log-likelihood, by differences of the gradient (forward ones cost half)."""
    U = free.shape[1]
    columns = []
    here = None if central else problem.value_and_gradient(free, index)[1]
    for u in range(U):
        step = np.zeros(U)
        step[u] = _STEP
        up = problem.value_and_gradient(free + step, index)[1]
        if here is None:
            columns.append((problem.value_and_gradient(free - step, index)[1] - up) / (2 * _STEP))
        else:
            columns.append((here - up) / _STEP)
    hessian: np.ndarray = np.stack(columns, 2)
    return np.asarray(0.5 * (hessian + hessian.transpose(0, 2, 1)))


def _standard_errors(problem: Problem, free: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(N, P): delta method on the inverse of the observed information.

    Free parameters without curvature (a probability at zero, a variance at its floor) are held fixed, and parameters
    that move with them only have no standard error: NaN.
    """
    hessian = _hessian(problem, free, index)
    slopes = []
    for u in range(free.shape[1]):
        step = np.zeros(free.shape[1])
        step[u] = _STEP
        up, down = (problem.parameters(free + sign * step, index) for sign in (1, -1))
        slopes.append((up - down) / (2 * _STEP))
    jacobian = np.stack(slopes, 2)
    errors = np.full(jacobian.shape[:2], np.nan)
    for n in range(len(free)):
        if not np.isfinite(hessian[n]).all():
            continue
        curved = np.diag(hessian[n]) > 1e-3
        H, J = hessian[n][np.ix_(curved, curved)], jacobian[n][:, curved]
        if not curved.any() or np.linalg.eigvalsh(H)[0] <= 0:
            continue
        variance = np.einsum("pi,ij,pj->p", J, np.linalg.inv(H), J)
        errors[n] = np.where(variance > 0, np.sqrt(np.maximum(variance, 0.0)), np.nan)
        if not curved.all():
            moved = np.abs(jacobian[n][:, ~curved]).max(1) > np.abs(J).max(1)
            errors[n] = np.where(moved, np.nan, errors[n])
    return errors


def _reason(spec: Specification, broken: bool, ends: _Ends, n: int, max_iterations: int, tolerance: float) -> str:
    if broken:
        return "has no finite likelihood at any start; look at its values, or give other starts."
    words = []
    if not ends.converged[n]:
        why = "ran out of iterations" if ends.iterations[n] >= max_iterations else "found no further ascent"
        words.append(
            f"{why} after {ends.iterations[n]} steps, gradient {ends.norm[n]:.1e} (tolerance {tolerance:.0e}); "
            "take fewer regimes, a longer window, or other starts."
        )
    if ends.spiked[n]:
        words.append(
            f"has a regime whose variance is at its floor ({spec.variance_floor:g} of the training variance): a few "
            "equal values; take fewer regimes, or raise variance_floor."
        )
    return " ".join(words)


def _check_previous(spec: Specification, previous: RegimeFit | None, B: int) -> None:
    if previous is None:
        return
    if previous.specification != spec:
        raise InputError("previous was fitted with another specification; give a fit of the same model.")
    if len(previous.parameters) != B:
        raise InputError(f"previous has {len(previous.parameters)} series, y has {B}; give a fit of the same series.")


def _times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """(N, U, U) @ (N, U), one product a job: the same bits whatever the batch."""
    product: np.ndarray = np.matmul(matrix, vector[:, :, None])[:, :, 0]
    return product
