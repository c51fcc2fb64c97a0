"""Long convolution: two derivations that must agree (convolution and recurrence), and the edges of each argument."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin_kernels import fft_convolution, vandermonde_kernel


def stable_system(channels: int, states: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """C and dtA, (D, N) complex128: a spread of decays and frequencies."""
    generator = torch.Generator().manual_seed(seed)
    C = torch.randn(channels, states, dtype=torch.complex128, generator=generator)
    decay = torch.rand(channels, states, dtype=torch.float64, generator=generator) * 0.5
    frequency = torch.rand(channels, states, dtype=torch.float64, generator=generator) * 3
    return C, torch.complex(-decay, frequency)


def recurrence(u: torch.Tensor, C: torch.Tensor, dtA: torch.Tensor) -> torch.Tensor:
    """h_t = exp(dtA) h_{t-1} + u_t, y_t = 2 Re sum_n C_n h_{t,n}, one step after the other."""
    state = torch.zeros(u.shape[0], *C.shape, dtype=torch.complex128)  # (B, D, N)
    outputs = []
    for t in range(u.shape[1]):
        state = torch.exp(dtA) * state + u[:, t, :, None]
        outputs.append(2 * (C * state).sum(-1).real)
    return torch.stack(outputs, dim=1)


def direct_sum(u: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(u)
    for t in range(u.shape[1]):
        for lag in range(min(t + 1, kernel.shape[1])):
            y[:, t] += kernel[:, lag] * u[:, t - lag]
    return y


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(time=st.integers(1, 67), channels=st.integers(1, 4), states=st.integers(1, 5), seed=st.integers(0, 99))
def test_convolution_equals_recurrence(time: int, channels: int, states: int, seed: int) -> None:
    C, dtA = stable_system(channels, states, seed)
    u = noise(2, time, channels, seed=seed)
    convolved = fft_convolution(u, vandermonde_kernel(C, dtA, time))
    torch.testing.assert_close(convolved, recurrence(u, C, dtA), rtol=1e-11, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(time=st.integers(1, 53), length=st.integers(1, 60), batch=st.integers(1, 3))
def test_convolution_equals_direct_sum_whether_truncated_or_longer_than_the_sequence(
    time: int, length: int, batch: int
) -> None:
    u, kernel = noise(batch, time, 2, seed=time), noise(2, length, seed=length)
    torch.testing.assert_close(fft_convolution(u, kernel), direct_sum(u, kernel), rtol=1e-12, atol=1e-12)


def test_output_does_not_wrap_around() -> None:
    u = torch.zeros(1, 64, 1, dtype=torch.float64)
    u[0, -1] = 1e6  # would reach the first steps if the FFT were circular
    y = fft_convolution(u, torch.ones(1, 64, dtype=torch.float64))
    assert y[0, :-1].abs().max() < 1e-8


def test_strided_input_gives_the_same_as_contiguous() -> None:
    u = noise(2, 3, 31).transpose(1, 2)  # (B, T, D), time contiguous
    kernel = noise(31, 3).T
    same = fft_convolution(u.contiguous(), kernel.contiguous())
    torch.testing.assert_close(fft_convolution(u, kernel), same, rtol=0, atol=1e-13)


def test_kernel_matches_zero_order_hold_of_the_dense_system() -> None:
    """Sampled impulse response of x' = Ax + Bu under a held input, from one dense matrix exponential."""
    dt, length = 0.3, 40
    A = torch.complex(torch.tensor([-0.5, -0.2]).double(), torch.tensor([0.0, 2.1]).double())
    C = torch.tensor([0.7 - 0.4j, -1.1 + 0.2j], dtype=torch.complex128)
    augmented = torch.zeros(3, 3, dtype=torch.complex128)
    augmented[:2, :2], augmented[:2, 2] = torch.diag(A), 1.0
    held = torch.linalg.matrix_exp(augmented * dt)
    A_bar, B_bar = held[:2, :2], held[:2, 2]
    expected = [2 * (C @ torch.linalg.matrix_power(A_bar, step) @ B_bar).real for step in range(length)]
    folded = C * torch.expm1(dt * A) / A
    kernel = vandermonde_kernel(folded[None], (dt * A)[None], length)
    torch.testing.assert_close(kernel[0], torch.stack(expected), rtol=1e-12, atol=1e-13)


def test_real_system_is_summed_once_and_complex_twice_the_real_part() -> None:
    C, dtA = noise(3, 4), -noise(3, 4).abs()
    real = vandermonde_kernel(C, dtA, 9)
    torch.testing.assert_close(real, (C[:, :, None] * dtA.exp()[:, :, None] ** torch.arange(9)).sum(1))
    for pair in ((C.to(torch.complex128), dtA.to(torch.complex128)), (C.to(torch.complex128), dtA)):
        torch.testing.assert_close(vandermonde_kernel(*pair, 9), 2 * real)


def test_powers_do_not_drift_with_their_exponent() -> None:
    C = torch.ones(1, 1, dtype=torch.complex64)
    dtA = torch.tensor([[-(2.0**-13) + 0.5j]], dtype=torch.complex64)  # l dtA is exact in float32, so exp alone rounds
    kernel = vandermonde_kernel(C, dtA, 20_001)
    exact = vandermonde_kernel(C.to(torch.complex128), dtA.to(torch.complex128), 20_001)
    assert (kernel - exact).abs().max() < 1e-6  # repeated multiplication ends at 4e-4


def test_gradients_of_every_argument() -> None:
    C, dtA = (tensor.requires_grad_() for tensor in stable_system(2, 3, seed=1))
    u = noise(2, 7, 2).requires_grad_()
    torch.autograd.gradcheck(lambda C, dtA: vandermonde_kernel(C, dtA, 6), (C, dtA))
    torch.autograd.gradcheck(vandermonde_kernel, (noise(2, 3).requires_grad_(), noise(2, 3).requires_grad_(), 5))
    for length in (1, 4, 9):
        torch.autograd.gradcheck(fft_convolution, (u, noise(2, length).requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    u, kernel = noise(1, 33, 2).to(dtype), noise(2, 33).float()
    y = fft_convolution(u, kernel)
    assert y.dtype == dtype
    torch.testing.assert_close(y, fft_convolution(u.float(), kernel).to(dtype))


@pytest.mark.parametrize(
    "u, kernel, message",
    [
        (torch.ones(4, 3), torch.ones(3, 2), r"u has shape \(4, 3\), expected \(B, T, D\)"),
        (torch.ones(1, 0, 3), torch.ones(3, 2), r"u has shape \(1, 0, 3\)"),
        (torch.ones(1, 4, 3), torch.ones(2, 2), r"kernel has shape \(2, 2\), expected \(D, L\) with D = 3"),
        (torch.ones(1, 4, 3), torch.ones(3, 0), r"kernel has shape \(3, 0\)"),
        (torch.ones(1, 4, 3), torch.ones(3, 2, dtype=torch.complex64), "kernel has dtype complex64"),
        (torch.ones(1, 4, 3, dtype=torch.int64), torch.ones(3, 2), "u has dtype int64"),
    ],
)
def test_convolution_names_the_wrong_argument(u: torch.Tensor, kernel: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fft_convolution(u, kernel)


@pytest.mark.parametrize(
    "C, dtA, length, message",
    [
        (torch.ones(3), torch.ones(3), 4, r"C has shape \(3,\), expected \(D, N\)"),
        (torch.ones(3, 2), torch.ones(3, 4), 4, r"dtA has shape \(3, 4\), expected \(D, N\) with D = 3, N = 2"),
        (torch.ones(3, 2), torch.ones(3, 2), 0, "length is 0"),
        (torch.ones(3, 2), torch.ones(3, 2, dtype=torch.int32), 4, "dtA has dtype int32"),
    ],
)
def test_kernel_names_the_wrong_argument(C: torch.Tensor, dtA: torch.Tensor, length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vandermonde_kernel(C, dtA, length)
