# %% [markdown]
# # Where and when: state-space models against baselines
#
# A study ends with one sentence. This notebook reads the run behind it and asks where that sentence comes from: at
# which horizons, in which years, in which times and on which series does a state-space model win, what does it cost,
# and when is it not worth it?
#
# It is written for the 21 stock indices of `configs/oxford_panel.yaml` (the data are yours to supply) but reads any
# finished run. Name its folder in the environment variable `SSMFIN_RUN`; otherwise the newest run of that study under
# `runs/` is taken, and if there is none, a small one is made of the two indices that come with `arch`.

# %%
import os
import tempfile
from pathlib import Path

import polars as pl

import ssmfin as sf
from ssmfin.diagnostics import confidence_sets, forecast_losses, ratios_by_id, ratios_by_regime, ratios_by_year
from ssmfin.diagnostics.drawing import canvas, heading
from ssmfin_pipelines.manifest import read_manifest
from ssmfin_pipelines.progress import silent
from ssmfin_pipelines.run import run_study
from ssmfin_pipelines.study import read_study

QUICK = bool(os.environ.get("SSMFIN_NOTEBOOK_QUICK"))  # small settings, for the tests


def small_run():
    """Two indices, one network, a few refits."""
    changes = [
        "data.source.series=[sp500, nasdaq]",
        "walk_forward.test.size=250",
        "models.s4d.seeds=[0]",
        "models.s4d.refit=1",
        f"output.directory={tempfile.mkdtemp()}",
        *(["execution.backend=inline", "data.end=2007-12-31", "models.s4d.epochs=5"] if QUICK else []),
    ]
    return run_study(read_study("../configs/sp500_volatility.yaml", changes), progress=silent).directory


finished = sorted(Path("../runs").glob("oxford-panel-*/manifest.json"), key=lambda file: file.stat().st_mtime)
if "SSMFIN_RUN" in os.environ:
    run = Path(os.environ["SSMFIN_RUN"])
elif finished and not QUICK:
    run = finished[-1].parent
else:
    run = small_run()
facts = read_manifest(run)
board = pl.read_parquet(run / "leaderboard.parquet").filter(pl.col("loss") == "qlike")
families = {name: fact["family"] for name, fact in facts["models"].items()}
print(run.name, "\n\n" + facts["verdict"]["headline"])

# %% [markdown]
# ## By horizon
#
# QLIKE relative to log-HAR. A star marks the models that the data cannot tell apart from the best one of their
# horizon. The rival of a network is not log-HAR, though, but the best simple model with the same inputs.

# %%
shown = board.with_columns(
    cell=pl.col("ratio_to_reference").round(3).cast(pl.String)
    + pl.when("in_mcs").then(pl.lit(" *")).otherwise(pl.lit(""))
)
table = shown.pivot("horizon", index="model", values="cell").sort("1")
table.with_columns(family=pl.col("model").replace_strict(families))

# %%
ranked = board.group_by("model").agg(pl.col("ratio_to_reference").mean().alias("mean")).sort("mean")
ranked = ranked.with_columns(family=pl.col("model").replace_strict(families))
if "ssm" not in families.values():
    raise ValueError(f"the run {run.name} has no state-space model to compare; name another one in SSMFIN_RUN")
ssm = ranked.filter(pl.col("family") == "ssm")["model"][0]
simple = ranked.filter(pl.col("family") == "baseline")["model"].to_list()
rivals = [name for name in simple if name != "log_har"][:2]
MODELS = [ssm, *rivals]
print(f"the best state-space model: {ssm}; the best of the others: {', '.join(rivals)}")

# %% [markdown]
# ## When
#
# The running sum of loss differences tells skill from luck. Small advantages add up slowly; what is lost in a week of
# 2008 or 2020 may be all that was won in five years.

# %%
sf.plot_cumulative_loss(run, models=MODELS)

# %%
sf.plot_loss_by_year(run, models=MODELS)

# %% [markdown]
# In how many years did the state-space model do better than log-HAR, and than the best rival?

# %%
years = ratios_by_year(forecast_losses(run, models=MODELS)).filter(pl.col("n") >= 20)  # not those of a few days
years = years.pivot("model", index=["horizon", "year"], values="ratio")
years.group_by("horizon", maintain_order=True).agg(
    pl.len().alias("years"),
    (pl.col(ssm) < 1).sum().alias(f"{ssm} better than log_har"),
    (pl.col(ssm) < pl.col(rivals[0])).sum().alias(f"{ssm} better than {rivals[0]}"),
)

# %% [markdown]
# ## In which times
#
# Calm, normal and turbulent are terciles of the outcome itself. Nobody knew them in advance, so this describes, and is
# no way to choose a model: one that forecasts high looks good in turbulence by that alone.

# %%
sf.plot_loss_by_regime(run, models=MODELS)

# %% [markdown]
# ## On which series
#
# An average over ids may be the work of a few. Each row is one series; a dot to the left of the line did better than
# log-HAR there.

# %%
sf.plot_loss_by_id(run, models=MODELS)

# %% [markdown]
# ## How sure can one be?
#
# The confidence set of the whole sample is one number for many years. Asked again and again of the last two years
# alone, the test shows how often the data could tell the models apart at all.

# %%
window, step = (252, 126) if QUICK else (504, 63)
sf.plot_confidence_sets(run, window=window, step=step)

# %%
sets = confidence_sets(forecast_losses(run), window=window, step=step)
share = sets.group_by("model", "horizon").agg((100 * pl.col("in_set").mean()).round(0).cast(pl.Int64).alias("share"))
share.pivot("horizon", index="model", values="share", sort_columns=True).sort("1", descending=True)

# %% [markdown]
# The table says in which share of those tests, in per cent, a model was in the set.
#
# ## How far back it looks
#
# A state could remember for years; what a network uses is decided anew in every fit. The newest so many days hold half
# of what its correction hangs on (the line), a quarter to three quarters, and 5 to 95 % (the bands). Thin lines are the
# half-lives of the modes that were there to be used: they hardly move. Hollow points are fits that learned nothing.

# %%
sf.plot_memory(run, unit="days") if (run / "memory.parquet").is_file() else "a run of an earlier version keeps none"

# %% [markdown]
# ## What it costs
#
# Seconds of fitting for the whole walk forward, on one core, against the loss; models far above 1 are left out, and so
# are combinations, which cost what their members cost. To the left and below is where one wants to be.

# %%
first = board.filter(
    pl.col("horizon") == board["horizon"].min(),
    pl.col("ratio_to_reference") < 1.1,
    pl.col("model").replace_strict(families) != "combination",
).sort("fit_seconds")
with canvas(size=(7.0, 3.4)) as (figure, axes):
    one = axes[0, 0]
    for place, row in enumerate(first.iter_rows(named=True)):
        colour = "#d55e00" if families[row["model"]] == "ssm" else "#0059a3"
        seconds = max(row["fit_seconds"], 1e-3)
        one.plot(seconds, row["ratio_to_reference"], "o", color=colour)
        one.annotate(
            row["model"],
            (seconds, row["ratio_to_reference"]),
            xytext=(0, 7 if place % 2 else -14),  # neighbours above and below, or they would cover each other
            ha="center",
            textcoords="offset points",
        )
    one.set(xscale="log", xlabel="seconds of fitting", ylabel="QLIKE over log_har's")
    one.margins(x=0.15, y=0.15)
    heading(one, f"horizon {first['horizon'][0]}", "orange: state-space")
figure

# %% [markdown]
# ## When not to use a state-space model
#
# The last cell of a study should be able to talk its author out of something. Here are the questions, answered by the
# run at hand.

# %%
losses = forecast_losses(run, models=MODELS)
by_id = ratios_by_id(losses).pivot("model", index=["horizon", "unique_id"], values="ratio")
turbulent = ratios_by_regime(losses).filter(pl.col("regime") == "turbulent")
turbulent = turbulent.pivot("model", index="horizon", values="ratio")
seconds = dict(board.select("model", "fit_seconds").iter_rows())
for (horizon,), part in by_id.group_by("horizon", maintain_order=True):
    better = (part[ssm] < part[rivals[0]]).sum()
    storm = turbulent.filter(pl.col("horizon") == horizon)
    print(
        f"horizon {horizon:2d}: {ssm} beats {rivals[0]} on {better} of {len(part)} series; in turbulent times its loss "
        f"is {storm[ssm].item():.2f} of log_har's, that of {rivals[0]} {storm[rivals[0]].item():.2f}"
    )
print(f"fitting took {seconds[ssm]:.0f} s for {ssm} and {seconds[rivals[0]]:.1f} s for {rivals[0]}")

# %% [markdown]
# As a rule, do without one
#
# - if a linear model on the same inputs is in the confidence set wherever the network is: it is cheaper, and you can
#   read it;
# - at long horizons, where a window of a thousand days holds forty-five labels without overlap, and the network has
#   little to learn from (the library shrinks its corrections there, for that reason);
# - on a single series. What a network gains, it gains from many series that share their dynamics;
# - if the advantage lies in one or two years, or in a few series: look at the pictures above before the average.
#
# And consider one with many series, with inputs whose memory is not known in advance, with bars so frequent that
# history is long and windows are clumsy, or where forecasts must stream.
