"""Owns the Kalman operations on CPU tensors: blocks of series in lanes (numba), as torch operators with gradients.

The state is float64 whatever the type of the arguments. The log-likelihood alone is an operator of its own: it stores
nothing that grows with time, and its gradient stores one state in 32 steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.kalman_scan.memory import empty
from ssmfin_kernels.kalman_scan.model import Problem, diffuse_rank, diffuse_tolerance
from ssmfin_kernels.kalman_scan.naive import Moments


def kalman_filter(problem: Problem, wanted: Sequence[bool] = (True,) * 4) -> Moments:
    """Filter every series of a problem; gradients for every tensor of it.

    wanted: predicted, filtered, innovation, steps; what is not is empty. All of them where there is a gradient.
    """
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in problem):
        wanted = (True,) * 4
    return Moments(*_filter(*problem, list(wanted)))


def kalman_log_likelihood(problem: Problem) -> Tensor:
    """(B,) log-likelihood of every series; gradients for every tensor of the problem."""
    result: Tensor = _log_likelihood(*problem)
    return result


def kalman_smoother(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Means, covariances and log-likelihood by step, as `naive.kalman_smoother`; no gradient."""
    from ssmfin_kernels.kalman_scan import lanes_smoother

    y, N = problem.y, problem.F.shape[-1]
    B, T, _ = y.shape
    mean, covariance, steps = empty(B, T, N), empty(B, T, N * N), empty(B, T)
    data, m = _data(problem)
    library.match_numba_threads()
    lanes_smoother.run(data, N, m, mean.numpy(), covariance.numpy(), steps.numpy())
    return mean.to(y.dtype), covariance.reshape(B, T, N, N).to(y.dtype), steps.to(y.dtype)


@library.operator("kalman_filter_cpu")
def _filter(
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
    reset: Tensor | None,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from ssmfin_kernels.kalman_scan import lanes_filter

    (B, T, P), N = y.shape, F.shape[-1]
    predicted, filtered, innovations, steps_ = (T if wants else 0 for wants in wanted)
    shapes: list[tuple[int, ...]] = [
        (B, steps_, 1),
        (B, predicted, N),
        (B, predicted, N * N),
        (B, filtered, N),
        (B, filtered, N * N),
    ]
    shapes += [(B, N), (B, N * N), (B, N * N), (B, innovations, P), (B, innovations, P * P)]
    out = [empty(*shape) for shape in shapes]
    flags = torch.from_numpy(np.zeros((B, T), dtype=np.bool_))
    data, m = _data(Problem(y, F, H, Q, R, c, d, mean, covariance, diffuse, reset))
    library.match_numba_threads()
    run: Any = lanes_filter.run
    run(data, N, m, *(tensor.numpy() for tensor in out), flags.numpy())
    complete = (tensor.to(y.dtype).reshape(shape) for tensor, shape in zip(out, _shapes(y, F, wanted), strict=True))
    steps, pm, pc, fm, fc, last, last_c, last_d, innovation, spread = complete
    return steps, pm, pc, fm, fc, last, last_c, last_d, innovation, spread, flags


@_filter.register_fake
def _(y, F, H, Q, R, c, d, mean, covariance, diffuse, reset, wanted):  # type: ignore[no-untyped-def]
    return *(y.new_empty(shape) for shape in _shapes(y, F, wanted)), y.new_empty(y.shape[:2], dtype=torch.bool)


@library.operator("kalman_log_likelihood_cpu")
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
    reset: Tensor | None,
) -> Tensor:
    from ssmfin_kernels.kalman_scan import lanes_filter

    out = empty(y.shape[0])
    data, m = _data(Problem(y, F, H, Q, R, c, d, mean, covariance, diffuse, reset))
    library.match_numba_threads()
    lanes_filter.log_likelihood(data, F.shape[-1], m, out.numpy())
    return out.to(y.dtype)


@_log_likelihood.register_fake
def _(y, F, H, Q, R, c, d, mean, covariance, diffuse, reset):  # type: ignore[no-untyped-def]
    return y.new_empty(y.shape[0])


@library.operator("kalman_filter_cpu_backward")
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
    reset: Tensor | None,
    predicted_mean: Tensor,
    predicted_covariance: Tensor,
    last_diffuse: Tensor,
    grads: list[Tensor],
    full_R: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of every input from those of every output, in the order of `naive.Moments`.

    full_R: the gradient of the elements of R off the diagonal is wanted, even if they are zero.
    """
    problem = Problem(y, F, H, Q, R, c, d, mean, covariance, diffuse, reset)
    steps, pm, pc, fm, fc, last, last_c, last_d, g_v, g_F = grads
    # an exhausted P_inf is a constant zero
    last_d = torch.where((last_diffuse != 0).flatten(1).any(1)[:, None, None], last_d, 0.0)
    innovations = bool(g_v.any()) or bool(g_F.any())
    if innovations:  # v = y - d - H a and H P H' + R: to the predicted moments, and to y, H, d, R themselves
        g_v = torch.where(torch.isnan(y), 0.0, g_v)
        both = g_F + g_F.mT
        pm = pm - (H.mT @ g_v[..., None])[..., 0]
        pc = pc + 0.5 * (H.mT @ both @ H)
        g_H = both @ H @ predicted_covariance - g_v[..., :, None] * predicted_mean[..., None, :]
    result = _gradients(problem, [steps, pm, pc, fm, fc, last, last_c, last_d], [True] * 4 + [full_R] + [True] * 5)
    if not innovations:
        return result
    y_, F_, H_, Q_, R_, c_, d_, mean_, covariance_, diffuse_ = result
    y_, H_, R_ = y_ + g_v, H_ + g_H.sum_to_size(H.shape), R_ + g_F.sum_to_size(R.shape)
    return y_, F_, H_, Q_, R_, c_, d_ - g_v.sum_to_size(d.shape), mean_, covariance_, diffuse_


@_backward.register_fake
def _(y, F, H, Q, R, c, d, mean, covariance, diffuse, reset, pm, pc, last, grads, full_R):  # type: ignore[no-untyped-def]
    return tuple(tensor.new_empty(tensor.shape) for tensor in (y, F, H, Q, R, c, d, mean, covariance, diffuse))


@library.operator("kalman_log_likelihood_cpu_backward")
def _log_likelihood_backward(
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
    reset: Tensor | None,
    grad: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    problem = Problem(y, F, H, Q, R, c, d, mean, covariance, diffuse, reset)
    return _gradients(problem, [grad[:, None]], needs)


@_log_likelihood_backward.register_fake
def _(y, F, H, Q, R, c, d, mean, covariance, diffuse, reset, grad, needs):  # type: ignore[no-untyped-def]
    inputs = (y, F, H, Q, R, c, d, mean, covariance, diffuse)
    return tuple(tensor.new_empty(tensor.shape if n else 0) for tensor, n in zip(inputs, needs, strict=True))


library.once_differentiable(_backward)
library.once_differentiable(_log_likelihood_backward)


def _gradients(
    problem: Problem, grads: list[Tensor], needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of inputs, empty where not needed; `grads`: of steps (B, T) or their sum (B, 1), then of moments."""
    from ssmfin_kernels.kalman_scan import lanes, lanes_backward

    y, F, H, Q, R, c, d, mean, covariance, diffuse, _ = problem
    (B, T, _), N = y.shape, F.shape[-1]
    data, m = _data(problem, needs[4])
    shapes = [(B, -1), *[(B, T, -1)] * 4, *[(B, 1, -1)] * 3]
    upstream = [g.double().reshape(s).contiguous().numpy() for g, s in zip(grads, shapes, strict=False)]
    upstream += [np.zeros((0, 0, 0))] * (8 - len(upstream))
    inputs = (y, F, H, Q, R, c, d, mean[:, None], covariance[:, None], diffuse[:, None])
    per_series = [True, *(tensor.shape[0] > 1 or B == 1 for tensor in inputs[1:7]), True, True, True]
    targets = [
        torch.zeros(B if series else lanes.GROUPS, tensor.shape[1], tensor[0, 0].numel(), dtype=torch.float64)
        if wanted
        else torch.zeros(0, tensor.shape[1], 0, dtype=torch.float64)
        for tensor, series, wanted in zip(inputs, per_series, [*needs[:7], True, True, True], strict=True)
    ]
    library.match_numba_threads()
    lanes_backward.run(
        data, lanes_backward.Upstream(*upstream), lanes_backward.Gradients(*(t.numpy() for t in targets)), N, m
    )
    results = []
    for tensor, target, wanted in zip(inputs, targets, needs, strict=True):
        if not wanted:
            results.append(tensor.new_empty(0))
            continue
        total = target if target.shape[0] == tensor.shape[0] else target.sum(0, keepdim=True)
        results.append(total.reshape(tensor.shape).to(tensor.dtype))
    y_, F_, H_, Q_, R_, c_, d_, mean_, covariance_, diffuse_ = results
    # (b, 1, ..) -> (b, ..)
    mean_, covariance_, diffuse_ = (
        g.flatten(0, 1) if n else g for g, n in zip((mean_, covariance_, diffuse_), needs[7:], strict=True)
    )
    return y_, F_, H_, Q_, R_, c_, d_, mean_, covariance_, diffuse_


def _filter_grad(saved, kept, needs, *grads):  # type: ignore[no-untyped-def]
    *inputs, mean, covariance, last_diffuse = saved
    return *_backward(*inputs, mean, covariance, last_diffuse, list(grads[:10]), needs[4]), None, None


library.differentiable(
    _filter, save=lambda inputs, output: (*inputs[:11], output[1], output[2], output[7]), backward=_filter_grad
)


def _log_likelihood_grad(saved, kept, needs, grad):  # type: ignore[no-untyped-def]
    found = _log_likelihood_backward(*saved, grad, list(needs[:10]))
    return *(part if wanted else None for part, wanted in zip(found, needs, strict=False)), None


library.differentiable(_log_likelihood, save=lambda inputs, output: inputs, backward=_log_likelihood_grad)


def _shapes(y: Tensor, F: Tensor, wanted: list[bool]) -> tuple[tuple[int, ...], ...]:
    """Of the tensors of `naive.Moments` but the last, no steps where they are not wanted."""
    (B, T, P), N = y.shape, F.shape[-1]
    predicted, filtered, innovations, steps = (T if wants else 0 for wants in wanted)
    moments = ((B, steps), (B, predicted, N), (B, predicted, N, N), (B, filtered, N), (B, filtered, N, N))
    return *moments, (B, N), (B, N, N), (B, N, N), (B, innovations, P), (B, innovations, P, P)


def _data(problem: Problem, full_R: bool = False) -> tuple[Any, int]:
    """The arrays that numba sees, and the size of the state while observations are taken in."""
    from ssmfin_kernels.kalman_scan import lanes

    reset = problem.reset
    y, F, H, Q, R, c, d, mean, covariance, diffuse = (tensor.detach() for tensor in problem[:10])
    (_, _, P), N = y.shape, F.shape[-1]

    def flat(tensor: Tensor, keep: int) -> np.ndarray:
        array = tensor.to(torch.float64).reshape(*tensor.shape[:keep], -1).contiguous().numpy()
        return np.ascontiguousarray(array)

    matrices = (flat(tensor, 2) for tensor in (F, H, Q, R, c, d))
    initial = (flat(tensor, 1) for tensor in (mean, covariance, diffuse))
    # most often nothing is unknown, and a factorisation for each series would take longer than a step of the filter
    rank = (diffuse_rank(diffuse) if bool(diffuse.any()) else torch.zeros(diffuse.shape[0])).double().numpy()
    tolerance = diffuse_tolerance(diffuse).double().numpy()
    starts = np.zeros((0, 0), dtype=np.bool_) if reset is None else np.ascontiguousarray(reset.numpy())
    data = lanes.Data._make((flat(y, 2), *matrices, *initial, rank, tolerance, starts))
    correlated = P > 1 and bool((R - torch.diag_embed(R.diagonal(dim1=-2, dim2=-1))).any())
    return data, N + P if correlated or (P > 1 and full_R) else N
