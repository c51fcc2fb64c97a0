"""Owns controllability and observability: which states the data can tell, and which the noise can move.

    O = [H; H F; ...; H F^{N-1}]          a state is observable if it is not in the null space of O
    C = [G, F G, ..., F^{N-1} G],  G G' = Q

Matrices that vary in time are taken over the whole sample: H_t F_{t-1} ... F_1, and F_{T-1} ... F_{t+1} G_t. Columns of
O and rows of C are scaled to length one, so that neither rank nor condition number depends on the states' units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmfin.errors import InputError

if TYPE_CHECKING:
    from ssmfin.classical.kalman.fitting import KalmanFit
    from ssmfin_kernels import StateSpace

FloatArray = np.ndarray  # float64
_LONGEST = 2000  # steps of a sample with varying matrices that are looked at
_ILL = 1e8  # a condition number above it leaves fewer than eight digits


@dataclass(frozen=True)
class Structure:
    """What a specification can and cannot tell apart.

    Attributes:
        states: (N,) names.
        observability_rank, controllability_rank: N where all is well.
        observability_condition, controllability_condition: condition numbers, scaled; inf where the rank is short.
        unobservable: states of which the data determine at most a combination.
        uncontrollable: states that the noise does not move freely: constants, such as fixed coefficients.
    """

    states: tuple[str, ...]
    observability_rank: int
    observability_condition: float
    unobservable: tuple[str, ...]
    controllability_rank: int
    controllability_condition: float
    uncontrollable: tuple[str, ...]

    @property
    def observable(self) -> bool:
        return not self.unobservable

    @property
    def controllable(self) -> bool:
        return not self.uncontrollable

    def __str__(self) -> str:
        N = len(self.states)
        lines = []
        for what, rank, condition, lost, remedy in (
            ("observability", self.observability_rank, self.observability_condition, self.unobservable,
             "the data cannot tell them apart from each other or from nothing: remove one, or fix its start"),
            ("controllability", self.controllability_rank, self.controllability_condition, self.uncontrollable,
             "no noise moves them freely: their gain goes to zero, which is right for fixed coefficients only"),
        ):  # fmt: skip
            line = f"{what}: rank {rank} of {N}, condition number {condition:.3g}"
            if lost:
                line += f"; {', '.join(lost)}: {remedy}"
            elif condition > _ILL:
                line += "; nearly deficient: rescale or drop collinear regressors"
            lines.append(line)
        return "\n".join(lines)


def structure(
    model: KalmanFit | StateSpace,
    *,
    states: Sequence[str] | None = None,
    series: int = 0,
    x: Any = None,
    steps: int = 0,
) -> Structure:
    """Rank and condition number of observability and controllability, and the states at fault by name.

    Args:
        model: a fit of `ssmfin.classical.kalman`, or a StateSpace of one's own.
        states: (N,) names; None for those of the fit's specification, or numbers.
        series: which one of several.
        x: regressors of the sample, (T, J) or (B, T, J), where the specification has some.
        steps: T for matrices of a fit without regressors that vary in time; rarely needed.
    Returns:
        Structure; `print` it.
    Raises:
        InputError: names do not fit the states, or regressors are needed and missing.
    References:
        Kalman (1960); Anderson & Moore (1979), appendix C; Harvey (1989), section 3.3.1.

    >>> import torch
    >>> from ssmfin_kernels import StateSpace
    >>> eye, row = torch.eye(2), torch.ones(1, 2)
    >>> twins = StateSpace(eye, row, eye, torch.eye(1), eye)
    >>> structure(twins, states=["level", "drift"]).unobservable
    ('level', 'drift')
    """
    from ssmfin_kernels import StateSpace

    if isinstance(model, StateSpace):
        space, names = model, states
    else:
        space = _state_space(model, series, x, steps)
        names = states if states is not None else model.specification.state_names
    F, H, Q = (_of_series(matrix, series) for matrix in (space.transition, space.observation, space.process_covariance))
    N = F.shape[-1]
    if names is None:
        names = [f"state_{k}" for k in range(N)]
    if len(names) != N:
        raise InputError(f"states has {len(names)} names for {N} states; give one name a state.")
    length = max(len(F), len(H), len(Q))
    span = N if length == 1 else min(length, _LONGEST)
    seen = _observability(F, H, span)
    moved = _controllability(F, Q, span)
    rank_o, condition_o, lost_o = _judge(seen)
    rank_c, condition_c, lost_c = _judge(moved.T)
    return Structure(
        tuple(names),
        rank_o,
        condition_o,
        tuple(name for name, lost in zip(names, lost_o, strict=True) if lost),
        rank_c,
        condition_c,
        tuple(name for name, lost in zip(names, lost_c, strict=True) if lost),
    )


def _state_space(fit: KalmanFit, series: int, x: Any, steps: int) -> StateSpace:
    import torch

    specification = fit.specification
    if not 0 <= series < len(fit.parameters):
        raise InputError(f"series is {series}, of {len(fit.parameters)}; use 0 to {len(fit.parameters) - 1}.")
    parameters = fit.parameters[series : series + 1]
    if not np.isfinite(parameters).all():
        raise InputError(f"series {series} has no parameters: {fit.reason[series] or 'its fit failed'}")
    regressors = None
    if specification.regressors:
        if x is None:
            raise InputError(f"x is missing; give the {specification.regressors} regressors of {specification.kind}.")
        values = np.asarray(x, dtype=float)
        values = values[series : series + 1] if values.ndim == 3 else values[None]
        values = values if values.ndim == 3 else values[..., None]
        regressors, steps = torch.from_numpy(np.ascontiguousarray(values)), values.shape[1]
    space: StateSpace = specification.state_space(torch.from_numpy(parameters), max(steps, 1), regressors)
    return space


def _of_series(matrix: Any, series: int) -> FloatArray:
    """(t, rows, columns) of one series, t = 1 where constant."""
    values = matrix.detach().cpu().double().numpy()
    if values.ndim == 2:
        return np.asarray(values[None])
    return np.asarray(values[series if values.shape[0] > 1 else 0])


def _at(matrix: FloatArray, t: int) -> FloatArray:
    return np.asarray(matrix[t if len(matrix) > 1 else 0])


def _observability(F: FloatArray, H: FloatArray, span: int) -> FloatArray:
    """(span P, N)."""
    path, rows = np.eye(F.shape[-1]), []
    for t in range(span):
        rows.append(_at(H, t) @ path)
        path = _at(F, t) @ path
    found = np.concatenate(rows)
    return np.asarray(found[np.isfinite(found).all(axis=1)])  # a missing regressor shows nothing of the state


def _controllability(F: FloatArray, Q: FloatArray, span: int) -> FloatArray:
    """(N, span N), newest noise first."""
    path, columns = np.eye(F.shape[-1]), []
    for t in reversed(range(span)):
        values, vectors = np.linalg.eigh(_at(Q, t))
        root = vectors * np.sqrt(np.clip(values, 0.0, None))
        columns.append(path @ root)
        path = path @ _at(F, t)
    return np.concatenate(columns, axis=1)


def _judge(matrix: FloatArray) -> tuple[int, float, np.ndarray]:
    """Rank, condition number and (N,) which columns take part in the null space, of (m, N) with scaled columns."""
    lengths = np.sqrt((matrix**2).sum(axis=0))
    scaled = matrix / np.where(lengths > 0, lengths, 1.0)
    N = matrix.shape[1]
    _, values, rows = np.linalg.svd(scaled, full_matrices=True)
    values = np.concatenate([values, np.zeros(N - len(values))])
    small = values <= max(matrix.shape) * np.finfo(float).eps * max(values[0], np.finfo(float).tiny)
    share = (rows[small] ** 2).sum(axis=0)
    condition = float(values[0] / values[-1]) if not small.any() else float("inf")
    return int((~small).sum()), condition, share > 1e-10
