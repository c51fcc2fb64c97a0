"""Owns the public causal convolution, fused with bias and SiLU; `naive.py` has the algebra."""

from __future__ import annotations

from torch import Tensor

from ssmfin_kernels import dispatch
from ssmfin_kernels.causal_convolution import naive
from ssmfin_kernels.checks import check_choice, check_devices, check_dtype, check_nonempty, check_reset, check_shape
from ssmfin_kernels.library import common_dtype

__all__ = ["causal_convolution"]

_OPERATION = dispatch.operation("causal_convolution", cpu="numba", gpu="triton")


def causal_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    reset: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal convolution of each channel with its own few taps.

        y_t = act(bias + sum_{j=0}^{K-1} weight[:, K-1-j] x_{t-j})

    Args:
        x: (B, T, D) real.
        weight: (D, K); weight[:, K-1] weighs the present.
        bias: (D,) or None.
        activation: None or "silu".
        initial_state: (B, K-1, D), the inputs before the first, oldest first; zero where None.
        reset: (B, T) bool; a new sequence starts at step t: nothing before t reaches t or later, gradients included.
        backend: "naive", "cpu" or "gpu" to force one; None takes the fastest for the device.
    Returns:
        y (B, T, D) and the final state (B, K-1, D), to be the initial state of the next call, in the type the
        arguments promote to. Sums are float32 inside for float16 and bfloat16. Differentiable in x, weight, bias and
        initial_state, once on the fast backends, any number of times on "naive".
    Raises:
        ValueError: a shape, type or device that does not fit, a backend that cannot run here.
    References:
        Gu and Dao (2023), Mamba: linear-time sequence modeling with selective state spaces, section 3.4.

    >>> import torch
    >>> y, state = causal_convolution(torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[10.0, 1.0]]))
    >>> y.flatten(), state.flatten()
    (tensor([ 1., 12., 24.]), tensor([4.]))
    """
    sizes: dict[str, int] = {}
    check_shape("x", x, "B T D", sizes)
    check_nonempty("x", x, "T", sizes)
    check_shape("weight", weight, "D K", sizes)
    check_nonempty("weight", weight, "K", sizes)
    check_dtype("x", x)
    check_dtype("weight", weight)
    if bias is not None:
        check_shape("bias", bias, "D", sizes)
        check_dtype("bias", bias)
    check_choice("activation", activation, (None, "silu"))
    if initial_state is not None:
        check_shape("initial_state", initial_state, "B K-1 D", sizes)
        check_dtype("initial_state", initial_state)
    check_reset(reset, sizes)
    check_devices(x=x, weight=weight, bias=bias, initial_state=initial_state, reset=reset)
    chosen = _OPERATION.choose(x, backend)

    dtype = common_dtype(x, weight, bias, initial_state)
    x, weight = x.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    initial_state = None if initial_state is None else initial_state.to(dtype)
    silu = activation == "silu"
    if chosen == "naive" or x.numel() == 0:
        return naive.causal_convolution(x, weight, bias, initial_state, reset, silu)
    x, weight = x.contiguous(), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    initial_state = None if initial_state is None else initial_state.contiguous()
    reset = None if reset is None else reset.contiguous()
    if chosen == "cpu":
        from ssmfin_kernels.causal_convolution.cpu import causal_convolution_cpu as run
    else:
        from ssmfin_kernels.causal_convolution.gpu import causal_convolution_gpu as run
    y, final_state = run(x, weight, bias, initial_state, reset, silu)
    return y, final_state
