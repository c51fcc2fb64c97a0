"""Owns the arguments of the Kalman operations: the state-space model, its checks, and the one form that backends see.

    y_t         = d_t + H_t alpha_t + eps_t,      eps_t ~ N(0, R_t)          Durbin & Koopman (2012), eq. 4.12
    alpha_{t+1} = c_t + F_t alpha_t + eta_t,      eta_t ~ N(0, Q_t)
    alpha_1     ~ N(a_1, P_1 + kappa P_inf),      kappa -> infinity          section 5.1

F_t, Q_t and c_t lead from t to t + 1; the initial state is that of the first step, before its observation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ssmfin_kernels import checks
from ssmfin_kernels.library import common_dtype, state_dtype


class StateSpace(NamedTuple):
    """A linear Gaussian state-space model, for one series or for many.

    Matrices are given once, (rows, columns), or as (B or 1, T or 1, rows, columns) where they differ by series, by
    step, or by both. Intercepts likewise: (N,) or (B or 1, T or 1, N).

    Attributes:
        transition: F, (N, N).
        observation: H, (P, N).
        process_covariance: Q, (N, N), symmetric, positive semidefinite (only the symmetric part is used).
        observation_covariance: R, (P, P), likewise. Need not be diagonal, may be singular.
        initial_covariance: P_1, (N, N) or (B, N, N): the finite part.
        initial_mean: a_1, (N,) or (B, N); zero if None.
        initial_diffuse: P_inf, (N, N) or (B, N, N), often a diagonal of ones and zeros: the directions of which nothing
            is known. None: none. Exact, by Koopman and Durbin's expansion in 1 / kappa; no large number stands in.
        state_intercept: c, (N,).
        observation_intercept: d, (P,).
    """

    transition: Tensor
    observation: Tensor
    process_covariance: Tensor
    observation_covariance: Tensor
    initial_covariance: Tensor
    initial_mean: Tensor | None = None
    initial_diffuse: Tensor | None = None
    state_intercept: Tensor | None = None
    observation_intercept: Tensor | None = None


class Problem(NamedTuple):
    """Series and model as the backends take them: one dtype, every shape complete; b is B or 1, t is T or 1."""

    y: Tensor  # (B, T, P), NaN = missing
    F: Tensor  # (b, t, N, N)
    H: Tensor  # (b, t, P, N)
    Q: Tensor  # (b, t, N, N)
    R: Tensor  # (b, t, P, P)
    c: Tensor  # (b, t, N)
    d: Tensor  # (b, t, P)
    mean: Tensor  # (b, N)
    covariance: Tensor  # (b, N, N)
    diffuse: Tensor  # (b, N, N)
    reset: Tensor | None  # (B, T) bool


def prepare(y: Tensor, model: StateSpace, reset: Tensor | None) -> Problem:
    """Check every argument and bring all to one dtype (at least float32) and to complete shapes.

    Raises:
        ValueError: a shape, a dtype or a device does not fit; the message names the argument and what was expected.
    """
    sizes: dict[str, int] = {}
    checks.check_shape("y", y, "B T P", sizes)
    checks.check_nonempty("y", y, "T", sizes)
    checks.check_nonempty("y", y, "P", sizes)
    checks.check_reset(reset, sizes)
    if not isinstance(model, StateSpace):
        raise ValueError(f"model is a {type(model).__name__}, expected a StateSpace.")
    given = {"y": y, **{name: value for name, value in model._asdict().items() if value is not None}}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}, expected a tensor.")
        checks.check_dtype(name, value)
    checks.check_devices(**given, reset=reset)
    dtype = state_dtype(common_dtype(*given.values()))

    F = _every(model.transition, "transition", "N N", sizes).to(dtype)
    H = _every(model.observation, "observation", "P N", sizes).to(dtype)
    Q = _symmetric(_every(model.process_covariance, "process_covariance", "N N", sizes).to(dtype))
    R = _symmetric(_every(model.observation_covariance, "observation_covariance", "P P", sizes).to(dtype))
    N, P = sizes["N"], sizes["P"]
    zeros = y.new_zeros(1, dtype=dtype)
    c, d = model.state_intercept, model.observation_intercept
    c = zeros.expand(1, 1, N) if c is None else _every(c, "state_intercept", "N", sizes).to(dtype)
    d = zeros.expand(1, 1, P) if d is None else _every(d, "observation_intercept", "P", sizes).to(dtype)
    a1, P1, P_inf = model.initial_mean, model.initial_covariance, model.initial_diffuse
    mean = zeros.expand(1, N) if a1 is None else _initial(a1, "initial_mean", "N", sizes).to(dtype)
    covariance = _symmetric(_initial(P1, "initial_covariance", "N N", sizes).to(dtype))
    if P_inf is None:
        diffuse = zeros.expand(1, N, N)
    else:
        diffuse = _symmetric(_initial(P_inf, "initial_diffuse", "N N", sizes).to(dtype))
    return Problem(y.to(dtype), F, H, Q, R, c, d, mean, covariance, diffuse, reset)


def _every(value: Tensor, name: str, letters: str, sizes: dict[str, int]) -> Tensor:
    """(rows, columns) or (B or 1, T or 1, rows, columns) -> the latter."""
    words = len(letters.split())
    if value.ndim == words:
        checks.check_shape(name, value, letters, sizes)
        return value[None, None]
    by = (*("B" if n == sizes["B"] and n != 1 else "1" for n in value.shape[:1]),)
    by += (*("T" if n == sizes["T"] and n != 1 else "1" for n in value.shape[1:2]),)
    if value.ndim != words + 2 or any(
        n not in (1, sizes[letter]) for n, letter in zip(value.shape[:2], "BT", strict=True)
    ):
        one = ", ".join(letters.split())
        known = [f"{k} = {sizes[k]}" for k in dict.fromkeys(["B", "T", *letters.split()]) if k in sizes]
        comma = "," if words == 1 else ""
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, expected ({one}{comma}) or (B or 1, T or 1, {one}) "
            f"with {', '.join(known)}."
        )
    checks.check_shape(name, value, " ".join(by) + " " + letters, sizes)
    return value


def _initial(value: Tensor, name: str, letters: str, sizes: dict[str, int]) -> Tensor:
    """(N, ...) or (B, N, ...) -> (b, N, ...)."""
    if value.ndim == len(letters.split()):
        checks.check_shape(name, value, letters, sizes)
        return value[None]
    if value.ndim == len(letters.split()) + 1 and value.shape[0] == 1:
        checks.check_shape(name, value, "1 " + letters, sizes)
        return value
    checks.check_shape(name, value, "B " + letters, sizes)
    return value


def _symmetric(matrix: Tensor) -> Tensor:
    if matrix.shape[-1] == 1:
        return matrix
    return 0.5 * (matrix + matrix.mT)


def diffuse_rank(diffuse: Tensor) -> Tensor:
    """(b, N, N) -> (b,) int64: how many directions are still unknown. Each informative observation removes one."""
    if diffuse.shape[-1] == 1:
        return (diffuse[..., 0, 0] > 0).long()
    if diffuse.shape[-1] == 2:  # in closed form: a factorisation on a GPU takes longer than the filter
        a, b, d = diffuse.detach()[..., 0, 0], diffuse.detach()[..., 1, 0], diffuse.detach()[..., 1, 1]
        tiny = torch.finfo(diffuse.dtype).eps * 8 * (a + d) ** 2
        return (a + d > 0).long() + (a * d - b * b > tiny).long()
    rank: Tensor = torch.linalg.matrix_rank(diffuse.detach(), hermitian=True)
    return rank


def diffuse_tolerance(diffuse: Tensor) -> Tensor:
    """(b, N, N) -> (b,): below this times h'h, h' P_inf h is rounding: the observation sees nothing unknown."""
    scale = diffuse.detach().diagonal(dim1=-2, dim2=-1).amax(-1)
    return scale * (1e-10 if diffuse.dtype == torch.float64 else 1e-5)
