# %% [markdown]
# # Bring your own
#
# Data, a feature, a model: each has a place to plug in, and once it is in, everything else (the walk forward, the leak
# checks, the benchmarks, the tests, the report) works for it too. This notebook brings one of each: a CSV file with
# names of its own, a feature, a scikit-learn regressor, a model in fifteen lines, and a torch module.

# %%
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import torch
from sklearn.ensemble import ExtraTreesRegressor

import ssmfin as sf
from ssmfin.data.rows import trailing_means
from ssmfin.features.transformer import panel_column
from ssmfin_kernels import linear_scan

QUICK = bool(os.environ.get("SSMFIN_NOTEBOOK_QUICK"))  # small settings, for the tests

# %% [markdown]
# ## Your data
#
# Suppose this is the file that you have: prices of the S&P 500 under names that nobody else uses. (It is written here
# from the data that come with `arch`, with two mistakes, as real files have them.)

# %%
folder = Path(tempfile.mkdtemp())
prices = sf.load_panel({"kind": "arch", "series": ["sp500"]}, start="2014-01-06").frame
mine = prices.select(Ticker="unique_id", Day="ds", Open="open", Hi="high", Lo="low", Last="close")
spoilt = pl.concat([mine, mine[[100]]]).with_columns(
    Lo=pl.when(pl.col("Day") == pl.date(2015, 8, 24)).then(-1.0).otherwise("Lo")
)
spoilt.write_csv(folder / "mine.csv")
names = {"unique_id": "Ticker", "ds": "Day", "open": "Open", "high": "Hi", "low": "Lo", "close": "Last"}
measures = {"kind": "range", "estimators": ["parkinson"]}  # a variance a day, from high and low

try:
    sf.load_panel(folder / "mine.csv", columns=names, measures=measures)
except sf.InputError as refusal:
    print(refusal)

# %% [markdown]
# Nothing is dropped or filled in silently: all that is wrong is in one message, with the row and the remedy. The
# repaired file goes through. A further series joins it as of the moment when it was known. The VIX closes at 16:15,
# after the shares, so that `next_day` (the default) is the honest choice for a forecast made at their close.

# %%
mine.write_csv(folder / "mine.csv")
vix = {"name": "vix", "source": {"kind": "arch", "series": ["vix"]}, "select": ["close"], "known_at": "next_day"}
panel = sf.load_panel(folder / "mine.csv", columns=names, measures=measures, exogenous=[vix])
panel

# %% [markdown]
# ## Your feature
#
# A feature is a transformer in scikit-learn's manner: what is it called, and what are its values? This one counts the
# days since the last storm, a day with four times the usual variance. Beside it stands its spec, the form in which a
# study knows it.


# %%
class SinceStorm(sf.PanelTransformer):
    """Logarithm of one plus the rows since a variance last was `factor` times its mean over 22 rows."""

    def __init__(self, column, factor=4.0):
        self.column, self.factor = column, factor

    def get_feature_names_out(self, input_features=None):
        return np.array(["log_rows_since_storm"], dtype=object)

    def _columns(self, panel, starts):
        values = panel_column(panel, self.column)
        storm = values > self.factor * trailing_means(values, starts, [22])[:, 0]
        out = np.full((len(values), 1), np.nan)  # not defined before the first storm
        for first, last in pairwise(starts):  # the rows of one id
            row = np.arange(last - first)
            latest = np.maximum.accumulate(np.where(storm[first:last], row, -1))
            out[first:last, 0] = np.where(latest >= 0, np.log1p(row - latest), np.nan)
        return out


class SinceStormSpec(sf.FeatureSpec):
    kind: str = "since_storm"
    factor: float = 4.0

    def transformer(self, *, column, log):
        return SinceStorm(column, self.factor)


SinceStorm("parkinson").fit_transform(panel).drop_nans().head(3)

# %% [markdown]
# What if it looked ahead? Every evaluation changes the data after some date and demands that no feature before it
# moves. Take the most innocent mistake there is, to divide by the mean of the whole sample:


# %%
class Standardised(SinceStormSpec):
    kind: str = "standardised"

    def transformer(self, *, column, log):
        class Careless(SinceStorm):
            def _columns(self, panel, starts):
                values = panel_column(panel, self.column)
                return (values / values.mean())[:, None]

        return Careless(column)


folds = sf.WalkForward(train=500, validation=63, test=250 if QUICK else 63, horizons=[1, 5])
try:
    sf.evaluate({}, panel, target="parkinson", folds=folds, features={"careless": Standardised()})
except sf.InputError as refusal:
    print(refusal)

# %% [markdown]
# ## Your model, in fifteen lines
#
# A regressor in scikit-learn's manner needs no line at all: it is given the features and the log of the target. A
# model that wants to see more than a table is a `Forecaster` with a `fit`, which returns a `Fitted` with a `predict`.
# Everything in the `training` it is given was known at the moment of fitting; everything in the `design` at the moment
# of forecasting.


# %%
class Halves(sf.Forecaster):
    """A weighted mean of yesterday's variance and the month's; the weight with the least QLIKE in training."""

    kind = "halves"
    grid: int = 21

    def fit(self, training, *, seed):
        past, labels, known = training.design.lag_means, training.design.labels, training.train
        weights = np.linspace(0, 1, self.grid)
        mixes = [w * past[:, [0]] + (1 - w) * past[:, [2]] for w in weights]
        losses = [[sf.qlike(y[k], mix[k, 0]).mean() for y, k in zip(labels.T, known.T, strict=True)] for mix in mixes]
        return FittedHalves(weights[np.argmin(losses, axis=0)])


class FittedHalves(sf.Fitted):
    def __init__(self, weight):
        self.weight, self.notes = weight, {"weight": float(weight.mean())}

    def predict(self, design, rows):
        past = design.lag_means[rows]
        return self.weight * past[:, [0]] + (1 - self.weight) * past[:, [2]]  # (rows, horizons)


# %% [markdown]
# ## Your torch module
#
# A network needs more: sequences, training, early stopping, seeds, saving, streaming. All of that is there for any
# causal block that maps (batch, time, channels) to the same and can carry its state. Here is a bank of leaky
# integrators, each with a rate that it learns; `linear_scan` runs them over time in parallel.


# %%
class LeakyBlock(sf.SequenceBlock):
    """h_t = a h_{t-1} + (1 - a) W x_t,  y = V tanh(h),  one learned a in (0, 1) a channel."""

    def __init__(self, width):
        super().__init__()
        self.enter, self.leave = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.forget = torch.nn.Parameter(torch.linspace(0, 5, width))

    def state_shapes(self):
        return ((len(self.forget),),)

    def forward(self, x, state=None, reset=None):
        keep = self.forget.sigmoid().expand_as(x)
        before = None if state is None else state[0]
        h, last = linear_scan(keep, (1 - keep) * self.enter(x), initial_state=before, reset=reset)
        return self.leave(torch.tanh(h)), (last,)

    def time_scales(self):
        return (-1 / self.forget.detach().sigmoid().log())[:, None]


class Leaky(sf.DeepForecaster):
    """Leaky integrators that correct a ridge regression."""

    kind = "leaky"
    family = "ssm"  # judged by the verdict as a state-space model, which it is

    def blocks(self, width):
        return [LeakyBlock(width) for _ in range(self.layers)]


# %% [markdown]
# ## All together
#
# The benchmarks run beside whatever is given, on the same rows. The verdict does not care whose model it is.

# %%
result = sf.evaluate(
    {
        "trees": ExtraTreesRegressor(n_estimators=20 if QUICK else 200, min_samples_leaf=20, n_jobs=1),
        "halves": Halves(),
        "leaky": sf.ModelEntry(Leaky(layers=1, residual="ridge", epochs=10 if QUICK else 100), seeds=(0, 1)),
    },
    panel,
    target="parkinson",
    folds=folds,
    features={
        "har": {"kind": "har_lags"},
        "storm": SinceStormSpec(),
        "vix": {"kind": "columns", "columns": ["vix__close"], "transform": "log"},
    },
)
print(result.verdict.headline)
board = result.leaderboard.filter(pl.col("loss") == "qlike")
board.pivot("horizon", index="model", values="ratio_to_reference").sort("1").with_columns(pl.exclude("model").round(3))

# %%
sf.plot_cumulative_loss(result, models=["ridge", "trees", "halves", "leaky"])

# %% [markdown]
# The torch module gets the rest for nothing: it streams (notebook 6), and its half-lives can be read off. `learned`
# says whether training found them: a network that never improved on its base (here log-HAR) on the validation tail
# stays at that base, and its half-lives are those it started with.

# %%
trained = sf.fit(Leaky(layers=1, epochs=5), panel, target="parkinson", horizons=[1, 5], train=500)
live = trained.live(panel, keep=64)
sf.memory(trained).select("channel", pl.col("half_life").round(1).alias("half-life, days"), "learned").gather_every(5)

# %% [markdown]
# ## In a study file
#
# Put the classes into a file beside the study, say `mine.py`, and name them: under models `leaky: {kind: "mine:Leaky",
# layers: 1, seeds: [0, 1, 2]}`, under features `storm: {kind: "mine:SinceStorm", factor: 4}`. No spec is needed there,
# and a feature need not be a `PanelTransformer`: any class will do whose `transform(X)` answers the panel, a polars
# frame, with one row for each of its rows. `ssmfin models mine:SinceStorm` says what a class is taken for and what it
# is given. Because all this runs your code, `ssmfin run study.yaml` asks for `--allow-imports`.
