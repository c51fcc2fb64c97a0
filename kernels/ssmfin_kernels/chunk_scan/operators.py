"""Owns the registration of the two fast scans, which have one signature, as torch operators with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from ssmfin_kernels import library

Grads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def register(
    name: str, forward: Callable[..., Any], backward: Callable[..., Any], states_like: Callable[..., Tensor]
) -> CustomOpDef:
    """Make ssmfin::<name> of a forward and a backward function.

    Args:
        name: of the operator.
        forward: (x, dt, a, B, C, D, initial_state, reset, chunk_size) -> (y, final state, the states before each
            chunk): x (B, T, H, P), B and C (B, T, G, N) of one type; dt, a (the log of the decay) (B, T, H), D (H, P),
            initial_state (B, H, P, N) in the type of the state; all contiguous; reset (B, T) bool or None.
        backward: (gradient of y, of the final state, the states before each chunk, and the arguments of forward) ->
            gradients of x, dt, a, B, C, D and initial_state.
        states_like: (x, initial_state, chunk_size) -> an empty tensor like the states that forward returns.
    Returns:
        the operator. Its third output is for the backward pass and has no gradient.
    """
    op = library.operator(name)(forward)
    backward_op = library.operator(f"{name}_backward")(backward)

    @op.register_fake
    def _(
        x: Tensor, dt: Tensor, a: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor, reset: Any, chunk_size: int
    ) -> Any:
        return torch.empty_like(x), torch.empty_like(state), states_like(x, state, chunk_size)

    @backward_op.register_fake
    def _(
        dy: Tensor, dfinal: Tensor, states: Tensor, x: Tensor, dt: Tensor, a: Tensor, B: Tensor, C: Tensor, D: Tensor,
        *rest: Any,
    ) -> Any:  # fmt: skip
        return tuple(torch.empty_like(tensor) for tensor in (x, dt, a, B, C, D, dfinal))

    library.once_differentiable(backward_op)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(output[2], *inputs[:8])
        ctx.chunk_size = inputs[8]
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)  # zeros for the states would be as large as the states

    def gradients(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _: None) -> tuple[Any, ...]:
        states, x, *rest = ctx.saved_tensors
        dy = torch.zeros_like(x) if dy is None else dy.contiguous()
        dfinal = torch.zeros_like(rest[5]) if dfinal is None else dfinal.contiguous()
        return *backward_op(dy, dfinal, states, x, *rest, ctx.chunk_size), None, None

    op.register_autograd(gradients, setup_context=setup_context)
    return op
