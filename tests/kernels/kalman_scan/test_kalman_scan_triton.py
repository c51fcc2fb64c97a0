"""Owns the tests of the Triton kernels of the Kalman filter, in Triton's interpreter, on very small shapes."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import pytest
import torch

pytest.importorskip("triton")

from ssmfin_kernels.kalman_scan import StateSpace, gpu, gpu_long, naive
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


def with_total(moments):
    return moments._replace(total=moments.steps.sum(1))


def narrow(p):
    return p._replace(**{k: v.to(F32) for k, v in p._asdict().items() if v is not None and v.is_floating_point()})


@pytest.mark.parametrize("T", [1, 3, 8, 34])
@pytest.mark.parametrize("N, diffuse", [(1, True), (2, True), (2, False)])
def test_kernels_equal_naive_with_every_gradient(T, N, diffuse):
    exact = problem(T, 3, T, N, diffuse)
    small = narrow(exact)
    assert gpu._small(small)
    for name, a, b in zip(
        naive.Moments._fields, gpu.kalman_filter(small), with_total(naive.kalman_filter(exact)), strict=True
    ):
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
    exact.y[1, :19] = torch.nan  # unknown over several chunks and beyond a checkpoint of P_inf
    exact.y[2, :33] = torch.nan
    for name, a, b in zip(
        naive.Moments._fields, gpu.kalman_filter(exact), with_total(naive.kalman_filter(exact)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")
    results = []
    few = gpu.kalman_log_likelihood(exact)
    for form in (gpu, naive):
        leaves = [x.detach().clone().requires_grad_() for x in exact[:10]]
        p = exact._replace(**dict(zip(exact._fields, leaves, strict=False)))
        value = gpu._log_likelihood(*p[:10], True)[0] if form is gpu else naive.kalman_log_likelihood(p)
        assert value.dtype == torch.float64
        grads = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
        results.append([value, *grads])
    torch.testing.assert_close(few, results[1][0].detach(), rtol=1e-9, atol=1e-9)
    for name, a, b in zip(("value", *exact._fields), *results, strict=False):
        if a.ndim > 2 and a.shape[-1] == a.shape[-2] and name != "F":
            a, b = a + a.mT, b + b.mT
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("N, diffuse, T", [(1, True, 100), (2, True, 103), (2, False, 77)])
def test_stretches_of_a_long_series_equal_one_run(N, diffuse, T, monkeypatch):
    monkeypatch.setattr(gpu_long, "LEAST_STEPS", {F32: 64, torch.float64: 64})
    monkeypatch.setattr(gpu_long, "LEAST_COUNT", 8)
    exact = problem(6, 2, T, N, diffuse)
    exact.y[1, 20:45] = torch.nan
    assert gpu_long.stretches(exact.y) > 7
    for wanted in ((True, True, True, True), (False, True, False, True)):
        found, want = gpu.kalman_filter(exact, wanted), with_total(naive.kalman_filter(exact))
        for name, a, b in zip(naive.Moments._fields, found, want, strict=True):
            if a.numel():
                torch.testing.assert_close(
                    a, b, rtol=1e-9, atol=1e-9, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
                )
    value = gpu.kalman_log_likelihood(exact)
    torch.testing.assert_close(value, naive.kalman_log_likelihood(exact), rtol=1e-10, atol=1e-10)
    single = gpu.kalman_log_likelihood(narrow(exact))
    torch.testing.assert_close(single.double(), value, rtol=1e-4, atol=1e-4)


def test_a_long_series_that_cannot_be_cut_is_not(monkeypatch):
    monkeypatch.setattr(gpu_long, "LEAST_STEPS", {torch.float64: 64})
    monkeypatch.setattr(gpu_long, "LEAST_COUNT", 8)
    exact = problem(6, 2, 77, 2, True)
    late = exact._replace(y=exact.y.clone())
    late.y[1, :30] = torch.nan  # still unknown after the first stretch
    free = exact._replace(R=torch.zeros_like(exact.R), Q=torch.zeros_like(exact.Q))  # no noise at all
    inputs, by_series = gpu._given(exact.y, exact[1:10])
    assert gpu_long.cut(inputs, by_series, gpu_long.stretches(exact.y)) is not None
    for p in (late, free):
        inputs, by_series = gpu._given(p.y, p[1:10])
        assert gpu_long.cut(inputs, by_series, gpu_long.stretches(exact.y)) is None
    torch.testing.assert_close(gpu.kalman_log_likelihood(late), naive.kalman_log_likelihood(late))


def test_what_the_kernels_do_not_take_goes_elsewhere():
    exact = problem(0, 3, 5, 2, True)
    reset = torch.zeros(3, 5, dtype=torch.bool)
    reset[:, 2] = True
    assert not gpu._small(exact._replace(reset=reset))
    for p in (exact, exact._replace(reset=reset)):
        torch.testing.assert_close(gpu.kalman_log_likelihood(p), naive.kalman_log_likelihood(p))


def test_operators_are_registered_well():
    inputs = narrow(problem(0, 2, 4, 2, True))[:10]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(gpu._moments, (*inputs, [True, False, True, True]), test_utils=checks)
    leaves = [torch.nan_to_num(x).detach().clone().requires_grad_() for x in inputs]
    torch.library.opcheck(gpu._log_likelihood, (*leaves, True), test_utils=checks)
