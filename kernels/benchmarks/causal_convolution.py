"""Time of causal_convolution with bias and SiLU against the memory floor and torch's convolution; correctness first.

    PYTHONPATH=kernels python kernels/benchmarks/causal_convolution.py [--device cpu|cuda] [--sweep]

Floor: forward reads x and writes y; backward reads x and grad y and writes grad x.
"""

from __future__ import annotations

import itertools
from typing import Any

import common
import torch

from ssmfin_kernels import causal_convolution

GPU = [
    (8, 2048, 2048, torch.bfloat16),
    (8, 2048, 8192, torch.bfloat16),
    (8, 2048, 8192, torch.float32),
    (256, 128, 512, torch.float32),
    (64, 128, 4096, torch.float32),
    (4, 256, 65536, torch.bfloat16),
    (1, 128, 262144, torch.float32),
]
CPU = [(8, 1536, 512, torch.float32), (64, 64, 256, torch.float32)]
K = 4


def check(device: str) -> None:
    """Forward and every gradient against naive in double precision, on the CPU."""
    shapes = ((2, 2, 5), (2, 257, 33), (3, 1000, 128))
    cases = list(itertools.product((device,), shapes, (torch.float32, torch.bfloat16), (False, True)))
    worst = dict(zip(cases, common.spread(compare, cases, device), strict=True))
    for dtype, allowed in ((torch.float32, 3e-6), (torch.bfloat16, 2e-2)):
        error = max(error for case, error in worst.items() if case[2] == dtype)
        print(f"{dtype}: worst relative error against naive float64 {error:.1e}", flush=True)
        if not error < allowed:
            raise SystemExit(f"errors: {worst}")


def compare(case: Any) -> float:
    """Largest relative error of one case."""
    device, (B, T, D), dtype, packed = case
    torch.manual_seed(1)
    reset = torch.rand(B, T, device=device) < 0.1 if packed else None
    args = [torch.randn(s, dtype=dtype, device=device) for s in ((B, T, D), (D, K), (D,), (B, K - 1, D))]
    grads = [torch.randn(s, dtype=dtype, device=device) for s in ((B, T, D), (B, K - 1, D))]
    found = run(args, reset, grads, None)
    wide = [[z.to("cpu", torch.float64) for z in tensors] for tensors in (args, grads)]
    exact = run(wide[0], None if reset is None else reset.cpu(), wide[1], "naive")
    return max(common.relative_error(f.cpu(), e) for f, e in zip(found, exact, strict=True))


def run(args: list[torch.Tensor], reset: torch.Tensor | None, grads: list[torch.Tensor], backend: str | None) -> Any:
    """Values and gradients."""
    x, weight, bias, state = (z.detach().requires_grad_() for z in args)
    found = causal_convolution(x, weight, bias, activation="silu", initial_state=state, reset=reset, backend=backend)
    return found + torch.autograd.grad(found, (x, weight, bias, state), grads)


def measure(shapes: list[Any], device: str, ceiling: float) -> None:
    """The table."""
    rows = []
    for B, D, T, dtype in shapes:
        x = torch.randn(B, T, D, dtype=dtype, device=device)
        weight, bias = torch.randn(D, K, dtype=dtype, device=device), torch.randn(D, dtype=dtype, device=device)
        grad = torch.randn_like(x)
        columns = x.transpose(1, 2).contiguous()

        def torch_own(columns: torch.Tensor = columns) -> Any:
            pre = torch.nn.functional.conv1d(columns, weight[:, None], bias, groups=D, padding=K - 1)  # noqa: B023
            return torch.nn.functional.silu(pre[..., :T])  # noqa: B023

        own = common.median_ms(torch_own, device, seconds=0.1)
        del torch_own
        del columns
        forward = common.median_ms(lambda: causal_convolution(x, weight, bias, activation="silu"), device)  # noqa: B023
        x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()

        def both() -> Any:
            y, _ = causal_convolution(x, weight, bias, activation="silu")  # noqa: B023
            return torch.autograd.grad(y, (x, weight, bias), grad)  # noqa: B023

        total = common.median_ms(both, device)
        peak = common.peak_bytes(both, device)
        same = all(torch.equal(p, q) for p, q in zip(both(), both(), strict=True))
        unit = x.numel() * x.element_size()
        floor, floor_both = 2 * unit / ceiling * 1e3, 5 * unit / ceiling * 1e3
        size = None if peak is None else peak / unit
        name = str(dtype).removeprefix("torch.")
        rows.append(
            (f"({B}, {D}, {T})", name, forward, floor / forward, own / forward, total, floor_both / total, size, same)
        )
    common.table(
        f"causal_convolution, K = {K}, bias, SiLU, {common.machine(device)}, copy {ceiling / 1e12:.3f} TB/s",
        [
            "(B, D, T)",
            "type",
            "fwd ms",
            "floor/fwd",
            "torch/fwd",
            "f+b ms",
            "floor/f+b",
            "peak / size of x",
            "repeatable",
        ],
        rows,
    )


# segments, steps, block, warps, strip, registers, stages, by type
TILES: dict[torch.dtype, list[tuple[int, int, int, int, int, int | None, int]]] = {
    torch.float32: [
        (4, 4, 128, 4, 8, None, 0),
        (2, 4, 128, 2, 16, None, 0),
        (8, 4, 64, 4, 64, 168, 0),
        (8, 4, 64, 4, 64, 128, 3),
        (8, 4, 64, 4, 128, 128, 3),
    ],
    torch.bfloat16: [
        (4, 3, 128, 4, 12, None, 0),
        (2, 4, 128, 2, 16, None, 0),
        (8, 4, 64, 4, 128, 128, 0),
        (8, 4, 64, 4, 512, 128, 0),
        (8, 4, 64, 4, 128, 128, 3),
    ],
}


def operators(tile: Any, B: int, T: int, D: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """The two operators with this tile and without autograd, as functions to time."""
    from ssmfin_kernels.causal_convolution import gpu

    gpu._TILES.update(dict.fromkeys(gpu._TILES, gpu.Tile(*tile)))
    gpu._PROGRAMS = 0
    x, grad = (torch.randn(B, T, D, dtype=dtype, device="cuda") for _ in range(2))
    w, b = torch.randn(D, K, dtype=dtype, device="cuda"), torch.randn(D, dtype=dtype, device="cuda")
    final = x.new_zeros(B, K - 1, D)
    return (
        lambda: gpu.causal_convolution_gpu(x, w, b, None, None, True),
        lambda: gpu.causal_convolution_gpu_backward(x, w, b, None, None, grad, final, True),
    )


def warm(case: Any) -> None:
    """Compile, in a process of its own, what the sweep will time."""
    for run_ in operators(case[0], 2, 64, 128, case[1]):
        run_()


def sweep(ceiling: float) -> None:
    """Tile sizes of the GPU kernels."""
    common.spread(warm, [(tile, dtype) for dtype, tiles in TILES.items() for tile in tiles], "cuda")
    print("\nsweep: (B, D, T), type, tile, floor/fwd, floor/bwd", flush=True)
    for B, D, T, dtype in (GPU[0], GPU[1], GPU[2], GPU[3]):
        floor = B * D * T * dtype.itemsize / ceiling * 1e3
        for tile in TILES[dtype]:
            runs = operators(tile, B, T, D, dtype)
            forward, backward = (common.median_ms(run_, "cuda", seconds=0.02) for run_ in runs)
            share = f"{2 * floor / forward:.3f} {3 * floor / backward:.3f}"
            print((B, D, T), str(dtype)[6:], tile, share, flush=True)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--sweep", action="store_true", help="time tile sizes instead (GPU)")
    options = parser.parse_args()
    torch.manual_seed(0)
    check(options.device)
    ceiling = common.copy_ceiling(options.device)
    if options.sweep and options.device == "cuda":
        sweep(ceiling)
        return
    measure(CPU if options.device == "cpu" else GPU, options.device, ceiling)


if __name__ == "__main__":
    main()
