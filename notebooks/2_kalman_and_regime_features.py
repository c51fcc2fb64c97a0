# %% [markdown]
# # Kalman and regime features for another model
#
# Filtered states are useful far from any state-space forecaster: as columns for whatever model you already have. Here
# they are extracted for two indices, joined, and fed to a scikit-learn pipeline and to LightGBM. Then comes the reason
# for the word *filtered*: what it costs to use smoothed states instead, and how the library refuses them.

# %%
import os

import lightgbm
import numpy as np
import polars as pl
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ssmfin as sf
from ssmfin.diagnostics.drawing import canvas, heading, legend

QUICK = bool(os.environ.get("SSMFIN_NOTEBOOK_QUICK"))  # small settings, for the tests
measures = {"kind": "range", "estimators": ["parkinson"]}  # a variance a day, from high and low
panel = sf.load_panel({"kind": "arch", "series": ["sp500", "nasdaq"]}, measures=measures)
panel

# %% [markdown]
# ## Extract
#
# Parameters are learned once, by maximum likelihood, on the years up to 2008, and then frozen. `transform` runs the
# filter forward from the first day: its value at t rests on the rows up to t. Both ids are fitted in one call, each
# with its own parameters.

# %%
split = pl.date(2009, 1, 1)
past = sf.Panel(panel.frame.filter(pl.col("ds") < split))

level = sf.KalmanFeatures("local_level", column="parkinson", scale="log", emit=["level", "innovation", "variance"])
regime = sf.RegimeFeatures("switching_variance", regimes=2, column="log_return", emit=["probability"])
states = level.fit(past).transform(panel)
regimes = regime.fit(past).transform(panel)
states.tail(3)

# %% [markdown]
# What came out? A level of log variance that the noise has been taken off, shown here over the raw measure, and the
# probability of being in the turbulent regime.

# %%
one = panel.frame.join(states, on=["unique_id", "ds"]).join(regimes, on=["unique_id", "ds"])
one = one.filter((pl.col("unique_id") == "sp500") & pl.col("ds").is_between(pl.date(2007, 1, 1), pl.date(2010, 12, 31)))
sf.plot_states(
    {"log variance": (one["level"].to_numpy(), one["variance"].to_numpy())},
    dates=one["ds"].to_numpy(),
    observed=np.log(one["parkinson"].to_numpy()),
    title="S&P 500: the filtered level of log variance",
)

# %%
sf.plot_regimes(
    one["close"].to_numpy(),
    one["probability_1"].to_numpy(),
    dates=one["ds"].to_numpy(),
    price_label="S&P 500",
    title="The turbulent regime, as it was known each day",
)

# %% [markdown]
# ## Join
#
# The columns are keyed by `unique_id` and `ds`, so a join is all it takes. The other features here are HAR lags (log
# of the mean variance over the last day, week and month); the label is the next day's log variance.

# %%
har = sf.HarLags("parkinson", windows=[1, 5, 22], scale="log").fit_transform(panel)
table = har.join(states, on=["unique_id", "ds"]).join(regimes, on=["unique_id", "ds"])
label = pl.col("parkinson").shift(-1).over("unique_id").log().alias("label")
table = table.join(panel.frame.select("unique_id", "ds", label), on=["unique_id", "ds"]).fill_nan(None).drop_nulls()
HAR = [name for name in har.columns if name not in ("unique_id", "ds")]
FILTERED = [*HAR, "level", "innovation", "variance", "probability_1"]
train, test = table.filter(pl.col("ds") < split), table.filter(pl.col("ds") >= split)
print(f"{len(train):,} rows to learn from, {len(test):,} to judge by; columns: {', '.join(FILTERED)}")

# %% [markdown]
# ## Feed
#
# Any estimator will do. The forecast of the variance is $\exp(\mu + s^2/2)$, since the label is a logarithm, and the
# loss is QLIKE.


# %%
def qlike_of(model, columns, train, test):
    """Mean QLIKE of the forecasts for the test rows."""
    model.fit(train[columns].to_numpy(), train["label"].to_numpy())
    residual = train["label"].to_numpy() - model.predict(train[columns].to_numpy())
    forecast = np.exp(model.predict(test[columns].to_numpy()) + 0.5 * residual.var())
    return sf.qlike(np.exp(test["label"].to_numpy()), forecast).mean()


def linear():
    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13)))


def boosted():
    return lightgbm.LGBMRegressor(
        n_estimators=50 if QUICK else 200, learning_rate=0.03, num_leaves=8, n_jobs=1, verbose=-1, deterministic=True
    )


base = qlike_of(linear(), HAR, train, test)
pl.DataFrame(
    [
        (name, round(qlike_of(model(), columns, train, test) / base, 3))
        for name, model, columns in [
            ("linear, HAR lags", linear, HAR),
            ("linear, and the states", linear, FILTERED),
            ("LightGBM, HAR lags", boosted, HAR),
            ("LightGBM, and the states", boosted, FILTERED),
        ]
    ],
    schema=["model", "QLIKE relative to linear HAR"],
    orient="row",
)

# %% [markdown]
# Little or nothing is gained on these two indices, and that is what one should expect: the states are another summary
# of the same past, and HAR's three averages are a good one already. Whoever would like to see more should meet the
# next paragraph first.
#
# ## The leak
#
# The same model can also be *smoothed*: the state at t given all days, those after t included. For looking back that
# is the better estimate. As a feature it is a disaster, because it has read the label. The library therefore gives
# smoothed results a type of their own and refuses them at every door.

# %%
smoothed = level.smoothed(panel)
print(smoothed, "\n")
leaky = panel.frame.join(smoothed.to_frame(), on=["unique_id", "ds"])
doors = {
    "as an array": lambda: np.asarray(smoothed),
    "as a panel": lambda: sf.HarLags("parkinson").fit(smoothed),
    "as a column that another feature reads": lambda: sf.HarLags("smoothed__level", scale="none").fit_transform(leaky),
    "as a column beside the target": lambda: sf.evaluate(
        {}, leaky, target="parkinson", folds=sf.WalkForward(train=1000, test=250, horizons=[1])
    ),
}
for door, knock in doors.items():
    try:
        knock()
    except (sf.InputError, TypeError) as refusal:
        print(f"{door}:\n    {refusal}\n")

# %% [markdown]
# Nothing stops a notebook that goes its own way, so here is what would have happened. The only change is one column:
# the level given everything, instead of the level given the past.

# %%
with_leak = table.join(smoothed.to_frame(), on=["unique_id", "ds"])
train, test = with_leak.filter(pl.col("ds") < split), with_leak.filter(pl.col("ds") >= split)
costs = {
    "HAR lags": base,
    "and the filtered level": qlike_of(linear(), [*HAR, "level"], train, test),
    "and the smoothed level": qlike_of(linear(), [*HAR, "smoothed__level"], train, test),
}
for name, value in costs.items():
    print(f"{name:24s} QLIKE {value:.3f}, {value / base:.2f} of HAR's   {'#' * round(40 * value / base)}")

# %% [markdown]
# No honest column does that to a model that has HAR's lags already. (With five-minute realized variance, which is less
# noisy, the smoothed level leaves .40 of the loss.) A smoothed state is the most comfortable way to fool oneself: it
# comes out of a respectable algorithm, its row carries today's date, and it would look the same in production until
# the day it is needed.

# %%
crisis = pl.col("ds").is_between(pl.date(2008, 8, 15), pl.date(2008, 11, 15))
around = with_leak.filter(crisis, pl.col("unique_id") == "sp500")
with canvas(size=(9.0, 3.4)) as (figure, axes):
    one = axes[0, 0]
    one.plot(around["ds"], around["lag_1"], ".", color="#8b93a1", label="the day itself")
    one.plot(around["ds"], around["level"], color="#0059a3", label="filtered")
    one.plot(around["ds"], around["smoothed__level"], color="#b8441a", label="smoothed: knows what comes")
    one.set_ylabel("log variance per day")
    heading(one, "Autumn 2008: the smoothed level rises before the news does")
    legend(one)
figure

# %% [markdown]
# ## In a study
#
# In a study file all of this is two lines, `kalman: {kind: kalman, model: local_level}` and `regime: {kind: regime,
# model: switching_variance}`, learned anew in every training window; `ssmfin features study.yaml -o features.parquet`
# writes the columns for some other program.
