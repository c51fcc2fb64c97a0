"""Owns the public associative scan: prefix products of any associative product, the general form of the other scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from torch import Tensor

from ssmfin_kernels import dispatch
from ssmfin_kernels.associative_scan import naive, parallel

__all__ = ["associative_scan"]

_OPERATION = dispatch.operation("associative_scan", cpu="torch", gpu="torch")


@overload
def associative_scan(
    combine: Callable[[Tensor, Tensor], Tensor],
    elements: Tensor,
    dim: int = ...,
    reverse: bool = ...,
    *,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def associative_scan(
    combine: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Sequence[Tensor]],
    elements: Sequence[Tensor],
    dim: int = ...,
    reverse: bool = ...,
    *,
    backend: str | None = ...,
) -> tuple[Tensor, ...]: ...


def associative_scan(
    combine: Callable[[Any, Any], Any],
    elements: Tensor | Sequence[Tensor],
    dim: int = 0,
    reverse: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Prefix products of an associative product.

        y_t = x_0 * x_1 * ... * x_t,        x * y = combine(x, y)

    Args:
        combine: (earlier, later) -> their product, in the structure of `elements`; it gets any number of elements at
            once along the first dimension, to which `dim` is moved, and has to treat them alike. Earlier and later are
            meant in the direction of the walk: in reverse the first argument lies later in time. It must be
            associative, which is not checked; it need not commute.
        elements: a tensor, or several (a map is a pair of them) of the same size along `dim`.
        dim: the dimension of time; counted in each tensor if negative.
        reverse: walk from the last element to the first, y_t = x_{T-1} * ... * x_t.
        backend: None, "cpu" or "gpu" for a logarithm of batched steps, "naive" for one step at a time.
    Returns:
        The products, in the structure and shapes of `elements`; differentiable any number of times.
    Raises:
        ValueError: no elements, sizes along `dim` that differ or are zero, a combine that changes number or shape.
    References:
        Blelloch (1990), Prefix sums and their applications, section 1.4.

    >>> import torch
    >>> associative_scan(torch.add, torch.tensor([1, 2, 3, 4]))
    tensor([ 1,  3,  6, 10])
    """
    single = isinstance(elements, Tensor)
    given: tuple[Tensor, ...] = (elements,) if isinstance(elements, Tensor) else tuple(elements)
    if not given:
        raise ValueError("elements is empty, expected at least one tensor.")
    for i, x in enumerate(given):
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(f"elements[{i}] has shape {tuple(x.shape)}, expected a dimension dim = {dim}.")
        if x.shape[dim] != given[0].shape[dim] or x.shape[dim] < 1:
            raise ValueError(
                f"elements[{i}] has shape {tuple(x.shape)}, expected {max(1, given[0].shape[dim])} along dim = {dim}."
            )
    chosen = _OPERATION.choose(given[0], backend)

    def product(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        result = (combine(left[0], right[0]),) if single else tuple(combine(left, right))
        shapes = [tuple(x.shape) for x in result]
        expected = [tuple(x.shape) for x in right]
        if shapes != expected:
            raise ValueError(
                f"combine returned tensors of shapes {shapes}, expected {expected}, those of its arguments."
            )
        return result

    moved = tuple(x.movedim(dim, 0) for x in given)
    if reverse:
        moved = tuple(x.flip(0) for x in moved)
    scan = naive.associative_scan if chosen == "naive" else parallel.associative_scan
    result = scan(product, moved)
    if reverse:
        result = tuple(x.flip(0) for x in result)
    result = tuple(x.movedim(0, dim) for x in result)
    return result[0] if single else result
