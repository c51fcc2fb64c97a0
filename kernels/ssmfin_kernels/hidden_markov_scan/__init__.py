"""Owns the public hidden Markov operations, over many series at once, and the choice of their implementation."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from ssmfin_kernels import checks, dispatch
from ssmfin_kernels.hidden_markov_scan import naive as _naive
from ssmfin_kernels.library import common_dtype, state_dtype

__all__ = [
    "HiddenMarkovFiltered",
    "HiddenMarkovPath",
    "HiddenMarkovSmoothed",
    "hidden_markov_filter",
    "hidden_markov_log_likelihood",
    "hidden_markov_smoother",
    "hidden_markov_viterbi",
]

_FILTER = dispatch.operation("hidden_markov_filter", cpu="numba", gpu="torch")
_SMOOTHER = dispatch.operation("hidden_markov_smoother", cpu="numba", gpu="torch")
_VITERBI = dispatch.operation("hidden_markov_viterbi", cpu="numba", gpu="torch")


class HiddenMarkovFiltered(NamedTuple):
    """What `hidden_markov_filter` returns, all in logs.

    Attributes:
        predicted: (B, T, K), log p(s_t | y_1 .. y_{t-1}).
        filtered: (B, T, K), log p(s_t | y_1 .. y_t).
        log_likelihood: (B,).
        log_likelihood_steps: (B, T), log p(y_t | y_1 .. y_{t-1}); 0 where missing.
        final: (B, K), predicted for step T + 1: the log_initial of a run that goes on.
    """

    predicted: Tensor
    filtered: Tensor
    log_likelihood: Tensor
    log_likelihood_steps: Tensor
    final: Tensor


class HiddenMarkovSmoothed(NamedTuple):
    """What `hidden_markov_smoother` returns: log p(s_t | y_1 .. y_T) (B, T, K), and log-likelihood (B,)."""

    smoothed: Tensor
    log_likelihood: Tensor


class HiddenMarkovPath(NamedTuple):
    """What `hidden_markov_viterbi` returns: path (B, T) int64, and the log of its joint probability with y (B,)."""

    path: Tensor
    log_probability: Tensor


def hidden_markov_filter(
    log_likelihoods: Tensor,
    *,
    log_transition: Tensor,
    log_initial: Tensor,
    reset: Tensor | None = None,
    backend: str | None = None,
) -> HiddenMarkovFiltered:
    """Probabilities of hidden states as the series goes on, and its log-likelihood (Hamilton's filter).

    Args:
        log_likelihoods: (B, T, K), log p(y_t | s_t). A row with NaN is missing: it says nothing.
        log_transition: (K, K) or (B or 1, T or 1, K, K), log p(s_{t+1} = j | s_t = i) at [i, j]; that of t leads from t
            to t + 1. Rows are used as they are, not normalised.
        log_initial: (K,) or (B, K), log p(s_1), before the first observation.
        reset: (B, T) bool; where true a new sequence starts from log_initial.
        backend: "naive", "cpu" (numba) or "gpu" to force one; None for the fastest here. "parallel": by an associative
            scan over time, on any device (`parallel.py`); what "gpu" does.
    Returns:
        HiddenMarkovFiltered. Gradients for every tensor argument; that of the summed log-likelihood for
        log_transition is the expected number of each transition given the series, what EM needs.
    Raises:
        ValueError: a shape, dtype or device does not fit.
    References:
        Hamilton (1994), Time Series Analysis, section 22.4.

    >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    >>> said = torch.tensor([[[0.0, -1.0], [0.0, -1.0]]])
    >>> hidden_markov_filter(said, log_transition=stay, log_initial=torch.tensor([0.5, 0.5]).log()).filtered.exp()
    tensor([[[0.7311, 0.2689],
             [0.8552, 0.1448]]])
    """
    problem = _prepare(log_likelihoods, log_transition, log_initial, reset)
    steps, predicted, filtered, final = _backend(_FILTER, problem, backend).hidden_markov_filter(problem)
    return HiddenMarkovFiltered(predicted, filtered, steps.sum(1), steps, final)


def hidden_markov_log_likelihood(
    log_likelihoods: Tensor,
    *,
    log_transition: Tensor,
    log_initial: Tensor,
    reset: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Log-likelihood of every series, without storing what `hidden_markov_filter` returns: for fitting.

    Arguments as for `hidden_markov_filter`.

    Returns:
        (B,), with exact gradients for every tensor argument: the posterior probabilities, and the expected number of
        each transition.

    >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    >>> said = torch.tensor([[[0.0, -1.0], [0.0, -1.0]]])
    >>> hidden_markov_log_likelihood(said, log_transition=stay, log_initial=torch.tensor([0.5, 0.5]).log())
    tensor([-0.6020])
    """
    problem = _prepare(log_likelihoods, log_transition, log_initial, reset)
    result: Tensor = _backend(_FILTER, problem, backend).hidden_markov_log_likelihood(problem)
    return result


def hidden_markov_smoother(
    log_likelihoods: Tensor,
    *,
    log_transition: Tensor,
    log_initial: Tensor,
    reset: Tensor | None = None,
    backend: str | None = None,
) -> HiddenMarkovSmoothed:
    """Probabilities of hidden states given the whole series (Kim 1994): two-sided, never a feature of a forecast.

    Arguments as for `hidden_markov_filter`. Where one requires a gradient, the naive form is used, which autograd
    follows.
    """
    problem = _prepare(log_likelihoods, log_transition, log_initial, reset)
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in problem)
    if wanted and backend == "cpu":
        raise ValueError(
            "backend is 'cpu', which hidden_markov_smoother cannot differentiate; "
            "use backend=None, 'parallel' or 'naive', or detach the arguments."
        )
    chosen = _backend(
        _SMOOTHER, problem, "naive" if wanted and backend is None and log_likelihoods.device.type == "cpu" else backend
    )
    smoothed, steps = chosen.hidden_markov_smoother(problem)
    return HiddenMarkovSmoothed(smoothed, steps.sum(1))


def hidden_markov_viterbi(
    log_likelihoods: Tensor,
    *,
    log_transition: Tensor,
    log_initial: Tensor,
    reset: Tensor | None = None,
    backend: str | None = None,
) -> HiddenMarkovPath:
    """The most probable path of hidden states given the whole series; ties go to the lowest index, the last step first.

    Arguments as for `hidden_markov_filter`; no gradient.
    """
    problem = _prepare(log_likelihoods, log_transition, log_initial, reset)
    with torch.no_grad():
        return HiddenMarkovPath(*_backend(_VITERBI, problem, backend).hidden_markov_viterbi(problem))


def _prepare(emission: Tensor, transition: Tensor, initial: Tensor, reset: Tensor | None) -> _naive.Problem:
    sizes: dict[str, int] = {}
    checks.check_shape("log_likelihoods", emission, "B T K", sizes)
    checks.check_nonempty("log_likelihoods", emission, "T", sizes)
    checks.check_nonempty("log_likelihoods", emission, "K", sizes)
    checks.check_reset(reset, sizes)
    given = {"log_likelihoods": emission, "log_transition": transition, "log_initial": initial}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}, expected a tensor.")
        checks.check_dtype(name, value)
    checks.check_devices(**given, reset=reset)
    B, T, K = emission.shape
    if transition.ndim == 2:
        checks.check_shape("log_transition", transition, "K K", sizes)
        transition = transition[None, None]
    elif transition.ndim != 4 or transition.shape[0] not in (1, B) or transition.shape[1] not in (1, T):
        raise ValueError(
            f"log_transition has shape {tuple(transition.shape)}, expected (K, K) or (B or 1, T or 1, K, K) "
            f"with B = {B}, T = {T}, K = {K}."
        )
    else:
        checks.check_shape("log_transition", transition[0, 0], "K K", sizes)
    if initial.ndim == 1:
        checks.check_shape("log_initial", initial, "K", sizes)
        initial = initial[None]
    else:
        checks.check_shape("log_initial", initial, "B K", sizes)
    dtype = state_dtype(common_dtype(emission, transition, initial))
    missing = torch.isnan(emission).any(2, keepdim=True)
    emission = torch.where(missing, 0.0, emission.to(dtype))
    return _naive.Problem(emission, transition.to(dtype), initial.to(dtype), reset)


def _backend(operation: dispatch.Operation, problem: _naive.Problem, backend: str | None) -> ModuleType:
    """The module that implements the operation for these tensors."""
    # import statements, not importlib: torch.compile follows only the former
    name = "parallel" if backend == "parallel" else operation.choose(problem.emission, backend)
    if name == "cpu":
        from ssmfin_kernels.hidden_markov_scan import cpu

        return cpu
    if name in ("gpu", "parallel"):  # on a GPU time is split; there is no kernel for many short series
        from ssmfin_kernels.hidden_markov_scan import parallel

        return parallel
    return _naive
