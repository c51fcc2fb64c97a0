"""Owns `chunk_scan`, the Mamba-2 scan: checks of its arguments, and the choice of implementation.

`naive.py` states the operation step by step; `cpu.py` (batched matrix products, torch alone) and `gpu.py` (Triton)
compute it by chunks and write their gradients by hand.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssmfin_kernels import checks, dispatch, library
from ssmfin_kernels.chunk_scan import naive

__all__ = ["chunk_scan"]

_OPERATION = dispatch.operation("chunk_scan", cpu="torch", gpu="triton")


def chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    chunk_size: int = 256,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Mamba-2's scan (SSD): a decay per head and step, a state of (P, N) per head.

        S_t = exp(dt'_t A) S_{t-1} + dt'_t x_t B_t^T,      y_t = (S_t C_t + D x_t) silu(z_t)

    with dt' = softplus(dt + dt_bias). Gradients for every tensor but `reset`, those of the final state included.

    Args:
        x: (B, T, H, P) float16, bfloat16, float32 or float64, which a GPU takes in plain torch, not in Triton.
        dt: (B, T, H) step sizes, not negative once bias and softplus are applied.
        A: (H,) at most 0.
        B: (B, T, G, N) input weights; heads are divided evenly among the G groups, in order.
        C: (B, T, G, N) output weights.
        chunk_size: most steps handled as one block. Results differ by rounding only; an implementation takes fewer
            where that is faster.
        D: (H,) or (H, P) skip weights.
        z: (B, T, H, P) gate.
        dt_bias: (H,).
        dt_softplus: whether softplus is applied to dt + dt_bias.
        initial_state: (B, H, P, N) state before the first step; None: zero.
        reset: (B, T) bool; a step where it is true starts from a zero state, in gradients too.
        backend: "naive", "cpu" or "gpu" to force an implementation; None: by device.
    Returns:
        y (B, T, H, P) in the type of x; the final state (B, H, P, N) in float32 (float64 for float64).
    Raises:
        ValueError: a shape, type or device that does not fit, naming the argument.
    References:
        Dao, Gu (2024), Transformers are SSMs: generalized models and efficient algorithms through structured state
        space duality.

    >>> one = torch.ones(1, 3, 1, 1)
    >>> y, state = chunk_scan(one, one[..., 0], torch.tensor([-1.0]), one, one)
    >>> y.flatten()
    tensor([1.0000, 1.3679, 1.5032])
    """
    sizes: dict[str, int] = {}
    checks.check_shape("x", x, "B T H P", sizes)
    for letter in "THP":
        checks.check_nonempty("x", x, letter, sizes)
    checks.check_shape("dt", dt, "B T H", sizes)
    checks.check_shape("A", A, "H", sizes)
    checks.check_shape("B", B, "B T G N", sizes)
    checks.check_nonempty("B", B, "G", sizes)
    checks.check_nonempty("B", B, "N", sizes)
    checks.check_shape("C", C, "B T G N", sizes)
    if sizes["H"] % sizes["G"]:
        raise ValueError(f"B has {sizes['G']} groups (G), expected a divisor of H = {sizes['H']}, the heads of x.")
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected an integer of at least 1.")
    if D is not None:
        checks.check_shape("D", D, "H" if D.ndim == 1 else "H P", sizes)
    if z is not None:
        checks.check_shape("z", z, "B T H P", sizes)
    if dt_bias is not None:
        checks.check_shape("dt_bias", dt_bias, "H", sizes)
    if initial_state is not None:
        checks.check_shape("initial_state", initial_state, "B H P N", sizes)
    checks.check_reset(reset, sizes)
    tensors = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "z": z, "dt_bias": dt_bias}
    for name, tensor in {**tensors, "initial_state": initial_state}.items():
        if tensor is not None:
            checks.check_dtype(name, tensor)
    checks.check_devices(**tensors, initial_state=initial_state, reset=reset)

    chosen = _OPERATION.choose(x, backend)
    if chosen == "naive":
        return naive.chunk_scan(x, dt, A, B, C, D, z, dt_bias, dt_softplus, initial_state, reset)
    common = library.common_dtype(x, B, C)
    state = library.state_dtype(common)
    doubles_on_gpu = chosen == "gpu" and state == torch.float64
    if doubles_on_gpu and backend == "gpu":
        raise ValueError("x, B or C has dtype float64, expected float32, bfloat16 or float16 on backend 'gpu'.")
    scan: Callable[..., tuple[Tensor, Tensor]]
    if chosen == "cpu" or doubles_on_gpu:  # the CPU's form is plain torch: any device
        from ssmfin_kernels.chunk_scan.cpu import scan
    else:
        from ssmfin_kernels.chunk_scan.gpu import scan
    dt = naive.step_sizes(dt.to(state), dt_bias, dt_softplus).contiguous()
    skip = torch.zeros((), dtype=state, device=x.device) if D is None else D.to(state)
    if initial_state is None:
        start = torch.zeros(x.shape[0], *x.shape[2:], B.shape[3], dtype=state, device=x.device)
    else:
        start = initial_state.to(state)
    y, final_state = scan(
        x.to(common).contiguous(),
        dt,
        dt * A.to(state),
        B.to(common).contiguous(),
        C.to(common).contiguous(),
        (skip[:, None] if skip.ndim == 1 else skip).expand(x.shape[2:]).contiguous(),
        start.contiguous(),
        None if reset is None else reset.contiguous(),
        chunk_size,
    )
    return naive.gate(y, z).to(x.dtype), final_state
