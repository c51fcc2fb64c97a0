"""Owns the Kalman operations on CUDA tensors: Triton for small constant models, the scan over time for the rest.

The Triton kernels (`gpu_forward.py`, `gpu_backward.py`) take one observation (P = 1), a state of one or two, matrices
that do not vary with time, no reset: a lane per series, time in sequence, eight steps to a load. The state and every
matrix stay in registers, in float32, or in float64 where the arguments are. Exact diffuse starts are part of the
kernels, which leave the diffuse code behind as soon as no lane of the block needs it. Time of few long series is cut
into stretches, a lane each (`gpu_long.py`).

All else, and gradients of the moments, run as `parallel.py`, or `naive.py` where that cannot (a reset into a diffuse
start).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.kalman_scan import naive, parallel
from ssmfin_kernels.kalman_scan.model import Problem
from ssmfin_kernels.kalman_scan.naive import Moments


def kalman_filter(problem: Problem, wanted: Sequence[bool] = (True,) * 4) -> Moments:
    """As `naive.kalman_filter`. wanted: predicted, filtered, innovation, steps; what is not may be empty."""
    differentiated = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in problem)
    if not _small(problem) or differentiated:
        moments: Moments = _general(problem).kalman_filter(problem)
        return moments
    return Moments(*_moments(*problem[:10], list(wanted)))


def kalman_log_likelihood(problem: Problem) -> Tensor:
    """(B,) log-likelihood of every series; gradients for every tensor of the problem."""
    result: Tensor
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in problem)
    # the gradient of few long series fills the chip only by a scan over time, in double precision most of all
    few = keep and problem.y.dtype == torch.float64 and problem.y.shape[0] < 1024 and problem.y.shape[1] > 8192
    if few or not _small(problem):
        result = _general(problem).kalman_log_likelihood(problem)
        return result
    result = _log_likelihood(*problem[:10], keep)[0]
    return result


def kalman_smoother(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """As `naive.kalman_smoother`: a scan over time where the start is not diffuse."""
    if bool(problem.diffuse.any()):
        return naive.kalman_smoother(problem)
    return parallel.kalman_smoother(problem)


def _small(problem: Problem) -> bool:
    constant = all(x.shape[1] == 1 for x in problem[1:7])
    single = problem.y.shape[2] == 1 and problem.F.shape[-1] <= 2
    return constant and single and problem.reset is None


def _general(problem: Problem) -> ModuleType:
    """The module for what the kernels do not take."""
    return naive if problem.reset is not None and bool(problem.diffuse.any()) else parallel


def _given(y: Tensor, matrices: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """y (B, T) and the matrices, all contiguous, and in bit k whether the k-th matrix differs by series."""
    by_series = sum((x.shape[0] > 1) << k for k, x in enumerate(matrices))
    return [y[:, :, 0].contiguous(), *(x.contiguous() for x in matrices)], by_series


@library.operator("kalman_log_likelihood_gpu")
def _log_likelihood(
    y: Tensor,
    F: Tensor,
    H: Tensor,
    Q: Tensor,
    R: Tensor,
    c: Tensor,
    d: Tensor,
    mean: Tensor,
    covariance: Tensor,
    diffuse: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B,) and, if kept, what its gradient starts from; `gpu_forward.log_likelihood`."""
    from ssmfin_kernels.kalman_scan import gpu_forward, gpu_long

    inputs, by_series = _given(y, (F, H, Q, R, c, d, mean, covariance, diffuse))
    out, checkpoints, heads, ends = _kept(y, F, keep)
    count = 1 if keep else gpu_long.stretches(y)
    parts = gpu_long.cut(inputs, by_series, count) if count > 1 else None
    if parts is None:
        gpu_forward.log_likelihood(inputs, by_series, out, checkpoints, heads, ends)
    else:
        each = y.new_empty(y.shape[0] * count)
        gpu_forward.log_likelihood(*parts, each, checkpoints, heads, ends)
        out = each.view(-1, count).sum(1)
    return out, checkpoints, heads, ends


@_log_likelihood.register_fake
def _(y, F, H, Q, R, c, d, mean, covariance, diffuse, keep):  # type: ignore[no-untyped-def]
    return _kept(y, F, keep)


def _kept(y: Tensor, F: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from ssmfin_kernels.kalman_scan.gpu_forward import BLOCK, CHUNK, HEAD

    B, T, _ = y.shape
    N, length = F.shape[-1], T if keep else 0
    checkpoints = y.new_empty(-(-length // CHUNK), N * (N + 3) // 2, B)
    heads = y.new_empty(-(-length // HEAD), N * (N + 1) // 2 + 1, B)
    ends = torch.empty(-(-B // BLOCK) if keep else 0, dtype=torch.int32, device=y.device)
    return y.new_empty(B), checkpoints, heads, ends


@library.operator("kalman_log_likelihood_gpu_backward")
def _backward(
    y: Tensor,
    F: Tensor,
    H: Tensor,
    Q: Tensor,
    R: Tensor,
    c: Tensor,
    d: Tensor,
    mean: Tensor,
    covariance: Tensor,
    diffuse: Tensor,
    checkpoints: Tensor,
    heads: Tensor,
    ends: Tensor,
    grad: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs, empty where not needed; symmetric ones of symmetric matrices."""
    from ssmfin_kernels.kalman_scan import gpu_backward

    matrices = (F, H, Q, R, c, d, mean, covariance, diffuse)
    inputs, by_series = _given(y, matrices)
    (B, T, _), N = y.shape, F.shape[-1]
    d_y = y.new_empty((B, T, 1) if needs[0] else 0)
    rows = y.new_empty(gpu_backward.ROWS, B)
    others = any(needs[k] for k in (1, 2, 5, 6))
    gpu_backward.backward(inputs, by_series, checkpoints, heads, ends, grad.contiguous(), d_y, rows, others)
    total = rows.sum(1) if any(n and x.shape[0] < B for n, x in zip(needs[1:], matrices, strict=True)) else rows
    places = _ROWS_OF_ONE if N == 1 else _ROWS_OF_TWO
    found = [d_y]
    for matrix, place, wanted in zip(matrices, places, needs[1:], strict=True):
        source = rows if matrix.shape[0] == B else total
        # (rows, B) or (rows,) -> (B, .., rows) or (.., rows)
        found.append(torch.stack([source[k] for k in place], -1).reshape(matrix.shape) if wanted else y.new_empty(0))
    d_y, d_F, d_H, d_Q, d_R, d_c, d_d, d_mean, d_covariance, d_diffuse = found
    return d_y, d_F, d_H, d_Q, d_R, d_c, d_d, d_mean, d_covariance, d_diffuse


# the rows of gpu_backward.ROWS that make each matrix
_ROWS_OF_ONE = ((0,), (4,), (6,), (9,), (10,), (12,), (13,), (15,), (18,))
_ROWS_OF_TWO = (
    (0, 1, 2, 3), (4, 5), (6, 7, 7, 8), (9,), (10, 11), (12,), (13, 14), (15, 16, 16, 17), (18, 19, 19, 20),
)  # fmt: skip


@_backward.register_fake
def _(y, F, H, Q, R, c, d, mean, covariance, diffuse, checkpoints, heads, ends, grad, needs):  # type: ignore[no-untyped-def]
    inputs = (y, F, H, Q, R, c, d, mean, covariance, diffuse)
    return tuple(x.new_empty(x.shape if n else 0) for x, n in zip(inputs, needs, strict=True))


library.once_differentiable(_backward)


def _grad(saved, kept, needs, grad, *_):  # type: ignore[no-untyped-def]
    found = _backward(*saved, grad, list(needs[:10]))
    return *(part if wanted else None for part, wanted in zip(found, needs, strict=False)), None


library.differentiable(_log_likelihood, save=lambda inputs, output: (*inputs[:10], *output[1:]), backward=_grad)


@library.operator("kalman_filter_gpu")
def _moments(
    y: Tensor,
    F: Tensor,
    H: Tensor,
    Q: Tensor,
    R: Tensor,
    c: Tensor,
    d: Tensor,
    mean: Tensor,
    covariance: Tensor,
    diffuse: Tensor,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Moments, no steps of those that are not wanted; no gradient."""
    from ssmfin_kernels.kalman_scan import gpu_forward, gpu_long

    inputs, by_series = _given(y, (F, H, Q, R, c, d, mean, covariance, diffuse))
    N = F.shape[-1]
    out = gpu_forward.empty(y, N, wanted)
    count = gpu_long.stretches(y)
    parts = gpu_long.cut(inputs, by_series, count) if count > 1 else None
    if parts is None:
        gpu_forward.moments(inputs, by_series, out, wanted)
    else:
        each = [True, *wanted[1:]]
        found = gpu_forward.empty(parts[0][0], N, each)
        gpu_forward.moments(*parts, found, each)
        gpu_long.joined(found, out, count)
    return _series_first(out)


@_moments.register_fake
def _(y, F, H, Q, R, c, d, mean, covariance, diffuse, wanted):  # type: ignore[no-untyped-def]
    from ssmfin_kernels.kalman_scan import gpu_forward

    return _series_first(gpu_forward.empty(y, F.shape[-1], wanted))


def _series_first(tensors: list[Tensor]) -> Any:
    """(.., B) -> (B, ..), as views."""
    return tuple(x.movedim(-1, 0) for x in tensors)
