"""Owns the tests of the Triton kernels of the Kalman filter, in Triton's interpreter, on very small shapes."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import pytest
import torch

pytest.importorskip("triton")

from ssmfin_kernels.kalman_scan import StateSpace, gpu, naive
from ssmfin_kernels.kalman_scan.model import prepare

F32 = torch.float32


def problem(seed, B, T, N, diffuse):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    root = normal(B, 1, N, N)
    model = StateSpace(
        # about a damped trend seen through its level: float32 tells its unknown directions apart
        0.1 * normal(B, 1, N, N) + 0.8 * torch.ones(N, N, dtype=torch.float64).triu(),
        torch.eye(1, N, dtype=torch.float64) + 0.1 * normal(1, 1, 1, N),
        root @ root.mT + 0.1 * torch.eye(N, dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.float64),
        torch.eye(N, dtype=torch.float64),
        normal(B, N),
        torch.eye(N, dtype=torch.float64) if diffuse else None,
        normal(N),
        normal(1),
    )
    y = torch.where(torch.rand(B, T, 1, generator=g) < 0.2, torch.nan, normal(B, T, 1))
    y[0, :2] = torch.nan
    return prepare(y, model, None)


def narrow(p):
    return p._replace(**{k: v.to(F32) for k, v in p._asdict().items() if v is not None and v.is_floating_point()})


@pytest.mark.parametrize("T", [1, 3, 8, 34])
@pytest.mark.parametrize("N, diffuse", [(1, True), (2, True), (2, False)])
def test_kernels_equal_naive_with_every_gradient(T, N, diffuse):
    exact = problem(T, 3, T, N, diffuse)
    small = narrow(exact)
    assert gpu._small(small)
    for name, a, b in zip(naive.Moments._fields, gpu.kalman_filter(small), naive.kalman_filter(exact), strict=True):
        torch.testing.assert_close(
            a.double(), b.double(), rtol=1e-3, atol=1e-3, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
    grads = []
    for form, p in ((gpu, small), (naive, exact)):
        leaves = [x.detach().clone().requires_grad_() for x in p[:-1]]
        p = p._replace(**dict(zip(p._fields, leaves, strict=False)))
        value = form.kalman_log_likelihood(p)
        total = (value * torch.arange(1, 4)).sum()
        grads.append([value.detach(), *torch.autograd.grad(total, leaves, materialize_grads=True)])
    for name, a, b in zip(("value", *exact._fields), *grads, strict=False):
        b = 0.5 * (b + b.mT) if b.ndim > 2 and b.shape[-1] == b.shape[-2] and name != "F" else b
        a = 0.5 * (a + a.mT) if a.ndim > 2 and a.shape[-1] == a.shape[-2] and name != "F" else a
        scale = 1 + float(b.abs().max())
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3 * scale, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("N, diffuse", [(1, True), (2, True), (2, False)])
def test_in_double_precision_the_kernels_are_exact(N, diffuse, monkeypatch):
    exact = problem(5, 3, 34, N, diffuse)
    monkeypatch.setattr(gpu, "_small", lambda problem: True)  # otherwise from a thousand series on
    for name, a, b in zip(naive.Moments._fields, gpu.kalman_filter(exact), naive.kalman_filter(exact), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")
    results = []
    for form in (gpu, naive):
        leaves = [x.detach().clone().requires_grad_() for x in exact[1:7]]
        value = form.kalman_log_likelihood(exact._replace(**dict(zip(exact._fields[1:7], leaves, strict=True))))
        assert value.dtype == torch.float64
        results.append([value, *torch.autograd.grad(value.sum(), leaves)])
    for a, b in zip(*results, strict=True):
        if a.shape[-1] == 2 and a.ndim == 4 and a.shape[-2] == 2:
            a, b = a + a.mT, b + b.mT
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_what_the_kernels_do_not_take_goes_elsewhere():
    exact = problem(0, 3, 5, 2, True)
    assert not gpu._small(exact)  # float64, few series
    reset = torch.zeros(3, 5, dtype=torch.bool)
    reset[:, 2] = True
    for p in (exact, exact._replace(reset=reset)):
        torch.testing.assert_close(gpu.kalman_log_likelihood(p), naive.kalman_log_likelihood(p))


def test_operators_are_registered_well():
    y, parameters, rank, tolerance = gpu._packed(narrow(problem(0, 2, 4, 2, True)))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(gpu._moments, (y, parameters, rank, tolerance, 2), test_utils=checks)
    leaves = [x.detach().requires_grad_() for x in (torch.nan_to_num(y), parameters)]
    torch.library.opcheck(gpu._log_likelihood, (*leaves, rank, tolerance), test_utils=checks)
