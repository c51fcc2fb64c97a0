"""Owns the Kalman filter and smoother as associative scans over time, in plain torch: for one very long series.

Särkkä & García-Fernández (2021), IEEE TAC 66, 299-306. The element of step t is (A, b, C, eta, J): given alpha_{t-1}
and y_t, alpha_t has mean A alpha_{t-1} + b and covariance C, and y_t says of alpha_{t-1} what an observation with
information vector eta and matrix J would. With S = H Q H' + R and K = Q H' S^-1 (their eq. 10-12)

    A = (I - K H) F,  b = c + K e,  C = (I - K H) Q,  eta = F'H' S^-1 e,  J = F'H' S^-1 H F,   e = y - d - H c

and where a sequence starts A = 0, eta = 0, J = 0, with the initial moments for c and Q. Two neighbours i, j combine to
(eq. 14-18, M = (I + C_i J_j)^-1)

    A = A_j M A_i,   b = A_j M (b_i + C_i eta_j) + b_j,   C = A_j M C_i A_j' + C_j
    eta = A_i' M' (eta_j - J_j b_i) + eta_i,   J = A_i' M' J_j A_i + J_i

The prefixes' b and C are the filtered moments; predictions and likelihoods follow from them step by step at once. The
smoother scans (E, g, L) = (P F' P'^-1, a - E a', P - E P' E') backward, P' predicted (Rauch, Tung, Striebel).

An exactly diffuse start has no such element: its first steps, until nothing is unknown, run one after another. S must
not be singular. Gradients by autograd. 2 log2 T rounds, about ten times the arithmetic of the sequential form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssmfin_kernels.kalman_scan import naive
from ssmfin_kernels.kalman_scan.model import Problem
from ssmfin_kernels.kalman_scan.naive import LOG_2PI, Moments
from ssmfin_kernels.kalman_scan.prefix import Elements, prefix

_HEAD = 16  # steps run one after another at a time while the start is diffuse


def kalman_filter(problem: Problem) -> Moments:
    """As `naive.kalman_filter`."""
    if not bool(problem.diffuse.any()):
        return _filter(problem)
    if problem.reset is not None:
        raise ValueError(
            "backend is 'parallel', which cannot start anew (reset) from a diffuse state; use backend='naive'."
        )
    heads, rest = [], problem
    while True:
        head = naive.kalman_filter(_cut(rest, 0, _HEAD))
        heads.append(head)
        T = rest.y.shape[1]
        rest = _cut(rest, _HEAD, T)._replace(
            mean=head.final_mean, covariance=head.final_covariance, diffuse=head.final_diffuse
        )
        if _HEAD >= T:
            break
        if not bool(rest.diffuse.any()):
            heads.append(_filter(rest))
            break
    steps, pm, pc, fm, fc = (torch.cat(parts, 1) for parts in zip(*(h[:5] for h in heads), strict=True))
    innovation, spread, diffuse = (torch.cat(parts, 1) for parts in zip(*(h[8:11] for h in heads), strict=True))
    return Moments(steps, pm, pc, fm, fc, *heads[-1][5:8], innovation, spread, diffuse)


def kalman_log_likelihood(problem: Problem) -> Tensor:
    """(B,) log-likelihood of every series."""
    return kalman_filter(problem).steps.sum(1)


def kalman_smoother(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """As `naive.kalman_smoother`, for a start that is not diffuse."""
    if bool(problem.diffuse.any()):
        raise ValueError(
            "backend is 'parallel', which cannot smooth from a diffuse start; use backend=None or give "
            "initial_covariance without initial_diffuse."
        )
    moments = _filter(problem)
    a, P = moments.filtered_mean, moments.filtered_covariance
    T, N = a.shape[1:]
    ahead, spread = moments.predicted_mean[:, 1:], moments.predicted_covariance[:, 1:]
    F = problem.F.expand(-1, T, N, N)[:, : T - 1]
    E = P[:, : T - 1] @ F.mT @ torch.linalg.pinv(spread, hermitian=True)
    if problem.reset is not None:
        E = torch.where(problem.reset[:, 1:, None, None], 0.0, E)
    g = a[:, : T - 1] - _times(E, ahead)
    L = P[:, : T - 1] - E @ spread @ E.mT
    elements = (
        torch.cat([E, torch.zeros_like(P[:, :1])], 1),
        torch.cat([g, a[:, -1:]], 1),
        torch.cat([L, P[:, -1:]], 1),
    )
    _, mean, covariance = prefix(_combine_smoothed, tuple(e.flip(1) for e in elements))
    return mean.flip(1), covariance.flip(1), moments.steps


def _filter(problem: Problem) -> Moments:
    y, F, H, Q, R, c, d, mean, covariance, _, reset = problem
    B, T, P = y.shape
    N = F.shape[-1]
    first = torch.zeros(B, T, dtype=torch.bool, device=y.device)
    first[:, 0] = True
    if reset is not None:
        first = first | reset
    start = first[..., None]
    seen = ~torch.isnan(y)
    H = torch.where(seen[..., None], H, 0.0)  # (B, T, P, N): rows of missing components vanish, and their R is 1
    both = seen[..., :, None] & seen[..., None, :]
    R = torch.where(both, R, torch.eye(P, dtype=y.dtype, device=y.device))
    y = torch.where(seen, y - d, 0.0)

    before = [_previous(x, T) for x in (F, Q, c)]  # what leads to step t stands at t - 1
    A0 = torch.where(start[..., None], 0.0, before[0])
    Q0 = torch.where(start[..., None], covariance[:, None], before[1])
    c0 = torch.where(start, mean[:, None], before[2])
    S = H @ Q0 @ H.mT + R
    HS = torch.linalg.solve(S, H).mT if P > 1 else H.mT / S  # H' S^-1, (B, T, N, P)
    K = Q0 @ HS
    e = y - _times(H, c0)
    I_KH = torch.eye(N, dtype=y.dtype, device=y.device) - K @ H
    elements = (
        I_KH @ A0,
        c0 + _times(K, e),
        I_KH @ Q0 @ I_KH.mT + K @ R @ K.mT,
        _times(A0.mT, _times(HS, e)),
        A0.mT @ HS @ H @ A0,
    )
    _, filtered, spread, _, _ = prefix(combine_filtered, elements)
    spread = 0.5 * (spread + spread.mT)
    last = F.expand(-1, T, N, N)
    ahead = c + _times(last, filtered)  # (B, T, N), for t + 1
    ahead_spread = last @ spread @ last.mT + Q
    predicted = torch.cat([mean.expand(B, N)[:, None], ahead[:, :-1]], 1)
    predicted_spread = torch.cat([covariance.expand(B, N, N)[:, None], ahead_spread[:, :-1]], 1)
    predicted = torch.where(start, mean[:, None], predicted)
    predicted_spread = torch.where(start[..., None], covariance[:, None], predicted_spread)
    v = y - _times(H, predicted)
    F_v = H @ predicted_spread @ H.mT + R
    if P == 1:
        log_det, square = torch.log(F_v[..., 0, 0]), v[..., 0] ** 2 / F_v[..., 0, 0]
    else:
        factor = torch.linalg.cholesky(F_v)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        square = (torch.linalg.solve_triangular(factor, v[..., None], upper=False) ** 2).sum((-2, -1))
    steps = -0.5 * (LOG_2PI * seen.sum(-1).to(y.dtype) + log_det + square)
    return Moments(
        steps,
        predicted,
        predicted_spread,
        filtered,
        spread,
        ahead[:, -1],
        ahead_spread[:, -1],
        y.new_zeros(B, N, N),
        *naive.innovations(problem, predicted, predicted_spread),
        torch.zeros_like(first),
    )


def combine_filtered(left: Elements, right: Elements) -> Elements:
    """Elements of the filter of two neighbouring stretches of time -> that of both."""
    Ai, bi, Ci, ei, Ji = left
    Aj, bj, Cj, ej, Jj = right
    M = _inverse(torch.eye(Ai.shape[-1], dtype=Ai.dtype, device=Ai.device) + Ci @ Jj)
    AM = Aj @ M
    back = Ai.mT @ M.mT
    return (
        AM @ Ai,
        _times(AM, bi + _times(Ci, ej)) + bj,
        AM @ Ci @ Aj.mT + Cj,
        _times(back, ej - _times(Jj, bi)) + ei,
        back @ Jj @ Ai + Ji,
    )


def _combine_smoothed(later: Elements, earlier: Elements) -> Elements:
    Ej, gj, Lj = later
    Ei, gi, Li = earlier
    return Ei @ Ej, _times(Ei, gj) + gi, Ei @ Lj @ Ei.mT + Li


def _inverse(matrix: Tensor) -> Tensor:
    N = matrix.shape[-1]
    if N == 1:
        return 1 / matrix
    if N == 2:  # in closed form: a batched factorisation costs many times as much
        a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
        adjugate = torch.stack([d, -b, -c, a], -1).reshape(matrix.shape)
        inverse: Tensor = adjugate / (a * d - b * c)[..., None, None]
        return inverse
    return torch.linalg.inv(matrix)


def _previous(matrix: Tensor, T: int) -> Tensor:
    """Of step t - 1 at t; the first, which nothing leads to, repeats."""
    return matrix if matrix.shape[1] == 1 else torch.cat([matrix[:, :1], matrix[:, : T - 1]], 1)


def _cut(problem: Problem, start: int, stop: int) -> Problem:
    def part(x: Tensor) -> Tensor:
        return x if x.shape[1] == 1 else x[:, start:stop]

    y, F, H, Q, R, c, d, *rest = problem
    matrices = (part(x) for x in (F, H, Q, R, c, d))
    return Problem(y[:, start:stop], *matrices, *rest)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]
