"""Measures the long convolutions: correctness first, then time against the plain torch forms, in one run.

    PYTHONPATH=kernels python kernels/benchmarks/long_convolution.py                   # a GPU
    PYTHONPATH=kernels python kernels/benchmarks/long_convolution.py --device cpu

Plain forms are the naive backends with autograd. A layer, S4D's with 32 complex states, is a Vandermonde kernel and its
FFT convolution, plain and fast, or `diagonal_scan`. On a GPU times are of replayed graphs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import common
import torch
from torch import Tensor

from ssmfin_kernels import diagonal_scan, dplr_kernel, fft_convolution, vandermonde_kernel

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
    return (y.detach(), *torch.autograd.grad(y, leaves, upstream.to(y.dtype)))


def peak(work: Callable[[], object], device: str) -> float | None:
    peak = common.peak_bytes(work, device)
    return None if peak is None else peak / 2**20


def check(device: str) -> None:
    for D, N, L in [(3, 5, 1), (4, 32, 4096), (2, 70, 2049)]:
        C, dtA = system(D, N, device)
        upstream = noise(D, L, device=device)
        compare(f"vandermonde {(D, N, L)}", functools.partial(vandermonde_kernel, length=L), [C, dtA], upstream)
    for B, D, N, T in [(3, 5, 32, 200), (2, 3, 7, 128), (1, 2, 40, 65)]:
        C, dtA = system(D, N, device)
        u = noise(B, T, D, device=device).requires_grad_()
        compare(f"diagonal scan {(B, D, N, T)}", scan, [u, C, dtA], noise(B, T, D, device=device))
    Lambda = torch.complex(-torch.ones(2, 8), torch.arange(1.0, 9).expand(2, 8)).to(device)
    P, B_, C = (torch.complex(noise(2, 8, device=device), noise(2, 8, device=device)) for _ in range(3))
    arguments = [Lambda, P, B_, C, torch.tensor([0.01, 0.1], device=device)]
    wide = [t.to(torch.promote_types(t.dtype, torch.float64)) for t in arguments]
    error = common.relative_error(dplr_kernel(*arguments, 65), dplr_kernel(*wide, 65, backend="naive"))
    print(f"{'ok' if error < 1e-5 else 'WRONG'} dplr: relative error {error:.1e}")


def compare(name: str, work: Callable[..., Tensor], leaves: list[Tensor], upstream: Tensor) -> None:
    """Value and gradients against naive in float64, and a second call against the first."""
    found, again = (gradients(lambda: work(*leaves), leaves, upstream) for _ in range(2))
    wide = [leaf.detach().to(torch.promote_types(leaf.dtype, torch.float64)).requires_grad_() for leaf in leaves]
    exact = gradients(lambda: work(*wide, backend="naive"), wide, upstream)
    error = max(common.relative_error(one, other) for one, other in zip(found, exact, strict=True))
    same = all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    print(
        f"{'ok' if error < 2e-6 and same else 'WRONG'} {name}: relative error {error:.1e}, repeats {same}", flush=True
    )


def kernels(device: str) -> None:
    rows = []
    for (D, N, L), anchor in KERNELS if device == "cuda" else CPU_KERNELS:
        C, dtA = system(D, N, device)
        upstream = noise(D, L, device=device)
        times: list[float] = []
        peaks: list[float | None] = []
        for backend in ("naive", None):
            form = functools.partial(vandermonde_kernel, C, dtA, L, backend=backend)
            both = functools.partial(gradients, form, [C, dtA], upstream)
            with torch.no_grad():
                times.append(common.median_ms(form, device))
            times += [common.median_ms(both, device), common.median_ms(both, device, graph=False)]
            peaks.append(peak(both, device))
        plain, plain_both, plain_host, fast, fast_both, fast_host = times
        rows.append(
            [f"{D}, {N}, {L}", plain, plain_both, fast, fast_both, plain / fast, plain_both / fast_both,
             plain_host / fast_host, anchor / fast_both, *peaks]
        )  # fmt: skip
    header = ["vandermonde D, N, L", "plain fwd ms", "both", "fast fwd", "both", "ratio fwd", "both", "one by one",
              "anchor/both", "plain MiB", "fast"]  # fmt: skip
    common.table("kernels", header, rows)


def s4d(u: Tensor, C: Tensor, dtA: Tensor, backend: str | None) -> Tensor:
    return fft_convolution(u, vandermonde_kernel(C, dtA, u.shape[1], backend=backend), backend=backend)


def scan(u: Tensor, C: Tensor, dtA: Tensor, backend: str | None = None) -> Tensor:
    return diagonal_scan(u, C, dtA, backend=backend)[0]


def layers(device: str) -> None:
    rows = []
    for B, D, T in LAYERS if device == "cuda" else CPU_LAYERS:
        C, dtA = system(D, 32, device)
        u, upstream = noise(B, T, D, device=device).requires_grad_(), noise(B, T, D, device=device)
        forms = {
            "plain": functools.partial(s4d, u, C, dtA, "naive"),
            "kernel and FFT": functools.partial(s4d, u, C, dtA, None),
            "diagonal_scan": functools.partial(scan, u, C, dtA),
        }
        plain: list[float] = []
        for name, form in forms.items():
            both = functools.partial(gradients, form, [u, C, dtA], upstream)
            with torch.no_grad():
                times = [common.median_ms(form, device)]
            times += [common.median_ms(both, device), common.median_ms(both, device, graph=False)]
            plain = plain or times
            ratios = [one / other for one, other in zip(plain, times, strict=True)]
            rows.append([f"{B}, {D}, {T}", name, *times, *ratios, peak(both, device)])
    header = ["B, D, T", "layer", "fwd ms", "both", "one by one", "ratio fwd", "both", "one by one", "peak MiB"]
    common.table("S4D layers", header, rows)


if __name__ == "__main__":
    chosen = common.arguments(__doc__).parse_args().device
    check(chosen)
    kernels(chosen)
    layers(chosen)
