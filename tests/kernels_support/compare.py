"""Owns the comparison of a fast operation with its naive twin: values, every gradient, memory poisoned with NaN.

    fast = functools.partial(linear_scan, backend="cpu")
    naive = functools.partial(linear_scan, backend="naive")
    assert_agrees(fast, naive, {"a": a, "b": b, "reset": reset}, tolerance=1e-5)

Both are called with the arguments as keywords. The naive one gets float64 (complex128) copies; the fast one the
tensors as they are, strides included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

Arguments = Mapping[str, Any]
Operation = Callable[..., Any]

# relative error in norm that a type allows an operation whose state is float32; float64 is used on the CPU
TOLERANCE = {
    torch.float64: 1e-12,
    torch.complex128: 1e-12,
    torch.float32: 2e-6,
    torch.complex64: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill what torch.empty and its like return with NaN: an element that a kernel does not write shows."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def values_and_gradients(
    operation: Operation, arguments: Arguments, *, upcast: bool = False, weights: Sequence[Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run `operation` and differentiate a weighted sum of all its outputs.

    Args:
        operation: called with `arguments` as keywords; returns a tensor or a tuple of tensors.
        arguments: floating and complex tensors among them are differentiated; other values pass as they are.
        upcast: run on float64 (complex128) copies.
        weights: one tensor an output, random by default (the same for the same shapes, whatever the type).
    Returns:
        Values ({"output 0": ...}) and gradients ({"gradient of a": ...}), detached.
    """
    leaves: dict[str, Tensor] = {}
    call: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            source = value.detach()
            if upcast:
                source = source.to(torch.complex128 if value.is_complex() else torch.float64)
            leaves[name] = source.requires_grad_()
            call[name] = leaves[name]
        else:
            call[name] = value
    result = operation(**call)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    loss: Any = 0
    for i, output in enumerate(outputs):
        weight = weights[i] if weights is not None else _weight(output, seed=i)
        # real(conj(weight) * output) weighs real and imaginary parts alike; the sum is taken in double precision
        product = weight.to(output.device).conj() * output.to(weight.dtype)
        loss = loss + (product.real if product.is_complex() else product).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    values = {f"output {i}": output.detach() for i, output in enumerate(outputs)}
    return values, {
        f"gradient of {name}": torch.zeros_like(leaf) if gradient is None else gradient.detach()
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }


def assert_agrees(fast: Operation, naive: Operation, arguments: Arguments, *, tolerance: float | None = None) -> None:
    """Hold `fast` against `naive` in double precision: every output and every gradient, written everywhere, same type.

    Args:
        fast: the operation under test, run with memory poisoned by NaN.
        naive: its definition, run on float64 copies.
        arguments: keywords of both.
        tolerance: relative error in norm, ||fast - naive|| / ||naive||; by default that of the least exact argument.
    """
    if tolerance is None:
        tolerance = max(
            TOLERANCE[v.dtype] for v in arguments.values() if isinstance(v, Tensor) and v.dtype in TOLERANCE
        )
    with poisoned_memory():
        values, gradients = values_and_gradients(fast, arguments)
    exact_values, exact_gradients = values_and_gradients(naive, arguments, upcast=True)
    for name, exact in {**exact_values, **exact_gradients}.items():
        found = {**values, **gradients}[name]
        assert found.shape == exact.shape, f"{name}: shape {tuple(found.shape)}, expected {tuple(exact.shape)}"
        assert_close(name, found, exact, tolerance)
    for name, gradient in gradients.items():
        argument = arguments[name.removeprefix("gradient of ")]
        assert gradient.dtype == argument.dtype, f"{name} has dtype {gradient.dtype}, expected {argument.dtype}"


def assert_close(name: str, found: Tensor, exact: Tensor, tolerance: float) -> None:
    """Hold the relative error in norm of `found` under `tolerance`; NaN and infinity never pass."""
    assert torch.isfinite(found).all(), f"{name} has {int((~torch.isfinite(found)).sum())} elements that are not finite"
    error = relative_error(found, exact)
    assert error <= tolerance, f"{name}: relative error {error:.2e}, allowed {tolerance:.2e}"


def relative_error(found: Tensor, exact: Tensor) -> float:
    """||found - exact|| / ||exact|| in double precision; the plain norm of the difference where exact is zero."""
    wide = torch.complex128 if exact.is_complex() else torch.float64
    found, exact = found.to(device=exact.device, dtype=wide), exact.to(wide)
    norm = float(torch.linalg.vector_norm(exact))
    difference = float(torch.linalg.vector_norm(found - exact))
    return difference / norm if norm > 0 else difference


def assert_repeatable(operation: Operation, arguments: Arguments, *, times: int = 3) -> None:
    """Hold outputs and gradients of repeated calls to the same bits."""
    first = values_and_gradients(operation, arguments)
    for _ in range(times - 1):
        again = values_and_gradients(operation, arguments)
        for one, other in zip(first, again, strict=True):
            for name in one:
                assert torch.equal(one[name], other[name]), f"{name} differs between two calls"


def assert_second_derivative_raises(operation: Operation, arguments: Arguments) -> None:
    """Hold a second derivative to an error that names the way out."""
    leaves = {
        name: value.detach().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }
    result = operation(**leaves)
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    inputs = [value for value in leaves.values() if isinstance(value, Tensor) and value.requires_grad]
    loss = sum((output.square().sum() for output in outputs), start=torch.zeros(()))
    first = torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True)
    again = sum((gradient.square().sum() for gradient in first if gradient is not None), start=torch.zeros(()))
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(again, inputs, allow_unused=True)


def strided(tensor: Tensor) -> Tensor:
    """A copy with the same values whose every dimension is strided: contiguous in none of them."""
    wide = torch.empty(*(2 * size + 1 for size in tensor.shape), dtype=tensor.dtype, device=tensor.device)
    view = wide[tuple(slice(1, None, 2) for _ in tensor.shape)]
    view.copy_(tensor)
    return view


def random_reset(B: int, T: int, *, rate: float = 0.15, seed: int = 0) -> Tensor:
    """(B, T) bool with resets at about `rate` of the steps, two in a row and one at the last step among them."""
    reset = torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) < rate
    reset[:, T // 2 : T // 2 + 2] = True
    reset[0, -1] = True
    return reset


def _weight(output: Tensor, *, seed: int) -> Tensor:
    dtype = torch.complex128 if output.is_complex() else torch.float64
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(1000 + seed), dtype=dtype)
