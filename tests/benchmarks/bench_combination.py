"""Rolling weights of a combination at every origin, against a loop that solves each date's regression by SLSQP.

    python tests/benchmarks/bench_combination.py [--ids 21] [--dates 4000] [--members 5]

Prints seconds of each scheme over all origins and 3 horizons, and of the loop on a part of the dates, scaled.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.optimize import minimize

from ssmfin.models.combination.combining import Record, combine

HORIZONS = (1, 5, 22)


def made(ids: int, dates: int, members: int) -> Record:
    rng = np.random.default_rng(0)
    date = np.tile(np.arange(dates), ids)
    known = np.minimum(date[:, None] + np.array(HORIZONS), dates)
    level = np.exp(rng.standard_normal((ids * dates, len(HORIZONS))) - 9)
    label = np.where(known < dates, level * np.exp(0.4 * rng.standard_normal(level.shape)), np.nan)
    spread = np.linspace(0.2, 0.4, members)[:, None, None]
    forecast = level * np.exp(spread * rng.standard_normal((members, *level.shape)))
    return Record(forecast, label, known, date, np.repeat(np.arange(ids), dates), dates, ids)


def looped(record: Record, window: int, which: range) -> float:
    """Seconds of one SLSQP problem a date and horizon."""
    K = len(record.forecast)
    begin = time.perf_counter()
    for t in which:
        for h in range(len(HORIZONS)):
            past = (record.known[:, h] <= t) & (record.known[:, h] > t - window)
            logs, label = np.log(record.forecast[:, past, h]), record.label[past, h]
            centre = logs.mean(axis=0)
            x, r = logs - centre, label / np.exp(centre) - 1.0
            gram, moment = x @ x.T / len(r), x @ r / len(r)
            minimize(
                lambda w, gram=gram, moment=moment: (0.5 * w @ gram @ w - moment @ w, gram @ w - moment),
                np.full(K, 1 / K),
                jac=True,
                bounds=[(0, 1)] * K,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                method="SLSQP",
            )
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=21)
    parser.add_argument("--dates", type=int, default=4000)
    parser.add_argument("--members", type=int, default=5)
    size = parser.parse_args()
    by_id = made(size.ids, size.dates, size.members)
    pooled = by_id._replace(group=np.zeros_like(by_id.group), groups=1)
    options = {"mean": "geometric", "loss": "qlike", "window": 500, "min_periods": 100, "shrink": 0.5}
    print(f"{size.ids} ids, {size.dates} dates, {len(HORIZONS)} horizons, {size.members} members")
    seconds = {}
    for name, record, weights in (
        ("equal", pooled, "equal"),
        ("inverse_loss", pooled, "inverse_loss"),
        ("rolling", pooled, "rolling"),
        ("rolling, each id its own", by_id, "rolling"),
    ):
        begin = time.perf_counter()
        combine(record, weights=weights, **options)  # type: ignore[arg-type]
        seconds[name] = time.perf_counter() - begin
        print(f"{name:28s} {seconds[name]:8.2f} s")
    some = range(size.dates // 2, size.dates // 2 + 20)
    loop = looped(pooled, options["window"], some) * size.dates / len(some)  # type: ignore[operator]
    print(f"{'rolling, SLSQP at each date':28s} {loop:8.1f} s ({loop / seconds['rolling']:.0f} times)")


if __name__ == "__main__":
    main()
