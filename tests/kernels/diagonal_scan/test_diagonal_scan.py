"""Owns the properties of the diagonal scan: it is its recurrence and the S4D convolution, splits, packs, is traced."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels_support.compare import (
    assert_agrees,
    assert_close,
    assert_repeatable,
    assert_second_derivative_raises,
    random_reset,
    strided,
    values_and_gradients,
)
from torch import Tensor

from ssmfin_kernels import diagonal_scan, fft_convolution, vandermonde_kernel

fast = functools.partial(diagonal_scan, backend="cpu")
naive = functools.partial(diagonal_scan, backend="naive")


def draw(
    B: int, T: int, *, D: int = 3, N: int = 5, dtype: torch.dtype = torch.complex64, seed: int = 0
) -> dict[str, Tensor]:
    """Arguments of a system real or complex, as dtype is."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator)

    dtA = -0.1 * torch.rand(D, N, generator=generator)
    if dtype.is_complex:
        dtA = torch.complex(dtA, 3 * torch.rand(D, N, generator=generator))
    u = torch.randn(B, T, D, dtype=dtype.to_real(), generator=generator)
    return {"u": u, "C": noise(D, N), "dtA": dtA.to(dtype), "initial_state": noise(B, D, N)}


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 127, 1000])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float64])
def test_agrees_with_its_recurrence(T: int, dtype: torch.dtype) -> None:
    tolerance = 3e-6 if dtype == torch.complex64 else 1e-12
    assert_agrees(fast, naive, draw(2, T, dtype=dtype), tolerance=tolerance)
    assert_agrees(fast, naive, {**draw(2, T, dtype=dtype), "reset": random_reset(2, T, rate=0.05)}, tolerance=tolerance)


@pytest.mark.parametrize("B, D, N", [(1, 1, 1), (3, 7, 33), (5, 2, 70)])
def test_agrees_for_odd_sizes(B: int, D: int, N: int) -> None:
    assert_agrees(fast, naive, draw(B, 70, D=D, N=N), tolerance=3e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_input_of_another_type_than_the_system(dtype: torch.dtype) -> None:
    call = draw(2, 70)
    call["u"] = call["u"].to(dtype)
    assert_agrees(fast, naive, call, tolerance=1e-2 if dtype == torch.bfloat16 else 2e-3)
    assert fast(**call)[0].dtype == dtype


@pytest.mark.parametrize("real", [("C",), ("dtA",), ("initial_state",)])
def test_real_and_complex_arguments_mix(real: tuple[str, ...]) -> None:
    call = {name: value.real if name in real else value for name, value in draw(2, 70).items()}
    assert_agrees(fast, naive, call, tolerance=3e-6)


def test_strided_arguments() -> None:
    assert_agrees(fast, naive, {name: strided(value) for name, value in draw(2, 70).items()}, tolerance=3e-6)


@pytest.mark.parametrize("T", [7, 64, 333])
@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
def test_is_the_convolution_with_its_vandermonde_kernel(T: int, dtype: torch.dtype) -> None:
    call = draw(2, T, dtype=dtype)
    del call["initial_state"]

    def convolution(u: Tensor, C: Tensor, dtA: Tensor) -> Tensor:
        return fft_convolution(u, vandermonde_kernel(C, dtA, u.shape[1], backend="naive"), backend="naive")

    assert_agrees(lambda **keywords: fast(**keywords)[0], convolution, call, tolerance=1e-12)


@given(st.integers(1, 150), st.integers(1, 150), st.booleans(), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_two_scans_with_the_state_between_equal_one(T1: int, T2: int, packed: bool, seed: int) -> None:
    whole: dict[str, Any] = draw(2, T1 + T2, dtype=torch.complex128, seed=seed)
    reset = random_reset(2, T1 + T2, seed=seed, rate=0.05) if packed else None
    y, final = fast(**whole, reset=reset)
    u, state, pieces = whole.pop("u"), whole.pop("initial_state"), []
    for part in (slice(0, T1), slice(T1, None)):
        cut = None if reset is None else reset[:, part]
        piece, state = fast(u[:, part], **whole, initial_state=state, reset=cut)
        pieces.append(piece)
    assert_close("y", torch.cat(pieces, dim=1), y, 1e-12)
    assert_close("final state", state, final, 1e-12)


def test_nothing_crosses_a_reset_not_even_nan() -> None:
    call: dict[str, Any] = draw(1, 200)
    call["u"][0, 3], call["u"][0, 190] = torch.nan, torch.inf
    call["reset"] = torch.zeros(1, 200, dtype=torch.bool)
    call["reset"][0, [6, 64, 70, 180]] = True
    leaf = call["u"].requires_grad_()
    y, _ = fast(**call)
    assert torch.isfinite(y[:, 6:180]).all()
    for part in (slice(6, 64), slice(64, 70), slice(70, 180)):
        (gradient,) = torch.autograd.grad(y[:, part].sum(), leaf, retain_graph=True)
        assert gradient[:, part].abs().min() > 0
        gradient[:, part] = 0
        assert gradient.abs().max() == 0, part


def test_a_later_step_changes_no_bit_of_an_earlier_one() -> None:
    call = draw(2, 200)
    y, _ = fast(**call)
    call["u"][:, 100:] += 1
    changed, _ = fast(**call)
    assert torch.equal(y[:, :100], changed[:, :100])
    assert not torch.equal(y[:, 100:], changed[:, 100:])


def test_a_hundred_thousand_steps_keep_single_precision() -> None:
    T = 100_001
    u = torch.randn(1, T, 1, generator=torch.Generator().manual_seed(0))
    C, dtA = torch.ones(1, 1, dtype=torch.complex64), torch.tensor([[-5e-5 + 2.9j]], dtype=torch.complex64)
    wide = (C.to(torch.complex128), dtA.to(torch.complex128))
    (y, state), (exact, exact_state) = fast(u, C, dtA), fast(u.double(), *wide)
    assert_close("y", y, exact, 2e-5)
    assert_close("final state", state, exact_state, 2e-5)


def test_the_form_in_chunks_makes_no_tensor_of_every_state() -> None:
    """One state every 64 steps: with 32 complex states the largest array is as large as u."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for one in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(one, Tensor):
                    largest = max(largest, one.numel())
            return result

    call = {name: value.requires_grad_() for name, value in draw(8, 2048, D=2, N=32).items()}
    with Watch():
        y, _ = fast(**call)
        y.sum().backward()
    assert call["u"].numel() <= largest <= 2 * call["u"].numel()


def test_repeatable() -> None:
    assert_repeatable(fast, {**draw(2, 130), "reset": random_reset(2, 130, rate=0.05)})


def test_second_derivative_raises() -> None:
    assert_second_derivative_raises(fast, draw(1, 4, dtype=torch.float64))


@pytest.mark.parametrize("packed", [False, True])
def test_operator_passes_opcheck(packed: bool) -> None:
    from ssmfin_kernels.diagonal_scan.cpu import scan

    x = [torch.randn(size, requires_grad=True) for size in ((2, 70, 3), (3, 2, 2), (3, 2, 2), (2, 3, 2, 2))]
    with torch.no_grad():
        x[2][..., 0] = -x[2][..., 0].abs()
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(scan, (*x, random_reset(2, 70) if packed else None, 2.0), test_utils=utilities)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of inductor, while it is imported
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
def test_compiles_in_one_graph() -> None:
    def layer(u: Tensor, C: Tensor, dtA: Tensor) -> Tensor:
        return diagonal_scan(u, torch.view_as_complex(C), torch.view_as_complex(dtA))[0] * 2

    call = draw(2, 70)
    call = {"u": call["u"], **{name: torch.view_as_real(call[name]).clone() for name in ("C", "dtA")}}
    found = values_and_gradients(torch.compile(layer, fullgraph=True), call)
    for one, other in zip(found, values_and_gradients(layer, call), strict=True):
        for name in other:
            assert_close(name, one[name], other[name], 1e-5)


def test_autocast_leaves_the_products_in_single_precision() -> None:
    call = draw(2, 130)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, final = fast(**call)
    plain, plain_final = fast(**call)
    assert torch.equal(y, plain)
    assert torch.equal(final, plain_final)


def test_empty_batches_are_allowed() -> None:
    call = draw(0, 4)
    y, final = diagonal_scan(**call)
    assert y.shape == (0, 4, 3)
    assert final.shape == (0, 3, 5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"u": torch.zeros(2, 3)}, r"u has shape \(2, 3\), expected \(B, T, D\)"),
        ({"u": torch.zeros(2, 0, 3)}, r"u has shape \(2, 0, 3\), expected T of at least 1"),
        ({"u": torch.zeros(2, 4, 3, dtype=torch.complex64)}, "u has dtype complex64, expected float16"),
        ({"C": torch.zeros(4, 5)}, r"C has shape \(4, 5\), expected \(D, N\) with D = 3"),
        ({"dtA": torch.zeros(3, 4)}, r"dtA has shape \(3, 4\), expected \(D, N\) with D = 3, N = 5"),
        ({"dtA": torch.zeros(3, 5, dtype=torch.float16)}, "dtA has dtype float16, expected float32"),
        ({"initial_state": torch.zeros(2, 3, 4)}, r"initial_state has shape \(2, 3, 4\), expected \(B, D, N\)"),
        (
            {"initial_state": torch.zeros(2, 3, 5, dtype=torch.complex64)},
            "initial_state is complex, expected a real one",
        ),
        ({"reset": torch.zeros(2, 4)}, "reset has dtype float32, expected bool"),
        ({"backend": "gpu"}, "backend is 'gpu', which diagonal_scan cannot use here"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=message):
        diagonal_scan(**{"u": torch.zeros(2, 4, 3), "C": torch.zeros(3, 5), "dtA": torch.zeros(3, 5), **change})
