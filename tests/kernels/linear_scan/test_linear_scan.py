"""Owns the properties of the linear scan on a CPU: it agrees with its definition, splits, packs, can be traced."""

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

from ssmfin_kernels import linear_scan

fast = functools.partial(linear_scan, backend="cpu")
naive = functools.partial(linear_scan, backend="naive")
pytest.importorskip("numba", reason="the fast CPU implementation needs it")


def draw(B: int, T: int, D: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(B, T, D, dtype=dtype, generator=generator) * 0.7
    b = torch.randn(B, T, D, dtype=dtype, generator=generator)
    return {"a": a, "b": b, "initial_state": torch.randn(B, D, dtype=dtype, generator=generator)}


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 127, 1000, 2049])
@pytest.mark.parametrize("reverse", [False, True])
def test_agrees_with_its_definition(T: int, reverse: bool) -> None:
    assert_agrees(fast, naive, {**draw(2, T, 3), "reverse": reverse})
    assert_agrees(fast, naive, {**draw(2, T, 3), "reverse": reverse, "reset": random_reset(2, T)})


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.complex128, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reverse", [False, True])
def test_agrees_in_every_type(dtype: torch.dtype, reverse: bool) -> None:
    assert_agrees(fast, naive, {**draw(3, 65, 5, dtype), "reverse": reverse, "reset": random_reset(3, 65)})


@pytest.mark.parametrize("B, D", [(1, 1), (1, 17), (5, 1), (3, 33), (1, 1300)])
def test_agrees_for_odd_widths_and_blocks_of_channels(B: int, D: int) -> None:
    assert_agrees(fast, naive, draw(B, 9, D))


@pytest.mark.parametrize("result", [0, 1])
def test_gradient_of_one_result_alone(result: int) -> None:
    assert_agrees(lambda **x: fast(**x)[result], lambda **x: naive(**x)[result], draw(2, 11, 3))


def test_agrees_for_strided_arguments() -> None:
    arguments = {name: strided(value) for name, value in draw(2, 31, 5).items()}
    assert not arguments["a"].is_contiguous()
    assert_agrees(fast, naive, arguments)


def test_real_coefficients_drive_complex_inputs() -> None:
    arguments = draw(2, 9, 3, torch.complex64)
    arguments["a"] = arguments["a"].real.contiguous()
    assert_agrees(fast, naive, arguments)


def test_without_initial_state() -> None:
    arguments = draw(2, 20, 3)
    del arguments["initial_state"]
    assert_agrees(fast, naive, arguments)


@given(st.integers(1, 30), st.integers(1, 30), st.booleans(), st.booleans(), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_two_scans_with_carry_equal_one(T1: int, T2: int, reverse: bool, packed: bool, seed: int) -> None:
    whole = draw(2, T1 + T2, 3, torch.float64, seed)
    reset = random_reset(2, T1 + T2, seed=seed) if packed else None
    h, final = fast(**whole, reset=reset, reverse=reverse)
    pieces: list[tuple[slice, Tensor]] = []
    carry = whole["initial_state"]
    order = [slice(0, T1), slice(T1, None)]
    for part in reversed(order) if reverse else order:
        cut = None if reset is None else reset[:, part]
        if reverse and reset is not None and part.start == 0:
            # the boundary at T1 belongs to the second piece, whose walk ended there
            carry = torch.where(reset[:, T1, None], 0, carry)
        piece, carry = fast(whole["a"][:, part], whole["b"][:, part], initial_state=carry, reset=cut, reverse=reverse)
        pieces.append((part, piece))
    for part, piece in pieces:
        assert torch.equal(piece, h[:, part])
    assert torch.equal(carry, final)


@pytest.mark.parametrize("reverse", [False, True])
def test_reset_equals_separate_runs_gradients_included(reverse: bool) -> None:
    arguments = draw(1, 20, 3, torch.float64)
    reset = torch.zeros(1, 20, dtype=torch.bool)
    reset[0, [4, 5, 13]] = True

    def separate(a: Tensor, b: Tensor, initial_state: Tensor) -> Tensor:
        parts = [slice(0, 4), slice(4, 5), slice(5, 13), slice(13, 20)]
        first = parts[-1] if reverse else parts[0]
        return torch.cat(
            [
                fast(a[:, p], b[:, p], initial_state=initial_state if p == first else None, reverse=reverse)[0]
                for p in parts
            ],
            dim=1,
        )

    def packed(**keywords: Any) -> Tensor:
        return fast(**keywords, reset=reset, reverse=reverse)[0]

    found, exact = values_and_gradients(packed, arguments), values_and_gradients(separate, arguments)
    for one, other in zip(found, exact, strict=True):
        for name in one:
            assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("backend", ["cpu", "naive"])
def test_nothing_crosses_a_reset_not_even_nan(backend: str) -> None:
    arguments = draw(1, 10, 2)
    arguments["b"][0, 3, 0] = torch.nan
    arguments["a"][0, 4, 1] = torch.inf
    reset = torch.zeros(1, 10, dtype=torch.bool)
    reset[0, 6] = True
    _, gradients = values_and_gradients(
        lambda **keywords: linear_scan(**keywords, backend="cpu")[0][:, 6:], {**arguments, "reset": reset}
    )
    h, _ = linear_scan(**arguments, reset=reset, backend=backend)
    assert torch.isfinite(h[:, 6:]).all()
    for name in ("gradient of a", "gradient of b"):
        assert torch.isfinite(gradients[name][:, 6:]).all()
    # further back the infinite coefficient of that sequence itself makes 0 x inf
    assert (gradients["gradient of b"][:, 4:6] == 0).all()


def test_repeatable_and_the_same_for_any_number_of_threads() -> None:
    arguments = draw(3, 200, 70)
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


def test_two_hundred_thousand_steps_keep_single_precision() -> None:
    T = 200_000
    a = 1 - torch.rand(1, T, 3, generator=torch.Generator().manual_seed(0)) * 1e-4  # a memory of 20,000 steps
    b = torch.randn(1, T, 3, generator=torch.Generator().manual_seed(1))
    h, _ = fast(a, b)
    exact, _ = fast(a.double(), b.double())  # float64 on the CPU is held against naive above
    assert_close("h", h, exact, 2e-5)


def test_second_derivative_raises_and_naive_has_it() -> None:
    arguments = draw(1, 4, 2, torch.float64)
    assert_second_derivative_raises(fast, arguments)
    leaves = tuple(x.requires_grad_() for x in arguments.values())
    assert torch.autograd.gradgradcheck(lambda a, b, s: naive(a, b, initial_state=s), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_operators_pass_opcheck(dtype: torch.dtype) -> None:
    from ssmfin_kernels.linear_scan.cpu import linear_scan_cpu, linear_scan_cpu_backward

    x = {name: value.requires_grad_() for name, value in draw(2, 5, 3, dtype).items()}
    reset = random_reset(2, 5)
    # schema, autograd registration and fake twin; the fourth utility, tracing with dynamic shapes, is compile's test
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(linear_scan_cpu, (x["a"], x["b"], x["initial_state"], reset, True), test_utils=utilities)
    plain = {name: value.detach() for name, value in x.items()}
    torch.library.opcheck(
        linear_scan_cpu_backward,
        (plain["a"], plain["b"], None, None, plain["b"], plain["initial_state"], False),
        test_utils=utilities[:3],
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own import
def test_compiles_without_graph_breaks() -> None:
    arguments = draw(2, 16, 4)

    def layer(a: Tensor, b: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
        h, final = linear_scan(torch.sigmoid(a), b, initial_state=initial_state)
        return h * 2, final

    compiled = torch.compile(layer, fullgraph=True)
    found, exact = values_and_gradients(compiled, arguments), values_and_gradients(layer, arguments)
    for one, other in zip(found, exact, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_mixes_types_and_keeps_the_state_in_float32(dtype: torch.dtype) -> None:
    a = torch.full((1, 600, 2), 0.999)
    x = torch.ones(1, 600, 2)
    with torch.autocast("cpu", dtype=dtype):
        b = torch.nn.functional.linear(x, torch.eye(2))
        assert b.dtype == dtype
        h, _ = linear_scan(a, b)
    assert h.dtype == torch.float32
    exact, _ = linear_scan(a.double(), x.double(), backend="naive")
    # a state kept in half precision stops growing where 0.001 of it is a rounding error, at half the limit
    assert_close("h", h, exact, 1e-5)
    narrow, _ = linear_scan(a.to(dtype), b)
    exact, _ = linear_scan(a.to(dtype).double(), x.double(), backend="naive")
    assert narrow.dtype == dtype
    assert_close("h", narrow, exact, 1e-2)


def test_empty_batches_are_allowed() -> None:
    h, final = linear_scan(torch.zeros(0, 4, 3), torch.zeros(0, 4, 3))
    assert h.shape == (0, 4, 3)
    assert final.shape == (0, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"a": torch.zeros(2, 3)}, r"a has shape \(2, 3\), expected \(B, T, D\)"),
        ({"a": torch.zeros(2, 0, 3)}, r"a has shape \(2, 0, 3\), expected T of at least 1"),
        ({"b": torch.zeros(2, 5, 4)}, r"b has shape \(2, 5, 4\), expected \(B, T, D\) with B = 2, T = 5, D = 3"),
        ({"b": torch.zeros(2, 5, 3, dtype=torch.int64)}, "b has dtype int64, expected float16"),
        ({"initial_state": torch.zeros(3, 3)}, r"initial_state has shape \(3, 3\), expected \(B, D\) with B = 2"),
        ({"reset": torch.zeros(2, 5)}, "reset has dtype float32, expected bool"),
        ({"reset": torch.zeros(2, 4, dtype=torch.bool)}, r"reset has shape \(2, 4\), expected \(B, T\)"),
        ({"backend": "cuda"}, "backend is 'cuda', expected None, 'naive', 'cpu' or 'gpu'"),
        ({"backend": "gpu"}, "backend is 'gpu', which linear_scan cannot use here"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=message):
        linear_scan(**{"a": torch.zeros(2, 5, 3), "b": torch.zeros(2, 5, 3), **change})
