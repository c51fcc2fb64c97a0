"""Owns the public Kalman operations, over many series at once, and the choice of their implementation."""

from __future__ import annotations

from collections.abc import Collection
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssmfin_kernels import dispatch
from ssmfin_kernels.kalman_scan import model as _model
from ssmfin_kernels.kalman_scan import naive as _naive
from ssmfin_kernels.kalman_scan.model import StateSpace

__all__ = [
    "KalmanFiltered",
    "KalmanSmoothed",
    "StateSpace",
    "kalman_filter",
    "kalman_log_likelihood",
    "kalman_smoother",
]

OUTPUTS = ("predicted", "filtered", "innovation", "log_likelihood")

_FILTER = dispatch.operation("kalman_filter", cpu="numba", gpu="triton")
_SMOOTHER = dispatch.operation("kalman_smoother", cpu="numba", gpu="triton")


class KalmanFiltered(NamedTuple):
    """What `kalman_filter` returns. Where `diffuse`, variances are the finite part only: the whole is infinite.

    What `outputs` leaves out is None.

    Attributes:
        predicted_mean: (B, T, N), E(alpha_t | y_1 .. y_{t-1}).
        predicted_covariance: (B, T, N, N).
        filtered_mean: (B, T, N), E(alpha_t | y_1 .. y_t).
        filtered_covariance: (B, T, N, N).
        innovation: (B, T, P), y_t less its prediction; NaN where y is missing.
        innovation_covariance: (B, T, P, P), of the prediction of y_t, also where y is missing.
        log_likelihood: (B,), the diffuse one where the start is diffuse (Durbin & Koopman, 7.3).
        log_likelihood_steps: (B, T), log p(y_t | y_1 .. y_{t-1}); 0 where all is missing.
        diffuse: (B, T) bool, whether some direction of the predicted state is still unknown.
        final_mean: (B, N), predicted for step T + 1: the initial mean of a run that goes on.
        final_covariance: (B, N, N), likewise.
        final_diffuse: (B, N, N), likewise; zero when the diffuse phase is over.
    """

    predicted_mean: Tensor
    predicted_covariance: Tensor
    filtered_mean: Tensor
    filtered_covariance: Tensor
    innovation: Tensor
    innovation_covariance: Tensor
    log_likelihood: Tensor
    log_likelihood_steps: Tensor
    diffuse: Tensor
    final_mean: Tensor
    final_covariance: Tensor
    final_diffuse: Tensor


class KalmanSmoothed(NamedTuple):
    """What `kalman_smoother` returns.

    Attributes:
        mean: (B, T, N), E(alpha_t | y_1 .. y_T).
        covariance: (B, T, N, N).
        log_likelihood: (B,).
    """

    mean: Tensor
    covariance: Tensor
    log_likelihood: Tensor


def kalman_filter(
    y: Tensor,
    model: StateSpace,
    *,
    outputs: Collection[str] = OUTPUTS,
    reset: Tensor | None = None,
    backend: str | None = None,
) -> KalmanFiltered:
    """Kalman filter of many series: predicted, filtered, innovations and log-likelihood, exactly diffuse.

        y_t = d_t + H_t alpha_t + eps_t,   alpha_{t+1} = c_t + F_t alpha_t + eta_t      (`naive.py` has the recursion)

    Args:
        y: (B, T, P), NaN where missing, each component by itself. Series that start later begin with NaN.
        model: matrices, constant or varying, shared or by series.
        outputs: what to return, of "predicted", "filtered", "innovation" (mean and covariance each) and
            "log_likelihood" (also by step); the rest is None. On a CPU most of the time of a filter, and all of its
            memory, goes into results.
        reset: (B, T) bool; where true a new sequence starts from the initial state. Nothing flows across.
        backend: "naive", "cpu" (numba) or "gpu" (Triton) to force one; None for the fastest here. "parallel": by an
            associative scan over time, for few long series on an accelerator (`parallel.py`).
    Returns:
        KalmanFiltered, in the common dtype of the arguments, at least float32 (the CPU computes in float64). Gradients
        for every tensor argument.
    Raises:
        ValueError: a shape, dtype or device does not fit.
    References:
        Durbin & Koopman (2012), Time Series Analysis by State Space Methods, 2nd ed., sections 4.3, 5.2, 6.4, 7.2.

    >>> level = StateSpace(*(torch.tensor([[v]]) for v in (1.0, 1.0, 0.5, 2.0, 0.0)), initial_diffuse=torch.eye(1))
    >>> kalman_filter(torch.tensor([[[3.0], [4.0], [float("nan")]]]), level).filtered_mean.flatten()
    tensor([3.0000, 3.5556, 3.5556])
    """
    wanted = _wanted(outputs)
    problem = _model.prepare(y, model, reset)
    implementation = _backend(_FILTER, problem, backend)
    if implementation.__name__.endswith((".cpu", ".gpu")):
        moments = implementation.kalman_filter(problem, wanted)
    else:
        moments = implementation.kalman_filter(problem)
    predicted, filtered, innovation, scores = wanted
    absent: Any = None
    return KalmanFiltered(
        moments.predicted_mean if predicted else absent,
        moments.predicted_covariance if predicted else absent,
        moments.filtered_mean if filtered else absent,
        moments.filtered_covariance if filtered else absent,
        moments.innovation if innovation else absent,
        moments.innovation_covariance if innovation else absent,
        (moments.steps.sum(1) if moments.total is None else moments.total) if scores else absent,
        moments.steps if scores else absent,
        moments.diffuse,
        moments.final_mean,
        moments.final_covariance,
        moments.final_diffuse,
    )


def kalman_log_likelihood(
    y: Tensor, model: StateSpace, *, reset: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """Log-likelihood of every series, without storing what `kalman_filter` returns: for fitting.

    Args:
        y, model, reset, backend: as for `kalman_filter`.
    Returns:
        (B,), with exact gradients for every tensor argument.
    """
    problem = _model.prepare(y, model, reset)
    result: Tensor = _backend(_FILTER, problem, backend).kalman_log_likelihood(problem)
    return result


def kalman_smoother(
    y: Tensor, model: StateSpace, *, reset: Tensor | None = None, backend: str | None = None
) -> KalmanSmoothed:
    """Moments of the state given the whole series: two-sided, so never a feature of a forecast.

    Args:
        y, model, reset, backend: as for `kalman_filter`. With arguments that require a gradient the naive form is
            used, which autograd follows; the others have no gradient.
    Returns:
        KalmanSmoothed.
    References:
        Durbin & Koopman (2012), sections 4.4, 5.3 and 6.4.4.

    >>> level = StateSpace(*(torch.tensor([[v]]) for v in (1.0, 1.0, 0.5, 2.0, 0.0)), initial_diffuse=torch.eye(1))
    >>> kalman_smoother(torch.tensor([[[3.0], [float("nan")], [5.0]]]), level).mean.flatten()
    tensor([3.8000, 4.0000, 4.2000])
    """
    problem = _model.prepare(y, model, reset)
    wanted = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in problem)
    if wanted and backend in ("cpu", "parallel"):
        raise ValueError(
            f"backend is {backend!r}, which kalman_smoother cannot differentiate; "
            "use backend=None or 'naive', or detach the arguments."
        )
    implementation = _naive if wanted else _backend(_SMOOTHER, problem, backend)
    mean, covariance, steps = implementation.kalman_smoother(problem)
    return KalmanSmoothed(mean, covariance, steps.sum(1))


def _wanted(outputs: Collection[str]) -> tuple[bool, bool, bool, bool]:
    """Whether each of OUTPUTS is."""
    if isinstance(outputs, str) or not all(name in OUTPUTS for name in outputs):
        raise ValueError(f"outputs is {outputs!r}, expected a collection of names among {', '.join(OUTPUTS)}.")
    predicted, filtered, innovation, scores = (name in outputs for name in OUTPUTS)
    return predicted, filtered, innovation, scores


def _backend(operation: dispatch.Operation, problem: _model.Problem, backend: str | None) -> ModuleType:
    """The module that implements the operation for these tensors."""
    # import statements, not importlib: torch.compile follows only the former
    name = "parallel" if backend == "parallel" else operation.choose(problem.y, backend)
    if name == "cpu":
        from ssmfin_kernels.kalman_scan import cpu

        return cpu
    if name == "gpu":
        from ssmfin_kernels.kalman_scan import gpu

        return gpu
    if name == "parallel":
        from ssmfin_kernels.kalman_scan import parallel

        return parallel
    return _naive
