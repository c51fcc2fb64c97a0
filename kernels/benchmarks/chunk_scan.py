"""Measures chunk_scan: correctness first, then time against the bytes that must move, the peer, and memory.

PYTHONPATH=kernels python kernels/benchmarks/chunk_scan.py                   # a GPU
PYTHONPATH=kernels python kernels/benchmarks/chunk_scan.py --device cpu     # against the plain loop
"""

from __future__ import annotations

import functools

import common
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


def gpu() -> None:
    ceiling = common.copy_ceiling("cuda") / 1e3  # bytes a millisecond
    print(f"copy ceiling {ceiling / 1e9:.2f} TB/s")
    rows = []
    for (B, T, H, P, N, dtype), peer_forward, peer_both in SHAPES:
        given = arguments(B, T, H, P, N, dtype, device="cuda")
        dy = torch.randn(B, T, H, P, device="cuda").to(dtype)
        detached = {name: value.detach() for name, value in given.items()}

        def scan(given: dict[str, Tensor] = detached) -> object:
            return chunk_scan(**given, dt_softplus=True)  # type: ignore[arg-type]

        def gradients(given: dict[str, Tensor] = given, dy: Tensor = dy) -> object:
            return run(given, dy)

        forward, both = common.median_ms(scan, "cuda"), common.median_ms(gradients, "cuda")
        size = dy.element_size()
        x, BC, dt = B * T * H * P * size, 2 * B * T * N * size, B * T * H * 4
        floor = (2 * x + BC + dt) / ceiling
        floor_both = floor + (3 * x + 2 * BC + 2 * dt) / ceiling
        rows.append([
            f"{B}, {T}, {H}, {P}, {N} {str(dtype)[6:]}", forward, forward / floor, peer_forward / forward,
            both, both / floor_both, peer_both / both, common.median_ms(gradients, "cuda", graph=False),
            common.host_ms(gradients), (common.peak_bytes(gradients, "cuda") or 0) / 2**20,
            (5 * x + 3 * BC + 3 * dt) / 2**20,
        ])  # fmt: skip
    header = ["B, T, H, P, N", "fwd ms", "/floor", "peer/", "fwd+bwd", "/floor", "peer/", "one by one", "host ms",
              "peak MiB", "in+out MiB"]  # fmt: skip
    common.table("chunk_scan, replayed graphs; 'one by one' is launched from Python", header, rows)


def cpu() -> None:
    rows = []
    for B, T, H, P, N in [(8, 256, 2, 32, 16), (16, 1024, 4, 16, 16), (2, 1024, 4, 64, 64)]:
        given = arguments(B, T, H, P, N, torch.float32, device="cpu")
        dy = torch.randn(B, T, H, P)
        loop, fast = (
            common.median_ms(functools.partial(run, given, dy, backend=backend), "cpu", seconds=0.1, least=3)
            for backend in ("naive", "cpu")
        )
        rows.append([f"{B}, {T}, {H}, {P}, {N}", loop, fast, loop / fast])
    common.table("forward + backward, float32", ["B, T, H, P, N", "loop ms", "chunks ms", "ratio"], rows)


if __name__ == "__main__":
    device = common.arguments(__doc__).parse_args().device
    check(device)
    if device == "cuda":
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            print(f"float32 matmul precision: {precision}")
            gpu()
    else:
        cpu()
