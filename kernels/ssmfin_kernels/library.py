"""Owns how an implementation becomes a torch operator: its fake twin for tracing, its gradient, and only the first.

An implementation registers a forward and a backward operator, both opaque to torch.compile:

    @library.operator("linear_scan_cpu")
    def _forward(a: Tensor, b: Tensor) -> Tensor: ...            # allocates with torch.empty, never returns an input

    @_forward.register_fake
    def _(a, b): return torch.empty_like(b)

    @library.operator("linear_scan_cpu_backward")
    def _backward(a: Tensor, h: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]: ...
    library.once_differentiable(_backward)

    library.differentiable(_forward, save=lambda inputs, output: (inputs[0], output), backward=...)

Autocast: operators are not cast, nor what they call. Their state is float32 whatever the type of input and output, so
half precision is safe as it arrives; `common_dtype` brings arguments of several types, which autocast makes, to one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef  # torch.library has it too, unseen by type checkers

NAMESPACE = "ssmfin"


def operator(name: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """Register a function as the operator ssmfin::<name>, its schema read from its annotations; it mutates nothing."""

    def register(function: Callable[..., Any]) -> CustomOpDef:
        @functools.wraps(function)
        def exact(*arguments: Any) -> Any:
            device = next(value for value in arguments if isinstance(value, Tensor)).device.type
            if not torch.is_autocast_enabled(device):
                return function(*arguments)
            # autocast is below autograd: it would make the float32 products of an implementation half precision
            with torch.autocast(device, enabled=False):
                return function(*arguments)

        schema = torch.library.infer_schema(function, mutates_args=())
        return torch.library.custom_op(f"{NAMESPACE}::{name}", exact, mutates_args=(), schema=schema)

    return register


def differentiable(
    op: CustomOpDef,
    *,
    save: Callable[[tuple[Any, ...], Any], tuple[Tensor | None, ...]],
    backward: Callable[..., tuple[Any, ...]],
    keep: Callable[[tuple[Any, ...]], Any] = lambda inputs: None,
    unused_as_zeros: bool = True,
) -> None:
    """Give `op` a gradient.

    Args:
        op: the forward operator.
        save: (inputs, output) -> tensors to keep for the backward pass; None among them is allowed.
        backward: (saved tensors, kept values, needs_input_grad, *grads of the outputs) -> one gradient an input, None
            for what is no tensor.
        keep: inputs -> values that are no tensors, passed to `backward` as they are.
        unused_as_zeros: gradients of unused outputs arrive as zeros, else as None, which costs no memory.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*save(inputs, output))
        ctx.kept = keep(inputs)
        ctx.set_materialize_grads(unused_as_zeros)

    def run(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return backward(ctx.saved_tensors, ctx.kept, ctx.needs_input_grad, *grads)

    op.register_autograd(run, setup_context=setup_context)


def once_differentiable(op: CustomOpDef) -> None:
    """Make a second derivative through the backward operator `op` an error instead of a silent zero."""
    name = op._qualname.removeprefix(f"{NAMESPACE}::").removesuffix("_backward")

    def refuse(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        raise RuntimeError(f"{name} has no second derivative; call the operation with backend='naive' to have one.")

    op.register_autograd(refuse, setup_context=None)


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The type all given tensors promote to: float16 with bfloat16 gives float32, real with complex gives complex."""
    given = [tensor.dtype for tensor in tensors if tensor is not None]
    dtype = given[0]
    for other in given[1:]:
        dtype = torch.promote_types(dtype, other)
    return dtype


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type a state is kept in: at least float32, float64 and complex types as they are."""
    return torch.promote_types(dtype, torch.float32)


def match_numba_threads() -> None:
    """Let numba's parallel loops use as many threads as torch is told to (torch.set_num_threads, OMP_NUM_THREADS)."""
    import numba

    limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, limit))
    # the first call starts numba's threads; where both share an OpenMP runtime that raises torch's number to theirs
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
