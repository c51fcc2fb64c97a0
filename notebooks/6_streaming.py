# %% [markdown]
# # Streaming: a forecaster that lives bar by bar
#
# A recurrent model needs no window of the past to forecast: all it knows is in its state. One new bar goes in, one
# forecast comes out, in constant time and memory. Here a network is fitted once, then lives through the year 2018 day
# by day, is stopped, and goes on as if nothing had happened.

# %%
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

import ssmfin as sf
from ssmfin.diagnostics.drawing import canvas, heading, legend

QUICK = bool(os.environ.get("SSMFIN_NOTEBOOK_QUICK"))  # small settings, for the tests
measures = {"kind": "range", "estimators": ["parkinson"]}
panel = sf.load_panel({"kind": "arch", "series": ["sp500", "nasdaq"]}, measures=measures)
past = sf.Panel(panel.frame.filter(pl.col("ds") < pl.date(2018, 1, 1)))
future = panel.frame.filter(pl.col("ds") >= pl.date(2018, 1, 1))

# %% [markdown]
# ## Fit once
#
# `sf.evaluate` judges models; `sf.fit` is for using one. It trains on the newest rows of what it is given, and keeps
# all that is needed to turn raw rows into what the network reads. As a rule a network here corrects log-HAR; with
# `residual="none"` it has to know everything itself, and what is streamed below is the network alone. With
# `head="quantiles"` it says, beside the mean, between which values the outcome should lie, and how often.

# %%
model = sf.S4D(layers=1, residual="none", head="quantiles", epochs=15 if QUICK else 100)
features = {"har": {"kind": "har_lags"}, "leverage": {"kind": "leverage", "column": "log_return"}}
trained = sf.fit(model, past, target="parkinson", horizons=[1, 5, 22], features=features, train=3000)
trained.forecast(past)

# %% [markdown]
# ## Live
#
# `live` reads the history once (in chunks, which is fast) and keeps the states after its last row. Of the raw data it
# keeps the last 64 rows of each index, from which the features of the next row are computed; were that too few for a
# feature, it would say so now.

# %%
live = trained.live(past, keep=64)
forecasts = [live.update(rows) for _, rows in future.group_by("ds", maintain_order=True)]
streamed = pl.concat(forecasts)
streamed.head(6)

# %% [markdown]
# One call a day: the new rows go in, the forecasts from them come out, in the columns that an evaluation would write
# to predictions.parquet: the mean, and the quantiles (of `head="event"`, the probability of a spike). A new row needs
# the columns that this model reads, and no others (`trained.columns_read` says which). That the forecasts are those
# that the same model makes from the whole history in one go is not obvious, and easily checked:

# %%
batch = trained.forecast(panel).filter(pl.col("ds") >= pl.date(2018, 1, 1))
both = streamed.join(batch, on=["unique_id", "ds", "horizon"], suffix="_batch")
said = [name for name in streamed.columns if name not in ("unique_id", "ds", "horizon")]
difference = max(both.select((pl.col(name) / pl.col(f"{name}_batch") - 1).abs().max()).item() for name in said)
print(f"{len(both):,} forecasts of {', '.join(said)}; largest relative difference {difference:.0e}")
print(f"columns that a row needs: {', '.join(trained.columns_read)}")

# %% [markdown]
# The year had two surprises, in February and in the last quarter. The forecast for the next day is drawn on the day it
# is for, with the intervals that should hold half and nine in ten of the outcomes. Their shape was learned before 2018.

# %%
own = streamed.filter(pl.col("unique_id") == "sp500", pl.col("horizon") == 1).sort("ds")
outcome = future.filter(pl.col("unique_id") == "sp500").sort("ds")
with canvas(size=(9.0, 3.4)) as (figure, axes):
    one = axes[0, 0]
    volatility = 100 * np.sqrt(252 * outcome["parkinson"].to_numpy())
    said_before = {name: 100 * np.sqrt(252 * own[name].to_numpy()[:-1]) for name in said}
    days = outcome["ds"][1:]
    for low, high, strength, label in (("q05", "q95", 0.15, "nine in ten"), ("q25", "q75", 0.3, "half")):
        edges = said_before[low], said_before[high]
        one.fill_between(days, *edges, color="#b8441a", alpha=strength, linewidth=0, label=label)
    one.plot(days, said_before["y_hat"], color="#b8441a", linewidth=1.2, label="forecast the day before")
    one.plot(outcome["ds"], volatility, ".", color="#1f2430", markersize=3, label="realised")
    one.set_ylabel("volatility, % a year")
    heading(one, "S&P 500, 2018, day by day")
    legend(one)
inside = (volatility[1:] >= said_before["q05"]) & (volatility[1:] <= said_before["q95"])
print(f"days inside the interval for nine in ten: {inside.mean():.0%}")
figure

# %% [markdown]
# An interval can learn from its own misses: each time an outcome comes in, the quantiles of that index and horizon move
# a little, up after a miss above, down otherwise (adaptive conformal inference). They know only outcomes that have come
# in: at a horizon of 22 days a surprise is learned from a month later. Two series of one year prove little; what it did
# over 16 years stands in `ssmfin.evaluation.recalibration`.

# %%
learning = trained.live(past, keep=64, recalibrate={"rate": 0.05})
learned = pl.concat([learning.update(rows) for _, rows in future.group_by("ds", maintain_order=True)])


def held(forecasts):
    """Share of the outcomes inside the interval for nine in ten, by horizon."""
    rows = []
    for _, part in future.group_by("unique_id"):
        for h in (1, 5, 22):
            ahead = pl.col("parkinson").reverse().rolling_mean(h).reverse().shift(-1)
            own = part.sort("ds").select("unique_id", "ds", y=ahead).drop_nulls()
            both = own.join(forecasts.filter(horizon=h), on=["unique_id", "ds"])
            rows.append((h, both.select(pl.col("y").is_between("q05", "q95").mean()).item()))
    table = pl.DataFrame(rows, schema=["horizon", "share"], orient="row")
    return table.group_by("horizon").agg(pl.col("share").mean().round(2)).sort("horizon")


held(streamed).rename({"share": "as fitted"}).join(held(learned).rename({"share": "learning"}), on="horizon")

# %% [markdown]
# ## Constant time
#
# How long does the next forecast take after a history of so many days? Reading everything again takes longer and
# longer; the stream does not know how old it is. (Below, the network alone, without the features.)

# %%
design = trained.design(panel)
lengths, repeats = ([500, 2000, 5000] if QUICK else [250, 500, 1000, 2000, 3500, 5000]), 5
stream = trained.fitted.stream(["sp500"])
row = design.rows_of(design.ids.index("sp500"))


def seconds(do):
    """The fastest of several."""
    return min((lambda begin: (do(), time.perf_counter() - begin)[1])(time.perf_counter()) for _ in range(repeats))


def again(n):
    return trained.fitted.predict(design, np.array([row.start + n]))


def one_step(n):
    return stream.step(["sp500"], design.features[[row.start + n]], design.lag_means[[row.start + n]])


batch_seconds = [seconds(lambda n=n: again(n)) for n in lengths]
stream_seconds = [seconds(lambda n=n: one_step(n)) for n in lengths]
with canvas(size=(7.0, 3.2)) as (figure, axes):
    one = axes[0, 0]
    one.plot(lengths, [1e3 * s for s in batch_seconds], "o-", color="#0059a3", label="the whole history again")
    one.plot(lengths, [1e3 * s for s in stream_seconds], "o-", color="#b8441a", label="one step of the stream")
    one.set(xlabel="days of history", ylabel="milliseconds a forecast", yscale="log")
    legend(one)
figure

# %% [markdown]
# ## What the state remembers
#
# The state is a set of decaying modes, so its memory can be read off, as half-lives in days. The network starts with
# time scales (until $1/e$ is left) spread evenly, in logarithms, between a day and a year, half-lives of up to 175
# days. Training moves them a little and mostly learns which ones to listen to.

# %%
half_lives = sf.memory(trained)["half_life"]
print(
    f"half-lives: from {half_lives.min():.1f} to {half_lives.max():.0f} days, in the middle {half_lives.median():.0f}"
)
sf.plot_memory({"at the start": model, "after training": trained}, unit="days")

# %% [markdown]
# ## Stop, and go on
#
# Weights and states are plain safetensors files: nothing in them can run. A new process loads both and goes on with
# the same bits. States of other weights are refused.

# %%
folder = Path(tempfile.mkdtemp())
before, rest = future.filter(pl.col("ds") < pl.date(2018, 10, 1)), future.filter(pl.col("ds") >= pl.date(2018, 10, 1))
until_october = trained.live(pl.concat([past.frame, before]).sort("unique_id", "ds"), keep=64)
trained.fitted.save(folder)
until_october.stream.save(folder / "stream.safetensors")

weights = sf.DeepForecaster.load(folder)
restored = weights.stream().restore(weights, folder / "stream.safetensors")
today = rest.filter(pl.col("ds") == rest["ds"].min())
asked = np.flatnonzero(design.dates[design.date_index] == np.datetime64(today["ds"][0]))
names = [design.ids[k] for k in design.id_index[asked]]
by_restored = restored.step(names, design.features[asked], design.lag_means[asked], ds=today["ds"][0])
by_the_living = until_october.stream.step(names, design.features[asked], design.lag_means[asked], ds=today["ds"][0])
print("the same bits after the restart:", bool((by_restored == by_the_living).all()))

# %% [markdown]
# ## A bad bar
#
# Feeds fail. A row that is late, repeated, or holds no number is refused with the reason, and leaves every bit of the
# state as it was: the repaired row can be given a minute later, or left out for good.

# %%
live = trained.live(past, keep=64)
first = future.filter(pl.col("ds") == future["ds"].min())
broken = first.with_columns(parkinson=pl.lit(float("nan")))
for rows in (broken, past.frame.tail(1)):
    try:
        live.update(rows)
    except sf.InputError as refusal:
        print(f"refused: {refusal}\n")
repaired = live.update(first)
print("the repaired row gives the forecast of before:", repaired.equals(forecasts[0]))
