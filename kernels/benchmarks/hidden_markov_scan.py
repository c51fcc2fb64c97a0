"""Time of the hidden Markov operations, CPU against statsmodels and the plain loop, GPU by the scan over time.

PYTHONPATH=kernels python kernels/benchmarks/hidden_markov_scan.py [--device cpu|cuda]
"""

from __future__ import annotations

import time
from typing import Any

import common
import torch

from ssmfin_kernels.hidden_markov_scan import hidden_markov_filter, hidden_markov_smoother, hidden_markov_viterbi

OPERATIONS = (hidden_markov_filter, hidden_markov_smoother, hidden_markov_viterbi)


def inputs(B: int, T: int, K: int, device: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Standard normal log-likelihoods and a persistent chain."""
    stay = torch.full((K, K), 0.1 / max(K - 1, 1), dtype=torch.float64, device=device)
    stay.fill_diagonal_(0.9)
    given = {"log_transition": stay.log(), "log_initial": torch.full_like(stay[0], 1 / K).log()}
    return torch.randn(B, T, K, dtype=torch.float64, device=device), given


def check(device: str) -> None:
    """Against the naive form on the CPU."""
    torch.manual_seed(1)
    said, given = inputs(3, 301, 3, "cpu")
    there = {name: value.to(device) for name, value in given.items()}
    worst = 0.0
    for operation in OPERATIONS[:2]:
        want = operation(said, **given, backend="naive")[0]
        for backend in (None, "parallel"):
            got = operation(said.to(device), **there, backend=backend)[0]
            worst = max(worst, common.relative_error(got.cpu(), want))
    print(f"largest relative error against naive: {worst:.1e}", flush=True)
    if not worst < 1e-9:
        raise SystemExit(1)


def ms(run: Any, device: str, least: int = 5) -> float:
    """Median of calls as a user makes them."""
    times = []
    for _ in range(least + 1):
        begin = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e3)
    return sorted(times[1:])[least // 2]


def statsmodels_ms(T: int) -> float:
    """One likelihood of a two-regime switching variance."""
    import numpy as np
    from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

    theirs = MarkovRegression(np.random.default_rng(0).normal(size=T), 2, switching_variance=True)
    start = theirs.start_params
    return ms(lambda: theirs.loglike(start), "cpu")


def on_cpu() -> None:
    rows = []
    for B, T, K in ((200, 2500, 2), (200, 2500, 4)):
        said, given = inputs(B, T, K, "cpu")
        for operation in OPERATIONS:
            loop = statsmodels_ms(T) * B if K == 2 and operation is OPERATIONS[0] else None
            took = ms(lambda o=operation, said=said, given=given: o(said, **given), "cpu")
            rows.append((B, T, K, operation.__name__, took, loop, None if loop is None else loop / took))
        leaf = said.clone().requires_grad_()
        took = ms(
            lambda leaf=leaf, given=given: hidden_markov_filter(leaf, **given).log_likelihood.sum().backward(), "cpu"
        )
        rows.append((B, T, K, "filter and gradient", took, None, None))
    header = ["B", "T", "K", "what", "ms", "statsmodels loop ms", "ratio"]
    common.table("Hidden Markov, float64, " + common.machine("cpu"), header, rows)


def on_gpu() -> None:
    """By the scan over time; "in sequence" is the plain loop, measured over a few steps."""
    few = 500
    ceiling = common.copy_ceiling("cuda")
    rows = []
    for B, T, K in ((1, 1_000_000, 2), (1, 1_000_000, 4), (20_000, 1000, 2)):
        said, given = inputs(B, T, K, "cuda")
        # read once; written: two distributions and a likelihood, one distribution and a likelihood, a state
        for operation, written in zip(OPERATIONS, (2 * K + 1, K + 1, 1), strict=True):
            took = ms(lambda o=operation, said=said, given=given: o(said, **given), "cuda")
            part = ms(lambda o=operation, x=said[:, :few], given=given: o(x, **given, backend="naive"), "cuda", 1)
            loop, floor = part * T / few, 8 * (K + written) * B * T / ceiling * 1e3
            rows.append((B, T, K, operation.__name__, took, loop, loop / took, floor, took / floor))
    header = ["B", "T", "K", "what", "ms", "in sequence ms", "ratio", "floor ms", "x floor"]
    common.table("Hidden Markov, float64, as called, " + common.machine("cuda"), header, rows)


if __name__ == "__main__":
    device = common.arguments(__doc__).parse_args().device
    check(device)
    on_cpu() if device == "cpu" else on_gpu()
