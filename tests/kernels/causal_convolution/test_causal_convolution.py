"""Owns the properties of the causal convolution on a CPU: its definition, torch's own convolution, carry, resets."""

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

from ssmfin_kernels import causal_convolution

pytest.importorskip("numba", reason="the fast CPU implementation needs it")
fast = functools.partial(causal_convolution, backend="cpu")
naive = functools.partial(causal_convolution, backend="naive")


def draw(B: int, T: int, D: int, K: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (B, T, D), "weight": (D, K), "bias": (D,), "initial_state": (B, K - 1, D)}
    return {name: torch.randn(shape, dtype=dtype, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 127, 1000, 2049])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_agrees_with_its_definition(T: int, activation: str | None) -> None:
    assert_agrees(fast, naive, {**draw(2, T, 3, 4), "activation": activation})
    assert_agrees(fast, naive, {**draw(2, T, 3, 4), "activation": activation, "reset": random_reset(2, T)})


@pytest.mark.parametrize("K", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("packed", [False, True])
def test_agrees_for_any_number_of_taps(K: int, packed: bool) -> None:
    for T in (1, 4, 20):
        assert_agrees(fast, naive, {**draw(2, T, 3, K), "reset": random_reset(2, T) if packed else None})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_agrees_in_every_type(dtype: torch.dtype) -> None:
    arguments = {**draw(3, 65, 5, 4, dtype), "activation": "silu", "reset": random_reset(3, 65)}
    # the sum of 195 products that is a gradient of a tap arrives rounded to the type, as everything else does
    assert_agrees(fast, naive, arguments)


def test_gradient_of_one_result_alone() -> None:
    x = draw(1, 7, 3, 4)
    assert_agrees(lambda **x: fast(**x)[0], lambda **x: naive(**x)[0], x)
    (found,), (exact,) = (
        torch.autograd.grad(run(x["x"].requires_grad_(), x["weight"])[1].sum(), x["x"]) for run in (fast, naive)
    )
    assert torch.equal(found, exact)


@pytest.mark.parametrize("B, D", [(1, 1), (5, 1), (3, 33), (1, 1300)])
def test_agrees_for_odd_widths_and_blocks_of_channels(B: int, D: int) -> None:
    assert_agrees(fast, naive, {**draw(B, 9, D, 4), "activation": "silu"})


def test_agrees_for_strided_arguments_and_without_optional_ones() -> None:
    arguments = draw(2, 31, 5, 4)
    assert_agrees(fast, naive, {name: strided(value) for name, value in arguments.items()})
    assert_agrees(fast, naive, {name: arguments[name] for name in ("x", "weight")})


def test_definition_equals_torch_convolution() -> None:
    x = draw(2, 30, 5, 4, torch.float64)
    padded = torch.nn.functional.conv1d(x["x"].mT, x["weight"][:, None], x["bias"], groups=5, padding=3)
    exact = torch.nn.functional.silu(padded[..., :30]).mT
    y, state = naive(x["x"], x["weight"], x["bias"], activation="silu")
    assert_close("y", y, exact, 1e-14)
    assert torch.equal(state, x["x"][:, -3:])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_two_calls_with_carry_equal_one(T1: int, T2: int, K: int, packed: bool, seed: int) -> None:
    arguments = draw(2, T1 + T2, 3, K, torch.float64, seed)
    reset = random_reset(2, T1 + T2, seed=seed, rate=0.3) if packed else torch.zeros(2, T1 + T2, dtype=torch.bool)
    y, final = fast(**arguments, reset=reset)
    x = arguments.pop("x")
    first, carry = fast(x[:, :T1], **arguments, reset=reset[:, :T1])
    second, last = fast(x[:, T1:], **{**arguments, "initial_state": carry}, reset=reset[:, T1:])
    assert_close("y", torch.cat([first, second], dim=1), y, 1e-14)
    assert torch.equal(last, final)


@pytest.mark.parametrize("backend", ["cpu", "naive"])
def test_reset_equals_separate_runs_gradients_included(backend: str) -> None:
    arguments = draw(1, 20, 3, 4, torch.float64)
    reset = torch.zeros(1, 20, dtype=torch.bool)
    reset[0, [4, 5, 13]] = True
    run = functools.partial(causal_convolution, backend=backend, activation="silu")

    def separate(x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            run(x[:, lo:hi], weight, bias, initial_state=initial_state if lo == 0 else None)
            for lo, hi in ((0, 4), (4, 5), (5, 13), (13, 20))
        ]
        return torch.cat([y for y, _ in parts], dim=1), parts[-1][1]

    found = values_and_gradients(run, {**arguments, "reset": reset})
    exact = values_and_gradients(separate, arguments)
    for one, other in zip(found, exact, strict=True):
        for name in one:
            assert_close(name, one[name], other[name], 1e-14)


@pytest.mark.parametrize("backend", ["cpu", "naive"])
def test_nothing_crosses_a_reset_not_even_nan(backend: str) -> None:
    arguments = draw(1, 10, 2, 4)
    arguments["x"][0, 3] = torch.nan
    reset = torch.zeros(1, 10, dtype=torch.bool)
    reset[0, 4] = True
    y, state = causal_convolution(**arguments, reset=reset, backend=backend)
    assert torch.isfinite(y[:, 4:]).all()
    assert torch.isfinite(state).all()


def test_repeatable_and_the_same_for_any_number_of_threads() -> None:
    arguments = {**draw(3, 100, 70, 4), "activation": "silu"}
    assert_repeatable(fast, arguments)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(values_and_gradients(fast, arguments))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        for name in one:
            assert torch.equal(one[name], other[name]), name


def test_second_derivative_raises_and_naive_has_it() -> None:
    arguments = draw(1, 4, 2, 3, torch.float64)
    assert_second_derivative_raises(functools.partial(fast, activation="silu"), arguments)
    leaves = tuple(value.requires_grad_() for value in arguments.values())

    def run(x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
        return naive(x, weight, bias, initial_state=initial_state, activation="silu")

    assert torch.autograd.gradgradcheck(run, leaves)


def test_operators_pass_opcheck() -> None:
    from ssmfin_kernels.causal_convolution.cpu import causal_convolution_cpu, causal_convolution_cpu_backward

    x = draw(2, 5, 3, 4)
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    leaves = [value.clone().requires_grad_() for value in x.values()]
    torch.library.opcheck(causal_convolution_cpu, (*leaves, random_reset(2, 5), True), test_utils=utilities)
    arguments = (x["x"], x["weight"], x["bias"], x["initial_state"], None, x["x"], x["initial_state"], True)
    torch.library.opcheck(causal_convolution_cpu_backward, arguments, test_utils=utilities[:3])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own import
def test_compiles_without_graph_breaks() -> None:
    arguments = draw(2, 16, 4, 4)

    def layer(x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor) -> Tensor:
        y, _ = causal_convolution(x * 2, weight, bias, activation="silu", initial_state=initial_state)
        return torch.tanh(y)

    compiled = torch.compile(layer, fullgraph=True)
    found, exact = values_and_gradients(compiled, arguments), values_and_gradients(layer, arguments)
    for one, other in zip(found, exact, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name])


def test_autocast_mixes_types() -> None:
    arguments = draw(2, 16, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.nn.functional.linear(arguments["x"], torch.eye(4))
        y, _ = causal_convolution(**{**arguments, "x": x})
    assert x.dtype == torch.bfloat16
    assert y.dtype == torch.float32
    assert_close("y", y, naive(**{**arguments, "x": x.float()})[0], 1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.zeros(2, 3)}, r"x has shape \(2, 3\), expected \(B, T, D\)"),
        ({"x": torch.zeros(2, 5, 3, dtype=torch.complex64)}, "x has dtype complex64, expected float16"),
        ({"weight": torch.zeros(4, 3)}, r"weight has shape \(4, 3\), expected \(D, K\) with D = 3"),
        ({"weight": torch.zeros(3, 0)}, r"weight has shape \(3, 0\), expected K of at least 1"),
        ({"bias": torch.zeros(4)}, r"bias has shape \(4,\), expected \(D,\) with D = 3"),
        ({"initial_state": torch.zeros(2, 4, 3)}, r"initial_state has shape \(2, 4, 3\), expected \(B, K-1, D\)"),
        ({"activation": "relu"}, "activation is 'relu', expected None or 'silu'"),
        ({"reset": torch.zeros(2, 5)}, "reset has dtype float32, expected bool"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        causal_convolution(**{"x": torch.zeros(2, 5, 3), "weight": torch.zeros(3, 4), **change})
