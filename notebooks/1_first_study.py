# %% [markdown]
# # A first study
#
# Does a small state-space network forecast the volatility of the S&P 500 better than the models everybody knows? `make
# demo` answers in a minute; this notebook does the same and then looks at the answer from a few sides. Nothing is
# downloaded: the prices (1999-2018) come with the package `arch`.

# %%
import os
import tempfile

import polars as pl

import ssmfin as sf
from ssmfin_pipelines.progress import silent
from ssmfin_pipelines.run import run_study
from ssmfin_pipelines.study import read_study

QUICK = bool(os.environ.get("SSMFIN_NOTEBOOK_QUICK"))  # small settings, for the tests

# %% [markdown]
# ## The study is a file
#
# Everything that decides the result is in one YAML file: the data, what is forecast, how the walk forward goes, what
# the models see, and which models there are. `ssmfin validate` checks it, `ssmfin plan` says what it will cost,
# `ssmfin run` does it. From Python, any key can be overridden just as with `--set` on the command line.

# %%
small = ["data.end=2006-12-31", "walk_forward.test.size=250", "models.s4d.seeds=[0]", "models.s4d.epochs=5"]
study = read_study(
    "../configs/sp500_volatility.yaml",
    [f"output.directory={tempfile.mkdtemp()}", "execution.backend=inline", *small]
    if QUICK
    else ["output.directory=../runs"],
)
print("horizons (days):", study.target.horizons, "  target:", study.target.column, "  models:", *study.models)

# %% [markdown]
# ## Running it
#
# The walk forward refits every model quarter after quarter on the last 1,000 days and forecasts the days that follow.
# No model ever sees a day later than the moment at which it was fitted. A run that was interrupted goes on where it
# stopped, and a finished one is not computed again, so this cell costs nothing the second time.

# %%
run = run_study(study, progress=silent)

# %% [markdown]
# ## The verdict
#
# Its first sentence claims no win that the tests do not support: the network must lose less than the *best* baseline,
# a Diebold-Mariano test must say so after correction for the number of tries, and it must be in the model confidence
# set.

# %%
print(run.headline, *run.paragraphs, sep="\n\n")

# %% [markdown]
# ## The leaderboard
#
# QLIKE is the loss of choice for variances: it cares about the ratio of outcome and forecast, and a noisy proxy of the
# variance does not change the ranking. Below, each model's mean QLIKE relative to that of `log_har`; smaller is
# better.

# %%
board = run.leaderboard.filter(pl.col("loss") == "qlike")
board.pivot("horizon", index="model", values="ratio_to_reference").sort("1").with_columns(pl.exclude("model").round(3))

# %% [markdown]
# Which of these differences are more than luck? `in_mcs` marks the models that the data cannot tell apart from the
# best one: a long list is a modest answer, not a good result for everyone on it.

# %%
for (horizon,), part in board.filter("in_mcs").group_by("horizon", maintain_order=True):
    print(f"{horizon:2d} days ahead: {', '.join(part['model'])}")

# %% [markdown]
# ## When was it won?
#
# An average hides its history. The running sum of the loss differences does not: a line that falls steadily is an
# advantage at all times, a single drop is one lucky week.

# %%
sf.plot_cumulative_loss(run.directory, models=["ridge", "lightgbm", "s4d", "ewma"])

# %%
sf.plot_loss_by_year(run.directory, models=["ridge", "s4d"], horizons=[1, 5])

# %% [markdown]
# ## What to take home
#
# A linear model on the same inputs (`ridge`: three averages of past variance, three of past falls) is hard to beat on
# one index with a thousand days to learn from, and the report says so without being asked. The whole story, with the
# folds, the costs and every test, is in one file that opens offline:

# %%
print((run.directory / "report.html").name, "in the folder", run.directory.name)
