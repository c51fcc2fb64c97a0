"""Time of linear_scan against the memory floor and the peer; correctness first.

    PYTHONPATH=kernels python kernels/benchmarks/linear_scan.py [--device cpu|cuda] [--sweep]

Floor: forward reads a, b and writes h; backward reads a, h, grad h and writes grad a, grad b. Peer: accelerated-scan
(Triton), measured on the same kind of GPU; it runs on (B, D, T), ours on (B, T, D), the same numbers.
"""

from __future__ import annotations

import itertools
from typing import Any

import common
import torch

from ssmfin_kernels import linear_scan

# (B, D, T), type, peer forward and forward+backward in ms
GPU = [
    (8, 1536, 2048, torch.float32, 0.078, 0.287),
    (8, 1536, 16384, torch.float32, 0.584, 1.63),
    (8, 1536, 65536, torch.float32, 2.35, 6.87),
    (1, 128, 1_000_000, torch.float32, None, None),
    (8, 1536, 16384, torch.bfloat16, None, None),
    (8, 768, 16384, torch.complex64, None, None),
    (64, 64, 256, torch.float32, None, None),
]
CPU = [(8, 1536, 2048, torch.float32), (64, 64, 256, torch.float32), (64, 64, 256, torch.complex64)]


def inputs(B: int, D: int, T: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients in (0.5, 1), inputs standard normal."""
    if dtype.is_complex:
        angle = 6.28 * torch.rand(B, T, D, device=device)
        a = torch.polar(torch.rand(B, T, D, device=device) / 2 + 0.5, angle)
    else:
        a = (torch.rand(B, T, D, device=device) / 2 + 0.5).to(dtype)
    return a, torch.randn(B, T, D, dtype=dtype, device=device)


def check(device: str) -> None:
    """Forward and every gradient against naive in double precision, on the CPU."""
    types = (torch.float32, torch.complex64, torch.bfloat16)
    shapes = ((2, 33, 700), (16, 530, 300))  # on a GPU: tiles in groups, tiles in a chain
    cases = list(itertools.product((device,), shapes, types, (False, True), (False, True)))
    worst = dict(zip(cases, common.spread(compare, cases, device), strict=True))
    bad = [(*case, error) for case, error in worst.items() if not error < (2e-2 if case[2] == types[2] else 2e-6)]
    single = max(error for case, error in worst.items() if case[2] != types[2])
    print(
        f"{len(cases)} comparisons with naive float64: {len(bad)} bad; worst single precision {single:.1e}", flush=True
    )
    if bad:
        common.table("bad", ["device", "B D T", "type", "reverse", "reset", "error"], bad)
        raise SystemExit(1)


def compare(case: Any) -> float:
    """Largest relative error of one case."""
    device, (B, D, T), dtype, reverse, packed = case
    torch.manual_seed(1)
    a, b = inputs(B, D, T, dtype, device)
    s = torch.randn(B, D, dtype=dtype, device=device)
    reset = torch.rand(B, T, device=device) < 0.02 if packed else None
    return max(errors(a, b, s, reset, reverse, torch.randn_like(b), torch.randn_like(s)))


def errors(a: Any, b: Any, s: Any, reset: Any, reverse: bool, grad: Any, grad_final: Any) -> list[float]:
    """Relative errors of h, the final state and the three gradients."""
    a, b, s = (z.requires_grad_() for z in (a, b, s))
    found = linear_scan(a, b, initial_state=s, reset=reset, reverse=reverse)
    found += torch.autograd.grad(found, (a, b, s), (grad, grad_final))
    wide = torch.complex128 if a.is_complex() else torch.float64
    a, b, s = (z.detach().to("cpu", wide).requires_grad_() for z in (a, b, s))
    reset = None if reset is None else reset.cpu()
    exact = linear_scan(a, b, initial_state=s, reset=reset, reverse=reverse, backend="naive")
    exact += torch.autograd.grad(exact, (a, b, s), (grad.to("cpu", wide), grad_final.to("cpu", wide)))
    return [common.relative_error(f.cpu(), e) for f, e in zip(found, exact, strict=True)]


def time_gpu(ceiling: float) -> None:
    """The table of the GPU."""
    rows = []
    for B, D, T, dtype, peer, peer_both in GPU:
        a, b = inputs(B, D, T, dtype, "cuda")
        grad = torch.randn_like(b)
        forward = common.median_ms(lambda: linear_scan(a, b), "cuda")  # noqa: B023
        a.requires_grad_(), b.requires_grad_()

        def both() -> Any:
            return torch.autograd.grad(linear_scan(a, b)[0], (a, b), grad)  # noqa: B023

        total = common.median_ms(both, "cuda")
        peak = common.peak_bytes(both, "cuda") or 0
        same = all(torch.equal(x, y) for x, y in zip(both(), both(), strict=True))
        unit = a.numel() * a.element_size()
        floor, floor_both = 3 * unit / ceiling * 1e3, 8 * unit / ceiling * 1e3
        rows.append(
            (
                f"({B}, {D}, {T})",
                str(dtype).removeprefix("torch."),
                forward,
                floor / forward,
                None if peer is None else peer / forward,
                total,
                floor_both / total,
                None if peer_both is None else peer_both / total,
                peak / unit,
                same,
            )
        )
    common.table(
        f"linear_scan, {common.machine('cuda')}, copy {ceiling / 1e12:.2f} TB/s",
        [
            "(B, D, T)",
            "type",
            "fwd ms",
            "floor/fwd",
            "peer/fwd",
            "f+b ms",
            "floor/f+b",
            "peer/f+b",
            "peak of f+b / size of a",
            "repeatable",
        ],
        rows,
    )


# segments, steps, block, warps
TILES = {
    torch.float32: [(8, 20, 64, 4), (8, 14, 64, 4), (16, 12, 32, 4), (32, 14, 32, 8)],
    torch.bfloat16: [(16, 14, 32, 4), (16, 10, 32, 4), (32, 10, 32, 8)],
    torch.complex64: [(8, 16, 32, 4), (8, 10, 32, 4), (16, 9, 32, 8)],
}
Choice = tuple[tuple[int, int, int, int], int, int, torch.dtype]  # tile, group, B, type


def use(tile: tuple[int, int, int, int], group: int) -> None:
    """Make every kernel use this tile and group."""
    from ssmfin_kernels.linear_scan import gpu

    gpu._TILES.update(dict.fromkeys(gpu._TILES, gpu.Tile(*tile)))
    gpu._CHAINS.update({key: (gpu.Tile(*tile, old[0].prefetch),) for key, old in gpu._CHAINS.items()})
    gpu._MANY, gpu._GROUP = (0, 1) if group == 1 else (1 << 30, group)


def scan_both(a: torch.Tensor, b: torch.Tensor) -> tuple[Any, Any]:
    """The two operators without autograd, as functions to time."""
    from ssmfin_kernels.linear_scan import gpu

    final, grad = b[:, 0].contiguous(), torch.randn_like(b)
    return (
        lambda: gpu.linear_scan_gpu(a, b, None, None, False),
        lambda: gpu.linear_scan_gpu_backward(a, b, None, None, grad, final, False),
    )


def warm(choice: Choice) -> None:
    """Compile, in a process of its own, what the sweep will time."""
    tile, group, B, dtype = choice
    use(tile, group)
    for run in scan_both(*inputs(min(B, 2), 128, 64, dtype, "cuda")):
        run()


def sweep(ceiling: float) -> None:
    """Tile sizes of the GPU kernels."""
    shapes = [(GPU[0], [1]), (GPU[1], [1]), (GPU[3], [4, 8]), (GPU[4], [1]), (GPU[5], [1])]
    choices: dict[Choice, None] = {}
    for (B, _, _, dtype, _, _), groups in shapes:
        choices.update({(tile, group, B, dtype): None for tile in TILES[dtype] for group in groups})
    common.spread(warm, list(choices), "cuda")
    print("\nsweep: shape, type, tile, group, floor/fwd, floor/bwd", flush=True)
    for (B, D, T, dtype, _, _), groups in shapes:
        a, b = inputs(B, D, T, dtype, "cuda")
        floor = a.numel() * a.element_size() / ceiling * 1e3
        for tile, group in itertools.product(TILES[dtype], groups):
            use(tile, group)
            forward, backward = (common.median_ms(run, "cuda", seconds=0.02) for run in scan_both(a, b))
            share = f"{3 * floor / forward:.3f} {5 * floor / backward:.3f}"
            print((B, D, T), str(dtype)[6:], tile, group, share, flush=True)


def beyond_int32() -> None:
    """B T D above 2^31 elements: the last sequence has to equal the same sequence alone."""
    B, T, D = 5, 70_000, 6200  # 2.17e9 elements, 4.3 GB a tensor
    a = torch.rand(B, T, D, dtype=torch.bfloat16, device="cuda") / 2 + 0.5
    b = torch.randn(B, T, D, dtype=torch.bfloat16, device="cuda")
    a.requires_grad_(), b.requires_grad_()
    h, _ = linear_scan(a, b)
    da, db = torch.autograd.grad(h, (a, b), b)
    a1, b1 = a[-1:].detach().requires_grad_(), b[-1:].detach().requires_grad_()
    h1, _ = linear_scan(a1, b1)
    da1, db1 = torch.autograd.grad(h1, (a1, b1), b1)
    # another group size for a single sequence: equal up to rounding
    pairs = ((h, h1), (da, da1), (db, db1))
    print("beyond 2^31 elements, relative error of the last sequence:", end=" ")
    print(*(f"{common.relative_error(x[-1:, -4096:], y[:, -4096:]):.1e}" for x, y in pairs))


def time_cpu(ceiling: float) -> None:
    """The table of the CPU."""
    rows = []
    for B, D, T, dtype in CPU:
        a, b = inputs(B, D, T, dtype, "cpu")
        grad = torch.randn_like(b)
        forward = common.median_ms(lambda: linear_scan(a, b), "cpu")  # noqa: B023
        # fresh memory for the result, as an operation has it: page faults cost as much as the copy
        add = common.median_ms(lambda: a + b, "cpu")  # noqa: B023
        clone = common.median_ms(lambda: a.clone(), "cpu")  # noqa: B023
        a.requires_grad_(), b.requires_grad_()
        both = common.median_ms(lambda: torch.autograd.grad(linear_scan(a, b)[0], (a, b), grad), "cpu")  # noqa: B023
        naive = None
        if a.numel() < 1 << 22:  # the loop takes seconds beyond
            naive = common.median_ms(
                lambda: torch.autograd.grad(linear_scan(a, b, backend="naive")[0], (a, b), grad),  # noqa: B023
                "cpu",
                least=3,
            )
        rows.append(
            (f"({B}, {D}, {T})", str(dtype)[6:], forward, forward / clone, forward / add, both, naive and naive / both)
        )
    common.table(
        f"linear_scan, {common.machine('cpu')}, copy {ceiling / 1e9:.1f} GB/s",
        ["(B, D, T)", "type", "fwd ms", "fwd/clone", "fwd/(a + b)", "f+b ms", "loop/f+b"],
        rows,
    )


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--sweep", action="store_true", help="time tile sizes instead (GPU)")
    options = parser.parse_args()
    torch.manual_seed(0)
    check(options.device)
    ceiling = common.copy_ceiling(options.device)
    if options.device == "cpu":
        time_cpu(ceiling)
        return
    if options.sweep:
        sweep(ceiling)
        return
    time_gpu(ceiling)
    beyond_int32()


if __name__ == "__main__":
    main()
