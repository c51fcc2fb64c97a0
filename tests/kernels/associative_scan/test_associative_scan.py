"""Owns the properties of the associative scan: both implementations agree, for every product the package uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernels_support.compare import assert_close
from torch import Tensor

from ssmfin_kernels import associative_scan, linear_scan

Elements = tuple[Tensor, ...]


def affine(first: Elements, second: Elements) -> Elements:
    """Maps h -> a h + b: the first, then the second."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def matrices(first: Elements, second: Elements) -> Elements:
    return (second[0] @ first[0],)


def log_matrices(first: Elements, second: Elements) -> Elements:
    """Products of matrices in the semiring of log-sum-exp."""
    return (torch.logsumexp(first[0][..., :, :, None] + second[0][..., None, :, :], dim=-2),)


def tropical_matrices(first: Elements, second: Elements) -> Elements:
    """Products of matrices in the semiring of maximum."""
    return ((first[0][..., :, :, None] + second[0][..., None, :, :]).amax(dim=-2),)


PRODUCTS = [
    pytest.param(affine, [(3,), (3,)], id="affine"),
    pytest.param(matrices, [(2, 2)], id="matrices"),
    pytest.param(log_matrices, [(3, 3)], id="log-sum-exp"),
    pytest.param(tropical_matrices, [(3, 3)], id="maximum"),
]


def draw(shapes: list[tuple[int, ...]], T: int, seed: int = 0) -> Elements:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(T, *shape, generator=generator, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize("combine, shapes", PRODUCTS)
def test_products_are_associative(combine: Any, shapes: list[tuple[int, ...]]) -> None:
    x, y, z = (draw(shapes, 50, seed) for seed in range(3))
    for left, right in zip(combine(combine(x, y), z), combine(x, combine(y, z)), strict=True):
        assert_close("bracketing", left, right, 1e-13)


@pytest.mark.parametrize("combine, shapes", PRODUCTS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 63, 64, 65, 127])
def test_recursion_equals_one_step_at_a_time(combine: Any, shapes: Any, reverse: bool, T: int) -> None:
    elements = draw(shapes, T)
    if combine is matrices:
        elements = (elements[0] / 2,)
    fast = associative_scan(combine, elements, 0, reverse)
    slow = associative_scan(combine, elements, 0, reverse, backend="naive")
    for found, exact in zip(fast, slow, strict=True):
        assert_close("product", found, exact, 1e-11)


def test_noncommuting_product_is_taken_in_the_order_of_the_walk() -> None:
    words = torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.float64)[:, :, None] * torch.eye(2, dtype=torch.float64)
    words = words + torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    (forward,) = associative_scan(matrices, (words,))
    torch.testing.assert_close(forward[2], words[2] @ words[1] @ words[0])
    (backward,) = associative_scan(matrices, (words,), 0, True)
    torch.testing.assert_close(backward[0], words[0] @ words[1] @ words[2])


@pytest.mark.parametrize("reverse", [False, True])
def test_affine_maps_give_the_linear_scan(reverse: bool) -> None:
    a, b = (torch.randn(2, 37, 3, dtype=torch.float64) for _ in range(2))
    _, h = associative_scan(affine, (a, b), 1, reverse)
    exact, _ = linear_scan(a, b, reverse=reverse, backend="naive")
    assert_close("h", h, exact, 1e-12)


def test_gradients_of_both_orders() -> None:
    a, b = (torch.randn(11, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def run(a: Tensor, b: Tensor) -> Elements:
        return associative_scan(affine, (a, b))

    assert torch.autograd.gradcheck(run, (a, b))
    assert torch.autograd.gradgradcheck(run, (a, b))


def test_a_tensor_alone_needs_no_tuple() -> None:
    x = torch.randn(3, 9, dtype=torch.float64)
    torch.testing.assert_close(associative_scan(torch.add, x, -1), x.cumsum(-1))
    torch.testing.assert_close(associative_scan(torch.maximum, x, 1, True), x.flip(1).cummax(1).values.flip(1))


def test_repeatable() -> None:
    elements = draw([(3,), (3,)], 100)
    first, again = associative_scan(affine, elements), associative_scan(affine, elements)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


@pytest.mark.parametrize(
    "elements, dim, message",
    [
        ((), 0, "elements is empty"),
        ((torch.zeros(3), torch.zeros(4)), 0, r"elements\[1\] has shape \(4,\), expected 3 along dim = 0"),
        ((torch.zeros(0),), 0, r"elements\[0\] has shape \(0,\), expected 1 along"),
        ((torch.zeros(3),), 1, r"elements\[0\] has shape \(3,\), expected a dimension dim = 1"),
    ],
)
def test_wrong_elements_are_named(elements: Any, dim: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        associative_scan(affine, elements, dim)


def test_a_product_that_changes_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"combine returned tensors of shapes \[\(1,\)\], expected \[\(2,\)\]"):
        associative_scan(lambda x, y: (x + y)[:1], torch.zeros(4))
