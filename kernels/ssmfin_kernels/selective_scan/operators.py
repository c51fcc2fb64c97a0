"""Owns the registration of the two fast scans, which have one signature, as torch operators with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from ssmfin_kernels import library


def register(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    kept_shape: Callable[[int, int, int, int, int], tuple[int, ...]],
) -> CustomOpDef:
    """Make ssmfin::<name> of a forward and a backward function.

    Args:
        name: of the operator.
        forward: (u, delta, A, B, C, D, z, delta_bias, initial_state, reset, delta_softplus, keep) ->
            (y, final_state, ungated, kept). All contiguous; u, delta, z (B, T, D) and B, C (B, T, G, N) in any floating
            types, A, D, delta_bias and initial_state in that of the state. `ungated` is y before its gate, (B, T, D)
            in the type of u where keep and z are given, else (B, T, 0); `kept` are states at the
            starts of chunks, none without keep. y is in the type of u, contiguous; so is final_state (B, D, N).
        backward: (dy, dfinal, u, delta, A, B, C, D, z, delta_bias, initial_state, reset, ungated, kept,
            delta_softplus) -> gradients of u, delta, A, B, C, D, z, delta_bias, initial_state in their types; where
            the tensor is absent, one of no elements: (0,), for z (B, T, 0).
        kept_shape: (B, T, D, G, N) -> shape of `kept`.
    Returns:
        the operator.
    """
    op = library.operator(name)(forward)
    backward_op = library.operator(f"{name}_backward")(backward)

    @op.register_fake
    def _(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        initial_state: Tensor | None,
        reset: Tensor | None,
        delta_softplus: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, steps, channels = u.shape
        whole = channels if keep and z is not None else 0
        kept = kept_shape(batch, steps, channels, B.shape[2], A.shape[1]) if keep else (batch, 0, 0, 0)
        return (
            torch.empty_like(u),
            A.new_empty((batch, channels, A.shape[1])),
            u.new_empty((batch, steps, whole)),
            A.new_empty(kept),
        )

    @backward_op.register_fake
    def _(
        dy: Tensor,
        dfinal: Tensor,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        initial_state: Tensor | None,
        *_: Any,
    ) -> tuple[Tensor, ...]:
        def like(tensor: Tensor | None) -> Tensor:
            return A.new_empty(0) if tensor is None else torch.empty_like(tensor)

        dz = u.new_empty((*u.shape[:2], 0)) if z is None else torch.empty_like(z)
        given = (u, delta, A, B, C, D)
        return *(like(tensor) for tensor in given), dz, like(delta_bias), like(initial_state)

    library.once_differentiable(backward_op)

    def gradients(
        saved: Any, curve: bool, needs: tuple[bool, ...], dy: Tensor | None, dfinal: Tensor | None, *_: None
    ) -> tuple[Any, ...]:
        arguments, rest = saved[:10], saved[10:]
        u, A = arguments[0], arguments[2]
        dy = torch.zeros_like(u) if dy is None else dy.contiguous()
        dfinal = A.new_zeros(len(u), *A.shape) if dfinal is None else dfinal.contiguous()
        grads = backward_op(dy, dfinal, *arguments, *rest, curve)
        given = (grad if tensor is not None else None for grad, tensor in zip(grads, arguments, strict=False))
        return *given, None, None, None

    library.differentiable(
        op,
        save=lambda inputs, output: (*inputs[:10], output[2], output[3]),
        keep=lambda inputs: inputs[10],
        backward=gradients,
        unused_as_zeros=False,
    )
    return op
