"""chunk_scan on the CPU: the fast twin against the recurrence in float64, and the identities the scan must obey."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels_support.compare import (
    TOLERANCE,
    assert_agrees,
    assert_close,
    assert_repeatable,
    assert_second_derivative_raises,
    random_reset,
    strided,
    values_and_gradients,
)
from torch import Tensor

from ssmfin_kernels import chunk_scan, dispatch

FAST = functools.partial(chunk_scan, backend="cpu", dt_softplus=True)
NAIVE = functools.partial(chunk_scan, backend="naive", dt_softplus=True)


def arguments(
    T: int,
    *,
    B: int = 2,
    H: int = 4,
    P: int = 3,
    G: int = 2,
    N: int = 5,
    resets: bool = True,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    """Every argument of chunk_scan but dt_softplus; dt and what belongs to it stay in at least float32."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.promote_types(dtype, torch.float32)

    def noise(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    return {
        "x": noise(B, T, H, P),
        "dt": noise(B, T, H, dtype=wide),
        "A": -torch.rand(H, dtype=torch.float64, generator=generator).to(wide),
        "B": noise(B, T, G, N),
        "C": noise(B, T, G, N),
        "D": noise(H, dtype=wide),
        "z": noise(B, T, H, P),
        "dt_bias": noise(H, dtype=wide),
        "initial_state": noise(B, H, P, N, dtype=wide),
        "reset": random_reset(B, T, rate=0.05, seed=seed) if resets else None,
    }


def tied_selective_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Mamba's recurrence over channels d = (h, p), each with its own row A_dn; here every row of a head is A_h."""
    batch, T, H, P = x.shape
    u, delta = x.reshape(batch, T, H * P), dt.repeat_interleave(P, dim=2)
    rows = A.repeat_interleave(P)[:, None].expand(-1, B.shape[3])  # (D, N)
    B, C = (tensor.repeat_interleave(H * P // B.shape[2], dim=2) for tensor in (B, C))  # (B, T, D, N)
    state, ys = torch.zeros(batch, H * P, B.shape[3], dtype=x.dtype), []
    for t in range(T):
        state = torch.exp(delta[:, t, :, None] * rows) * state + (delta * u)[:, t, :, None] * B[:, t]
        ys.append((state * C[:, t]).sum(-1))
    return torch.stack(ys, dim=1).reshape(batch, T, H, P)


@pytest.mark.parametrize("T", [1, 2, 3, 63, 64, 65, 127, 1000])
def test_equals_the_recurrence_with_every_gradient(T: int) -> None:
    assert_agrees(FAST, NAIVE, arguments(T, seed=T), tolerance=2e-12)


@pytest.mark.slow
def test_equals_the_recurrence_on_a_long_sequence() -> None:
    assert_agrees(FAST, NAIVE, arguments(2049, resets=False), tolerance=5e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types_keep_the_digits_they_have(dtype: torch.dtype) -> None:
    # float32: sums over pairs of steps, of either sign
    tolerance = {torch.float32: 5e-6}.get(dtype, TOLERANCE[dtype])
    assert_agrees(FAST, NAIVE, arguments(127, P=17, N=9, dtype=dtype), tolerance=tolerance)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_heads_share_the_weights_of_their_group(groups: int) -> None:
    assert_agrees(FAST, NAIVE, arguments(70, H=4, G=groups, P=1, N=7))


@pytest.mark.parametrize("missing", ["D", "z", "dt_bias", "initial_state", "reset"])
def test_arguments_can_be_left_out(missing: str) -> None:
    call = arguments(67)
    del call[missing]
    assert_agrees(FAST, NAIVE, call)


def test_a_skip_weight_may_differ_within_a_head() -> None:
    assert_agrees(FAST, NAIVE, {**arguments(9), "D": torch.randn(4, 3, dtype=torch.float64)})


def test_strided_arguments() -> None:
    call = {name: strided(value) if isinstance(value, Tensor) else value for name, value in arguments(66).items()}
    assert_agrees(FAST, NAIVE, call)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_equals_a_selective_scan_whose_decay_is_tied_within_a_head(backend: str) -> None:
    call = arguments(70, resets=False)
    x, dt, A, B, C = call["x"], call["dt"].abs(), call["A"], call["B"], call["C"]
    y, _ = chunk_scan(x, dt, A, B, C, backend=backend)
    assert_close("y", y, tied_selective_scan(x, dt, A, B, C), 1e-12)


@settings(max_examples=20, deadline=None)
@given(T=st.integers(2, 150), cut=st.floats(0, 1), chunk_size=st.sampled_from([1, 7, 16, 64, 256]))
def test_two_parts_with_carry_equal_the_whole_for_any_chunk_size(T: int, cut: float, chunk_size: int) -> None:
    first = 1 + int(cut * (T - 2))
    call = arguments(T, B=1, H=2, G=1, seed=T)
    y, final = FAST(**call)
    timed = ("x", "dt", "B", "C", "z", "reset")
    head = {**call, **{name: call[name][:, :first] for name in timed}}
    tail = {**call, **{name: call[name][:, first:] for name in timed}}
    y_head, carry = FAST(**head, chunk_size=chunk_size)
    y_tail, last = FAST(**{**tail, "initial_state": carry}, chunk_size=chunk_size)
    assert_close("y", torch.cat((y_head, y_tail), dim=1), y, 1e-12)
    assert_close("final state", last, final, 1e-12)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_a_reset_separates_runs_in_values_and_gradients(backend: str) -> None:
    call = arguments(100, B=1, resets=False)
    run = functools.partial(chunk_scan, backend=backend, dt_softplus=True)
    at = 37
    call["reset"] = torch.arange(100)[None] == at
    weights = [torch.randn(1, 100, 4, 3, dtype=torch.float64), torch.zeros(1, 4, 3, 5, dtype=torch.float64)]
    weights[0][:, at:] = 0  # only outputs before the reset count: nothing after it may have a gradient
    _, before = values_and_gradients(run, call, weights=weights)
    for name in ("x", "dt", "B", "C"):
        assert before[f"gradient of {name}"][:, at:].abs().max() == 0
    weights[0][:, at:], weights[0][:, :at] = 1, 0
    values, after = values_and_gradients(run, call, weights=weights)
    for name in ("x", "dt", "B", "C"):
        assert after[f"gradient of {name}"][:, :at].abs().max() == 0
    assert after["gradient of initial_state"].abs().max() == 0
    timed = ("x", "dt", "B", "C", "z")
    alone = {**call, **{name: call[name][:, at:] for name in timed}, "reset": None, "initial_state": None}
    exact, gradients = values_and_gradients(run, alone, weights=[weights[0][:, at:], weights[1]])
    assert_close("y", values["output 0"][:, at:], exact["output 0"], 1e-12)
    for name in timed:
        assert_close(name, after[f"gradient of {name}"][:, at:], gradients[f"gradient of {name}"], 1e-12)


def test_gradients_by_finite_differences() -> None:
    call = arguments(5, B=1, H=2, G=1, P=2, N=2)
    names = [name for name, value in call.items() if isinstance(value, Tensor) and value.is_floating_point()]

    def run(*tensors: Tensor) -> Any:
        return FAST(**{**call, **dict(zip(names, tensors, strict=True))})

    assert torch.autograd.gradcheck(run, [call[name].requires_grad_() for name in names])


@pytest.mark.parametrize("A, dt", [(-1e4, 50.0), (-1e4, 1e-6), (-1e-3, 1e-6), (-16.0, 6.0)])
def test_extreme_decays_stay_finite_and_exact(A: float, dt: float) -> None:
    """Steps that forget everything (exp(-5e5)) beside steps that forget nothing, whose digits they must not cost."""
    call = arguments(130, B=1, H=2, G=1, dtype=torch.float32)
    call["A"] = torch.full((2,), A)
    call["dt"] = torch.where(torch.rand(1, 130, 2, generator=torch.Generator().manual_seed(0)) < 0.3, dt, 1e-6)
    call["dt"][:, 0] = 1e-6  # exp(-96) of the initial state is denormal, without digits in any algorithm
    del call["dt_bias"]
    fast, naive = (functools.partial(chunk_scan, backend=backend) for backend in ("cpu", "naive"))
    assert_agrees(fast, naive, call, tolerance=5e-6)


def test_two_calls_give_the_same_bits() -> None:
    assert_repeatable(FAST, arguments(130, dtype=torch.float32))


def test_operator_is_registered_as_torch_wants_it() -> None:
    from ssmfin_kernels.chunk_scan.cpu import _scan

    call = arguments(70, B=1, H=2, G=1)
    D = call["D"][:2, None].expand(2, 3).contiguous()
    dt = call["dt"].abs().contiguous()
    tensors = [call["x"], dt, dt * call["A"], call["B"], call["C"], D, call["initial_state"]]
    for tensor in tensors:
        tensor.requires_grad_()
    tensors[2] = tensors[2].detach().requires_grad_()
    for reset in (None, call["reset"]):
        torch.library.opcheck(_scan, (*tensors, reset, 64))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of inductor, while it is imported
def test_compiles_in_one_graph() -> None:
    call = arguments(66, B=1, H=2, G=1, dtype=torch.float32)
    compiled = torch.compile(FAST, fullgraph=True)
    found, exact = values_and_gradients(compiled, call), values_and_gradients(FAST, call)
    for one, other in zip(found, exact, strict=True):
        for name in other:
            assert_close(name, one[name], other[name], 1e-6)


def test_autocast_mixes_types() -> None:
    call = arguments(20, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        projected = call["x"] @ torch.eye(3)  # bfloat16, as a projection under autocast leaves it
        y, state = FAST(**{**call, "x": projected})
    assert projected.dtype == y.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    exact, _ = NAIVE(**{**call, "x": projected})
    assert_close("y", y, exact, TOLERANCE[torch.bfloat16])


def test_autocast_leaves_the_products_in_single_precision() -> None:
    call = arguments(130, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = values_and_gradients(FAST, call)
    for one, other in zip(found, values_and_gradients(FAST, call), strict=True):
        for name in other:
            assert torch.equal(one[name], other[name]), name


def test_float64_on_a_gpu_is_computed_in_plain_torch_and_refused_where_triton_is_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch.Operation, "choose", lambda self, tensor, backend=None: backend or "gpu")
    assert_agrees(functools.partial(chunk_scan, dt_softplus=True), NAIVE, arguments(70))
    with pytest.raises(ValueError, match="dtype float64, expected float32, bfloat16 or float16 on backend 'gpu'"):
        chunk_scan(**arguments(3), backend="gpu")


def test_second_derivative_raises() -> None:
    assert_second_derivative_raises(FAST, arguments(5))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.ones(2, 8, 4)}, r"x has shape \(2, 8, 4\), expected \(B, T, H, P\)"),
        ({"dt": torch.ones(2, 8, 3)}, r"dt has shape \(2, 8, 3\), expected \(B, T, H\)"),
        ({"A": torch.ones(4, 2)}, r"A has shape \(4, 2\), expected \(H,\)"),
        ({"B": torch.ones(2, 8, 3, 5), "C": torch.ones(2, 8, 3, 5)}, r"B has 3 groups \(G\), expected a divisor of H"),
        ({"C": torch.ones(2, 8, 2, 6)}, r"C has shape \(2, 8, 2, 6\), expected \(B, T, G, N\)"),
        ({"D": torch.ones(4, 2)}, r"D has shape \(4, 2\), expected \(H, P\)"),
        ({"initial_state": torch.ones(2, 4, 5, 3)}, r"initial_state has shape \(2, 4, 5, 3\)"),
        ({"reset": torch.ones(2, 8)}, "reset has dtype float32, expected bool"),
        ({"x": torch.ones(2, 8, 4, 3, dtype=torch.int64)}, "x has dtype int64"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"backend": "tpu"}, "backend is 'tpu'"),
    ],
)
def test_names_the_wrong_argument(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chunk_scan(**{**arguments(8, dtype=torch.float32), **change})
