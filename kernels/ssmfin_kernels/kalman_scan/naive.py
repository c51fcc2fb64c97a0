"""Owns the meaning of the Kalman filter and smoother in plain torch: one observation at a time, exactly diffuse.

The model stands in `model.py`. At step t, with the predicted state (a, P + kappa P_inf), the components of y_t are
taken in one after another (univariate treatment, Durbin & Koopman (2012), section 6.4). With h the row of H_t,

    v = y - d - h'a,   M = P h,   F = h'M + r,   M_inf = P_inf h,   F_inf = h'M_inf

    F_inf = 0:  a <- a + M v / F,          P <- P - M M' / F,                                            (4.24)
                log p = -1/2 (log 2 pi + log F + v^2 / F)
    F_inf > 0:  a <- a + M_inf v / F_inf,  P <- P + M_inf M_inf' F / F_inf^2 - (M M_inf' + M_inf M') / F_inf,
                P_inf <- P_inf - M_inf M_inf' / F_inf,                                     (5.7 - 5.14, univariate)
                log p = -1/2 (log 2 pi + log F_inf)                                        (7.3: the diffuse likelihood)
    y missing, or F = 0 (it carries no information): nothing changes.

and then a <- c + F_t a, P <- F_t P F_t' + Q_t, P_inf <- F_t P_inf F_t' (4.25).

Components whose errors correlate: the state is extended by eps_t while y_t is taken in, (alpha, eps) with covariance
diag(P, R), rows (h, e_i) and r = 0. That is the joint update, for any positive semidefinite R and any pattern of
missing components, and it needs no factor of R.

Each observation of the second kind lowers the rank of P_inf by exactly one. Ranks are counted, and P_inf is set to
zero when none is left, so that rounding cannot prolong the diffuse phase.

The smoother goes backward with r = r0 + r1 / kappa and N = N0 + N1 / kappa + N2 / kappa^2 (sections 5.3 and 6.4.4):

    F_inf = 0:  L = I - M h' / F;   r0 <- h v / F + L' r0,  N0 <- h h' / F + L' N0 L,  r1 <- L' r1,  Ni <- L' Ni L
    F_inf > 0:  L = I - M_inf h' / F_inf,   L1 = (M_inf F / F_inf - M) h' / F_inf
                r1 <- h v / F_inf + L' r1 + L1' r0,                  r0 <- L' r0
                N2 <- -h h' F / F_inf^2 + L' N2 L + L1' N1 L + L' N1 L1 + L1' N0 L1
                N1 <- h h' / F_inf + L' N1 L + L1' N0 L + L' N0 L1,  N0 <- L' N0 L
    and across steps r <- F_t' r, N <- F_t' N F_t;
    E(alpha_t | y) = a + P r0 + P_inf r1
    Var(alpha_t | y) = P - P N0 P - P_inf N1 P - P N1 P_inf - P_inf N2 P_inf
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ssmfin_kernels.kalman_scan.model import Problem, diffuse_rank, diffuse_tolerance

LOG_2PI = math.log(2 * math.pi)


class Moments(NamedTuple):
    """What every implementation of the filter returns."""

    steps: Tensor  # (B, T) log-likelihood of each step given those before
    predicted_mean: Tensor  # (B, T, N)
    predicted_covariance: Tensor  # (B, T, N, N)
    filtered_mean: Tensor  # (B, T, N)
    filtered_covariance: Tensor  # (B, T, N, N)
    final_mean: Tensor  # (B, N), predicted for T + 1
    final_covariance: Tensor  # (B, N, N)
    final_diffuse: Tensor  # (B, N, N)
    innovation: Tensor  # (B, T, P), NaN where missing
    innovation_covariance: Tensor  # (B, T, P, P)
    diffuse: Tensor  # (B, T) bool: the predicted state has infinite variance in some direction
    total: Tensor | None = None  # (B,) sum of steps, where it costs less than a sum


class _State(NamedTuple):
    mean: Tensor  # (B, N)
    covariance: Tensor  # (B, N, N)
    diffuse: Tensor  # (B, N, N)
    rank: Tensor  # (B,)


class _Taken(NamedTuple):
    """One component taken in; g = 1 / F where it was of the first kind, g0 = 1 / F_inf where of the second, else 0."""

    h: Tensor
    v: Tensor
    M: Tensor
    F: Tensor
    M_inf: Tensor
    g: Tensor
    g0: Tensor


def kalman_filter(problem: Problem) -> Moments:
    """Filter every series of a problem; differentiable by autograd."""
    moments, _ = _forward(problem)
    return moments


def kalman_log_likelihood(problem: Problem) -> Tensor:
    """(B,) log-likelihood of every series."""
    return kalman_filter(problem).steps.sum(1)


def kalman_smoother(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Means (B, T, N) and covariances (B, T, N, N) given the whole series, and log-likelihood by step (B, T)."""
    moments, path = _forward(problem)
    B, T, _ = problem.y.shape
    N = problem.F.shape[-1]
    r0 = r1 = problem.y.new_zeros(B, N)
    N0 = N1 = N2 = problem.y.new_zeros(B, N, N)
    means, covariances = [], []
    for t in reversed(range(T)):
        state, taken = path[t]
        wider = taken[0].h.shape[-1] - N
        r0, r1 = (torch.nn.functional.pad(r, (0, wider)) for r in (r0, r1))
        N0, N1, N2 = (torch.nn.functional.pad(n, (0, wider, 0, wider)) for n in (N0, N1, N2))
        for one in reversed(taken):
            r0, r1, N0, N1, N2 = _back(one, r0, r1, N0, N1, N2)
        r0, r1, N0, N1, N2 = r0[:, :N], r1[:, :N], N0[:, :N, :N], N1[:, :N, :N], N2[:, :N, :N]
        P, P_inf = state.covariance, state.diffuse
        means.append(state.mean + _times(P, r0) + _times(P_inf, r1))
        cross = P_inf @ N1 @ P
        covariances.append(P - P @ N0 @ P - cross - cross.mT - P_inf @ N2 @ P_inf)
        if t > 0:
            F = _at(problem.F, t - 1).mT
            r0, r1 = _times(F, r0), _times(F, r1)
            N0, N1, N2 = (F @ n @ F.mT for n in (N0, N1, N2))
            if problem.reset is not None:  # nothing flows across
                keep = ~problem.reset[:, t]
                r0, r1 = (_where(keep, r, torch.zeros_like(r)) for r in (r0, r1))
                N0, N1, N2 = (_where(keep, n, torch.zeros_like(n)) for n in (N0, N1, N2))
    return torch.stack(means[::-1], 1), torch.stack(covariances[::-1], 1), moments.steps


def innovations(problem: Problem, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """y - d - H a, NaN where missing, and H P H' + R, for predicted moments of every step."""
    missing = torch.isnan(problem.y)
    y = torch.where(missing, 0.0, problem.y)
    innovation = torch.where(missing, torch.nan, y - problem.d - _times(problem.H, mean))
    return innovation, problem.H @ covariance @ problem.H.mT + problem.R


def _forward(problem: Problem) -> tuple[Moments, list[tuple[_State, list[_Taken]]]]:
    y, F, H, Q, R, c, d, mean, covariance, diffuse, reset = problem
    B, T, _ = y.shape
    N = F.shape[-1]
    first = _State(
        mean.expand(B, N), covariance.expand(B, N, N), diffuse.expand(B, N, N), diffuse_rank(diffuse).expand(B)
    )
    tolerance = diffuse_tolerance(diffuse)
    state, steps, predicted, filtered, path = first, [], [], [], []
    for t in range(T):
        if reset is not None and t > 0:
            state = _State(*(_where(reset[:, t], new, old) for new, old in zip(first, state, strict=True)))
        predicted.append(state)
        after, taken, step = _take_in(state, y[:, t], _at(H, t), _at(R, t), _at(d, t), tolerance)
        path.append((state, taken))
        filtered.append(after)
        steps.append(step)
        Ft = _at(F, t)
        state = _State(
            _at(c, t) + _times(Ft, after.mean),
            Ft @ after.covariance @ Ft.mT + _at(Q, t),
            Ft @ after.diffuse @ Ft.mT,
            after.rank,
        )
    moments = Moments(
        torch.stack(steps, 1),
        torch.stack([s.mean for s in predicted], 1),
        torch.stack([s.covariance for s in predicted], 1),
        torch.stack([s.mean for s in filtered], 1),
        torch.stack([s.covariance for s in filtered], 1),
        state.mean,
        state.covariance,
        state.diffuse,
        *innovations(
            problem, torch.stack([s.mean for s in predicted], 1), torch.stack([s.covariance for s in predicted], 1)
        ),
        torch.stack([s.rank > 0 for s in predicted], 1),
    )
    return moments, path


def _take_in(
    state: _State, y: Tensor, H: Tensor, R: Tensor, d: Tensor, tolerance: Tensor
) -> tuple[_State, list[_Taken], Tensor]:
    """Condition a state on the components of one step, one after another."""
    a, P, P_inf, rank = state
    B, N = a.shape
    p = y.shape[-1]
    r = R[:, 0, 0] if p == 1 else R.new_zeros(1)
    if p > 1:  # (alpha, eps): N -> N + p
        H = torch.cat([H, torch.eye(p, dtype=H.dtype, device=H.device).expand(H.shape[0], p, p)], -1)
        a = torch.nn.functional.pad(a, (0, p))
        P_inf = torch.nn.functional.pad(P_inf, (0, p, 0, p))
        P = torch.nn.functional.pad(P, (0, p, 0, p)) + torch.nn.functional.pad(R, (N, 0, N, 0))
    tiny = torch.finfo(y.dtype).tiny
    taken = []
    log_p = y.new_zeros(B)
    for i in range(p):
        h = H[:, i].expand(B, -1)
        seen = ~torch.isnan(y[:, i])
        v = torch.where(seen, torch.where(seen, y[:, i], 0.0) - d[:, i] - (h * a).sum(-1), 0.0)
        M, M_inf = _times(P, h), _times(P_inf, h)
        F, F_inf = (h * M).sum(-1) + r, (h * M_inf).sum(-1)
        unknown = seen & (rank > 0) & (tolerance * (h * h).sum(-1) < F_inf)
        known = seen & ~unknown & (tiny < F)
        g = torch.where(known, 1 / torch.where(known, F, 1.0), 0.0)
        g0 = torch.where(unknown, 1 / torch.where(unknown, F_inf, 1.0), 0.0)
        taken.append(_Taken(h, v, M, F, M_inf, g, g0))
        a = a + M * (g * v)[:, None] + M_inf * (g0 * v)[:, None]
        cross = _outer(M, M_inf) * g0[:, None, None]
        P = P - _outer(M, M) * g[:, None, None] - cross - cross.mT
        P = P + _outer(M_inf, M_inf) * (F * g0 * g0)[:, None, None]
        P_inf = P_inf - _outer(M_inf, M_inf) * g0[:, None, None]
        rank = rank - unknown.long()
        P_inf = torch.where((rank > 0)[:, None, None], P_inf, 0.0)
        variance = torch.where(known, F, torch.where(unknown, F_inf, 1.0))
        log_p = log_p - 0.5 * torch.where(known | unknown, LOG_2PI + torch.log(variance) + v * v * g, 0.0)
    return _State(a[:, :N], P[:, :N, :N], P_inf[:, :N, :N], rank), taken, log_p


def _back(
    one: _Taken, r0: Tensor, r1: Tensor, N0: Tensor, N1: Tensor, N2: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The backward step of the smoother through one component; both kinds in one formula, as g or g0 is zero."""
    h, v, M, F, M_inf, g, g0 = one
    eye = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
    L = eye - _outer(M * g[:, None] + M_inf * g0[:, None], h)
    L1 = _outer((M_inf * (F * g0)[:, None] - M) * g0[:, None], h)
    hh = _outer(h, h)
    r1 = h * (v * g0)[:, None] + _times(L.mT, r1) + _times(L1.mT, r0)
    r0 = h * (v * g)[:, None] + _times(L.mT, r0)
    mixed1, mixed0 = L1.mT @ N1 @ L, L1.mT @ N0 @ L
    N2 = L.mT @ N2 @ L + mixed1 + mixed1.mT + L1.mT @ N0 @ L1 - hh * (F * g0 * g0)[:, None, None]
    N1 = L.mT @ N1 @ L + mixed0 + mixed0.mT + hh * g0[:, None, None]
    N0 = L.mT @ N0 @ L + hh * g[:, None, None]
    return r0, r1, N0, N1, N2


def _at(matrix: Tensor, t: int) -> Tensor:
    """(b, t, ...) -> (b, ...) at step t, or the only one there is."""
    return matrix[:, t if matrix.shape[1] > 1 else 0]


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left[..., :, None] * right[..., None, :]


def _where(flag: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(flag.reshape(-1, *([1] * (old.ndim - 1))), new, old)
