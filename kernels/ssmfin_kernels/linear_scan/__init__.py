"""Owns the public linear scan: h_t = a_t h_{t-1} + b_t, channel by channel; `naive.py` has the algebra."""

from __future__ import annotations

from torch import Tensor

from ssmfin_kernels import dispatch
from ssmfin_kernels.checks import REAL_OR_COMPLEX, check_devices, check_dtype, check_nonempty, check_reset, check_shape
from ssmfin_kernels.library import common_dtype
from ssmfin_kernels.linear_scan import naive

__all__ = ["linear_scan"]

_OPERATION = dispatch.operation("linear_scan", cpu="numba", gpu="triton")


def linear_scan(
    a: Tensor,
    b: Tensor,
    *,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """First-order linear recurrence over time, channel by channel.

        h_t = a_t h_{t-1} + b_t

    Args:
        a: (B, T, D) coefficients, real or complex.
        b: (B, T, D) inputs.
        initial_state: (B, D) state before the first step (after the last one in reverse); zero where None.
        reset: (B, T) bool; a new sequence starts at step t: nothing flows between t-1 and t, gradients included.
            With reset[:, 0] the initial state is not used in forward time.
        reverse: run from the last step to the first, h_t = a_t h_{t+1} + b_t.
        backend: "naive", "cpu" or "gpu" to force one; None takes the fastest for the device.
    Returns:
        h (B, T, D) and the final state (B, D), h[:, -1] (h[:, 0] in reverse), in the type a, b and initial_state
        promote to. The state is kept in float32 inside for float16 and bfloat16. Differentiable in a, b and
        initial_state, once on the fast backends, any number of times on "naive".
    Raises:
        ValueError: a shape, type or device that does not fit, a backend that cannot run here.
    References:
        Blelloch (1990), Prefix sums and their applications, section 1.4.1.

    >>> import torch
    >>> h, final = linear_scan(torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1))
    >>> h.flatten(), final
    (tensor([1.0000, 1.5000, 1.7500]), tensor([[1.7500]]))
    """
    sizes: dict[str, int] = {}
    check_shape("a", a, "B T D", sizes)
    check_nonempty("a", a, "T", sizes)
    check_shape("b", b, "B T D", sizes)
    check_dtype("a", a, REAL_OR_COMPLEX)
    check_dtype("b", b, REAL_OR_COMPLEX)
    if initial_state is not None:
        check_shape("initial_state", initial_state, "B D", sizes)
        check_dtype("initial_state", initial_state, REAL_OR_COMPLEX)
    check_reset(reset, sizes)
    check_devices(a=a, b=b, initial_state=initial_state, reset=reset)
    chosen = _OPERATION.choose(a, backend)

    dtype = common_dtype(a, b, initial_state)
    a, b = a.to(dtype), b.to(dtype)
    initial_state = None if initial_state is None else initial_state.to(dtype)
    if chosen == "naive" or a.numel() == 0:
        return naive.linear_scan(a, b, initial_state, reset, reverse)
    a, b = a.contiguous(), b.contiguous()
    initial_state = None if initial_state is None else initial_state.contiguous()
    reset = None if reset is None else reset.contiguous()
    if chosen == "cpu":
        from ssmfin_kernels.linear_scan.cpu import linear_scan_cpu as run
    else:
        from ssmfin_kernels.linear_scan.gpu import linear_scan_gpu as run
    h, final_state = run(a, b, initial_state, reset, reverse)
    return h, final_state
