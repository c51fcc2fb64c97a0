"""Owns how torch is told of causal_convolution's operators, the same for every backend: shapes and derivative."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from ssmfin_kernels import library


def register(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """Give the two operators of a backend their fake forms, and `forward` its derivative, once."""

    @forward.register_fake
    def _(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        initial_state: Tensor | None,
        reset: Tensor | None,
        silu: bool,
    ) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), x.new_empty(x.shape[0], weight.shape[1] - 1, x.shape[2])

    @backward.register_fake
    def _(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        initial_state: Tensor | None,
        reset: Tensor | None,
        grad_y: Tensor,
        grad_final: Tensor | None,
        silu: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        edge = x.new_empty(x.shape[0], weight.shape[1] - 1, x.shape[2])
        return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(x.shape[2]), edge

    def differentiate(
        saved: tuple[Tensor, ...], silu: bool, needs: tuple[bool, ...], grad_y: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, weight, bias, initial_state, reset = saved
        grad_y = torch.zeros_like(x) if grad_y is None else grad_y.contiguous()
        grad_final = None if grad_final is None else grad_final.contiguous()
        dx, d_weight, d_bias, d_initial = backward(x, weight, bias, initial_state, reset, grad_y, grad_final, silu)
        return dx, d_weight, None if bias is None else d_bias, None if initial_state is None else d_initial, None, None

    library.once_differentiable(backward)
    library.differentiable(
        forward,
        save=lambda inputs, output: inputs[:5],
        keep=lambda inputs: inputs[5],
        backward=differentiate,
        unused_as_zeros=False,
    )
