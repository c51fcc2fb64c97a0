"""Owns `diagonal_scan`, a diagonal linear system a channel (S4D, DSS): checks, and the choice of implementation.

`naive.py` is the recurrence. `chunked.py` has the form over chunks and its gradient, written once, and its products in
plain torch, which is what a CPU runs (`cpu.py`); `gpu.py` has the same products in Triton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssmfin_kernels import checks, dispatch
from ssmfin_kernels.diagonal_scan import naive
from ssmfin_kernels.long_convolution.vandermonde import REAL, pairs

__all__ = ["diagonal_scan"]

_OPERATION = dispatch.operation("diagonal_scan", cpu="torch", gpu="triton")


def diagonal_scan(
    u: Tensor,
    C: Tensor,
    dtA: Tensor,
    *,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The diagonal state-space model S4D as a scan: the same map as `vandermonde_kernel` and its convolution.

        h_t = exp(dtA) h_{t-1} + u_t        y_t = sum_n C_n h_{t,n}              C and dtA real
                                            y_t = 2 Re sum_n C_n h_{t,n}         complex: one of each conjugate pair

    Unlike the convolution it starts from any state, ends with one, takes resets, and costs O(T) in place of
    O(T log T): O(B T D (N + 64)) products, of matrices. Memory for gradients: u and one state every 64 steps.

    Args:
        u: (B, T, D) real; half precision is computed in float32.
        C: (D, N) real or complex output weights, the discretised input weights B_bar multiplied in.
        dtA: (D, N) real or complex step times diagonal state matrix; its real part at most 0.
        initial_state: (B, D, N) state before the first step; None: zero.
        reset: (B, T) bool; a step where it is true starts from a zero state, in gradients too. On a GPU the number of
            resets in a chunk is read back, so that a call with resets cannot be captured in a graph.
        backend: "naive", "cpu" or "gpu" to force an implementation; None: by device.
    Returns:
        y (B, T, D) in the type of u; the final state (B, D, N), complex where C or dtA is, of their precision.
    Raises:
        ValueError: a shape, type or device that does not fit, naming the argument.
    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models.

    >>> u = torch.tensor([[[1.0], [0.0], [0.0]]])
    >>> y, state = diagonal_scan(u, torch.ones(1, 1), torch.full((1, 1), -1.0))
    >>> y.flatten()
    tensor([1.0000, 0.3679, 0.1353])
    """
    sizes: dict[str, int] = {}
    checks.check_shape("u", u, "B T D", sizes)
    checks.check_nonempty("u", u, "T", sizes)
    checks.check_dtype("u", u)
    for name, tensor in (("C", C), ("dtA", dtA)):
        checks.check_shape(name, tensor, "D N", sizes)
        checks.check_dtype(name, tensor, tuple(REAL))
    if initial_state is not None:
        checks.check_shape("initial_state", initial_state, "B D N", sizes)
        checks.check_dtype("initial_state", initial_state, tuple(REAL))
    checks.check_reset(reset, sizes)
    checks.check_devices(u=u, C=C, dtA=dtA, initial_state=initial_state, reset=reset)
    chosen = _OPERATION.choose(u, backend)
    wide = REAL[torch.promote_types(C.dtype, dtA.dtype)]
    if u.dtype == torch.float64:
        wide = torch.float64
    complex_ = C.is_complex() or dtA.is_complex()
    if initial_state is not None and initial_state.is_complex() and not complex_:
        raise ValueError("initial_state is complex, expected a real one: C and dtA are real.")
    if initial_state is None:
        start = torch.zeros(len(u), *C.shape, 2, dtype=wide, device=u.device)
    else:
        start = pairs(initial_state, wide)
    if chosen == "naive" or 0 in u.shape or 0 in C.shape:
        return naive.diagonal_scan(u, C, dtA, torch.view_as_complex(start) if complex_ else start[..., 0], reset, wide)
    scan: Callable[..., Any]
    if chosen == "cpu":
        from ssmfin_kernels.diagonal_scan.cpu import scan
    else:
        from ssmfin_kernels.diagonal_scan.gpu import scan
    scale = 2.0 if complex_ else 1.0
    y, final, *_ = scan(u, pairs(C, wide), pairs(dtA, wide), start, reset, scale)
    return y, torch.view_as_complex(final) if complex_ else final[..., 0]
