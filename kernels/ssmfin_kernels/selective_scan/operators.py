"""Owns how the two fast scans, which have one signature, become torch operators with a gradient, and their short way.

An operator costs Python more than the launches of its kernels: where nothing looks at operators (no compilation, no
dispatch mode, no function transform, plain tensors), `call` goes past it, through an autograd function of its own.
"""

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
) -> tuple[CustomOpDef, Callable[..., tuple[Tensor, Tensor]]]:
    """Make ssmfin::<name> of a forward and a backward function.

    Args:
        name: of the operator.
        forward: (u, delta, A, B, C, D, z, delta_bias, initial_state, reset, delta_softplus, keep) ->
            (y, final_state, ungated, kept). All contiguous; u, delta, z (B, T, D) and B, C (B, T, G, N) in any floating
            types, A, D, delta_bias and initial_state in that of the state. `ungated` is y before its gate, (B, T, D)
            in the type of u where keep and z are given, else (B, T, 0); `kept` are states at the
            starts of chunks, none without keep. y is in the type of u, contiguous; so is final_state (B, D, N).
        backward: (dy, dfinal or None, u, delta, A, B, C, D, z, delta_bias, initial_state, reset, ungated, kept,
            delta_softplus) -> gradients of u, delta, A, B, C, D, z, delta_bias, initial_state in their types; where
            the tensor is absent, one of no elements: (0,), for z (B, T, 0).
        kept_shape: (B, T, D, G, N) -> shape of `kept`.
    Returns:
        the operator; and a function of its arguments, keep left out, that gives its first two results.
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
        dfinal: Tensor | None,
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
        dy = torch.zeros_like(arguments[0]) if dy is None else dy.contiguous()
        grads = backward_op(dy, None if dfinal is None else dfinal.contiguous(), *arguments, *rest, curve)
        given = (grad if tensor is not None else None for grad, tensor in zip(grads, arguments, strict=False))
        return *given, None, None, None

    library.differentiable(
        op,
        save=lambda inputs, output: (*inputs[:10], output[2], output[3]),
        keep=lambda inputs: inputs[10],
        backward=gradients,
        unused_as_zeros=False,
    )

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
            given = _grouped(inputs)
            y, final, ungated, kept = forward(*given, True)
            ctx.save_for_backward(*given[:10], ungated, kept)
            ctx.shapes = inputs[3].shape, inputs[4].shape
            ctx.curve = inputs[10]
            ctx.set_materialize_grads(False)
            return y, final

        @staticmethod
        def backward(ctx: Any, dy: Tensor | None, dfinal: Tensor | None) -> tuple[Any, ...]:
            saved = ctx.saved_tensors
            if torch.is_grad_enabled():  # create_graph: the operator says that there is no second derivative
                grads = gradients(saved, ctx.curve, (), dy, dfinal)
                return *grads[:3], grads[3].view(ctx.shapes[0]), grads[4].view(ctx.shapes[1]), *grads[5:-1]
            dy = torch.zeros_like(saved[0]) if dy is None else dy.contiguous()
            grads = backward(dy, None if dfinal is None else dfinal.contiguous(), *saved, ctx.curve)
            du, ddelta, dA, dB, dC, *others = grads
            optional = (grad if given is not None else None for grad, given in zip(others, saved[5:9], strict=True))
            return du, ddelta, dA, dB.view(ctx.shapes[0]), dC.view(ctx.shapes[1]), *optional, None, None

    def call(*inputs: Any) -> tuple[Tensor, Tensor]:
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if _observed(tensors):
            y, final, _, _ = op(*_grouped(inputs), keep)
        elif keep:
            y, final = Direct.apply(*inputs)
        else:
            y, final, _, _ = forward(*_grouped(inputs), False)
        return y, final

    return op, call


def _grouped(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """B and C with their dimension of groups. In here, past autograd, that costs no node of its own."""
    B, C = (tensor.unsqueeze(2) if tensor.ndim == 3 else tensor for tensor in inputs[3:5])
    return *inputs[:3], B, C, *inputs[5:]


def _observed(tensors: list[Tensor]) -> bool:
    """Whether somebody must see an operator rather than what it does."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or any(type(tensor) not in _PLAIN for tensor in tensors)
    )


_PLAIN = (Tensor, torch.nn.Parameter)
