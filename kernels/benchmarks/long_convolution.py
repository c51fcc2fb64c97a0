"""Measures the long convolutions: correctness first, then time against the plain torch forms, in one run.

    PYTHONPATH=kernels python kernels/benchmarks/long_convolution.py                   # a GPU
    PYTHONPATH=kernels python kernels/benchmarks/long_convolution.py --device cpu

Plain forms are the naive backends with autograd; `layer` is a Vandermonde kernel of 32 complex states and its FFT
convolution.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ssmfin_kernels import dplr_kernel, fft_convolution, vandermonde_kernel

# (D, N, L), and plain torch on one H200 in ANCHORS.md: forward + backward in ms
KERNELS = [((128, 32, 4096), 0.860), ((256, 32, 65536), 16.7)]
LAYERS = [(64, 128, 4096), (256, 128, 512), (4, 256, 65536)]  # B, D, T
CPU_KERNELS = [((16, 8, 128), float("nan")), ((64, 32, 2048), float("nan"))]
CPU_LAYERS = [(8, 16, 384), (8, 64, 2048)]


def noise(*shape: int, device: str) -> Tensor:
    return torch.randn(*shape, device=device)


def system(D: int, N: int, device: str) -> tuple[Tensor, Tensor]:
    """S4D-Lin: C and dtA (D, N) complex64."""
    dt = torch.logspace(-3, -1, D, device=device)[:, None]
    frequency = torch.pi * torch.arange(N, device=device)
    dtA = torch.complex(-0.5 * dt.expand(D, N), dt * frequency)
    return torch.complex(noise(D, N, device=device), noise(D, N, device=device)).requires_grad_(), dtA.requires_grad_()


def gradients(work: Callable[[], Tensor], leaves: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    y = work()
    return (y, *torch.autograd.grad(y, leaves, upstream.to(y.dtype)))


def milliseconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        import triton

        return float(triton.testing.do_bench(work, warmup=20, rep=100, return_mode="median"))
    work()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def peak(work: Callable[[], object], device: str) -> float:
    if device != "cuda":
        return float("nan")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def check(device: str) -> None:
    for D, N, L in [(3, 5, 1), (4, 32, 4096), (2, 70, 2049)]:
        C, dtA = system(D, N, device)
        upstream = noise(D, L, device=device)
        found = gradients(lambda C=C, dtA=dtA, L=L: vandermonde_kernel(C, dtA, L), [C, dtA], upstream)
        wide = [tensor.detach().to(torch.complex128).requires_grad_() for tensor in (C, dtA)]
        exact = gradients(lambda w=wide, L=L: vandermonde_kernel(*w, L, backend="naive"), wide, upstream.double())
        for name, one, other in zip(("kernel", "C", "dtA"), found, exact, strict=True):
            error = ((one - other).norm() / other.norm().clamp_min(1e-30)).item()
            print(f"{'ok' if error < 2e-6 else 'WRONG'} vandermonde {(D, N, L)} {name}: relative error {error:.1e}")
        again = gradients(lambda C=C, dtA=dtA, L=L: vandermonde_kernel(C, dtA, L), [C, dtA], upstream)
        if not all(torch.equal(one, other) for one, other in zip(found, again, strict=True)):
            print(f"WRONG vandermonde {(D, N, L)}: two calls differ")
    Lambda = torch.complex(-torch.ones(2, 8), torch.arange(1.0, 9).expand(2, 8)).to(device)
    P, B, C = (torch.complex(noise(2, 8, device=device), noise(2, 8, device=device)) for _ in range(3))
    dt = torch.tensor([0.01, 0.1], device=device)
    arguments = [Lambda, P, B, C, dt]
    exact_kernel = dplr_kernel(
        *(t.to(torch.promote_types(t.dtype, torch.float64)) for t in arguments), 65, backend="naive"
    )
    error = ((dplr_kernel(*arguments, 65) - exact_kernel).norm() / exact_kernel.norm()).item()
    print(f"{'ok' if error < 1e-5 else 'WRONG'} dplr: relative error {error:.1e}")


def kernels(device: str) -> None:
    print(f"{'vandermonde D, N, L':20s} {'plain fwd':>9s} {'both':>8s} {'fast fwd':>8s} {'both':>8s} {'ratio fwd':>9s} "
          f"{'both':>6s} {'anchor/both':>11s} {'peak MiB':>9s} {'plain':>8s}")  # fmt: skip
    for (D, N, L), anchor in KERNELS if device == "cuda" else CPU_KERNELS:
        C, dtA = system(D, N, device)
        plain = functools.partial(vandermonde_kernel, C, dtA, L, backend="naive")
        fast = functools.partial(vandermonde_kernel, C, dtA, L)
        upstream = noise(D, L, device=device)
        row = []
        for form in (plain, fast):
            both = functools.partial(gradients, form, [C, dtA], upstream)
            with torch.no_grad():
                row.append(milliseconds(form, device))
            row += [milliseconds(both, device), peak(both, device)]
        print(f"{f'{D}, {N}, {L}':20s} {row[0]:9.3f} {row[1]:8.3f} {row[3]:8.3f} {row[4]:8.3f} {row[0] / row[3]:9.1f} "
              f"{row[1] / row[4]:6.1f} {anchor / row[4]:11.1f} {row[5]:9.1f} {row[2]:8.1f}")  # fmt: skip


def s4d(u: Tensor, C: Tensor, dtA: Tensor, backend: str | None) -> Tensor:
    return fft_convolution(u, vandermonde_kernel(C, dtA, u.shape[1], backend=backend), backend=backend)


def layers(device: str) -> None:
    print(
        f"{'layer B, D, T':20s} {'plain fwd':>9s} {'both':>8s} {'fast fwd':>8s} {'both':>8s} {'ratio fwd':>9s} "
        f"{'both':>6s}"
    )
    for B, D, T in LAYERS if device == "cuda" else CPU_LAYERS:
        C, dtA = system(D, 32, device)
        u = noise(B, T, D, device=device).requires_grad_()
        upstream = noise(B, T, D, device=device)
        row = []
        for backend in ("naive", None):
            layer = functools.partial(s4d, u, C, dtA, backend)
            with torch.no_grad():
                row.append(milliseconds(layer, device))
            row.append(milliseconds(functools.partial(gradients, layer, [u, C, dtA], upstream), device))
        print(f"{f'{B}, {D}, {T}':20s} {row[0]:9.3f} {row[1]:8.3f} {row[2]:8.3f} {row[3]:8.3f} {row[0] / row[2]:9.1f} "
              f"{row[1] / row[3]:6.1f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args().device
    check(chosen)
    kernels(chosen)
    layers(chosen)
