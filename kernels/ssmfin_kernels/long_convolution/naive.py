"""Owns the meaning of long convolutions in plain torch: the kernels of linear SSMs, and their causal application.

A linear state-space model with one input and one output a channel,

    h_t = A_bar h_{t-1} + B_bar u_t,        y_t = C h_t,

unrolls to y_t = sum_l kernel_l u_{t-l} with kernel_l = C A_bar^l B_bar. `fft_convolution` applies such a kernel.

Diagonal (S4D): A_bar = exp(dtA), and kernel_l = sum_n C_n B_bar_n exp(dtA_n l) is a Vandermonde product;
`vandermonde_kernel` makes it, B_bar folded into C.

Diagonal plus low rank (S4), A = diag(Lambda) - P P^*, discretised by the bilinear rule (Gu et al. 2022, eq. 3):

    A_bar = (I - dt/2 A)^{-1} (I + dt/2 A)        B_bar = (I - dt/2 A)^{-1} dt B

`dplr_kernel` is here the recurrence with dense matrices. `cauchy.py` has the fast form (their theorem 3): the transform
of the truncated kernel at z = exp(-i theta), theta = 2 pi k / L, is

    K(z) = sum_{l < L} kernel_l z^l = C (I - A_bar^L) (I - A_bar z)^{-1} B_bar
         = C~ [(1 - z) / dt - (1 + z) A / 2]^{-1} B                  with C~ = C (I - A_bar^L)

whose bracket is diagonal plus rank one; Woodbury's identity leaves sums over states of c_n / (i rate s - Lambda_n c),
a Cauchy product, with s = sin(theta / 2), c = cos(theta / 2), rate = 2 / dt:

    K(z) = exp(i theta / 2) (S_CB - c S_CP S_PB / (1 + c S_PP)),      S_XY = sum_n X_n Y_n / (i rate s - Lambda_n c)

This way of writing it has no pole at z = -1, where the usual 2 / (1 + z) has one.

References:
    Gu, Goel, Re (2022), Efficiently modeling long sequences with structured state spaces.
    Gu, Gupta, Goel, Re (2022), On the parameterization and initialization of diagonal state space models.
"""

from __future__ import annotations

import torch
from torch import Tensor


def vandermonde_kernel(C: Tensor, dtA: Tensor, length: int) -> Tensor:
    """(D, N), (D, N) -> (D, L): kernel[d, l] = sum_n C[d, n] exp(dtA[d, n] l), twice its real part if complex.

    Powers are taken as exp(dtA l), never by repeated multiplication, so the error does not grow with l.
    """
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


def dplr_kernel(Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int) -> Tensor:
    """(D, N) complex, dt (D) -> (D, L): kernel_l = Re C A_bar^l B_bar over both states of each conjugate pair."""
    A_bar, B_bar = bilinear(both(Lambda), both(P), both(B), dt)
    taps, state = [], B_bar
    for _ in range(length):
        taps.append((both(C) * state).sum(-1).real)
        state = (A_bar @ state[..., None])[..., 0]
    return torch.stack(taps, dim=-1)


def both(half: Tensor) -> Tensor:
    """(..., N) -> (..., 2 N): the given state of each conjugate pair, then the other."""
    return torch.cat((half, half.conj()), dim=-1)


def bilinear(Lambda: Tensor, P: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """A_bar (D, N, N) and B_bar (D, N) of A = diag(Lambda) - P P^* and B, by the bilinear rule with step dt (D)."""
    A = torch.diag_embed(Lambda) - P[..., :, None] * P[..., None, :].conj()
    half = dt[:, None, None] / 2 * A
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    right = torch.cat((eye + half, (dt[:, None] * B)[..., None]), dim=-1)
    solved = torch.linalg.solve(eye - half, right)
    return solved[..., :-1], solved[..., -1]


def fft_convolution(u: Tensor, kernel: Tensor) -> Tensor:
    """(B, T, D), (D, L) -> (B, T, D): y[b, t, d] = sum_{l <= min(t, L - 1)} kernel[d, l] u[b, t - l, d], by FFTs."""
    work = torch.promote_types(torch.promote_types(u.dtype, kernel.dtype), torch.float32)
    T = u.shape[1]
    kernel = kernel[:, :T]
    n = fast_length(T + kernel.shape[1] - 1)
    # time last while transforming: a strided FFT takes three times as long on the CPU
    spectrum = torch.fft.rfft(u.to(work).transpose(1, 2), n=n)  # (B, T, D) -> (B, D, n / 2 + 1)
    response = torch.fft.rfft(kernel.to(work), n=n)  # (D, n / 2 + 1)
    y: Tensor = torch.fft.irfft(spectrum * response, n=n)[..., :T].transpose(1, 2)  # (B, D, n) -> (B, T, D)
    return y.to(u.dtype)


def fast_length(n: int) -> int:
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
