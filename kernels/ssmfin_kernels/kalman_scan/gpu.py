"""Owns the Kalman operations on CUDA tensors: Triton for small constant models, the scan over time for the rest.

The Triton kernels take one observation (P = 1), a state of one or two (one is padded to two), matrices that do not
vary with time, no reset: a lane per series, time in sequence, four steps to a load. The state and every matrix stay in
registers, in float32, or in float64 where the arguments are and series are many (few go to `parallel.py`). Exact
diffuse starts are part of the kernel, which leaves the diffuse code behind as soon as no lane of the block needs it
(the log-likelihood). Its gradient recomputes chunks of CHUNK steps from checkpoints; sums over series of shared
matrices are left to torch, so everything is deterministic.

All else, and gradients of the moments, run as `parallel.py`, or `naive.py` where that cannot (a reset into a diffuse
start).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.kalman_scan import naive, parallel
from ssmfin_kernels.kalman_scan.model import Problem, diffuse_rank, diffuse_tolerance
from ssmfin_kernels.kalman_scan.naive import Moments

CHUNK = 32  # steps between checkpoints
STATE = 9  # a (2), P (3), P_inf (3), rank
PARAMETERS = 21  # F (4), H (2), Q (3), R, c (2), d, a_1 (2), P_1 (3), P_inf (3); of symmetric ones the lower triangle


def kalman_filter(problem: Problem) -> Moments:
    """As `naive.kalman_filter`."""
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in problem)
    if not _small(problem) or wanted:
        moments: Moments = _general(problem).kalman_filter(problem)
        return moments
    return Moments(*_moments(*_packed(problem), problem.F.shape[-1]))


def kalman_log_likelihood(problem: Problem) -> Tensor:
    """(B,) log-likelihood of every series; gradients for every tensor of the problem."""
    result: Tensor
    if not _small(problem):
        result = _general(problem).kalman_log_likelihood(problem)
        return result
    result = _log_likelihood(*_packed(problem))[0]
    return result


def kalman_smoother(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """As `naive.kalman_smoother`: a scan over time where the start is not diffuse."""
    if bool(problem.diffuse.any()):
        return naive.kalman_smoother(problem)
    return parallel.kalman_smoother(problem)


def _small(problem: Problem) -> bool:
    constant = all(x.shape[1] == 1 for x in problem[1:7])
    single = problem.y.shape[2] == 1 and problem.F.shape[-1] <= 2
    # few long series fill the chip only by a scan over time, in double precision most of all
    single = single and (problem.y.dtype == torch.float32 or problem.y.shape[0] >= 1024)
    return constant and single and problem.reset is None


def _general(problem: Problem) -> ModuleType:
    """The module for what the kernels do not take."""
    return naive if problem.reset is not None and bool(problem.diffuse.any()) else parallel


def _packed(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (B, T), parameters (21, B) with a state of two, rank (B,) and tolerance (B,)."""
    y, F, H, Q, R, c, d, mean, covariance, diffuse, _ = problem
    B, N = y.shape[0], F.shape[-1]
    rank, tolerance = diffuse_rank(diffuse), diffuse_tolerance(diffuse)
    if N == 1:
        wide = torch.nn.functional.pad
        F, Q, covariance, diffuse = (wide(x, (0, 1, 0, 1)) for x in (F, Q, covariance, diffuse))
        H, c, mean = (wide(x, (0, 1)) for x in (H, c, mean))
    rows = [F[:, 0].flatten(1), H[:, 0, 0], _lower(Q[:, 0]), R[:, 0, 0], c[:, 0], d[:, 0], mean]
    rows += [_lower(covariance), _lower(diffuse)]
    parameters = torch.cat([x.expand(B, -1) for x in rows], 1).T.contiguous()  # (B, 21) -> (21, B)
    return (
        y[:, :, 0].contiguous(),
        parameters,
        rank.expand(B).to(y.dtype).contiguous(),
        tolerance.expand(B).contiguous(),
    )


def _lower(matrix: Tensor) -> Tensor:
    return torch.stack([matrix[:, 0, 0], matrix[:, 1, 0], matrix[:, 1, 1]], 1)


@library.operator("kalman_log_likelihood_gpu")
def _log_likelihood(y: Tensor, parameters: Tensor, rank: Tensor, tolerance: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) and the checkpoints its gradient starts from (chunks, STATE, B)."""
    from ssmfin_kernels.kalman_scan import gpu_kernels

    B, T = y.shape
    out = y.new_empty(B)
    checkpoints = y.new_empty(-(-T // CHUNK), STATE, B)
    gpu_kernels.log_likelihood(y, parameters, rank, tolerance, out, checkpoints, CHUNK)
    return out, checkpoints


@_log_likelihood.register_fake
def _(y, parameters, rank, tolerance):  # type: ignore[no-untyped-def]
    B, T = y.shape
    return y.new_empty(B), y.new_empty(-(-T // CHUNK), STATE, B)


@library.operator("kalman_log_likelihood_gpu_backward")
def _backward(
    y: Tensor, parameters: Tensor, tolerance: Tensor, checkpoints: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    from ssmfin_kernels.kalman_scan import gpu_kernels

    d_y, d_parameters = torch.empty_like(y), torch.empty_like(parameters)
    gpu_kernels.backward(y, parameters, tolerance, checkpoints, grad.contiguous(), d_y, d_parameters, CHUNK)
    return d_y, d_parameters


@_backward.register_fake
def _(y, parameters, tolerance, checkpoints, grad):  # type: ignore[no-untyped-def]
    return torch.empty_like(y), torch.empty_like(parameters)


library.once_differentiable(_backward)


def _grad(saved, kept, needs, grad, _):  # type: ignore[no-untyped-def]
    y, parameters, tolerance, checkpoints = saved
    return *_backward(y, parameters, tolerance, checkpoints, grad), None, None


library.differentiable(
    _log_likelihood, save=lambda inputs, output: (inputs[0], inputs[1], inputs[3], output[1]), backward=_grad
)


@library.operator("kalman_filter_gpu")
def _moments(
    y: Tensor, parameters: Tensor, rank: Tensor, tolerance: Tensor, N: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Moments; no gradient."""
    from ssmfin_kernels.kalman_scan import gpu_kernels

    out = _empty(y, N)
    gpu_kernels.moments(N, y, parameters, rank, tolerance, *out)
    return _series_first(out)


@_moments.register_fake
def _(y, parameters, rank, tolerance, N):  # type: ignore[no-untyped-def]
    return _series_first(_empty(y, N))


def _empty(y: Tensor, N: int) -> list[Tensor]:
    """Moments with the series last, in the order of `naive.Moments`."""
    B, T = y.shape
    path = [(T,), (T, N), (T, N, N), (T, N), (T, N, N)]
    shapes = [*path, (N,), (N, N), (N, N), (T, 1), (T, 1, 1)]
    return [*(y.new_empty(*shape, B) for shape in shapes), torch.empty(T, B, dtype=torch.bool, device=y.device)]


def _series_first(tensors: list[Tensor]) -> Any:
    """(.., B) -> (B, ..), as views."""
    return tuple(x.movedim(-1, 0) for x in tensors)
