"""Owns batched minimisation: BFGS, one path a series, all series evaluated together until each has converged.

    d = -H g,   theta' = theta + t d,   H' = (I - rho s y') H (I - rho y s') + rho s s',   rho = 1 / y's

with t by bracketing and interpolation until the weak Wolfe conditions hold

    f(theta + t d) <= f + c1 t g'd,     g(theta + t d)'d >= c2 g'd

(Nocedal & Wright (2006), Numerical Optimization, eq. 3.6, 6.17; Lewis & Overton (2013) for the bracketing.) Every
round evaluates each unfinished series once, at whatever trial point its own line search has reached. All arithmetic
on a series is elementwise, with sums over K in a fixed order, so its path does not depend on its companions, as long
as the function's does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

CONVERGED, EXHAUSTED, STUCK, UNUSABLE = range(4)
STATUS = ("converged", "max_iterations", "line_search", "no_finite_start")
_ARMIJO, _CURVATURE = 1e-4, 0.9
_TRIALS = 30  # of one line search

ValueAndGrad = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Value = Callable[[Tensor, Tensor], Tensor]


class Minimum(NamedTuple):
    """What `minimize` returns.

    Attributes:
        theta: (B, K), the best point of each series; its start where none was finite.
        value: (B,)
        grad_norm: (B,), largest absolute element of the gradient there.
        iterations: (B,) int64, accepted steps (of the start that won).
        status: (B,) int64, an index into STATUS: converged, max_iterations, line_search (no further descent although
            the gradient is above the tolerance), no_finite_start.
    """

    theta: Tensor
    value: Tensor
    grad_norm: Tensor
    iterations: Tensor
    status: Tensor


def minimize(
    value_and_grad: ValueAndGrad,
    start: Tensor,
    *,
    value: Value | None = None,
    follow: int = 1,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
    max_step: float = 4.0,
) -> Minimum:
    """Minimise one function a series, from several starts each.

    Args:
        value_and_grad: (theta (A, K), index (A,) int64) -> value (A,), gradient (A, K): the functions of the series
            `index`, which may repeat. Values that are not finite are steps too far. `index` is the same object for
            as long as the batch is the same, so that what depends on it alone can be kept.
        start: (B, S, K), unconstrained: bounds by reparametrisation. Scale it so that steps of order one make sense.
        value: as value_and_grad without the gradient, for the screening of the starts; None: value_and_grad.
        follow: how many of the S starts, the best by value, are followed to the end; the best end wins.
        tolerance: on the largest absolute element of the gradient.
        max_iterations: accepted steps.
        max_step: the largest change of an element of theta in one step.
    Returns:
        Minimum.

    >>> centre = torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=torch.float64)
    >>> def quadratic(theta, index):
    ...     apart = theta - centre[index]
    ...     return (apart**2).sum(1), 2 * apart
    >>> minimize(quadratic, torch.zeros(2, 1, 2, dtype=torch.float64)).theta
    tensor([[ 1.0000, -2.0000],
            [ 3.0000,  0.5000]], dtype=torch.float64)
    """
    B, S, K = start.shape
    everyone = torch.arange(B, device=start.device)
    follow = min(follow, S)
    if follow < S:
        screen = value if value is not None else lambda theta, index: value_and_grad(theta, index)[0]
        values = torch.stack([screen(start[:, s].contiguous(), everyone) for s in range(S)], 1)
        values = torch.where(torch.isfinite(values), values, torch.inf)
        chosen = values.argsort(dim=1, stable=True)[:, :follow]
        start = start.gather(1, chosen[:, :, None].expand(B, follow, K))
    if follow == 1:
        return _descend(value_and_grad, start[:, 0].contiguous(), everyone, tolerance, max_iterations, max_step)
    flat = _descend(
        value_and_grad, start.reshape(B * follow, K), everyone.repeat_interleave(follow), tolerance, max_iterations,
        max_step,
    )  # fmt: skip
    values = torch.where(torch.isfinite(flat.value), flat.value, torch.inf).reshape(B, follow)
    # a converged end wins against one that is as good but did not converge
    rank = values + (flat.status.reshape(B, follow) != CONVERGED) * 1e-9 * (1 + values.abs())
    best = rank.argsort(dim=1, stable=True)[:, 0] + follow * everyone
    return Minimum(*(part[best] for part in flat))


class _Search(NamedTuple):
    """The series still on their way, each with its own line search."""

    row: Tensor  # (A,) where in the result
    theta: Tensor  # (A, K)
    f: Tensor
    g: Tensor  # (A, K)
    H: Tensor  # (A, K, K), the inverse Hessian
    d: Tensor  # (A, K)
    slope: Tensor  # g'd
    t: Tensor  # the step of the next trial
    low: Tensor  # the largest step that was too short
    high: Tensor  # the smallest that was too long
    trials: Tensor  # of this line search
    steps: Tensor  # accepted
    done: Tensor  # status, -1 while on the way


def _descend(
    value_and_grad: ValueAndGrad, theta: Tensor, owner: Tensor, tolerance: float, max_iterations: int, max_step: float
) -> Minimum:
    n = theta.shape[0]
    result = Minimum(
        theta.clone(), theta.new_full((n,), torch.nan), theta.new_full((n,), torch.inf),
        torch.zeros(n, dtype=torch.int64, device=theta.device),
        torch.full((n,), UNUSABLE, dtype=torch.int64, device=theta.device),
    )  # fmt: skip
    f, g = value_and_grad(theta, owner)
    now = _start(theta, f, g, tolerance, max_step)
    index = owner
    while True:
        left, kept = _leave(now, result)
        if left is None:
            return result
        now = left
        if kept is not None:
            index = index[kept]
        trial = now.theta + now.t[:, None] * now.d
        f, g = value_and_grad(trial, index)
        now = _advance(now, trial, f, g, tolerance, max_iterations, max_step)


def _start(theta: Tensor, f: Tensor, g: Tensor, tolerance: float, max_step: float) -> _Search:
    n, K = theta.shape
    usable = torch.isfinite(f) & torch.isfinite(g).all(1)
    g = torch.where(usable[:, None], g, 0.0)
    H = torch.eye(K, dtype=theta.dtype, device=theta.device).repeat(n, 1, 1)
    d, slope = -g, -_dot(g, g)
    steepest = _largest(g)
    done = torch.where(usable, torch.where(steepest <= tolerance, CONVERGED, -1), UNUSABLE)
    # the first step has no curvature to go by: at most a fifth of the way a later one may go
    t = torch.clamp(0.2 * max_step / torch.clamp(steepest, min=1e-300), max=1.0)
    zero, count = torch.zeros_like(f), torch.zeros(n, dtype=torch.int64, device=theta.device)
    row = torch.arange(n, device=theta.device)
    return _Search(row, theta, f, g, H, d, slope, t, zero, torch.full_like(f, torch.inf), count, count, done)


def _leave(now: _Search, result: Minimum) -> tuple[_Search | None, Tensor | None]:
    """Write down those that are done; drop them from the batch once they are an eighth of it, or all."""
    finished = now.done >= 0
    count = int(finished.sum())
    n = finished.shape[0]
    if count == 0 or (count < n and count * 8 < n):
        return now, None
    rows = now.row[finished]
    usable = now.done[finished] != UNUSABLE
    result.theta[rows] = now.theta[finished]
    result.value[rows] = torch.where(usable, now.f[finished], torch.nan)
    result.grad_norm[rows] = torch.where(usable, _largest(now.g[finished]), torch.inf)
    result.iterations[rows] = now.steps[finished]
    result.status[rows] = now.done[finished]
    if count == n:
        return None, None
    kept = torch.nonzero(~finished)[:, 0]
    return _Search(*(part[kept] for part in now)), kept


def _advance(
    now: _Search, trial: Tensor, f: Tensor, g: Tensor, tolerance: float, max_iterations: int, max_step: float
) -> _Search:
    """One trial of every series: accept it and take a new direction, or bracket and try again."""
    active = now.done < 0
    finite = torch.isfinite(f) & torch.isfinite(g).all(1)
    f_safe, g_safe = torch.where(finite, f, now.f), torch.where(finite[:, None], g, 0.0)
    slope = _dot(g_safe, now.d)
    # near the optimum f is rounding: there the slope alone decides (Hager & Zhang (2005), approximate Wolfe)
    close = (f_safe - now.f).abs() <= 4e-14 * (1 + now.f.abs())
    lower = f_safe <= now.f + _ARMIJO * now.t * now.slope
    lower = lower | (close & (slope <= (2 * _ARMIJO - 1) * now.slope))
    decreased = finite & lower
    accepted = active & decreased & (slope >= _CURVATURE * now.slope)
    # a step as long as is allowed need not satisfy the curvature condition
    longest = now.t * _largest(now.d) >= max_step * (1 - 1e-12)
    accepted = accepted | (active & decreased & longest)

    # too long: shrink the bracket from above; too short: from below
    high = torch.where(decreased, now.high, now.t)
    low = torch.where(decreased, now.t, now.low)
    cubic = now.t * -now.slope * now.t / (2 * torch.clamp(f_safe - now.f - now.t * now.slope, min=1e-300))
    inside = torch.minimum(torch.maximum(cubic, low + 0.1 * (high - low)), low + 0.5 * (high - low))
    inside = torch.where(finite, inside, low + 0.1 * (high - low))
    limit = max_step / torch.clamp(_largest(now.d), min=1e-300)
    retry = torch.where(torch.isfinite(high), inside, torch.minimum(2.5 * low, limit))
    trials = now.trials + 1

    theta = torch.where(accepted[:, None], trial, now.theta)
    f_new = torch.where(accepted, f_safe, now.f)
    g_new = torch.where(accepted[:, None], g_safe, now.g)
    steps = now.steps + accepted
    H = _updated(now.H, theta - now.theta, g_new - now.g, now.steps == 0, accepted)
    d = -_times(H, g_new)
    new_slope = _dot(g_new, d)
    uphill = ~(new_slope < 0)
    if bool((uphill & accepted).any()):
        eye = torch.eye(H.shape[1], dtype=H.dtype, device=H.device)
        H = torch.where((uphill & accepted)[:, None, None], eye, H)
        d = torch.where(uphill[:, None], -g_new, d)
        new_slope = torch.where(uphill, -_dot(g_new, g_new), new_slope)
    first = torch.clamp(max_step / torch.clamp(_largest(d), min=1e-300), max=1.0)

    stuck = active & ~accepted & ((trials >= _TRIALS) | (retry <= 1e-14))
    done = torch.where(accepted & (steps >= max_iterations), EXHAUSTED, now.done)
    done = torch.where(accepted & (_largest(g_new) <= tolerance), CONVERGED, done)
    done = torch.where(stuck, STUCK, done)
    return _Search(
        now.row, theta, f_new, g_new, H,
        torch.where(accepted[:, None], d, now.d),
        torch.where(accepted, new_slope, now.slope),
        torch.where(accepted, first, retry),
        torch.where(accepted, 0.0, low),
        torch.where(accepted, torch.inf, high),
        torch.where(accepted, 0, trials),
        steps,
        done,
    )  # fmt: skip


def _updated(H: Tensor, s: Tensor, y: Tensor, first: Tensor, accepted: Tensor) -> Tensor:
    """BFGS on the inverse Hessian, where accepted and the curvature is positive (6.17; 6.20 for the first)."""
    sy, yy, ss = _dot(s, y), _dot(y, y), _dot(s, s)
    good = accepted & (sy > 1e-12 * torch.sqrt(ss * yy)) & (yy > 0)
    rho = torch.where(good, 1 / torch.where(good, sy, 1.0), 0.0)
    scale = torch.where(good & first, sy / torch.where(good, yy, 1.0), 1.0)
    H = H * scale[:, None, None]
    Hy = _times(H, y)
    factor = (1 + rho * _dot(y, Hy)) * rho
    cross = Hy[:, :, None] * s[:, None, :]
    updated = H - rho[:, None, None] * (cross + cross.mT) + factor[:, None, None] * (s[:, :, None] * s[:, None, :])
    return torch.where(good[:, None, None], updated, H)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    total = a[:, 0] * b[:, 0]
    for k in range(1, a.shape[1]):
        total = total + a[:, k] * b[:, k]
    return total


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    total = matrix[:, :, 0] * vector[:, 0, None]
    for k in range(1, vector.shape[1]):
        total = total + matrix[:, :, k] * vector[:, k, None]
    return total


def _largest(vector: Tensor) -> Tensor:
    return vector.abs().amax(1)
