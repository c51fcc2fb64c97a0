"""Intervals for 90 % before and after they learn from matured outcomes: an S4D with quantiles on the S&P 500.

    python tests/benchmarks/bench_recalibration.py [--rate 0.05] [--bound 1]

The demo's data and windows, range variance 2002-2018, 1, 5, 22 days; networks refitted every fourth fold, one seed.
Prints the share of outcomes inside and the weighted interval score (relative to log-HAR with its own past errors). The
defaults of rate and bound were chosen on these data.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import polars as pl

import ssmfin as sf
from ssmfin.evaluation.experiment import ModelEntry

FEATURES = {
    "har": {"kind": "har_lags", "windows": [1, 5, 22]},
    "leverage": {"kind": "leverage", "column": "log_return"},
}


def scores(recalibrate: dict[str, float] | None) -> pl.DataFrame:
    panel = sf.load_panel(
        {"kind": "arch", "series": ["sp500"]}, measures={"kind": "range", "estimators": ["parkinson"]}
    )
    model = ModelEntry(sf.S4D(layers=1, head="quantiles"), refit=4, seeds=(0,))
    folds = sf.WalkForward(train=1000, validation=125, test=63, horizons=[1, 5, 22])
    result = sf.evaluate(
        {"s4d": model}, panel, target="parkinson", folds=folds, features=FEATURES, recalibrate=recalibrate
    )
    assert result.probabilistic is not None
    return result.probabilistic.pooled.filter(pl.col("model") == "s4d")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--bound", type=float, default=1.0)
    chosen = parser.parse_args()
    before, after = scores(None), scores({"rate": chosen.rate, "bound": chosen.bound})

    def value(table: pl.DataFrame, horizon: int, score: str, column: str = "value") -> float:
        found = table.filter((pl.col("horizon") == horizon) & (pl.col("score") == score))
        at = found.filter(pl.col("level") == 0.9) if score == "coverage" else found
        return float(at[column][0])

    print("horizon  inside 90 %, before  after  interval score, after / before")
    for horizon in (1, 5, 22):
        inside = [value(table, horizon, "coverage") for table in (before, after)]
        ratio = value(after, horizon, "wis") / value(before, horizon, "wis")
        print(f"{horizon:7d}  {inside[0]:19.3f}  {inside[1]:5.3f}  {ratio:.3f}")


if __name__ == "__main__":
    main()
