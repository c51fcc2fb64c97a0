"""Owns the hidden Markov operations on CPU tensors: `loops.py` (numba) as torch operators, the filter with a gradient.

The recursion is float64 whatever the type of the arguments.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.hidden_markov_scan.naive import Filtered, Problem


def hidden_markov_filter(problem: Problem) -> Filtered:
    """Hamilton's filter; gradients for every tensor of the problem."""
    return Filtered(*_filter(*problem))


def hidden_markov_smoother(problem: Problem) -> tuple[Tensor, Tensor]:
    """As `naive.hidden_markov_smoother`; no gradient."""
    from ssmfin_kernels.hidden_markov_scan import loops

    emission, transition, initial = (x.detach() for x in problem[:3])
    reset = problem.reset
    steps, predicted, filtered, _ = _filter(emission.double(), transition.double(), initial.double(), reset)
    smoothed = torch.empty_like(filtered)
    loops.smooth(_array(transition), _flags(reset), predicted.numpy(), filtered.numpy(), smoothed.numpy())
    return smoothed.to(emission.dtype), steps.to(emission.dtype)


def hidden_markov_viterbi(problem: Problem) -> tuple[Tensor, Tensor]:
    """As `naive.hidden_markov_viterbi`."""
    from ssmfin_kernels.hidden_markov_scan import loops

    emission, transition, initial, reset = problem
    B, T, _ = emission.shape
    path, log_probability = torch.empty(B, T, dtype=torch.long), torch.empty(B, dtype=torch.float64)
    library.match_numba_threads()
    loops.viterbi(
        _array(emission), _array(transition), _array(initial), _flags(reset), path.numpy(), log_probability.numpy()
    )
    return path, log_probability.to(emission.dtype)


def hidden_markov_log_likelihood(problem: Problem) -> Tensor:
    """(B,) log-likelihood of every series; gradients for every tensor of the problem."""
    result: Tensor = _log_likelihood(*problem)
    return result


@library.operator("hidden_markov_filter_cpu")
def _filter(
    emission: Tensor, transition: Tensor, initial: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from ssmfin_kernels.hidden_markov_scan import loops

    B, T, K = emission.shape
    out = [torch.empty(shape, dtype=torch.float64) for shape in ((B, T), (B, T, K), (B, T, K), (B, K))]
    library.match_numba_threads()
    loops.run(_array(emission), _array(transition), _array(initial), _flags(reset), *(x.numpy() for x in out))
    steps, predicted, filtered, final = (x.to(emission.dtype) for x in out)
    return steps, predicted, filtered, final


@_filter.register_fake
def _(emission, transition, initial, reset):  # type: ignore[no-untyped-def]
    B, T, K = emission.shape
    return tuple(emission.new_empty(shape) for shape in ((B, T), (B, T, K), (B, T, K), (B, K)))


@library.operator("hidden_markov_filter_cpu_backward")
def _backward(
    transition: Tensor,
    initial: Tensor,
    reset: Tensor | None,
    predicted: Tensor,
    filtered: Tensor,
    final: Tensor,
    grads: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    from ssmfin_kernels.hidden_markov_scan import loops

    B, T, K = filtered.shape
    shared = transition.shape[0] == 1 and B > 1
    d_emission = torch.empty(B, T, K, dtype=torch.float64)
    d_transition = torch.zeros(min(loops.GROUPS, B) if shared else B, *transition.shape[1:], dtype=torch.float64)
    d_initial = torch.zeros(B, K, dtype=torch.float64)
    library.match_numba_threads()
    loops.backward(
        _array(transition),
        _flags(reset),
        *(_array(x) for x in (predicted, filtered, final, *grads)),
        *(x.numpy() for x in (d_emission, d_transition, d_initial)),
    )
    if shared:
        d_transition = d_transition.sum(0, keepdim=True)
    if initial.shape[0] < B:
        d_initial = d_initial.sum(0, keepdim=True)
    return d_emission.to(filtered.dtype), d_transition.to(transition.dtype), d_initial.to(initial.dtype)


@_backward.register_fake
def _(transition, initial, reset, predicted, filtered, final, grads):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (filtered, transition, initial))


library.once_differentiable(_backward)
library.differentiable(
    _filter,
    save=lambda inputs, output: (*inputs[1:], *output[1:]),
    backward=lambda saved, kept, needs, *grads: (*_backward(*saved, list(grads)), None),
)


@library.operator("hidden_markov_log_likelihood_cpu")
def _log_likelihood(emission: Tensor, transition: Tensor, initial: Tensor, reset: Tensor | None) -> Tensor:
    from ssmfin_kernels.hidden_markov_scan import likelihood_loops

    B = emission.shape[0]
    out, held = torch.empty(B, dtype=torch.float64), torch.empty(B, dtype=torch.bool)
    library.match_numba_threads()
    arrays = (_array(emission), _array(transition), _array(initial), _flags(reset))
    likelihood_loops.forward(*arrays, out.numpy(), held.numpy())
    if not bool(held.all()):
        rows = torch.nonzero(~held)[:, 0]
        flags = None if reset is None else reset[rows]
        out[rows] = _filter(*_rows(rows, emission, transition, initial), flags)[0].sum(1)
    return out.to(emission.dtype)


@_log_likelihood.register_fake
def _(emission, transition, initial, reset):  # type: ignore[no-untyped-def]
    return emission.new_empty(emission.shape[0])


@library.operator("hidden_markov_log_likelihood_cpu_backward")
def _log_likelihood_backward(
    emission: Tensor, transition: Tensor, initial: Tensor, reset: Tensor | None, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from ssmfin_kernels.hidden_markov_scan import likelihood_loops, loops

    B, T, K = emission.shape
    shared = transition.shape[0] == 1 and B > 1
    d_emission = torch.empty(B, T, K, dtype=torch.float64)
    d_transition = torch.zeros(min(loops.GROUPS, B) if shared else B, *transition.shape[1:], dtype=torch.float64)
    d_initial, held = torch.zeros(B, K, dtype=torch.float64), torch.empty(B, dtype=torch.bool)
    library.match_numba_threads()
    likelihood_loops.gradient(
        *(_array(emission), _array(transition), _array(initial), _flags(reset), _array(grad)),
        *(x.numpy() for x in (d_emission, d_transition, d_initial, held)),
    )
    if shared:
        d_transition = d_transition.sum(0, keepdim=True)
    if not bool(held.all()):  # in logs
        rows = torch.nonzero(~held)[:, 0]
        own = _rows(rows, emission, transition, initial)
        flags = None if reset is None else reset[rows]
        steps, predicted, filtered, final = _filter(*own, flags)
        zeros = [torch.zeros_like(x) for x in (predicted, filtered, final)]
        upstream = [grad[rows, None].double().expand_as(steps).contiguous(), *zeros]
        by_emission, by_transition, by_initial = _backward(own[1], own[2], flags, predicted, filtered, final, upstream)
        d_emission[rows] = by_emission
        if shared:
            d_transition += by_transition.sum(0, keepdim=True)
        else:
            d_transition[rows] = by_transition
        d_initial[rows] = by_initial
    if initial.shape[0] < B:
        d_initial = d_initial.sum(0, keepdim=True)
    return d_emission.to(emission.dtype), d_transition.to(transition.dtype), d_initial.to(initial.dtype)


@_log_likelihood_backward.register_fake
def _(emission, transition, initial, reset, grad):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in (emission, transition, initial))


library.once_differentiable(_log_likelihood_backward)
library.differentiable(
    _log_likelihood,
    save=lambda inputs, output: inputs,
    backward=lambda saved, kept, needs, grad: (*_log_likelihood_backward(*saved, grad), None),
)


def _rows(rows: Tensor, emission: Tensor, transition: Tensor, initial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Some series of a problem, float64, each with an initial distribution of its own."""
    B = emission.shape[0]
    some = transition if transition.shape[0] == 1 and B > 1 else transition[rows]
    return emission[rows].double(), some.double(), initial.expand(B, -1)[rows].double()


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().to(torch.float64).contiguous().numpy()
    return array


def _flags(reset: Tensor | None) -> np.ndarray:
    return np.zeros((0, 0), dtype=np.bool_) if reset is None else np.ascontiguousarray(reset.numpy())
