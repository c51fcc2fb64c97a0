"""Owns the check of the deep models on a GPU: the block contract, training in bfloat16, streams.

    PYTHONPATH=.:kernels:tests python tests/benchmarks/gpu_check.py [--device cuda|cpu] [--processes 14]

1. Every block in float64 and float32: forward = two parts with the carried state = steps; what a reset starts is a
   sequence of its own; inputs after t change no bit before t; outputs and gradients are those of the CPU in float64.
   The figures are the largest differences, relative to the largest number.
2. Every kind trained for some steps in bfloat16 by the project's own loop: no NaN, states in float32, the loss falls.
3. Every kind's stream: rows a second on the GPU and on one CPU thread, one id and 21 ids at a time.

Needs torch, numba and the packages ssmfin and ssmfin_kernels, nothing else. Without a GPU it says so and ends with 0;
it ends with 1 where anything is off. Compiling takes most of the time, so parts 1 and 2 run in several processes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import math
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

import torch
from deep_support.blocks import BLOCKS, KINDS, RESETS, WIDTH, moved, resets, streamed
from torch import Tensor

from ssmfin.models.deep.skeleton import Inputs, Network
from ssmfin.models.deep.training import Recipe, repeatable, train

LENGTH = 151  # odd, more than two chunks of every block
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
GRADIENT = {torch.float64: 1e-9, torch.float32: 1e-4}  # of sums over 450 steps
NET_WIDTH, FEATURES, HORIZONS = 32, 8, 3


class Task(NamedTuple):
    """What one process does at a time."""

    part: str
    name: str
    device: str
    dtype: torch.dtype


class Answer(NamedTuple):
    """One line of the report."""

    task: Task
    line: str
    good: bool
    seconds: float


def sample(batch: int = 3, seed: int = 5) -> Tensor:
    return torch.randn(batch, LENGTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def distance(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Largest difference over the largest number, of the worst tensor; inf where something is not finite."""
    worst = 0.0
    for one, other in zip(actual, expected, strict=True):
        if other.numel():
            one, other = one.detach().double().cpu(), other.detach().double().cpu()
            found = float((one - other).abs().max()) / max(float(other.abs().max()), 1e-30)
            worst = max(worst, found if math.isfinite(found) else math.inf)
    return worst


def contract(task: Task) -> tuple[str, bool]:
    """Part 1 for one block in one type."""
    device, dtype = task.device, task.dtype
    block = moved(task.name, dtype).to(device).train()  # cuDNN has no gradient of a recurrent layer in eval mode
    x, mask = sample().to(device, dtype), resets(LENGTH).to(device)
    found: dict[str, float] = {}
    with torch.no_grad():
        whole, final = block(x)
        first, state = block(x[:, :100])
        second, carried = block(x[:, 100:], state)
        found["parts"] = distance((torch.cat((first, second), 1), *carried), (whole, *final))
        block.freeze()
        steps, last = streamed(block, x)
        found["steps"] = distance((steps, *last), (whole, *final))
        found["resets"] = 0.0
        packed, ends = block(x, state, mask)
        for row, starts in RESETS.items():
            edges = sorted({0, *starts, LENGTH})
            for begin, end in itertools.pairwise(edges):
                before = None if begin in starts else tuple(part[row : row + 1] for part in state)
                alone, after = block(x[row : row + 1, begin:end], before)
                found["resets"] = max(found["resets"], distance((packed[row : row + 1, begin:end],), (alone,)))
            found["resets"] = max(found["resets"], distance(tuple(part[row : row + 1] for part in ends), after))
        other = torch.cat((x[:, :70], 1e3 * sample(3, 6).to(x)[:, 70:]), 1)
        causal = torch.equal(block(other)[0][:, :70], whole[:, :70])
    found["cpu"], found["gradients"] = 0.0, 0.0
    for reset in (None, mask):
        here = gradients(task.name, device, dtype, reset)
        there = gradients(task.name, "cpu", torch.float64, reset)
        found["cpu"] = max(found["cpu"], distance(here[:1], there[:1]))
        found["gradients"] = max(found["gradients"], distance(here[1:], there[1:]))
    limits = dict.fromkeys(found, TOLERANCE[dtype]) | {"gradients": GRADIENT[dtype]}
    line = "  ".join(f"{name} {value:.0e}{'' if value <= limits[name] else '!'}" for name, value in found.items())
    return f"{line}  causal {'yes' if causal else 'NO!'}", causal and all(found[name] <= limits[name] for name in found)


def gradients(name: str, device: str, dtype: torch.dtype, reset: Tensor | None) -> tuple[Tensor, ...]:
    """The outputs, and the gradients of a weighted sum of outputs and states by inputs and parameters."""
    block = moved(name, dtype).to(device).train()
    x, weight = sample().to(device, dtype).requires_grad_(), sample(3, 7).to(device, dtype)
    with repeatable(0, torch.device(device)):
        y, final = block(x, None, None if reset is None else reset.to(device))
        loss = (y * weight).sum() + sum((part * part).sum() for part in final)
        grads = torch.autograd.grad(loss, (x, *block.parameters()), allow_unused=True)
    return (y, *(x.new_zeros(()) if grad is None else grad for grad in grads))


def network_of(kind: str, device: str) -> Network:
    torch.manual_seed(0)
    made = Network(
        features=FEATURES,
        horizons=HORIZONS,
        limits=(1.0,),
        blocks=KINDS[kind](NET_WIDTH),
        width=NET_WIDTH,
        dropout=0.1,
        calendar=True,
        ids=4,
    )
    return made.to(device)


def inputs_of(batch: int, steps: int, device: str, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(batch, steps, FEATURES, generator=generator)
    calendar = torch.stack((torch.arange(steps) % 7, torch.arange(steps) // 21 % 12), -1).expand(batch, -1, -1)
    ids = (torch.arange(batch) % 5)[:, None].expand(-1, steps)
    return Inputs(draws, calendar.contiguous(), ids.contiguous()).to(torch.device(device))


def training(task: Task) -> tuple[str, bool]:
    """Part 2 for one kind: 30 steps towards an exponential average of the first columns."""
    device = torch.device(task.device)
    with repeatable(0, device):
        network = network_of(task.name, task.device)
        inputs = inputs_of(16, 384, task.device)
        level = torch.zeros_like(inputs.columns[:, 0, :HORIZONS])
        levels = []
        for row in inputs.columns[..., :HORIZONS].unbind(1):
            level = 0.8 * level + 0.2 * row
            levels.append(level)
        targets = torch.stack(levels, 1)  # (B, T, H)
        kinds: set[torch.dtype] = set()

        def loss() -> Tensor:
            with torch.autocast(device.type, dtype=torch.bfloat16):
                raw, state = network(inputs)
            kinds.update(part.dtype for block in state for part in block)
            error = targets - raw[..., 0]
            return (torch.exp(error) - error - 1)[:, 128:].mean()

        def epoch_losses(epoch: int) -> Iterator[Callable[[], Tensor]]:
            yield from [loss] * 10

        recipe = Recipe(
            epochs=3,
            patience=3,
            learning_rate=1e-2,
            slow_learning_rate=1e-3,
            weight_decay=0.05,
            warmup=1,
            gradient_clip=1.0,
            averaging=0.0,
        )
        loss().backward()  # compiles
        network.zero_grad(set_to_none=True)
        synchronize(task.device)
        begin = time.perf_counter()
        history = train(network, recipe, epoch_losses=epoch_losses, validation_loss=lambda: loss().item())
        seconds = time.perf_counter() - begin
    finite = all(parameter.isfinite().all() for parameter in network.parameters())
    falls = history.best_validation_loss < 0.9 * history.initial_validation_loss
    wide = kinds <= {torch.float32}
    line = (
        f"loss {history.initial_validation_loss:.4f} -> {history.best_validation_loss:.4f}{'' if falls else '!'}  "
        f"states {'float32' if wide else f'{kinds}!'}  {1e3 * seconds / 30:.1f} ms a step"
    )
    return line, finite and falls and wide


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def rows_a_second(kind: str, device: str, ids: int, seconds: float) -> float:
    """One row of each id at a time: to the device, through the network, and the forecasts back."""
    network = network_of(kind, device).eval()
    for block in network.blocks:
        block.freeze()
    row = inputs_of(ids, 1, "cpu")
    row = Inputs(row.columns[:, 0], row.calendar[:, 0], row.ids[:, 0])
    state = network.initial_state(ids)
    done = 0
    with torch.inference_mode():
        for _ in range(10):
            _, state = network.step(row.to(torch.device(device)), state)
        synchronize(device)
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            for _ in range(10):
                raw, state = network.step(row.to(torch.device(device)), state)
                raw.cpu()
            done += 10
    return ids * done / (time.perf_counter() - begin)


def answer(task: Task) -> Answer:
    torch.set_num_threads(1)
    begin = time.perf_counter()
    try:
        line, good = (contract if task.part == "contract" else training)(task)
    except Exception:
        line, good = "raised\n" + traceback.format_exc(), False
    return Answer(task, line, good, time.perf_counter() - begin)


def answers(tasks: list[Task], processes: int) -> Iterator[Answer]:
    """In the order in which they are there."""
    if processes < 2:
        yield from map(answer, tasks)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(answer, task) for task in tasks]):
            yield future.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="cpu: to test this script")
    parser.add_argument("--processes", type=int, help="default 14 on a GPU, 1 on a CPU")
    parser.add_argument("--only", nargs="+", default=[], help="names of blocks and kinds")
    parser.add_argument("--seconds", type=float, default=0.15, help="for each figure of a stream")
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        print("torch finds no GPU: nothing checked")
        return
    begin = time.perf_counter()
    machine = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{machine}, torch {torch.__version__}", flush=True)
    chosen = set(options.only)
    trainings = [Task("bfloat16", name, device, torch.bfloat16) for name in KINDS if not chosen or name in chosen]
    contracts = [
        Task("contract", name, device, dtype)
        for dtype in (torch.float32, torch.float64)
        for name in BLOCKS
        if not chosen or name in chosen
    ]
    bad = []
    tasks = sorted(trainings + contracts, key=lambda task: not any(heavy in task.name for heavy in ("mamba", "linear")))
    processes = options.processes or (min(14, os.cpu_count() or 1) if device == "cuda" else 1)
    for found in answers(tasks, processes):
        kind = "" if found.task.part == "bfloat16" else str(found.task.dtype).removeprefix("torch.")
        mark = "ok  " if found.good else "FAIL"
        print(
            f"{mark} {found.task.part:9}{kind:8}{found.task.name:26}{found.line}  {found.seconds:.1f} s",
            flush=True,
        )
        bad += [] if found.good else [f"{found.task.part} {kind} {found.task.name}"]
    print(f"-- after {time.perf_counter() - begin:.0f} s; streams, rows a second, networks of width {NET_WIDTH}")
    devices = ["cpu", "cuda"] if device == "cuda" else ["cpu"]
    torch.set_num_threads(1)
    for task in trainings:
        rates = [
            f"{where}, ids {ids:2d}: {rows_a_second(task.name, where, ids, options.seconds):9,.0f}"
            for where in devices
            for ids in (1, 21)
        ]
        print(f"     {task.name:18}" + "   ".join(rates), flush=True)
    print(
        f"{time.perf_counter() - begin:.0f} s; "
        + (f"NOT AS IT SHOULD BE: {', '.join(bad)}" if bad else "all as it should be")
    )
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
