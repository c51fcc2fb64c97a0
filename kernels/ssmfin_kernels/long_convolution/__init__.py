"""Owns convolutions as long as the sequence and the kernels they apply: checks, and the choice of implementation.

`naive.py` states each operation in plain torch. Beside it: `cpu.py` and `gpu.py` make Vandermonde kernels, `cauchy.py`
kernels of diagonal-plus-low-rank systems, `fourier.py` applies kernels; the last two run on either device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssmfin_kernels import checks, dispatch, library
from ssmfin_kernels.long_convolution import naive
from ssmfin_kernels.long_convolution.vandermonde import REAL, pairs

__all__ = ["dplr_kernel", "fft_convolution", "vandermonde_kernel"]

_VANDERMONDE = dispatch.operation("vandermonde_kernel", cpu="torch", gpu="triton")
_DPLR = dispatch.operation("dplr_kernel", cpu="torch", gpu="torch")
_FFT = dispatch.operation("fft_convolution", cpu="torch", gpu="torch")


def vandermonde_kernel(C: Tensor, dtA: Tensor, length: int, *, backend: str | None = None) -> Tensor:
    """Convolution kernel of a diagonal state-space model.

        kernel[d, l] = sum_n C[d, n] exp(dtA[d, n] l)             C and dtA real
        kernel[d, l] = 2 Re sum_n C[d, n] exp(dtA[d, n] l)        complex: one state of each conjugate pair is given

    The error does not grow with l. No tensor of (D, N, L) is made, in gradients neither (but by the naive backend).

    Args:
        C: (D, N) real or complex output weights, the discretised input weights B_bar multiplied in.
        dtA: (D, N) real or complex step times diagonal state matrix; its real part is <= 0 for a stable model.
        length: L, taps.
        backend: "naive", "cpu" or "gpu" to force an implementation; None: by device.
    Returns:
        (D, L) real, in the precision of C and dtA (float32 or float64). Gradients for C and dtA.
    Raises:
        ValueError: shapes differ or are not (D, N), an integer or half-precision dtype, length below 1.
    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models, eq. 5
        and section 3.2.

    >>> vandermonde_kernel(torch.ones(1, 1), torch.full((1, 1), -1.0), 3)
    tensor([[1.0000, 0.3679, 0.1353]])
    """
    sizes: dict[str, int] = {}
    for name, tensor in (("C", C), ("dtA", dtA)):
        checks.check_shape(name, tensor, "D N", sizes)
        checks.check_dtype(name, tensor, tuple(REAL))
    checks.check_devices(C=C, dtA=dtA)
    _check_length(length)
    chosen = _VANDERMONDE.choose(C, backend)
    dtype = REAL[torch.promote_types(C.dtype, dtA.dtype)]
    if chosen == "naive" or 0 in C.shape:
        return naive.vandermonde_kernel(C, dtA, length)
    # Triton's tensor products have no float64: the same algorithm in torch, which runs anywhere, takes their place
    make: Callable[[Tensor, Tensor, int, float], Tensor]
    if chosen == "cpu" or dtype == torch.float64:
        from ssmfin_kernels.long_convolution.cpu import kernel as make
    else:
        from ssmfin_kernels.long_convolution.gpu import kernel as make
    scale = 2.0 if C.is_complex() or dtA.is_complex() else 1.0
    return make(pairs(C, dtype), pairs(dtA, dtype), length, scale)


def dplr_kernel(
    Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int, *, backend: str | None = None
) -> Tensor:
    """Convolution kernel of S4: A = diag(Lambda) - P P^*, discretised by the bilinear rule.

        kernel[d, l] = Re C A_bar^l B_bar,    A_bar = (I - dt/2 A)^{-1} (I + dt/2 A),    B_bar = (I - dt/2 A)^{-1} dt B

    One state of each conjugate pair is given; the other, conjugate in Lambda, P, B and C, is implied. HiPPO-LegS has
    this form after diagonalising its skew-Hermitian part. C is the true output weight, not C (I - A_bar^L): the same
    parameters give kernels of any length. Cost O(D N L), memory O(D (N^2 + L)).

    Args:
        Lambda: (D, N) complex, real part <= 0.
        P: (D, N) complex, the low-rank factor.
        B: (D, N) complex input weights.
        C: (D, N) complex output weights.
        dt: (D,) real, positive.
        length: L, taps.
        backend: "naive" (dense recurrence), "cpu" or "gpu" to force an implementation; None: by device.
    Returns:
        (D, L) real, in the precision of the arguments. Gradients for every tensor.
    Raises:
        ValueError: a shape, type or device that does not fit, naming the argument.
    References:
        Gu, Goel, Re (2022), Efficiently modeling long sequences with structured state spaces, theorem 3, appendix C.3.

    >>> one = torch.ones(1, 1, dtype=torch.complex64)
    >>> dplr_kernel(-one, 0 * one, one, one, torch.tensor([2.0]), 2).round(decimals=4)
    tensor([[2., 0.]])
    """
    sizes: dict[str, int] = {}
    tensors = {"Lambda": Lambda, "P": P, "B": B, "C": C}
    for name, tensor in tensors.items():
        checks.check_shape(name, tensor, "D N", sizes)
        checks.check_dtype(name, tensor, (torch.complex64, torch.complex128))
    checks.check_shape("dt", dt, "D", sizes)
    checks.check_dtype("dt", dt, (torch.float32, torch.float64))
    checks.check_devices(**tensors, dt=dt)
    _check_length(length)
    dtype = library.common_dtype(*tensors.values())
    Lambda, P, B, C = (tensor.to(dtype) for tensor in (Lambda, P, B, C))
    dt = dt.to(REAL[dtype])
    if _DPLR.choose(Lambda, backend) == "naive" or 0 in Lambda.shape:
        return naive.dplr_kernel(Lambda, P, B, C, dt, length)
    from ssmfin_kernels.long_convolution import cauchy

    return cauchy.dplr_kernel(Lambda, P, B, C, dt, length)


def fft_convolution(u: Tensor, kernel: Tensor, *, backend: str | None = None) -> Tensor:
    """Causal convolution of each channel with its own kernel, by real FFTs.

        y[b, t, d] = sum_{l = 0}^{min(t, L - 1)} kernel[d, l] u[b, t - l, d]

    Steps before the first count as zero. L < T truncates the memory to L steps; taps beyond T are never reached and
    ignored. The FFT is padded to at least T + L - 1, so that nothing wraps around. Cost: O(B D T log T). Spectra are
    computed anew in the backward pass, not kept.

    Rounding, not algebra, lets every output depend on every input of the sequence: where an output must keep its bits
    when a later input changes, give sequences that end there.

    Args:
        u: (B, T, D) real.
        kernel: (D, L) real.
        backend: "naive", "cpu" or "gpu" to force an implementation; None: by device.
    Returns:
        (B, T, D) in the dtype of u. Half precision is computed in float32. Gradients for u and kernel.
    Raises:
        ValueError: wrong shapes, different D, complex or integer arguments, T or L of zero.

    >>> fft_convolution(torch.tensor([[[1.0], [0.0], [2.0]]]), torch.tensor([[1.0, 0.5]])).round(decimals=4).flatten()
    tensor([1.0000, 0.5000, 2.0000])
    """
    if u.ndim != 3 or u.shape[1] < 1:
        raise ValueError(f"u has shape {tuple(u.shape)}, expected (B, T, D) with T of at least 1.")
    if kernel.ndim != 2 or kernel.shape[0] != u.shape[2] or kernel.shape[1] < 1:
        raise ValueError(
            f"kernel has shape {tuple(kernel.shape)}, expected (D, L) with D = {u.shape[2]} and L of at least 1."
        )
    checks.check_dtype("u", u)
    checks.check_dtype("kernel", kernel)
    checks.check_devices(u=u, kernel=kernel)
    if _FFT.choose(u, backend) == "naive" or 0 in u.shape:
        return naive.fft_convolution(u, kernel)
    from ssmfin_kernels.long_convolution import fourier

    convolved: Tensor = fourier.convolution(u, kernel)
    return convolved


def _check_length(length: int) -> None:
    if length < 1:
        raise ValueError(f"length is {length}, expected an integer of at least 1.")
