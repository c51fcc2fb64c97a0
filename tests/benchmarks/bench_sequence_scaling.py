"""Owns the timing of `mamba` against a transformer of equal parameters as sequences grow: linear against quadratic.

    python tests/benchmarks/bench_sequence_scaling.py [--device cpu|cuda] [--steps 512 4096 32768] [--parameters 50000]

One training pass (forward and backward) of the network that the forecasters use, all contenders in one run. `growth` is
the exponent of time and of memory between the two longest sequences: 1 is linear, 2 quadratic. Fused attention takes
time that grows quadratically and memory that grows linearly; plain attention keeps every score. Memory on a GPU is the
most that was allocated during the pass, on a CPU the growth of a fresh process. Exits with 1 where mamba grows faster
than the transformer. Needs torch and ssmfin_kernels (PYTHONPATH=.:kernels without an installation).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core: read by the linear algebra library when it loads

import argparse
import contextlib
import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssmfin.models.deep.block import SequenceBlock
from ssmfin.models.deep.sizing import match_parameters, parameter_count
from ssmfin.models.deep.skeleton import Inputs, Network
from ssmfin.models.sequence.blocks.transformer import AttentionBlock, FeedForwardBlock
from ssmfin.models.ssm.blocks.mamba import MambaBlock

LAYERS, HEADS, WINDOW, FEATURES = 2, 4, 252, 8
CONTENDERS = ("mamba", "transformer", f"transformer, window {WINDOW}", "transformer, plain attention")


class Case(NamedTuple):
    """One contender at one length."""

    contender: str
    steps: int
    batch: int
    parameters: int
    device: str
    half: bool
    seconds: float


class Measured(NamedTuple):
    """Median milliseconds of a pass, and bytes at its peak; None: out of memory. The network's size and state."""

    width: int
    parameters: int
    state: int
    ms: float | None
    peak: int | None


def network(contender: str, steps: int, width: int) -> Network:
    """Two layers; a transformer's are attention and feed-forward each."""
    blocks: list[SequenceBlock] = []
    for _ in range(LAYERS):
        if contender == "mamba":
            blocks.append(MambaBlock(width, layers=LAYERS))
        else:
            window = WINDOW if "window" in contender else steps
            blocks.append(AttentionBlock(width, heads=HEADS, window=window, layers=2 * LAYERS))
            blocks.append(FeedForwardBlock(width, layers=2 * LAYERS))
    return Network(
        features=FEATURES, horizons=3, limits=(1.0,), blocks=blocks, width=width, dropout=0.0, calendar=False, ids=0
    )


def width_of(case: Case) -> int:
    """Heads leave a transformer few widths, so it is sized to the budget, and mamba to the transformer."""
    transformer = match_parameters(lambda width: network("", case.steps, width), case.parameters, multiple_of=2 * HEADS)
    if case.contender != "mamba":
        return transformer
    budget = parameter_count(network("", case.steps, transformer))
    return match_parameters(lambda width: network("mamba", case.steps, width), budget, multiple_of=2)


def measure(case: Case) -> Measured:
    """Train one pass again and again."""
    torch.manual_seed(0)

    width = width_of(case)
    model = network(case.contender, case.steps, width).to(case.device)
    state = sum(part.numel() for block in model.initial_state(1) for part in block)
    shape = (case.batch, case.steps)
    with torch.no_grad():
        model.head.weight.normal_()  # zero before training: no gradient would reach the blocks
    inputs = Inputs(
        torch.randn(*shape, FEATURES, device=case.device),
        torch.zeros(*shape, 2, dtype=torch.long, device=case.device),
        torch.zeros(shape, dtype=torch.long, device=case.device),
    )

    few = Inputs(inputs.columns[:, :16], inputs.calendar[:, :16], inputs.ids[:, :16])

    def train(inputs: Inputs) -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(case.device, torch.bfloat16, enabled=case.half), attention(case.contender):
            loss = model(inputs)[0].square().mean()
        loss.backward()

    train(few)  # libraries load, kernels compile
    ms: float | None = None
    peak: int | None = None
    with contextlib.suppress(torch.OutOfMemoryError):
        timed = timed_on_gpu if case.device == "cuda" else timed_on_cpu
        ms, peak = timed(lambda: train(inputs), case.seconds)
    return Measured(width, parameter_count(model), state, ms, peak)


@contextlib.contextmanager
def attention(contender: str) -> Iterator[None]:
    """Without fused kernels where plain attention is asked for."""
    with sdpa_kernel(SDPBackend.MATH) if "plain" in contender else contextlib.nullcontext():
        yield


def timed_on_gpu(train: Callable[[], None], seconds: float) -> tuple[float, int]:
    """Median ms and peak bytes beyond what lay there before."""
    train()  # kernels may depend on the length
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    train()
    torch.cuda.synchronize()
    peak = int(torch.cuda.max_memory_allocated()) - before
    times: list[float] = []
    while len(times) < 5 or (sum(times) < 1e3 * seconds and len(times) < 100):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        train()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times), peak


def timed_on_cpu(train: Callable[[], None], seconds: float) -> tuple[float, int]:
    """Median ms and the growth of the process."""
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1e3 * seconds and len(times) < 100):
        began = time.perf_counter()
        train()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times), unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def growth(steps: Sequence[int], values: Sequence[float | int | None]) -> float | None:
    """Exponent between the last two lengths that were measured."""
    known = [(T, value) for T, value in zip(steps, values, strict=True) if value]
    if len(known) < 2:
        return None
    (short, few), (long, many) = known[-2:]
    return math.log(many / few) / math.log(long / short)


def main() -> None:
    """Print a table for each contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, nargs="+", help="512 4096 32768 on a GPU, 256 1024 4096 on a CPU")
    parser.add_argument("--parameters", type=int, default=50_000)
    parser.add_argument("--batch", type=int, help="8 on a GPU, 1 on a CPU")
    parser.add_argument("--float32", action="store_true", help="on a GPU too, instead of bfloat16 by autocast")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure, about")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    steps = sorted(options.steps or ([512, 4096, 32768] if on_gpu else [256, 1024, 4096]))
    batch = options.batch or (8 if on_gpu else 1)
    half = on_gpu and not options.float32
    machine = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} thread"
    print(
        f"{machine}, torch {torch.__version__}, {'bfloat16' if half else 'float32'}, {batch} sequences, {LAYERS} layers"
    )

    exponents = {}
    reference: list[float | None] = []
    for contender in CONTENDERS:
        cases = [Case(contender, T, batch, options.parameters, options.device, half, options.seconds) for T in steps]
        if on_gpu:
            found = [measure(case) for case in cases]
        else:  # a fresh process each: the peak of a process never falls
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                found = pool.map(measure, cases, chunksize=1)
        times, peaks = [one.ms for one in found], [one.peak for one in found]
        reference = reference or times
        exponents[contender] = growth(steps, times)
        print(f"\n{contender}: width {found[0].width}, {found[0].parameters:,} parameters")
        print(f"{'T':>8}{'ms':>12}{'/ mamba':>10}{'peak MiB':>12}{'state, numbers':>18}")
        for T, one, base in zip(steps, found, reference, strict=True):
            ratio = one.ms / base if one.ms is not None and base else None
            peak = None if one.peak is None else one.peak / 2**20
            print(f"{T:>8}{shown(one.ms):>12}{shown(ratio):>10}{shown(peak):>12}{one.state:>18,}", flush=True)
        print(f"  growth: time {shown(exponents[contender])}, memory {shown(growth(steps, peaks))}")
    mamba, transformer = exponents["mamba"], exponents["transformer"]
    if mamba is not None and transformer is not None and mamba > transformer:
        raise SystemExit(1)


def shown(value: float | None) -> str:
    """Three significant digits; what did not fit into memory as a dash."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
