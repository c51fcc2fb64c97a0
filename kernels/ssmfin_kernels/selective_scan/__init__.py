"""Owns `selective_scan`, the Mamba-1 scan, and `selective_state_update`, one step of it: checks and dispatch.

`naive.py` states the operation; `cpu.py` (numba) and `gpu.py` (Triton) compute it with gradients by hand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssmfin_kernels import checks, dispatch
from ssmfin_kernels.selective_scan import naive

__all__ = ["selective_scan", "selective_state_update"]

_OPERATION = dispatch.operation("selective_scan", cpu="numba", gpu="triton")
# one step is a handful of torch operations: an operator of our own would cost as much as they do together
dispatch.operation("selective_state_update", cpu="torch", gpu="torch")


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Mamba-1's scan: N states a channel, their decay, input and output weights functions of the input.

        h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,      y_t = (sum_n C_t h_t + D u_t) silu(z_t)

    with dt = softplus(delta + delta_bias), each part only where asked for. Gradients for every tensor but `reset`,
    those through the final state included; the backward pass recomputes states, so (B, T, D, N) never exists.

    Args:
        u: (B, T, D) float16, bfloat16, float32 or, not on a GPU, float64; each tensor below likewise, for itself.
        delta: (B, T, D) step sizes, not negative once bias and softplus are applied.
        A: (D, N) real, at most 0 for a stable model. Kept in float32 (float64 if any argument is), as is the state.
        B: (B, T, N) input weights, or (B, T, G, N): channels are divided evenly among the G groups, in order.
        C: (B, T, N) or (B, T, G, N) output weights.
        D: (D,) skip weights.
        z: (B, T, D) gate.
        delta_bias: (D,).
        delta_softplus: whether softplus is applied to delta + delta_bias.
        initial_state: (B, D, N) state before the first step; None: zero.
        reset: (B, T) bool; a step where it is true starts from a zero state, in gradients too. With reset[:, 0] the
            initial state is not used.
        backend: "naive", "cpu" or "gpu" to force an implementation; None: by device.
    Returns:
        y (B, T, D) in the type of u; the final state (B, D, N) in float32 (float64 for float64). Differentiable once on
        the fast backends, any number of times on "naive".
    Raises:
        ValueError: a shape, type or device that does not fit, naming the argument.
    References:
        Gu, Dao (2023), Mamba: linear-time sequence modeling with selective state spaces, algorithm 2.

    >>> one = torch.ones(1, 3, 1)
    >>> y, state = selective_scan(one, one, torch.tensor([[-1.0]]), one, one)
    >>> [round(value, 4) for value in y.flatten().tolist()], state.shape
    ([1.0, 1.3679, 1.5032], torch.Size([1, 1, 1]))
    """
    sizes: dict[str, int] = {}
    checks.check_shape("u", u, "B T D", sizes)
    for letter in "TD":
        checks.check_nonempty("u", u, letter, sizes)
    checks.check_shape("delta", delta, "B T D", sizes)
    checks.check_shape("A", A, "D N", sizes)
    checks.check_nonempty("A", A, "N", sizes)
    _check_grouped("B", B, "B T", sizes)
    _check_grouped("C", C, "B T", sizes)
    _check_optional(D, delta_bias, sizes)
    if z is not None:
        checks.check_shape("z", z, "B T D", sizes)
    if initial_state is not None:
        checks.check_shape("initial_state", initial_state, "B D N", sizes)
    checks.check_reset(reset, sizes)
    tensors = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    tensors["initial_state"] = initial_state
    _check_types(tensors)
    checks.check_devices(**tensors, reset=reset)

    work = naive.working_dtype(*tensors.values())
    doubles_on_gpu = work == torch.float64 and u.device.type == "cuda"
    chosen = _OPERATION.choose(u, "naive" if doubles_on_gpu and backend is None else backend)
    if chosen == "gpu" and work == torch.float64:
        names = [name for name, tensor in tensors.items() if tensor is not None and tensor.dtype == torch.float64]
        raise ValueError(f"{names[0]} has dtype float64, expected float16, bfloat16 or float32 on backend 'gpu'.")
    if chosen == "naive" or u.numel() == 0:
        B, C = (tensor.unsqueeze(2) if tensor.ndim == 3 else tensor for tensor in (B, C))
        return naive.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, reset)
    if chosen == "cpu":
        from ssmfin_kernels.selective_scan.cpu import call as run
    else:
        from ssmfin_kernels.selective_scan.gpu import call as run
    return run(
        u.contiguous(),
        delta.contiguous(),
        A.to(work).contiguous(),
        B.contiguous(),
        C.contiguous(),
        None if D is None else D.to(work).contiguous(),
        None if z is None else z.contiguous(),
        None if delta_bias is None else delta_bias.to(work).contiguous(),
        None if initial_state is None else initial_state.to(work).contiguous(),
        None if reset is None else reset.contiguous(),
        delta_softplus,
    )


def selective_state_update(
    state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """One step of `selective_scan`, for streaming: the scan of a sequence is this, step by step.

    Args:
        state: (B, D, N) state before the step; not changed.
        u: (B, D).
        delta: (B, D).
        A: (D, N).
        B: (B, N) or (B, G, N).
        C: (B, N) or (B, G, N).
        D: (D,).
        z: (B, D).
        delta_bias: (D,).
        delta_softplus: whether softplus is applied to delta + delta_bias.
    Returns:
        y (B, D) in the type of u; the new state (B, D, N) in float32 (float64 if any argument is): give that back in
        the next step, not a rounded one. Differentiable any number of times.
    Raises:
        ValueError: a shape, type or device that does not fit, naming the argument.

    >>> one = torch.ones(1, 1)
    >>> y, state = selective_state_update(torch.ones(1, 1, 1), one, one, -one, one, one)
    >>> round(y.item(), 4)
    1.3679
    """
    sizes: dict[str, int] = {}
    checks.check_shape("u", u, "B D", sizes)
    checks.check_shape("A", A, "D N", sizes)
    checks.check_shape("state", state, "B D N", sizes)
    checks.check_shape("delta", delta, "B D", sizes)
    _check_grouped("B", B, "B", sizes)
    _check_grouped("C", C, "B", sizes)
    B, C = (tensor.unsqueeze(1) if tensor.ndim == 2 else tensor for tensor in (B, C))
    _check_optional(D, delta_bias, sizes)
    if z is not None:
        checks.check_shape("z", z, "B D", sizes)
    tensors = {"u": u, "state": state, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    _check_types(tensors)
    checks.check_devices(**tensors)

    work = naive.working_dtype(*tensors.values())
    if sizes["G"] > 1:
        repeat = sizes["D"] // sizes["G"]
        B, C = B.repeat_interleave(repeat, dim=1), C.repeat_interleave(repeat, dim=1)  # (B, G, N) -> (B, D, N)
    y, new_state = naive.step(
        state.to(work),
        u.to(work),
        delta.to(work),
        A.to(work),
        B.to(work),
        C.to(work),
        None if D is None else D.to(work),
        None if z is None else z.to(work),
        None if delta_bias is None else delta_bias.to(work),
        delta_softplus,
    )
    return y.to(u.dtype), new_state


def _check_grouped(name: str, tensor: Tensor, letters: str, sizes: dict[str, int]) -> None:
    """Hold B or C against (..., N) or (..., G, N)."""
    if isinstance(tensor, Tensor) and tensor.ndim == len(letters.split()) + 1:
        checks.check_shape(name, tensor, f"{letters} N", sizes)
        if sizes.setdefault("G", 1) != 1:  # the refusal, in the words of the full shape
            checks.check_shape(name, tensor.unsqueeze(-2), f"{letters} G N", sizes)
    else:
        checks.check_shape(name, tensor, f"{letters} G N", sizes)
    groups, channels = sizes["G"], sizes["D"]
    if groups < 1 or channels % groups:
        raise ValueError(f"{name} has {groups} groups (G), expected a divisor of D = {channels}, the channels of u.")


def _check_optional(D: Tensor | None, delta_bias: Tensor | None, sizes: dict[str, int]) -> None:
    if D is not None:
        checks.check_shape("D", D, "D", sizes)
    if delta_bias is not None:
        checks.check_shape("delta_bias", delta_bias, "D", sizes)


def _check_types(tensors: dict[str, Tensor | None]) -> None:
    for name, tensor in tensors.items():
        if tensor is not None:
            checks.check_dtype(name, tensor)
