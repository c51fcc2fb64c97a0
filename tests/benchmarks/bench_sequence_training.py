"""Owns the timing of sequence-wise against window-wise training, and of streams.

    python tests/benchmarks/bench_sequence_training.py [--context 256] [--kinds s4d mamba gru] [--steps 1000000]

An epoch of the same network on the same origins and losses, forward and backward: once as one pass over segments led by
`context` rows of warm-up, and once as a window of `context` rows for each origin, which is what a model without states
must do. The window-wise epoch is timed on a sample of its batches and scaled to all of them. Then a stream: rows a
second, one id and 21 at a time; and `--steps` rows of the network's own step, whose states must stay as large as they
are and forget as they should: the last forecasts are compared with those of a stream that began 5,000 rows before.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import time

import numpy as np
import torch

from ssmfin.models.deep.fitting import network_of
from ssmfin.models.deep.forecaster import DeepForecaster
from ssmfin.models.deep.heads import HeadOptions, Point
from ssmfin.models.deep.skeleton import Inputs, Network
from ssmfin.models.interface import Design, Target, TrainingSet, Window
from ssmfin.models.registry import forecaster_class

FEATURES, HORIZONS = 6, (1, 5, 22)
SEGMENT, WINDOWS = 1024, 64  # origins in a segment; windows in a batch


def network_for(kind: str, context: int) -> Network:
    model = forecaster_class(kind)(context=context, segment=SEGMENT, dropout=0.0)
    assert isinstance(model, DeepForecaster)
    torch.manual_seed(0)
    head = Point.calibrated([np.zeros(2)] * len(HORIZONS), True, HeadOptions("qlike", (0.1, 0.9), 0.9, 2.0))
    return network_of(model, features=FEATURES, horizons=len(HORIZONS), head=head, ids=0, bound=1.0)


def inputs_of(columns: torch.Tensor) -> Inputs:
    zeros = torch.zeros(columns.shape[:-1], dtype=torch.int64)
    return Inputs(columns, torch.stack((zeros, zeros), dim=-1), zeros)


def pass_over(network: Network, columns: torch.Tensor, residual: torch.Tensor, lead: int) -> float:
    """Seconds of one forward and backward with a loss at every step after `lead`."""
    begin = time.perf_counter()
    raw, _ = network(inputs_of(columns))
    error = residual[:, lead:] - raw[:, lead:, :, 0]
    (torch.exp(error) - error - 1).mean().backward()
    network.zero_grad(set_to_none=True)
    return time.perf_counter() - begin


def training(kind: str, context: int, origins: int) -> None:
    network = network_for(kind, context)
    columns = torch.randn(1, origins + context, FEATURES)
    residual = torch.randn(1, origins + context, len(HORIZONS))
    length = SEGMENT + context
    at = torch.arange(0, origins, SEGMENT)[:, None] + torch.arange(length)  # all segments side by side, as in training
    segments, targets = columns[0][at], residual[0][at]
    times = [pass_over(network, segments, targets, context) for _ in range(4)]
    sequence = float(np.median(times[1:]))  # the first compiles kernels
    windows = columns[0].unfold(0, context, 1)[1:].transpose(1, 2)  # (origins, context, F)
    targets = residual[0].unfold(0, context, 1)[1:].transpose(1, 2)
    sample = [slice(at, at + WINDOWS) for at in range(0, 4 * WINDOWS, WINDOWS)]
    times = [pass_over(network, windows[s].contiguous(), targets[s], context - 1) for s in sample]
    window = float(np.median(times[1:])) * origins / WINDOWS
    print(
        f"{kind:16s} context {context}, {origins:,} origins: sequence-wise {sequence:6.2f} s, "
        f"window-wise {window:7.1f} s an epoch, ratio {window / sequence:5.1f}",
        flush=True,
    )


def design_of(ids: int, rows: int) -> Design:
    rng = np.random.default_rng(0)
    value = 1e-4 * np.exp(0.5 * rng.standard_normal(ids * rows))
    known = np.tile(np.arange(rows), ids)[:, None] + np.array(HORIZONS)
    labels = np.where(known < rows, 1e-4 * np.exp(0.3 * rng.standard_normal((ids * rows, len(HORIZONS)))), np.nan)
    return Design(
        target=Target("rv", HORIZONS),
        ids=tuple(f"id{k:02d}" for k in range(ids)),
        dates=np.datetime64("2000-01-01") + np.arange(rows),
        id_index=np.repeat(np.arange(ids), rows),
        date_index=np.tile(np.arange(rows), ids),
        starts=np.arange(ids + 1) * rows,
        observed=value,
        lag_means=1e-4 * np.exp(0.3 * rng.standard_normal((ids * rows, 3))),
        features=rng.standard_normal((ids * rows, FEATURES)),
        feature_names=tuple(f"f{j}" for j in range(FEATURES)),
        labels=labels,
        label_known=np.minimum(known, rows),
        columns={},
    )


def streaming(kind: str) -> None:
    for ids in (1, 21):
        design = design_of(ids, 400)
        window = Window(0, 399, 399, 300, 300, np.empty(0, dtype=np.int64))
        model = forecaster_class(kind)(epochs=1)
        assert isinstance(model, DeepForecaster)
        fitted = model.fit(TrainingSet.of(design, window), seed=0)
        stream = fitted.stream()
        rows = 300
        names, at = list(design.ids), np.arange(ids) * 400
        stream.step(names, design.features[at], design.lag_means[at])
        begin = time.perf_counter()
        for _ in range(rows):
            stream.step(names, design.features[at], design.lag_means[at])
        seconds = (time.perf_counter() - begin) / rows
        print(f"{kind:16s} stream of {ids:2d} ids: {1e3 * seconds:5.2f} ms a step, {ids / seconds:8,.0f} rows a second")


def endurance(kind: str, steps: int) -> None:
    network = network_for(kind, 256).eval()
    for block in network.blocks:
        block.freeze()
    generator = torch.Generator().manual_seed(0)
    state, late = network.initial_state(1), None
    late_start = steps - 5000
    zeros = torch.zeros(1, dtype=torch.int64)
    calendar = torch.zeros(1, 2, dtype=torch.int64)
    torch.nn.init.normal_(network.head.weight)
    begin, memory, worst = time.perf_counter(), 0, 0.0
    with torch.inference_mode():
        for step in range(steps):
            columns = torch.randn(1, FEATURES, generator=generator)
            raw, state = network.step(Inputs(columns, calendar, zeros), state)
            if step == min(10_000, steps // 10):
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if step >= late_start:
                late = network.initial_state(1) if late is None else late
                again, late = network.step(Inputs(columns, calendar, zeros), late)
                if step >= steps - 100:
                    worst = max(worst, (again - raw).abs().max().item())
    seconds = time.perf_counter() - begin
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    print(
        f"{kind:16s} {steps:,} steps of the network alone in {seconds:.0f} s ({steps / seconds:,.0f} a second): memory "
        f"grew by {grown:.1f} MiB, drift {worst:.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--origins", type=int, default=4096, help=f"a multiple of {SEGMENT}")
    parser.add_argument("--kinds", nargs="+", default=["s4d", "mamba", "gru"])
    parser.add_argument("--steps", type=int, default=100_000, help="of the endurance run; a million take minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for kind in arguments.kinds:
        training(kind, arguments.context, arguments.origins)
    for kind in arguments.kinds:
        streaming(kind)
    endurance(arguments.kinds[0], arguments.steps)


if __name__ == "__main__":
    main()
