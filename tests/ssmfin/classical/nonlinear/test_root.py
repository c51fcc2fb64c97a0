"""The square root of a covariance: exact where singular, in any unit; differentiable at equal eigenvalues too."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmfin.classical.nonlinear.root import semidefinite_root


def covariance(seed, N, rank, batch=3):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(batch, N, rank, generator=generator, dtype=torch.float64)
    units = 10.0 ** torch.randint(-6, 7, (batch, N), generator=generator).double()
    root = root * units[:, :, None]
    return root @ root.mT, units


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 6))
def test_the_root_times_itself_is_the_covariance_in_every_unit(seed, N, rank):
    P, units = covariance(seed, N, min(rank, N))
    L, valid = semidefinite_root(P)
    assert valid.all()
    error = (L @ L.mT - P) / (units[:, :, None] * units[:, None, :])
    assert error.abs().max() < 1e-12 * max(1.0, (P / (units[:, :, None] * units[:, None, :])).abs().max().item())


def test_indefinite_and_broken_matrices_are_marked_and_spoil_no_other():
    good = torch.eye(2, dtype=torch.float64)
    P = torch.stack([good, -good, good * torch.nan, torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double(), 0 * good])
    L, valid = semidefinite_root(P)
    assert valid.tolist() == [True, False, False, False, True]
    assert torch.equal(L[0], good)
    assert torch.equal(L[4], 0 * good)


def test_the_gradient_holds_also_at_equal_eigenvalues():
    def value(half):
        return semidefinite_root(half + half.mT)[0]

    random = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for P in (torch.eye(3, dtype=torch.float64)[None], random @ random.mT + 0.3 * torch.eye(3)):
        assert torch.autograd.gradcheck(value, ((0.5 * P).clone().requires_grad_(),), eps=1e-6, atol=1e-7)


def test_a_zero_variance_has_a_finite_gradient():
    free = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    P = torch.diag_embed(torch.stack([free, torch.zeros_like(free)], -1))
    L, _ = semidefinite_root(P)
    L.sum().backward()
    np.testing.assert_allclose(free.grad.item(), 0.5 / np.sqrt(2.0), rtol=1e-12)
