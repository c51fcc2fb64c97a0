"""Owns the FFT convolution as an operator with its gradient: spectra are recomputed, not kept.

With U, K, G the spectra of u, the kernel and the gradient of y, padded so that nothing wraps around:

    y = IFFT(U K)        du = IFFT(G conj K)        dkernel = IFFT(sum_b G conj U)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.long_convolution import naive


@library.operator("fft_convolution")
def convolution(u: Tensor, kernel: Tensor) -> Tensor:
    return naive.fft_convolution(u, kernel).contiguous()


@convolution.register_fake
def _(u: Tensor, kernel: Tensor) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@library.operator("fft_convolution_backward")
def _backward(dy: Tensor, u: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    work = torch.promote_types(torch.promote_types(u.dtype, kernel.dtype), torch.float32)
    T, L = u.shape[1], min(u.shape[1], kernel.shape[1])
    n = naive.fast_length(T + L - 1)
    G = torch.fft.rfft(dy.to(work).transpose(1, 2), n=n)  # (B, T, D) -> (B, D, n / 2 + 1)
    K = torch.fft.rfft(kernel[:, :L].to(work), n=n)
    du = torch.fft.irfft(G * K.conj(), n=n)[..., :T].transpose(1, 2)
    U = torch.fft.rfft(u.to(work).transpose(1, 2), n=n)
    dkernel = torch.zeros_like(kernel, memory_format=torch.contiguous_format)
    dkernel[:, :L] = torch.fft.irfft((G * U.conj()).sum(0), n=n)[:, :L]
    return du.to(u.dtype).contiguous(), dkernel


@_backward.register_fake
def _(dy: Tensor, u: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (u, kernel))  # type: ignore[return-value]


library.once_differentiable(_backward)


def _gradients(saved: tuple[Any, ...], kept: None, needs: tuple[bool, ...], dy: Tensor) -> Any:
    return _backward(dy, *saved)


library.differentiable(convolution, save=lambda inputs, output: inputs, backward=_gradients)
