"""Owns what the benchmarks share: median times, the ceilings measured in the same run, peak memory, one table.

    PYTHONPATH=kernels python kernels/benchmarks/linear_scan.py [--device cpu|cuda]

Times are medians after a warm-up. On a GPU, of replays of a captured graph, which leaves the gaps between launches out;
shapes should exceed the 60 MB cache of the chip.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with --device; the benchmark may add to it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def median_ms(
    run: Callable[[], Any], device: str, *, seconds: float = 0.25, least: int = 5, graph: bool = True
) -> float:
    """Median time of a call in ms, over about `seconds`, at least `least` calls, after calls to warm up.

    On a GPU of replays of a captured graph; with `graph` false, of calls one by one, for what a graph would slow down
    or cannot capture.
    """
    if device == "cuda":
        return _median_ms_cuda(run, seconds, least, graph)
    run()
    begin = time.perf_counter()
    run()
    times = []
    for _ in range(_calls(time.perf_counter() - begin, seconds, least)):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def _median_ms_cuda(run: Callable[[], Any], seconds: float, least: int, graph: bool) -> float:
    # a graph cannot be captured on the default stream, and what is captured must have run once on the same stream
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
        run()
        if graph:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured, stream=stream):
                run()
            run = captured.replay
            run()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        calls = _calls(time.perf_counter() - begin, seconds, least)
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
        for start, stop in events:
            start.record()
            run()
            stop.record()
        torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in events)


def host_ms(run: Callable[[], Any]) -> float:
    """Median time in ms that a call keeps Python busy before it returns, the GPU left to finish on its own."""
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def spread(task: Callable[[Any], Any], cases: Sequence[Any], device: str) -> list[Any]:
    """[task(case) for case in cases]; on a GPU in many processes: compiling takes most of the time.

    Each process has one thread: the naive twins run on the CPU, and sixteen processes of sixteen threads wait for each
    other most of the time. Progress goes to standard error, so that nobody takes a long check for a hang.
    """
    if device == "cpu":
        return [task(case) for case in cases]
    processes = min(len(cases), os.cpu_count() or 1)
    results = []
    begin = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        for done, result in enumerate(pool.imap(task, cases, chunksize=1), 1):
            results.append(result)
            if done == len(cases) or done % processes == 0:
                seconds = time.perf_counter() - begin
                print(f"{task.__name__}: {done} of {len(cases)}, {seconds:.0f} s", file=sys.stderr, flush=True)
    return results


def _calls(once: float, seconds: float, least: int) -> int:
    return max(least, min(200, int(seconds / max(once, 1e-6))))


def copy_ceiling(device: str) -> float:
    """Bytes per second of a large copy, read and written counted."""
    source = torch.randn((1 << 30 if device == "cuda" else 1 << 25), device=device)
    target = torch.empty_like(source)
    # not from a graph: there a copy becomes a node of its own kind and runs at two thirds of the speed
    ms = median_ms(lambda: target.copy_(source), device, graph=False)
    return 2 * source.numel() * source.element_size() / ms * 1e3


def exp2_ceiling(device: str) -> float:
    """Exponentials per second: on a GPU, of a Triton program that does hardly anything else."""
    if device == "cpu":
        x = torch.randn(1 << 14)
        return x.numel() / median_ms(lambda: torch.exp2(x), device) * 1e3
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(y_ptr, ROUNDS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = offset.to(tl.float32) * -1e-9
        total = tl.zeros((BLOCK,), tl.float32)
        for step in range(ROUNDS):
            # four values a thread that do not wait for each other; the sum keeps them from being removed
            total += tl.exp2(x - step)
        tl.store(y_ptr + offset, total)

    programs, rounds, block = 132 * 64, 512, 1024
    y = torch.empty(programs * block, device=device)
    launch: Any = kernel[(programs,)]
    ms = median_ms(lambda: launch(y, rounds, block), device)
    return programs * rounds * block / ms * 1e3


def peak_bytes(run: Callable[[], Any], device: str) -> int | None:
    """Most memory on the GPU during a call beyond what was there before it; None on a CPU."""
    if device != "cuda":
        return None
    run()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated()) - before


def relative_error(found: Tensor, exact: Tensor) -> float:
    """||found - exact|| / ||exact|| in double precision; NaN where either has one."""
    wide = torch.complex128 if exact.is_complex() else torch.float64
    found, exact = found.detach().to(wide), exact.detach().to(wide)
    return float(torch.linalg.vector_norm(found - exact) / torch.linalg.vector_norm(exact))


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their header; floats with three significant digits, None as a dash."""
    cells = [[str(name) for name in header]] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), flush=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def machine(device: str) -> str:
    """The machine and versions in one line, for the head of a table."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"
