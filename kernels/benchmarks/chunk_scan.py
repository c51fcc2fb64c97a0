"""Measures chunk_scan: correctness first, then time against the bytes that must move, the peer, and memory.

PYTHONPATH=kernels python kernels/benchmarks/chunk_scan.py                   # a GPU
PYTHONPATH=kernels python kernels/benchmarks/chunk_scan.py --device cpu     # against the plain loop
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ssmfin_kernels import chunk_scan

# (B, T, H, P, N, type), the peer's forward and forward + backward in ms: mamba_ssm Triton SSD on one H200
SHAPES = [
    ((8, 2048, 32, 64, 128, torch.bfloat16), 0.468, 3.26),
    ((8, 8192, 32, 64, 128, torch.bfloat16), 1.22, 5.22),
    ((64, 4096, 4, 32, 64, torch.float32), 0.733, 4.44),
]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 1.5e-2}


def arguments(
    B: int, T: int, H: int, P: int, N: int, dtype: torch.dtype, *, device: str, G: int = 1
) -> dict[str, Tensor]:
    generator = torch.Generator(device).manual_seed(0)

    def noise(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype).requires_grad_()

    return {
        "x": noise(B, T, H, P),
        "dt": noise(B, T, H, dtype=torch.float32),
        "A": (-torch.rand(H, generator=generator, device=device) - 0.1).requires_grad_(),
        "B": noise(B, T, G, N),
        "C": noise(B, T, G, N),
        "D": noise(H, dtype=torch.float32),
        "dt_bias": (noise(H, dtype=torch.float32) - 3).detach().requires_grad_(),
    }


def run(given: dict[str, Tensor], dy: Tensor, **options: object) -> tuple[Tensor, ...]:
    y, _ = chunk_scan(**given, dt_softplus=True, **options)  # type: ignore[arg-type]
    return (y, *torch.autograd.grad(y, list(given.values()), dy.to(y.dtype)))


def check(device: str) -> None:
    """Every output against the recurrence in float64."""
    shapes = [(2, 200, 4, 64, 128, 1), (1, 130, 2, 70, 17, 2), (2, 65, 2, 16, 140, 1)]
    for B, T, H, P, N, G in shapes:
        for dtype in TOLERANCE:
            given = arguments(B, T, H, P, N, dtype, device=device, G=G)
            options = {"reset": torch.rand(B, T, device=device) < 0.02}
            dy = torch.randn(B, T, H, P, device=device)
            found = run(given, dy, **options)
            wide = {name: value.detach().double().requires_grad_() for name, value in given.items()}
            exact = run(wide, dy.to(dtype).double(), backend="naive", **options)
            worst = 0.0
            for name, one, other in zip(("y", *given), found, exact, strict=True):
                error = ((one.double() - other).norm() / other.norm().clamp_min(1e-30)).item()
                worst = max(worst, error)
                if not error <= TOLERANCE[dtype]:
                    raise SystemExit(f"{(B, T, H, P, N, G)} {dtype} {name}: relative error {error:.1e}")
            again = run(given, dy, **options)
            if not all(torch.equal(one, other) for one, other in zip(found, again, strict=True)):
                raise SystemExit(f"{(B, T, H, P, N, G)} {dtype}: two calls differ")
            print(f"correct and repeatable: {(B, T, H, P, N, G)} {dtype}, worst relative error {worst:.1e}", flush=True)


def milliseconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        import triton

        return float(triton.testing.do_bench(work, warmup=20, rep=100, return_mode="median"))
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def copy_ceiling() -> float:
    """Bytes a millisecond, read and written, of a large copy."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source), "cuda")


def gpu() -> None:
    ceiling = copy_ceiling()
    print(f"copy ceiling {ceiling / 1e9:.2f} TB/s")
    print(f"{'B, T, H, P, N, type':38s} {'fwd ms':>8s} {'/floor':>7s} {'peer/':>6s} "
          f"{'fwd+bwd':>8s} {'/floor':>7s} {'peer/':>6s} {'peak MiB':>9s} {'in+out MiB':>10s}")  # fmt: skip
    for (B, T, H, P, N, dtype), peer_forward, peer_both in SHAPES:
        given = arguments(B, T, H, P, N, dtype, device="cuda")
        dy = torch.randn(B, T, H, P, device="cuda").to(dtype)
        detached = {name: value.detach() for name, value in given.items()}
        forward = milliseconds(lambda given=detached: chunk_scan(**given, dt_softplus=True), "cuda")
        both = milliseconds(lambda given=given, dy=dy: run(given, dy), "cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(given, dy)
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
        size = dy.element_size()
        x, BC, dt = B * T * H * P * size, 2 * B * T * N * size, B * T * H * 4
        floor = (2 * x + BC + dt) / ceiling
        floor_both = floor + (3 * x + 2 * BC + 2 * dt) / ceiling
        name = f"{B}, {T}, {H}, {P}, {N}, {str(dtype)[6:]}"
        print(f"{name:38s} {forward:8.3f} {forward / floor:7.1f} {peer_forward / forward:6.2f} "
              f"{both:8.3f} {both / floor_both:7.1f} {peer_both / both:6.2f} {peak:9.0f} "
              f"{(5 * x + 3 * BC + 3 * dt) / 2**20:10.0f}")  # fmt: skip


def cpu() -> None:
    print(f"{'B, T, H, P, N':28s} {'loop ms':>9s} {'chunks ms':>10s} {'ratio':>6s}   forward + backward, float32")
    for B, T, H, P, N in [(8, 256, 2, 32, 16), (16, 1024, 4, 16, 16), (2, 1024, 4, 64, 64)]:
        given = arguments(B, T, H, P, N, torch.float32, device="cpu")
        dy = torch.randn(B, T, H, P)
        loop = milliseconds(lambda given=given, dy=dy: run(given, dy, backend="naive"), "cpu")
        fast = milliseconds(lambda given=given, dy=dy: run(given, dy, backend="cpu"), "cpu")
        print(f"{f'{B}, {T}, {H}, {P}, {N}':28s} {loop:9.1f} {fast:10.1f} {loop / fast:6.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    device = parser.parse_args().device
    check(device)
    if device == "cuda":
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            print(f"float32 matmul precision: {precision}")
            gpu()
    else:
        cpu()
