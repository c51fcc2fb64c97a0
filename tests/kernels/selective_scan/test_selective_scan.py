"""Owns the selective scan on the CPU: agreement with its definition, carries, resets, extremes, torch's machinery."""

from __future__ import annotations

import functools
import math
import threading
from typing import Any

import pytest
import torch
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

from ssmfin_kernels import selective_scan, selective_state_update
from ssmfin_kernels.selective_scan import operators

pytest.importorskip("numba", reason="the fast twin needs numba")

fast = functools.partial(selective_scan, backend="cpu")
naive = functools.partial(selective_scan, backend="naive")
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
LENGTHS = [1, 2, 3, 63, 64, 65, 127]


def draw(B: int, T: int, D: int, N: int, G: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1000 * T + D)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    small = torch.float64 if dtype == torch.float64 else torch.float32  # parameters stay in single precision
    return {
        "u": normal(B, T, D),
        "delta": normal(B, T, D) - 1,
        "A": -4 * torch.rand(D, N, generator=generator).to(small),
        "B": normal(B, T, G, N),
        "C": normal(B, T, G, N),
        "D": normal(D).to(small),
        "z": normal(B, T, D),
        "delta_bias": normal(D).to(small),
        "initial_state": normal(B, D, N).to(small),
        "delta_softplus": True,
    }


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("resets", [False, True])
def test_agrees_with_its_definition(T: int, resets: bool) -> None:
    assert_agrees(fast, naive, {**draw(2, T, 7, 3), "reset": random_reset(2, T) if resets else None})


@pytest.mark.parametrize("T", [1000, 2049])
def test_agrees_over_long_sequences(T: int) -> None:
    assert_agrees(fast, naive, {**draw(1, T, 3, 5), "reset": random_reset(1, T, rate=0.01)}, tolerance=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("T", [*LENGTHS, 1000])
def test_agrees_in_double_precision(T: int) -> None:
    assert_agrees(fast, naive, {**draw(2, T, 7, 3, dtype=torch.float64), "reset": random_reset(2, T)})


@pytest.mark.parametrize("D, G", [(6, 3), (130, 1), (132, 2), (1, 1)])
def test_groups_and_blocks_of_channels(D: int, G: int) -> None:
    assert_agrees(fast, naive, draw(2, 37, D, 5, G))


@pytest.mark.parametrize("absent", [*((name,) for name in OPTIONAL), OPTIONAL])
def test_each_option_may_be_absent(absent: tuple[str, ...]) -> None:
    arguments = {name: value for name, value in draw(2, 35, 5, 4).items() if name not in absent}
    assert_agrees(fast, naive, arguments)
    arguments["delta"] = arguments["delta"].abs()
    arguments["A"] = arguments["A"] * 0.3
    assert_agrees(fast, naive, {**arguments, "delta_softplus": False})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_single_precision_state(dtype: torch.dtype) -> None:
    arguments = draw(2, 127, 5, 4, dtype=dtype)
    assert_agrees(fast, naive, arguments)
    y, state = fast(**arguments)
    assert y.dtype == dtype
    assert state.dtype == torch.float32


def test_strided_arguments_and_weights_without_groups() -> None:
    arguments = {k: strided(v) if isinstance(v, Tensor) else v for k, v in draw(2, 9, 5, 4).items()}
    assert_agrees(fast, naive, arguments)
    flat = {**arguments, "B": arguments["B"][:, :, 0], "C": arguments["C"][:, :, 0]}
    assert_agrees(fast, naive, flat)
    torch.testing.assert_close(fast(**flat), fast(**arguments), rtol=0, atol=0)


@pytest.mark.parametrize("cut", [1, 31, 32, 50])
def test_two_halves_carried_over_equal_the_whole(cut: int) -> None:
    """Values and gradients: the initial state of the second half takes the gradient to the first."""
    arguments = draw(2, 70, 5, 4)

    def halves(**kwargs: Any) -> tuple[Tensor, Tensor]:
        first, second = dict(kwargs), dict(kwargs)
        for name in ("u", "delta", "B", "C", "z"):
            first[name], second[name] = kwargs[name][:, :cut], kwargs[name][:, cut:]
        y1, state = fast(**first)
        y2, state = fast(**{**second, "initial_state": state})
        return torch.cat([y1, y2], dim=1), state

    assert_agrees(halves, naive, arguments)


def test_reset_equals_separate_runs() -> None:
    """Packed sequences, which the usual kernel cannot take: nothing crosses, gradients included."""
    arguments = draw(1, 60, 5, 4)
    reset = torch.zeros(1, 60, dtype=torch.bool)
    reset[0, [17, 18, 49]] = True

    def separately(**kwargs: Any) -> tuple[Tensor, Tensor]:
        outputs = []
        for lo, hi in ((0, 17), (17, 18), (18, 49), (49, 60)):
            part = {n: kwargs[n][:, lo:hi] if n in ("u", "delta", "B", "C", "z") else kwargs[n] for n in kwargs}
            if lo:
                part["initial_state"] = None
            y, state = fast(**part)
            outputs.append(y)
        return torch.cat(outputs, dim=1), state

    together = values_and_gradients(functools.partial(fast, reset=reset), arguments)
    apart = values_and_gradients(separately, arguments)
    for found, expected in zip(together, apart, strict=True):
        for name in expected:
            assert_close(name, found[name], expected[name], 1e-6)


def test_what_lies_before_a_reset_does_not_matter_even_if_it_is_not_finite() -> None:
    arguments = draw(1, 40, 3, 2)
    reset = torch.zeros(1, 40, dtype=torch.bool)
    reset[0, 33] = True
    clean, state = fast(**arguments, reset=reset)
    arguments["u"][0, :33] = math.inf
    dirty, dirty_state = fast(**arguments, reset=reset)
    assert torch.equal(clean[:, 33:], dirty[:, 33:])
    assert torch.equal(state, dirty_state)


def test_single_steps_equal_the_scan() -> None:
    arguments = draw(2, 12, 6, 3, G=2)
    y, final = naive(**arguments)
    state = arguments.pop("initial_state")
    for t in range(12):
        now = {k: v[:, t] if k in ("u", "delta", "B", "C", "z") else v for k, v in arguments.items()}
        one, state = selective_state_update(state, **now)
        assert_close("y", one, y[:, t], 1e-6)
    assert_close("state", state, final, 1e-6)
    flat = {**now, "B": now["B"][:, 0], "C": now["C"][:, 0]}
    assert selective_state_update(state, **flat)[0].shape == (2, 6)


def test_single_step_is_differentiable_twice_and_keeps_its_state() -> None:
    arguments = draw(1, 1, 2, 2, dtype=torch.float64)
    state = arguments.pop("initial_state")
    kept = state.clone()
    now = {k: v[:, 0] if k in ("u", "delta", "B", "C", "z") else v for k, v in arguments.items()}
    inputs = tuple(now[k].requires_grad_() for k in ("u", "delta", "A", "B", "C"))
    rest = {k: v for k, v in now.items() if k not in ("u", "delta", "A", "B", "C")}

    def step(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        y, new = selective_state_update(state, *tensors, **rest)
        return y, new

    assert torch.autograd.gradcheck(step, inputs)
    assert torch.autograd.gradgradcheck(step, inputs)
    assert torch.equal(state, kept)


def test_scan_of_a_constant_system_equals_the_closed_form() -> None:
    """h_t = b (1 - a^(t+1)) / (1 - a): an oracle that shares no code with naive."""
    T, rate = 50, 0.3
    one = torch.ones(1, T, 1)
    y, _ = fast(one, one * 0.5, torch.tensor([[-rate]]), one, one * 2)
    a = math.exp(-0.5 * rate)
    expected = [2 * 0.5 * (1 - a ** (t + 1)) / (1 - a) for t in range(T)]
    torch.testing.assert_close(y.flatten(), torch.tensor(expected), rtol=2e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_steps_and_rates_give_no_nan(dtype: torch.dtype) -> None:
    arguments = draw(1, 96, 4, 4, dtype=dtype)
    steps = torch.logspace(-6, math.log10(50), 96).to(dtype)
    arguments["delta"] = steps[None, :, None].expand(1, 96, 4).contiguous()
    arguments["A"] = -torch.logspace(-6, 4, 16).reshape(4, 4)
    del arguments["delta_bias"]
    arguments["delta_softplus"] = False
    values, gradients = values_and_gradients(fast, arguments)
    exact, exact_gradients = values_and_gradients(naive, arguments, upcast=True)
    tolerance = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    for name, true in {**exact, **exact_gradients}.items():
        assert_close(name, {**values, **gradients}[name], true, tolerance)


def test_negative_logits_of_steps_keep_their_digits() -> None:
    """softplus(-13.8) is 1e-6: log(1 + e^x) in single precision would be off by several per cent."""
    arguments = draw(1, 20, 3, 2)
    arguments["delta"] = torch.full((1, 20, 3), -13.8)
    arguments["delta_bias"] = torch.tensor([0.0, -3.0, 3.0])
    assert_agrees(fast, naive, arguments)


@pytest.mark.slow
def test_two_hundred_thousand_steps_in_single_precision() -> None:
    T = 200_000
    arguments = draw(1, T, 2, 2)
    wide = {k: v.double() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    for name, found, exact in zip("ys", fast(**arguments), fast(**wide), strict=True):
        assert_close(name, found, exact, 2e-6)


def test_same_bits_in_every_run_and_with_any_number_of_threads() -> None:
    arguments = draw(4, 300, 96, 8)
    assert_repeatable(fast, arguments)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values, gradients = values_and_gradients(fast, arguments)
            results.append({**values, **gradients})
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        # dA, dD and the bias are summed over sequences by torch, whose order may follow its threads
        for name in ("output 0", "output 1", "gradient of u", "gradient of B", "gradient of C", "gradient of z"):
            assert torch.equal(results[0][name], other[name]), name


def test_calls_from_several_threads_at_once() -> None:
    arguments = draw(4, 200, 64, 8)
    expected, _ = fast(**arguments)
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(fast(**arguments)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(expected, y) for y in found)


def test_backward_keeps_no_expanded_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd holds on to is a small multiple of the arguments, where the loop holds (B, T, D, N) many times."""
    arguments = {k: v.requires_grad_() if isinstance(v, Tensor) else v for k, v in draw(2, 256, 32, 16).items()}
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fast(**arguments)
    assert sum(sizes) < 2 * sum(v.numel() for v in arguments.values() if isinstance(v, Tensor))
    assert max(sizes) < 2 * 256 * 32 * 16 / 8


def test_second_derivative_raises() -> None:
    assert_second_derivative_raises(fast, draw(1, 3, 2, 2))


def test_only_what_is_asked_for_is_kept_for_the_backward_pass() -> None:
    arguments = draw(1, 40, 3, 2)
    with torch.no_grad():
        y, _ = fast(**arguments)
    assert y.grad_fn is None
    arguments["A"].requires_grad_()
    y, _ = fast(**arguments)
    (gradient,) = torch.autograd.grad(y.sum(), [arguments["A"]])
    expected = torch.autograd.grad(naive(**arguments)[0].sum(), [arguments["A"]])[0]
    assert_close("gradient of A", gradient, expected, 2e-6)


@pytest.mark.parametrize("groups", [0, 2])
def test_past_the_operator_comes_what_the_operator_gives(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way of plain calls: values, gradients and their shapes, with and without the dimension of groups."""
    arguments = draw(2, 21, 6, 4, G=max(groups, 1))
    if not groups:
        arguments["B"], arguments["C"] = arguments["B"][:, :, 0], arguments["C"][:, :, 0]
    short = values_and_gradients(fast, arguments)
    monkeypatch.setattr(operators, "_observed", lambda tensors: True)
    long = values_and_gradients(fast, arguments)
    for found, expected in zip(short, long, strict=True):
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_dispatch_modes_see_the_operator() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        fast(**draw(1, 5, 3, 2))
    assert "ssmfin.selective_scan_cpu.default" in seen


def test_opcheck() -> None:
    from ssmfin_kernels.selective_scan.cpu import selective_scan_cpu

    for absent in ((), OPTIONAL):
        given = {k: None if k in absent else v for k, v in draw(1, 34, 3, 2).items()}
        leaves = {k: v.requires_grad_() if isinstance(v, Tensor) else v for k, v in given.items()}
        order = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
        call = (*(leaves[name] for name in order), random_reset(1, 34), True, True)
        torch.library.opcheck(selective_scan_cpu, call)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of inductor, while it is imported
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_a_break(compiler: str) -> None:
    arguments = draw(2, 10, 4, 3)
    compiled = torch.compile(fast, fullgraph=True, backend=compiler)
    expected = values_and_gradients(fast, arguments)
    found = values_and_gradients(compiled, arguments)
    for some, true in zip(found, expected, strict=True):
        for name in true:
            assert_close(name, some[name], true[name], 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_parameters_and_state_in_single_precision(dtype: torch.dtype) -> None:
    """A layer under autocast hands over half-precision activations and single-precision parameters."""
    arguments = draw(2, 20, 4, 3)
    projection = torch.nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=dtype):
        u = projection(arguments["u"])
        assert u.dtype == dtype
        y, state = fast(**{**arguments, "u": u})
        exact, _ = naive(**{**arguments, "u": u.double()})
        y.float().sum().backward()
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    assert_close("y", y.detach(), exact.detach(), {torch.bfloat16: 5e-3, torch.float16: 1e-3}[dtype])
    assert projection.weight.grad is not None
    assert torch.isfinite(projection.weight.grad).all()


def test_an_empty_batch_gives_empty_results() -> None:
    arguments = {k: v[:0] if isinstance(v, Tensor) and v.ndim > 2 else v for k, v in draw(1, 4, 3, 2).items()}
    y, state = fast(**arguments)
    assert (y.shape, state.shape) == ((0, 4, 3), (0, 3, 2))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"u": torch.zeros(2, 3)}, r"u has shape \(2, 3\), expected \(B, T, D\)"),
        ({"delta": torch.zeros(2, 5, 4)}, r"delta has shape \(2, 5, 4\), expected \(B, T, D\) with .*D = 6"),
        ({"A": torch.zeros(6)}, r"A has shape \(6,\), expected \(D, N\)"),
        ({"A": torch.zeros(6, 3, dtype=torch.complex64)}, r"A has dtype complex64, expected float16"),
        ({"B": torch.zeros(2, 5, 4, 3)}, r"B has 4 groups \(G\), expected a divisor of D = 6"),
        ({"C": torch.zeros(2, 5, 1, 2)}, r"C has shape \(2, 5, 1, 2\), expected .*N = 3"),
        ({"D": torch.zeros(5)}, r"D has shape \(5,\), expected \(D,\) with D = 6"),
        ({"z": torch.zeros(2, 4, 6)}, r"z has shape"),
        ({"delta_bias": torch.zeros(6, 1)}, r"delta_bias has shape"),
        ({"initial_state": torch.zeros(2, 3, 6)}, r"initial_state has shape \(2, 3, 6\), expected \(B, D, N\)"),
        ({"reset": torch.zeros(2, 5)}, r"reset has dtype float32, expected bool"),
        ({"u": torch.zeros(2, 5, 6, dtype=torch.int64)}, r"u has dtype int64"),
        ({"u": torch.zeros(2, 0, 6)}, r"u has shape \(2, 0, 6\), expected T of at least 1"),
        ({"backend": "cuda"}, r"backend is 'cuda', expected None, 'naive', 'cpu' or 'gpu'"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments = draw(2, 5, 6, 3)
    with pytest.raises(ValueError, match=message):
        selective_scan(**{**arguments, **change})


def test_wrong_arguments_of_a_step_are_named() -> None:
    row, A = torch.zeros(2, 6), torch.zeros(6, 3)
    with pytest.raises(ValueError, match=r"state has shape \(2, 3, 6\), expected \(B, D, N\)"):
        selective_state_update(torch.zeros(2, 3, 6), row, row, A, torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"B has 4 groups \(G\), expected a divisor of D = 6"):
        selective_state_update(torch.zeros(2, 6, 3), row, row, A, torch.zeros(2, 4, 3), torch.zeros(2, 4, 3))
