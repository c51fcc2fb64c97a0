"""Time of the Kalman filter against the memory floor and against statsmodels; correctness first.

    PYTHONPATH=kernels python kernels/benchmarks/kalman_scan.py [--device cpu|cuda]

Floor: y read once and, for the filter, its results written once, at the copy ceiling measured in the same run. CPU:
a loop of statsmodels filters over the same series, on one core, measured in the same run on one of them; ours on one
thread, and on as many as torch takes. The filter writes all that statsmodels writes; "filter, filtered only" is
kalman_filter(..., outputs=("filtered", "log_likelihood")).
"""

from __future__ import annotations

import time
from typing import Any

import common
import torch

from ssmfin_kernels.kalman_scan import StateSpace, kalman_filter, kalman_log_likelihood, kalman_smoother


def model(N: int, B: int, dtype: torch.dtype, device: str) -> StateSpace:
    """Local level (N = 1) or local linear trend (N = 2), variances by series, exactly diffuse."""
    kwargs: dict[str, Any] = {"dtype": dtype, "device": device}
    scale = torch.linspace(0.5, 2.0, B, **kwargs)[:, None, None, None]
    variances = torch.tensor([0.25, 0.01][:N], **kwargs)
    return StateSpace(
        torch.ones(N, N, **kwargs).triu(),
        torch.eye(1, N, **kwargs),
        torch.diag(variances) * scale,
        torch.ones(1, 1, **kwargs) * scale,
        torch.zeros(N, N, **kwargs),
        initial_diffuse=torch.eye(N, **kwargs),
    )


def series(B: int, T: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Random walks with noise, one in fifty missing."""
    y = 0.5 * torch.randn(B, T, 1, dtype=dtype, device=device).cumsum(1) + torch.randn(
        B, T, 1, dtype=dtype, device=device
    )
    return torch.where(torch.rand(B, T, 1, device=device) < 0.02, torch.nan, y)


def with_gradient(y: torch.Tensor, given: StateSpace) -> torch.Tensor:
    """Log-likelihood and its gradient for both covariances."""
    Q, R = (x.detach().clone().requires_grad_() for x in (given.process_covariance, given.observation_covariance))
    value = kalman_log_likelihood(y, given._replace(process_covariance=Q, observation_covariance=R)).sum()
    return torch.autograd.grad(value, (Q, R))[0]


def check(device: str) -> None:
    """Against the naive form in double precision."""
    torch.manual_seed(1)
    worst = 0.0
    for N, T in ((1, 203), (2, 203), (1, 204), (2, 204)):
        y, given = series(40, T, torch.float64, "cpu"), model(N, 40, torch.float64, "cpu")
        y[:7, :3] = torch.nan
        dtype = torch.float32 if device == "cuda" else torch.float64
        y_fast = y.to(device, dtype)
        fast = StateSpace(*(None if x is None else x.to(device, dtype) for x in given))
        want = kalman_filter(y, given, backend="naive")
        got = kalman_filter(y_fast, fast)
        for a, b in zip(got[:5], want[:5], strict=True):
            a, b = a.cpu().double(), b.double()
            keep = ~want.diffuse.reshape(40, T, *[1] * (b.ndim - 2)) & ~torch.isnan(b)
            worst = max(worst, common.relative_error(torch.where(keep, a, 0.0), torch.where(keep, b, 0.0)))
        worst = max(worst, common.relative_error(kalman_log_likelihood(y_fast, fast).cpu(), want.log_likelihood))
        Q = given.process_covariance.clone().requires_grad_()
        value = kalman_log_likelihood(y, given._replace(process_covariance=Q), backend="naive").sum()
        (exact,) = torch.autograd.grad(value, Q)
        worst = max(worst, common.relative_error(with_gradient(y_fast, fast).cpu(), 0.5 * (exact + exact.mT)))
    if device == "cuda":  # one long series in stretches, against the scan over time
        for N in (1, 2):
            y, given = series(1, 20_001, torch.float64, device), model(N, 1, torch.float64, device)
            for a, b in zip(kalman_filter(y, given)[:7], kalman_filter(y, given, backend="parallel")[:7], strict=True):
                a, b = (torch.where(torch.isnan(b), 0.0, x) for x in (a, b))
                error = common.relative_error(a.flatten()[100:], b.flatten()[100:]) if a.ndim > 1 else 0.0
                worst = max(worst, 1e6 * error)  # as exact as double precision is
    limit = 2e-3 if device == "cuda" else 1e-9
    print(f"largest relative error against naive float64: {worst:.1e} (allowed {limit:.0e})", flush=True)
    if not worst < limit:
        raise SystemExit(1)


def statsmodels_ms(y: torch.Tensor, N: int) -> tuple[float, float, float]:
    """Median ms of one series: likelihood alone, filter, smoother."""
    import warnings

    warnings.simplefilter("ignore")
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    theirs = UnobservedComponents(y[0, :, 0].numpy(), "llevel" if N == 1 else "lltrend")
    parameters = [1.0, 0.25, 0.01][: N + 1]
    theirs.update(parameters)

    def median(run: Any) -> float:
        return common.median_ms(run, "cpu")

    return median(lambda: theirs.loglike(parameters)), median(theirs.ssm.filter), median(theirs.ssm.smooth)


def on_cpu() -> None:
    rows = []
    threads = torch.get_num_threads()
    some = ("filtered", "log_likelihood")
    for B, T in ((500, 1000), (2000, 1000)):
        for N in (1, 2):
            y, given = series(B, T, torch.float64, "cpu"), model(N, B, torch.float64, "cpu")
            alone, filtered, smoothed = statsmodels_ms(y, N)
            for name, run, theirs in (
                ("log-likelihood", lambda y=y, g=given: kalman_log_likelihood(y, g), alone),
                ("filter", lambda y=y, g=given: kalman_filter(y, g), filtered),
                ("filter, filtered only", lambda y=y, g=given: kalman_filter(y, g, outputs=some), filtered),
                ("gradient", lambda y=y, g=given: with_gradient(y, g), None),
                ("smoother", lambda y=y, g=given: kalman_smoother(y, g), smoothed),
            ):
                loop = None if theirs is None else theirs * B
                row: list[Any] = [B, T, N, name, loop]
                for count in dict.fromkeys((1, threads)):
                    torch.set_num_threads(count)
                    ms = common.median_ms(run, "cpu")
                    row += [ms, None if loop is None else loop / ms]
                rows.append(row)
    titles = [f"{what}, {count} thread(s)" for count in dict.fromkeys((1, threads)) for what in ("ms", "ratio")]
    common.table(
        "Kalman filter, float64, " + common.machine("cpu"),
        ["B", "T", "N", "what", "statsmodels loop ms", *titles],
        rows,
    )


def on_gpu() -> None:
    from ssmfin_kernels.kalman_scan import gpu_long

    ceiling = common.copy_ceiling("cuda")
    print(f"copy ceiling {ceiling / 1e12:.2f} TB/s")
    some = ("filtered", "log_likelihood")
    rows: list[tuple[Any, ...]] = []
    B, T = 100_000, 1000
    for N in (1, 2):
        y, given = series(B, T, torch.float32, "cuda"), model(N, B, torch.float32, "cuda")
        read = 4 * B * T
        every, part = ((4 * (k * (N + N * N) + m) + 1) * B * T for k, m in ((2, 3), (1, 1)))
        for name, run, floor in (
            ("log-likelihood", lambda y=y, g=given: kalman_log_likelihood(y, g), read),
            ("and gradient", lambda y=y, g=given: with_gradient(y, g), 2 * read),  # y needs none
            ("filter", lambda y=y, g=given: kalman_filter(y, g), read + every),
            ("filter, filtered only", lambda y=y, g=given: kalman_filter(y, g, outputs=some), read + part),
        ):
            ms = common.median_ms(run, "cuda")
            least = floor / ceiling * 1e3
            rows.append((B, T, N, name, ms, eager_ms(run), least, least / ms, common.peak_bytes(run, "cuda") / 2**20))
        del y, given
    common.table(
        "Kalman filter, float32, many series, " + common.machine("cuda"),
        ["B", "T", "N", "what", "ms", "ms as called", "floor ms", "share of floor", "peak MiB"],
        rows,
    )
    rows = []
    T = 1_000_000
    for N in (1, 2):
        for dtype in (torch.float32, torch.float64):
            y, given = series(1, T, dtype, "cuda"), model(N, 1, dtype, "cuda")
            least = (dtype.itemsize * (1 + 2 * (N + N * N) + 3) + 1) * T / ceiling * 1e3
            cut = eager_ms(lambda y=y, g=given: kalman_filter(y, g))
            scan = eager_ms(lambda y=y, g=given: kalman_filter(y, g, backend="parallel"))
            usual, gpu_long.LEAST_COUNT = gpu_long.LEAST_COUNT, T
            alone = eager_ms(lambda y=y, g=given: kalman_filter(y, g))
            gpu_long.LEAST_COUNT = usual
            rows.append((T, N, str(dtype)[6:], cut, alone, alone / cut, scan, least, cut / least))
    common.table(
        "Kalman filter of one series, as called, " + common.machine("cuda"),
        ["T", "N", "type", "ms", "one lane ms", "ratio", "associative scan ms", "floor ms", "x floor"],
        rows,
    )


def eager_ms(run: Any) -> float:
    """Median ms of calls as a user makes them, launches and Python included."""
    run()
    torch.cuda.synchronize()
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e3)
    return sorted(times)[5]


if __name__ == "__main__":
    options = common.arguments(__doc__).parse_args()
    check(options.device)
    on_cpu() if options.device == "cpu" else on_gpu()
