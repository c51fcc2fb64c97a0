"""Owns the timing of sequence-wise against window-wise training, and of streams.

    python tests/benchmarks/bench_sequence_training.py [--kinds s4d mamba gru] [--endure s4d] [--steps 1000000]

An epoch of the same network on the same origins and losses, forward and backward: once as one pass over segments led by
`context` rows of warm-up, and once as a window of `context` rows for each origin, which is what a model without states
must do. The window-wise epoch is timed on a sample of its batches and scaled to all of them. Then streams as a user has
them: rows a second, one id and 21 at a time; and `--steps` rows of one id, whose memory must not grow and whose
forecasts, in float32, must stay as near to one pass in float64 over the same rows as they were at first. All on one
thread and in processor time, which other programs on the machine disturb less.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import copy
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
CHUNK = 1000  # steps of the endurance run at once


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
    begin = time.process_time()
    raw, _ = network(inputs_of(columns))
    error = residual[:, lead:] - raw[:, lead:, :, 0]
    (torch.exp(error) - error - 1).mean().backward()
    network.zero_grad(set_to_none=True)
    return time.process_time() - begin


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
        begin = time.process_time()
        for _ in range(rows):
            stream.step(names, design.features[at], design.lag_means[at])
        seconds = (time.process_time() - begin) / rows
        print(f"{kind:16s} stream of {ids:2d} ids: {1e3 * seconds:5.2f} ms a step, {ids / seconds:8,.0f} rows a second")


def endurance(kind: str, steps: int) -> bool:
    """A stream of one id in float32 against one pass in float64 over the same rows in chunks; whether both agree."""
    design = design_of(1, 400)
    model = forecaster_class(kind)(epochs=1, half_trust=0.0)
    assert isinstance(model, DeepForecaster)
    window = Window(0, 399, 399, 300, 300, np.empty(0, dtype=np.int64))
    fitted = model.fit(TrainingSet.of(design, window), seed=0)
    torch.manual_seed(0)
    torch.nn.init.normal_(fitted.network.head.weight, std=0.1)  # forecasts that depend on the state
    exact, state = copy.deepcopy(fitted.network).double(), None
    stream, names = fitted.stream(), list(design.ids)
    lag_means = design.lag_means[:1]
    base = fitted.base.forecast(design, np.zeros(1, dtype=np.int64))
    rng = np.random.default_rng(1)
    begin, spent, early, late, memory = time.process_time(), 0.0, 0.0, 0.0, 0
    for done in range(0, steps, CHUNK):
        features = rng.standard_normal((CHUNK, FEATURES))
        began = time.process_time()
        found = np.concatenate([stream.step(names, row[None], lag_means) for row in features])
        spent += time.process_time() - began
        columns = fitted.reader.scale.apply(design.ids, np.zeros(CHUNK, dtype=np.int64), features)
        with torch.inference_mode():
            raw, state = exact(inputs_of(torch.from_numpy(columns)[None]), state)
        error = float(np.abs(found / (base * np.exp(raw[0, :, :, 0].numpy())) - 1).max())
        if done < steps // 10:
            early, memory = max(early, error), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if done >= steps - max(CHUNK, steps // 10):
            late = max(late, error)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    print(
        f"{kind:16s} stream of {done + CHUNK:,} steps in {time.process_time() - begin:.0f} s "
        f"({(done + CHUNK) / spent:,.0f} a second): memory grew by {grown:.1f} MiB after the first tenth; largest "
        f"relative difference from float64 in the first tenth {early:.1e}, in the last {late:.1e}",
        flush=True,
    )
    return grown < 8 and late < 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--origins", type=int, default=4096, help=f"a multiple of {SEGMENT}")
    parser.add_argument("--kinds", nargs="*", default=["s4d", "mamba", "gru"])
    parser.add_argument("--endure", nargs="*", default=["s4d"], help="kinds of the endurance run")
    parser.add_argument("--steps", type=int, default=20_000, help="of the endurance run; a million take a quarter hour")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for kind in arguments.kinds:
        training(kind, arguments.context, arguments.origins)
    for kind in arguments.kinds:
        streaming(kind)
    stay = [endurance(kind, arguments.steps) for kind in arguments.endure]
    if not all(stay):
        raise SystemExit("a stream drifts, or its memory grows")


if __name__ == "__main__":
    main()
