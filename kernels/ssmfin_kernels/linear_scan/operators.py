"""Owns how torch is told of linear_scan's operators, the same for every backend: shapes and derivative."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from ssmfin_kernels import library


def register(forward: CustomOpDef, backward: CustomOpDef) -> None:
    """Give the two operators of a backend their fake forms, and `forward` its derivative, once."""

    @forward.register_fake
    def _(
        a: Tensor, b: Tensor, initial_state: Tensor | None, reset: Tensor | None, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        return torch.empty_like(b), b.new_empty(b.shape[0], b.shape[2])

    @backward.register_fake
    def _(
        a: Tensor,
        h: Tensor,
        initial_state: Tensor | None,
        reset: Tensor | None,
        grad_h: Tensor,
        grad_final: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty_like(a), torch.empty_like(a), a.new_empty(a.shape[0], a.shape[2])

    def differentiate(
        saved: tuple[Tensor, ...],
        reverse: bool,
        needs: tuple[bool, ...],
        grad_h: Tensor | None,
        grad_final: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        a, h, initial_state, reset = saved
        grad_h = torch.zeros_like(h) if grad_h is None else grad_h.contiguous()
        grad_final = None if grad_final is None else grad_final.contiguous()
        da, db, d_initial = backward(a, h, initial_state, reset, grad_h, grad_final, reverse)
        return da, db, None if initial_state is None else d_initial, None, None

    library.once_differentiable(backward)
    library.differentiable(
        forward,
        save=lambda inputs, output: (inputs[0], output[0], inputs[2], inputs[3]),
        keep=lambda inputs: inputs[4],
        backward=differentiate,
        unused_as_zeros=False,
    )
