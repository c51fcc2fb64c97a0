"""Owns S4's kernel by Cauchy sums and Woodbury's identity (the algebra is in `naive.py`), on any device.

The sums run over blocks of frequencies and are recomputed in the backward pass: memory O(D (N^2 + L)), not D N L.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.long_convolution import naive

_TABLE = 1 << 22  # complex numbers in the (D, 2 N, frequencies) table of one block


def dplr_kernel(Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int) -> Tensor:
    """(D, N) complex, dt (D) -> (D, L), as `naive.dplr_kernel`."""
    dtype = Lambda.dtype
    poles, P, B, C = (naive.both(tensor) for tensor in (Lambda, P, B, C))  # (D, 2 N)
    # C~ in double precision: A_bar^L multiplies the rounding of A_bar by L
    wide = torch.complex128
    A_bar, _ = naive.bilinear(poles.to(wide), P.to(wide), B.to(wide), dt.double())
    last = (C.to(wide)[..., None, :] @ torch.linalg.matrix_power(A_bar, length))[..., 0, :]
    truncated = C - last.to(dtype)  # C~ = C (I - A_bar^L)
    weights = torch.stack((truncated * B, truncated * P, P.conj() * B, P.conj() * P), dim=1)  # (D, 4, 2 N)
    CB, CP, PB, PP = cauchy_sums(weights, poles, 2 / dt, length).unbind(1)  # (D, L // 2 + 1)
    cosine, sine = half_angles(length, slice(None), dt)
    transform = torch.complex(cosine, sine) * (CB - cosine * CP * PB / (1 + cosine * PP))
    taps: Tensor = torch.fft.irfft(transform, n=length)
    return taps


def half_angles(length: int, part: slice, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of theta / 2 = pi k / L for frequencies k of `part`, rounded once."""
    angle = math.pi / length * torch.arange(length // 2 + 1, dtype=torch.float64, device=like.device)[part]
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


@library.operator("cauchy_sums")
def cauchy_sums(weights: Tensor, poles: Tensor, rate: Tensor, length: int) -> Tensor:
    """(D, J, M), (D, M), (D) -> (D, J, L // 2 + 1): sum_m weights_jm / (i rate s - poles_m c) at each frequency."""
    sums = weights.new_empty(*weights.shape[:2], length // 2 + 1)
    for part, table, _, _ in _blocks(poles, rate, length):
        sums[..., part] = weights @ table
    return sums


@cauchy_sums.register_fake
def _(weights: Tensor, poles: Tensor, rate: Tensor, length: int) -> Tensor:
    return weights.new_empty(*weights.shape[:2], length // 2 + 1)


@library.operator("cauchy_sums_backward")
def _backward(grad: Tensor, weights: Tensor, poles: Tensor, rate: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    dweights, dpoles, drate = torch.zeros_like(weights), torch.zeros_like(poles), torch.zeros_like(rate)
    for part, table, cosine, sine in _blocks(poles, rate, length):
        upstream = grad[..., part]
        conjugate = table.conj()
        dweights += upstream @ conjugate.mT
        # d table = table^2 (c dpole - i s drate)
        dtable = (weights.conj().mT @ upstream) * conjugate * conjugate  # (D, M, frequencies)
        dpoles += (dtable * cosine).sum(-1)
        drate -= (dtable.sum(1) * torch.complex(torch.zeros_like(sine), -sine)).real.sum(-1)
    return dweights, dpoles, drate


@_backward.register_fake
def _(grad: Tensor, weights: Tensor, poles: Tensor, rate: Tensor, length: int) -> Any:
    return torch.empty_like(weights), torch.empty_like(poles), torch.empty_like(rate)


library.once_differentiable(_backward)


def _gradients(saved: tuple[Any, ...], length: int, needs: tuple[bool, ...], grad: Tensor) -> Any:
    return *_backward(grad, *saved, length), None


library.differentiable(
    cauchy_sums, save=lambda inputs, output: inputs[:3], keep=lambda inputs: inputs[3], backward=_gradients
)


def _blocks(poles: Tensor, rate: Tensor, length: int) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """(frequencies, 1 / (i rate s - poles c) (D, M, frequencies), c, s)."""
    count = max(1, _TABLE // max(1, poles.numel()))
    for start in range(0, length // 2 + 1, count):
        part = slice(start, min(start + count, length // 2 + 1))
        cosine, sine = half_angles(length, part, rate)
        axis = torch.complex(torch.zeros_like(sine), sine)
        yield part, 1 / (rate[:, None, None] * axis - poles[..., None] * cosine), cosine, sine
