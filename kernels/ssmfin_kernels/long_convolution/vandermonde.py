"""Owns the registration of the two fast Vandermonde kernels, which have one signature, as operators with a gradient.

With w_nl = exp(dtA_n l), complex, and scale 2 where half of the conjugate pairs is given, else 1:

    kernel_l = scale sum_n Re(C_n w_nl)
    dC_n     = scale conj(sum_l dkernel_l w_nl)
    d dtA_n  = scale conj(C_n sum_l l dkernel_l w_nl)

Both implementations split l = l0 + l1 and use w_l0 w_l1 = w_l: a matrix product over n, with O(sqrt(L)) exponentials a
state in place of L. Complex numbers travel as (D, N, 2): a view, which costs no launch on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from ssmfin_kernels import library

# dtype.to_real, which torch.compile cannot trace
REAL = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


def pairs(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """(...) -> (..., 2): real and imaginary part, contiguous, of this real dtype; a view where that is possible."""
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj()).to(dtype).contiguous()
    return torch.stack((tensor.to(dtype), torch.zeros_like(tensor, dtype=dtype)), dim=-1)


def register(name: str, forward: Callable[..., Any], backward: Callable[..., Any]) -> CustomOpDef:
    """Make ssmfin::<name> of a forward and a backward function.

    Args:
        name: of the operator.
        forward: (C (D, N, 2), dtA (D, N, 2), both contiguous, L, scale) -> (D, L).
        backward: (dkernel (D, L), C, dtA, scale) -> gradients of C and dtA.
    Returns:
        the operator.
    """
    op = library.operator(name)(forward)
    backward_op = library.operator(f"{name}_backward")(backward)

    @op.register_fake
    def _(C: Tensor, dtA: Tensor, length: int, scale: float) -> Tensor:
        return C.new_empty(C.shape[0], length)

    @backward_op.register_fake
    def _(dkernel: Tensor, C: Tensor, dtA: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return torch.empty_like(C), torch.empty_like(dtA)

    library.once_differentiable(backward_op)

    def gradients(saved: tuple[Any, ...], scale: float, needs: tuple[bool, ...], dkernel: Tensor) -> Any:
        return *backward_op(dkernel.contiguous(), *saved, scale), None, None

    library.differentiable(
        op, save=lambda inputs, output: inputs[:2], keep=lambda inputs: inputs[3], backward=gradients
    )
    return op
