"""Times selective_scan against its floor and its peers: one command, one table.

    PYTHONPATH=kernels python kernels/benchmarks/selective_scan.py                  on a GPU
    PYTHONPATH=kernels python kernels/benchmarks/selective_scan.py --sweep          every tile at every shape
    PYTHONPATH=kernels python kernels/benchmarks/selective_scan.py --device cpu     beside plain torch

GPU: the floor is max(bytes that must move / copy rate, exponentials / exp2 rate), both rates measured in the run; the
peer is mamba_ssm's CUDA kernel, its times those of shared/ANCHORS.md (one H200). All options on, all gradients. Times
are those of captured graphs, autograd included: the host, whose own time stands beside them, needs longer to launch the
small shapes than the GPU to compute them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import common
import torch
from torch import Tensor
from torch.nn.functional import softplus

from ssmfin_kernels import selective_scan, selective_state_update

# (B, D, T, N), type, milliseconds of the peer: forward, forward + backward
SHAPES = [
    ((8, 2048, 2048, 16), torch.bfloat16, 0.592, 2.91),
    ((8, 2048, 8192, 16), torch.bfloat16, 2.63, 11.9),
    ((256, 128, 512, 16), torch.float32, 0.612, 2.26),
    ((64, 128, 4096, 16), torch.float32, 1.27, 4.30),
    ((4, 256, 65536, 16), torch.bfloat16, 1.46, 6.94),
    ((1, 128, 262144, 16), torch.float32, 3.06, 9.69),
    ((8, 2048, 2048, 64), torch.bfloat16, 1.98, 10.8),
]
# R, U of gpu.Tiles, for states up to 16, and for more
FORWARD_TILES = {16: [(1, 4), (1, 8), (2, 4), (2, 8)], 64: [(1, 4), (2, 4)]}
BACKWARD_TILES = {2: [(1, 4), (2, 4)], 4: [(1, 4)]}  # CR, U of gpu_backward.Tiles, for numbers of 2 and 4 bytes
SEGMENTS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def arguments(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Arguments as Mamba has them at the start of training."""
    batch, channels, steps, states = shape

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, dtype=dtype, device=device)

    rates = -torch.arange(1, states + 1, dtype=torch.float32, device=device).repeat(channels, 1)
    bias = torch.rand(channels, device=device) * 4 - 6
    values = (
        normal(batch, steps, channels),
        normal(batch, steps, channels) * 0.5,
        rates,
        normal(batch, steps, states),
        normal(batch, steps, states),
        torch.ones(channels, device=device),
        normal(batch, steps, channels),
        bias,
    )
    return {name: value.requires_grad_() for name, value in zip(NAMES, values, strict=True)}


# (B, D, T, N) that the copies of 16 bytes fit: channels and steps that fill no tile, split time, long states, some
CHECKED = [(2, 72, 101, 16), (1, 256, 777, 16), (1, 136, 130, 40), (2, 24, 65, 64), (2, 64, 77, 24)]


def check(device: str, dtype: torch.dtype) -> float:
    """The largest relative error, over sizes, outputs and gradients, against naive in float64."""
    sizes = CHECKED if device == "cuda" else CHECKED[:1]
    return max(check_size(shape, device, dtype) for shape in sizes)


def check_size(shape: tuple[int, int, int, int], device: str, dtype: torch.dtype) -> float:
    torch.manual_seed(0)
    batch, channels, steps, _ = shape
    given = arguments(shape, dtype, device)
    reset = torch.rand(batch, steps, device=device) < 0.03
    weight = torch.randn(batch, steps, channels, device=device)
    results = []
    for backend, kind in (("naive", torch.float64), (None, None)):
        these = {k: (v.detach().to(kind) if kind else v.detach()).requires_grad_() for k, v in given.items()}
        y, state = selective_scan(**these, delta_softplus=True, reset=reset, backend=backend)
        grads = torch.autograd.grad((y.double() * weight).sum() + state.double().square().sum(), list(these.values()))
        results.append([y, state, *grads])
    pairs = zip(*results, strict=True)
    return max(((b.double() - a).norm() / a.norm()).item() for a, b in pairs)


def gpu_rates() -> tuple[float, float]:
    """Bytes a second of a copy, exponentials a second."""
    import triton
    import triton.language as tl
    from triton.testing import do_bench

    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.numel() * 4 / (do_bench(lambda: target.copy_(source), return_mode="median") * 1e-3)

    @triton.jit
    def many_exponentials(x, ROUNDS: tl.constexpr) -> None:  # type: ignore[no-untyped-def]
        at = tl.program_id(0) * 1024 + tl.arange(0, 1024)
        value = tl.load(x + at)
        for _ in range(ROUNDS):
            value = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [value], tl.float32, True, 1)
        tl.store(x + at, value)

    blocks = 132 * 16
    seconds = do_bench(lambda: many_exponentials[(blocks,)](source, ROUNDS=1024), return_mode="median") * 1e-3
    return copy, blocks * 1024 * 1024 / seconds


def floor(shape: tuple[int, int, int, int], size: int, copy: float, exponentials: float) -> tuple[float, float]:
    """Milliseconds: forward; forward and backward, which reads once more, and needs two exponentials more."""
    batch, channels, steps, states = shape
    wide, narrow = batch * steps * channels * size, batch * steps * states * size
    work = batch * steps * channels * states
    forward = max((4 * wide + 2 * narrow) / copy, work / exponentials)
    both = max((4 * wide + 2 * narrow + 7 * wide + 4 * narrow) / copy, 3 * work / exponentials)
    return forward * 1e3, both * 1e3


def gpu_times(shape: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[float, float, float, float, float]:
    """Milliseconds of the GPU forward, forward + backward, of the host for the latter; its peak memory in gigabytes,
    and that of arguments and results."""
    given = arguments(shape, dtype, "cuda")
    values = list(given.values())
    grad = torch.randn_like(given["u"])

    def forward() -> None:
        with torch.no_grad():
            selective_scan(**given, delta_softplus=True)

    def both() -> None:
        y, _ = selective_scan(**given, delta_softplus=True)
        torch.autograd.grad(y, values, grad)

    both()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    both()
    peak = torch.cuda.max_memory_allocated() / 1e9
    own = (2 * sum(v.numel() * v.element_size() for v in values) + 2 * grad.numel() * grad.element_size()) / 1e9
    return common.median_ms(forward, "cuda"), common.median_ms(both, "cuda"), common.host_ms(both), peak, own


def gpu_table() -> None:
    copy, exponentials = gpu_rates()
    print(f"{torch.cuda.get_device_name()}: copy {copy / 1e12:.2f} TB/s, exp2 {exponentials / 1e12:.2f}e12/s")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        print(f"largest relative error against float64, {dtype}: {check('cuda', dtype):.1e}")
    print(HEADING)
    for case in SHAPES:
        print(row(*case, copy, exponentials), flush=True)


HEADING = (
    f"{'B, D, T, N':22} {'type':9} {'fwd ms':>7} {'/floor':>6} {'x peer':>6} {'f+b ms':>7} {'/floor':>6} {'x peer':>6}"
)
HEADING += f" {'host ms':>7} {'peak GB':>8} {'own GB':>7}"


def row(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    peer_forward: float,
    peer_both: float,
    copy: float,
    exponentials: float,
) -> str:
    forward, both, host, peak, own = gpu_times(shape, dtype)
    low, low_both = floor(shape, dtype.itemsize, copy, exponentials)
    text = f"{', '.join(map(str, shape)):22} {str(dtype)[6:]:9} {forward:7.3f} {forward / low:6.2f}"
    text += f" {peer_forward / forward:6.2f} {both:7.3f} {both / low_both:6.2f} {peer_both / both:6.2f}"
    return f"{text} {host:7.2f} {peak:8.2f} {own:7.2f}"


Choice = tuple[tuple[int, ...], int]


def force(forward: Choice, backward: Choice) -> None:
    """Make both passes use these tiles and segments."""
    from ssmfin_kernels.selective_scan import gpu, gpu_backward

    def choose(*sizes: int) -> gpu.Tiles:
        return gpu.Tiles(*forward[0], forward[1])

    def choose_backward(*sizes: int) -> gpu_backward.Tiles:
        return gpu_backward.Tiles(*backward[0], backward[1])

    gpu.choose = choose
    gpu_backward.choose = choose_backward


def bytes_of(dtype: str) -> int:
    return int(getattr(torch, dtype).itemsize)


def warm(part: int, parts: int) -> None:
    """Compile a share of the kernels of the sweep; they are kept on disk for the process that times them."""
    kinds = sorted({(shape[1], shape[3], str(dtype)[6:]) for shape, dtype, *_ in SHAPES})
    work: list[Any] = [(kind, True, tiles) for kind in kinds for tiles in BACKWARD_TILES[bytes_of(kind[2])]]
    work += [(kind, False, tiles) for kind in kinds for tiles in FORWARD_TILES[kind[1]]]
    for (channels, states, dtype), back, tiles in work[part::parts]:
        usual = FORWARD_TILES[states][0]
        for segments in (1, 2):
            force((usual, segments) if back else (tiles, segments), (tiles, segments))
            given = arguments((1, channels, 512, states), getattr(torch, dtype), "cuda")
            y, _ = selective_scan(**given, delta_softplus=True)
            if back:
                y.sum().backward()
            else:
                with torch.no_grad():
                    selective_scan(**given, delta_softplus=True)


def gpu_sweep() -> None:
    """Every tile, with the numbers of segments around that which fills the chip, at every shape; the best together."""
    from triton.testing import do_bench

    began = time.perf_counter()
    parts = 15
    jobs = [subprocess.Popen([sys.executable, __file__, "--warm", f"{part}/{parts}"]) for part in range(parts)]
    for dtype in (torch.float32, torch.bfloat16):
        print(f"largest relative error against float64, {dtype}: {check('cuda', dtype):.1e}", flush=True)
    for job in jobs:
        job.wait()
    print(f"compiled in {time.perf_counter() - began:.0f} s", flush=True)
    copy, exponentials = gpu_rates()
    print(f"copy {copy / 1e12:.2f} TB/s, exp2 {exponentials / 1e12:.2f}e12/s")
    table = [HEADING]
    for shape, dtype, peer_forward, peer_both in SHAPES:
        batch, channels, steps, states = shape
        given = arguments(shape, dtype, "cuda")
        plain = {name: value.detach() for name, value in given.items()}
        grad = torch.randn_like(given["u"])
        best: list[Choice] = [(FORWARD_TILES[states][0], 1)]
        for back, all_tiles in ((False, FORWARD_TILES[states]), (True, BACKWARD_TILES[dtype.itemsize])):
            found = []
            for tiles in all_tiles:
                programs = batch * channels // (8 * tiles[0])
                for segments in SEGMENTS:
                    fills = 700 < programs * segments < 9000 and steps // segments >= 64
                    if not fills and (segments > 1 or programs < 500):
                        continue
                    force(best[0] if back else (tiles, segments), (tiles, segments))
                    y, _ = selective_scan(**(given if back else plain), delta_softplus=True)
                    inputs = list(given.values())

                    def run(y: Tensor = y, inputs: list[Tensor] = inputs, back: bool = back) -> Any:
                        if back:
                            return torch.autograd.grad(y, inputs, grad, retain_graph=True)  # noqa: B023
                        return selective_scan(**plain, delta_softplus=True)  # noqa: B023

                    if back:
                        ms = do_bench(run, 3, 12, return_mode="median")
                    else:
                        ms = common.median_ms(run, "cuda", seconds=0.03)
                    found.append((ms, tiles, segments))
                    del y, run
            found.sort()
            print(shape, "backward" if back else "forward", " ".join(f"{t}x{s}:{ms:.3f}" for ms, t, s in found))
            best.append(found[0][1:])
            if not back:
                best = best[1:]
        force(best[0], best[1])
        table.append(row(shape, dtype, peer_forward, peer_both, copy, exponentials) + f"  {best}")
        print(table[-1], flush=True)
    print("\n".join(table))


class Fused(torch.autograd.Function):
    """The best plain torch has: decays and inputs at once, a loop in place, gradients by hand from stored states."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        dt, x = delta.transpose(0, 1), u.transpose(0, 1)
        decay = torch.exp(dt[..., None] * A)  # (T, B, D, N)
        states = (dt * x)[..., None] * B.transpose(0, 1)[:, :, None]
        for t in range(1, len(states)):
            states[t].addcmul_(decay[t], states[t - 1])
        ctx.save_for_backward(u, delta, A, B, C, decay, states)
        return torch.einsum("tbdn,btn->btd", states, C)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, decay, states = ctx.saved_tensors
        grad = dy.transpose(0, 1)[..., None] * C.transpose(0, 1)[:, :, None]
        for t in range(len(grad) - 2, -1, -1):
            grad[t].addcmul_(decay[t + 1], grad[t + 1])
        dC = torch.einsum("tbdn,btd->btn", states, dy)
        dB = torch.einsum("tbdn,btd->btn", grad, delta * u)
        by_input = torch.einsum("tbdn,btn->btd", grad, B)
        grad[1:].mul_(decay[1:]).mul_(states[:-1])
        grad[0] = 0
        by_decay = torch.einsum("tbdn,dn->btd", grad, A)
        dA = torch.einsum("tbdn,btd->dn", grad, delta)
        return by_input * delta, by_input * u + by_decay, dA, dB, dC


def cpu_table() -> None:
    print(f"{torch.get_num_threads()} threads; largest relative error: {check('cpu', torch.float32):.1e} (float32)")
    shape = (64, 64, 256, 16)
    given = arguments(shape, torch.float32, "cpu")
    values = [given[name].detach() for name in NAMES[:5]]
    values[1] = softplus(values[1] - 3)
    values = [value.requires_grad_() for value in values]
    grad = torch.randn_like(values[0])

    def naive(*inputs: Tensor) -> Tensor:
        return selective_scan(*inputs, backend="naive")[0]

    ways: dict[str, Callable[..., Tensor]] = {
        "plain loop, autograd": naive,
        "fused torch function": Fused.apply,
        "ssmfin_kernels": lambda *inputs: selective_scan(*inputs)[0],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(8):
        for name, way in ways.items():
            began = time.perf_counter()
            torch.autograd.grad(way(*values), values, grad)
            if repeat:
                times[name].append(1e3 * (time.perf_counter() - began))
    print("(B, T, D, N) = (64, 256, 64, 16) float32, forward + backward")
    ours = statistics.median(times["ssmfin_kernels"])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"  {name:22} {median:8.1f} ms   {median / ours:6.2f} x ours   best {min(measured):.1f}")
    print(f"  extra memory at the peak, ours: {cpu_memory():.2f} x arguments and results")
    state = torch.zeros(1, 128, 16)
    row, weights = torch.randn(1, 128), torch.randn(1, 16)
    A = -torch.rand(128, 16)
    one: Callable[[], Any] = lambda: selective_state_update(  # noqa: E731
        state, row, row, A, weights, weights, A[:, 0], row, A[:, 1], True
    )
    laps = []
    with torch.no_grad():
        for _ in range(2000):
            began = time.perf_counter()
            one()
            laps.append(1e6 * (time.perf_counter() - began))
    print(f"selective_state_update, B = 1, D = 128, N = 16: {statistics.median(laps):.0f} us a step")


def cpu_memory() -> float:
    """Growth of a fresh process over arguments and results, as a multiple of both."""
    code = (
        "import torch, resource, runpy, sys; sys.argv = ['']\n"
        f"sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})\n"
        f"b = runpy.run_path({__file__!r}, run_name='b')\n"
        "small = b['arguments']((1, 64, 40, 16), torch.float32, 'cpu')\n"
        "def run(given):\n"
        "    y, _ = b['selective_scan'](**given, delta_softplus=True)\n"
        "    return y, torch.autograd.grad(y.sum(), list(given.values()))\n"
        "run(small)\n"
        "given = b['arguments']((64, 64, 1024, 16), torch.float32, 'cpu')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "y, grads = run(given)\n"
        "own = sum(t.numel() * 4 for t in (*given.values(), y, *grads))\n"
        "inside = sum(t.numel() * 4 for t in given.values())\n"
        "print((peak() - before + inside) / own)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--warm")
    options = parser.parse_args()
    if options.warm:
        warm(*map(int, options.warm.split("/")))
    elif options.sweep:
        gpu_sweep()
    elif options.device == "cpu":
        cpu_table()
    else:
        gpu_table()


if __name__ == "__main__":
    main()
