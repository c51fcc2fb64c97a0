"""Long convolutions: the fast forms against their definitions in float64, and what they promise about memory."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from kernels_support.compare import (
    assert_agrees,
    assert_close,
    assert_repeatable,
    strided,
    values_and_gradients,
)
from torch import Tensor

from ssmfin_kernels import dplr_kernel, fft_convolution, vandermonde_kernel


def diagonal(D: int, N: int, dtype: torch.dtype = torch.complex128) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(N)
    C = torch.randn(D, N, dtype=torch.complex128, generator=generator)
    decay = -0.1 * torch.rand(D, N, dtype=torch.float64, generator=generator)
    frequency = 3 * torch.rand(D, N, dtype=torch.float64, generator=generator)
    return {"C": C.to(dtype), "dtA": torch.complex(decay, frequency).to(dtype)}


def hippo_legs(N: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Dense A (2 N, 2 N) and B of HiPPO-LegS, and Lambda, P, B of its diagonal-plus-rank-one form, half the pairs."""
    n = torch.arange(2 * N, dtype=torch.float64)
    A = -torch.sqrt((2 * n[:, None] + 1) * (2 * n + 1)).tril(-1) - torch.diag(n + 1)
    B, P = torch.sqrt(2 * n + 1), torch.sqrt(n + 0.5)
    skew = A + P[:, None] * P  # -1/2 I plus a skew-symmetric matrix
    real = skew.diagonal().mean()
    frequency, basis = torch.linalg.eigh(-1j * (skew - real * torch.eye(2 * N)))
    basis = basis[:, frequency > 0]
    Lambda = real + 1j * frequency[frequency > 0]
    return A, B, Lambda, basis.mH @ P.to(basis.dtype), basis.mH @ B.to(basis.dtype)


def legs_arguments(D: int, N: int, dtype: torch.dtype = torch.complex128) -> dict[str, Tensor]:
    _, _, Lambda, P, B = hippo_legs(N)
    C = torch.randn(D, N, dtype=torch.complex128, generator=torch.Generator().manual_seed(N))
    dt = torch.logspace(-2, -1, D, dtype=torch.float64)
    tensors = {name: value.expand(D, N).clone() for name, value in (("Lambda", Lambda), ("P", P), ("B", B))}
    return {**{name: value.to(dtype) for name, value in {**tensors, "C": C}.items()}, "dt": dt.to(dtype.to_real())}


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 127, 1000, 2049])
@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_vandermonde_equals_its_definition_with_gradients(length: int, dtype: torch.dtype) -> None:
    fast, naive = (functools.partial(vandermonde_kernel, length=length, backend=b) for b in ("cpu", "naive"))
    assert_agrees(fast, naive, diagonal(3, 7, dtype), tolerance=1e-12 if dtype == torch.complex128 else 2e-6)


@pytest.mark.parametrize("real", [("C",), ("dtA",), ("C", "dtA")])
def test_vandermonde_of_real_arguments(real: tuple[str, ...]) -> None:
    call = {name: value.real if name in real else value for name, value in diagonal(2, 5).items()}
    fast, naive = (functools.partial(vandermonde_kernel, length=70, backend=b) for b in ("cpu", "naive"))
    assert_agrees(fast, naive, call)


def test_vandermonde_of_more_channels_than_a_block_and_strided_arguments() -> None:
    from ssmfin_kernels.long_convolution import cpu

    call = {name: strided(value) for name, value in diagonal(300, 65).items()}
    assert cpu._TABLE < 300 * 65 * 32
    fast, naive = (functools.partial(vandermonde_kernel, length=200, backend=b) for b in ("cpu", "naive"))
    assert_agrees(fast, naive, call)


def test_vandermonde_keeps_its_phase_over_a_hundred_thousand_taps() -> None:
    """One rounding of the phase, not l of them: float32 alone is wrong in the second digit here."""
    C, dtA = torch.ones(1, 1, dtype=torch.complex64), torch.tensor([[2.9j]], dtype=torch.complex64)
    kernel = vandermonde_kernel(C, dtA, 100_001, backend="cpu")
    exact = vandermonde_kernel(C.to(torch.complex128), dtA.to(torch.complex128), 100_001, backend="naive")
    assert (kernel - exact).abs().max() < 2e-6


@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 127])
def test_dplr_equals_the_dense_recurrence_of_hippo_legs(length: int) -> None:
    A, B, *_ = hippo_legs(4)
    call = legs_arguments(2, 4)
    kernel = dplr_kernel(**call, length=length)
    eye = torch.eye(8, dtype=torch.float64)
    n = torch.arange(8, dtype=torch.float64)
    scale = torch.sqrt(n + 0.5)
    frequency, basis = torch.linalg.eigh(-1j * (A + scale[:, None] * scale + 0.5 * eye))
    basis = basis[:, frequency > 0]
    for d, dt in enumerate(call["dt"]):
        A_bar = torch.linalg.solve(eye - dt / 2 * A, eye + dt / 2 * A)
        state = torch.linalg.solve(eye - dt / 2 * A, dt * B)
        output = 2 * (call["C"][d] @ basis.mH).real  # C over the pairs, in the dense basis
        taps = []
        for _ in range(length):
            taps.append(output @ state)
            state = A_bar @ state
        assert_close("kernel", kernel[d], torch.stack(taps), 1e-11)


@pytest.mark.parametrize("length", [1, 2, 7, 64, 127])
def test_dplr_gradients_equal_those_of_the_recurrence(length: int) -> None:
    fast, naive = (functools.partial(dplr_kernel, length=length, backend=b) for b in ("cpu", "naive"))
    assert_agrees(fast, naive, legs_arguments(2, 5), tolerance=1e-10)
    # float32: A_bar^L and the sum over poles each lose what the largest pole, N^2, has over the smallest
    assert_agrees(fast, naive, legs_arguments(2, 5, torch.complex64), tolerance=2e-4)


def test_dplr_in_blocks_of_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssmfin_kernels.long_convolution import cauchy

    whole = values_and_gradients(functools.partial(dplr_kernel, length=33), legs_arguments(2, 3))
    monkeypatch.setattr(cauchy, "_TABLE", 60)
    blocks = values_and_gradients(functools.partial(dplr_kernel, length=33), legs_arguments(2, 3))
    for one, other in zip(blocks, whole, strict=True):
        for name in other:
            assert_close(name, one[name], other[name], 1e-12)


@pytest.mark.parametrize("T, L", [(1, 1), (1, 4), (64, 64), (65, 3), (3, 65), (127, 127)])
def test_convolution_gradients_equal_autograd(T: int, L: int) -> None:
    call = {"u": torch.randn(2, T, 3, dtype=torch.float64), "kernel": torch.randn(3, L, dtype=torch.float64)}
    naive = functools.partial(fft_convolution, backend="naive")
    assert_agrees(functools.partial(fft_convolution, backend="cpu"), naive, call)
    assert_agrees(fft_convolution, naive, {name: strided(value) for name, value in call.items()})
    half = {"u": call["u"].to(torch.bfloat16), "kernel": call["kernel"].float()}
    assert_agrees(fft_convolution, naive, half)


OPERATIONS: list[tuple[Any, dict[str, Any]]] = [
    (functools.partial(vandermonde_kernel, length=70), diagonal(2, 3, torch.complex64)),
    (functools.partial(dplr_kernel, length=20), legs_arguments(2, 3, torch.complex64)),
    (fft_convolution, {"u": torch.randn(2, 9, 3), "kernel": torch.randn(3, 9)}),
]


@pytest.mark.parametrize("operation, call", OPERATIONS)
def test_two_calls_give_the_same_bits(operation: Any, call: dict[str, Any]) -> None:
    assert_repeatable(operation, call)


@pytest.mark.parametrize("operation, call", OPERATIONS)
def test_autocast_leaves_the_products_in_single_precision(operation: Any, call: dict[str, Any]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = values_and_gradients(operation, call)
    for one, other in zip(found, values_and_gradients(operation, call), strict=True):
        for name in other:
            assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("operation, call", OPERATIONS[::2])
def test_second_derivative_raises(operation: Any, call: dict[str, Any]) -> None:
    leaves = {name: value.detach().requires_grad_() for name, value in call.items()}
    first = torch.autograd.grad(operation(**leaves).square().sum(), list(leaves.values()), create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(sum(gradient.abs().square().sum() for gradient in first), list(leaves.values()))


def test_operators_are_registered_as_torch_wants_them() -> None:
    from ssmfin_kernels.long_convolution import cauchy, cpu, fourier

    pairs = [torch.randn(2, 3, 2, requires_grad=True) for _ in range(2)]
    torch.library.opcheck(cpu.kernel, (*pairs, 17, 2.0))
    weights = torch.randn(2, 4, 3, dtype=torch.complex64, requires_grad=True)
    poles = torch.complex(-torch.rand(2, 3) - 0.5, torch.randn(2, 3)).requires_grad_()
    torch.library.opcheck(cauchy.cauchy_sums, (weights, poles, torch.rand(2, requires_grad=True), 12))
    torch.library.opcheck(
        fourier.convolution, (torch.randn(2, 9, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True))
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of inductor, while it is imported
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
def test_a_layer_compiles_in_one_graph() -> None:
    def layer(u: Tensor, C: Tensor, dtA: Tensor) -> Tensor:
        return fft_convolution(u, vandermonde_kernel(torch.view_as_complex(C), torch.view_as_complex(dtA), 16))

    pairs = {name: torch.view_as_real(value).clone() for name, value in diagonal(3, 2, torch.complex64).items()}
    call = {"u": torch.randn(2, 16, 3), **pairs}
    found = values_and_gradients(torch.compile(layer, fullgraph=True), call)
    for one, other in zip(found, values_and_gradients(layer, call), strict=True):
        for name in other:
            assert_close(name, one[name], other[name], 1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"P": torch.ones(2, 4, dtype=torch.complex64)}, r"P has shape \(2, 4\), expected \(D, N\) with D = 2, N = 3"),
        ({"C": torch.ones(2, 3)}, "C has dtype float32, expected complex64 or complex128"),
        ({"dt": torch.ones(3)}, r"dt has shape \(3,\), expected \(D,\) with D = 2"),
        ({"length": 0}, "length is 0"),
    ],
)
def test_dplr_names_the_wrong_argument(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dplr_kernel(**{**legs_arguments(2, 3, torch.complex64), "length": 4, **change})
