"""Owns the meaning of long convolutions in plain torch: the kernel of a diagonal SSM, and its causal application.

A diagonal state-space model with one input and one output a channel,

    h_t = exp(dtA) h_{t-1} + B_bar u_t,        y_t = sum_n C_n h_{t,n},

unrolls to y_t = sum_l kernel_l u_{t-l} with kernel_l = sum_n C_n B_bar_n exp(dtA_n l): a convolution whose kernel is a
Vandermonde product. `vandermonde_kernel` makes it (B_bar folded into C), `fft_convolution` applies it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def vandermonde_kernel(C: Tensor, dtA: Tensor, length: int) -> Tensor:
    """Convolution kernel of a diagonal state-space model.

        kernel[d, l] = sum_n C[d, n] exp(dtA[d, n] l)             C and dtA real
        kernel[d, l] = 2 Re sum_n C[d, n] exp(dtA[d, n] l)        complex: one state of each conjugate pair is given

    Powers are taken as exp(dtA l), never by repeated multiplication, so the error does not grow with l.

    Args:
        C: (D, N) real or complex output weights, the discretised input weights B_bar multiplied in.
        dtA: (D, N) real or complex step times diagonal state matrix; its real part is <= 0 for a stable model.
        length: L, taps.
    Returns:
        (D, L) real, in the precision of C and dtA (float32 or float64). Gradients for C and dtA by autograd, which
        keeps the (D, N, L) product in memory.
    Raises:
        ValueError: shapes differ or are not (D, N), an integer or half-precision dtype, length below 1.
    References:
        Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models, eq. 5
        and section 3.2.

    >>> vandermonde_kernel(torch.ones(1, 1), torch.full((1, 1), -1.0), 3)
    tensor([[1.0000, 0.3679, 0.1353]])
    """
    for name, tensor in (("C", C), ("dtA", dtA)):
        if tensor.ndim != 2:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected (D, N).")
        if tensor.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
            raise ValueError(f"{name} has dtype {tensor.dtype}, expected float32, float64, complex64 or complex128.")
    if C.shape != dtA.shape:
        raise ValueError(f"dtA has shape {tuple(dtA.shape)}, expected {tuple(C.shape)}, the shape (D, N) of C.")
    if length < 1:
        raise ValueError(f"length is {length}, expected an integer of at least 1.")
    real = torch.promote_types(C.dtype, dtA.dtype).to_real()
    step = torch.arange(length, dtype=real, device=C.device)
    powers = torch.exp(dtA[:, :, None] * step)  # (D, N, L)
    if not C.is_complex() and not dtA.is_complex():
        return torch.einsum("dn,dnl->dl", C.to(real), powers.to(real))
    C = C.to(real.to_complex())
    if not powers.is_complex():
        return 2 * torch.einsum("dn,dnl->dl", C.real, powers.to(real))
    powers = powers.to(real.to_complex())
    # Re(C p) = Re C Re p - Im C Im p: half the work of a complex product whose imaginary part is thrown away
    return 2 * (torch.einsum("dn,dnl->dl", C.real, powers.real) - torch.einsum("dn,dnl->dl", C.imag, powers.imag))


def fft_convolution(u: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution of each channel with its own kernel, by real FFTs.

        y[b, t, d] = sum_{l = 0}^{min(t, L - 1)} kernel[d, l] u[b, t - l, d]

    Steps before the first count as zero. L < T truncates the memory to L steps; taps beyond T are never reached and
    ignored. The FFT is padded to at least T + L - 1, so that nothing wraps around. Cost: O(B D T log T).

    Rounding, not algebra, lets every output depend on every input of the sequence: where an output must keep its bits
    when a later input changes, give sequences that end there.

    Args:
        u: (B, T, D) real.
        kernel: (D, L) real.
    Returns:
        (B, T, D) in the dtype of u. Half precision is computed in float32. Gradients for u and kernel by autograd.
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
    for name, tensor in (("u", u), ("kernel", kernel)):
        if not tensor.is_floating_point():
            raise ValueError(f"{name} has dtype {tensor.dtype}, expected a real floating dtype.")
    work = torch.promote_types(torch.promote_types(u.dtype, kernel.dtype), torch.float32)
    T = u.shape[1]
    kernel = kernel[:, :T]
    n = _fast_length(T + kernel.shape[1] - 1)
    # time last while transforming: a strided FFT takes three times as long on the CPU
    spectrum = torch.fft.rfft(u.to(work).transpose(1, 2), n=n)  # (B, T, D) -> (B, D, n / 2 + 1)
    response = torch.fft.rfft(kernel.to(work), n=n)  # (D, n / 2 + 1)
    y: Tensor = torch.fft.irfft(spectrum * response, n=n)[..., :T].transpose(1, 2)  # (B, D, n) -> (B, T, D)
    return y.to(u.dtype)


def _fast_length(n: int) -> int:
    """The smallest even product of powers of 2, 3 and 5 that is >= n: prime lengths cost several times as much."""
    best = 1 << max(n - 1, 1).bit_length()
    five = 1
    while five < best:
        odd = five
        while odd < best:
            ratio = -(-n // odd)
            best = min(best, odd * max(2, 1 << (ratio - 1).bit_length()))
            odd *= 3
        five *= 5
    return best
