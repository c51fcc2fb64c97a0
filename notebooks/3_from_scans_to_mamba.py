# %% [markdown]
# # From scans to Mamba
#
# What is a deep state-space model made of? One linear system, run in three ways that agree to the last digits; a rule
# that takes it from continuous to discrete time; a start that remembers; and, in Mamba, steps that depend on the
# input. Each of these is a few lines with the library's own parts.

# %%
import os
import time

import numpy as np
import torch

import ssmfin as sf
from ssmfin.diagnostics import step_sizes
from ssmfin.diagnostics.drawing import canvas, heading, legend
from ssmfin.models.deep.skeleton import Inputs, Network
from ssmfin.models.ssm.blocks.mamba import MambaBlock
from ssmfin.models.ssm.blocks.s4d import S4DBlock
from ssmfin.models.ssm.discretization import (
    bilinear,
    diagonal_frequencies,
    hippo_legs_matrices,
    zero_order_hold,
)
from ssmfin_kernels import fft_convolution, linear_scan, vandermonde_kernel

QUICK = bool(os.environ.get("SSMFIN_NOTEBOOK_QUICK"))  # small settings, for the tests
BLUE, RED, GREY, GREEN = "#0059a3", "#b8441a", "#8b93a1", "#009e73"

# %% [markdown]
# ## One system, three ways
#
# A state-space model with a diagonal state matrix is $x'(t) = A x(t) + u(t)$, $y(t) = 2\,\mathrm{Re}\,C x(t)$: a
# handful of oscillators that decay. Held constant over a step, the input moves it by exact factors,
#
# $$h_t = \bar A h_{t-1} + \bar B u_t, \qquad y_t = 2\,\mathrm{Re}\,C h_t, \qquad \bar A = e^{\Delta A},\;
# \bar B = (e^{\Delta A} - 1) / A .$$
#
# Unrolled, the same is a convolution, $y_t = \sum_l K_l u_{t-l}$ with $K_l = 2\,\mathrm{Re}\,C \bar A^l \bar B$.

# %%
torch.manual_seed(0)
steps, pairs = 600, 8
A = torch.complex(torch.full((1, pairs), -0.5, dtype=torch.float64), diagonal_frequencies(pairs, "lin")[None])
C = torch.randn(1, pairs, dtype=torch.complex128)
dtA, B_bar = zero_order_hold(A, torch.tensor([0.02], dtype=torch.float64))
u = torch.zeros(1, steps, 1, dtype=torch.float64)
u[0, 20], u[0, 300:400] = 1.0, 0.05  # an impulse, then a step


def recurrence(u):
    """One step after the other: how a stream runs."""
    h, out = torch.zeros(pairs, dtype=torch.complex128), []
    for t in range(u.shape[1]):
        h = dtA[0].exp() * h + B_bar[0] * u[0, t, 0]
        out.append(2 * (C[0] * h).sum().real)
    return torch.stack(out)


def convolution(u):
    """All steps at once, through the frequencies: how S4 was trained."""
    return fft_convolution(u, vandermonde_kernel(C * B_bar, dtA, u.shape[1]))[0, :, 0]


def scan(u):
    """In parallel over time, and with a state at the end: how models are trained here."""
    h, _ = linear_scan(dtA.exp().expand(1, u.shape[1], pairs), B_bar * u)
    return 2 * (h @ C[0]).real[0]


ways = {"recurrence": recurrence, "convolution": convolution, "scan": scan}
outputs = {name: way(u) for name, way in ways.items()}
for name in ("convolution", "scan"):
    print(
        f"{name:12s} differs from the recurrence by at most {(outputs[name] - outputs['recurrence']).abs().max():.0e}"
    )

# %%
with canvas(1, 2, size=(10.0, 3.0)) as (figure, axes):
    axes[0, 0].plot(u[0, :, 0], color=GREY, linewidth=1)
    heading(axes[0, 0], "input")
    axes[0, 0].set_xlabel("step")
    for (name, y), style in zip(outputs.items(), ("-", "--", ":"), strict=True):
        axes[0, 1].plot(y, style, label=name, color={"-": GREY, "--": BLUE, ":": RED}[style], linewidth=1.8)
    heading(axes[0, 1], "output: three lines, one on the other")
    axes[0, 1].set_xlabel("step")
    legend(axes[0, 1])
figure

# %% [markdown]
# They give the same numbers at very different prices: the loop pays for every step, the other two work on all steps
# together. Which is why a network trains as a scan, and streams as a recurrence.

# %%
for length in (1_000, 4_000) if QUICK else (1_000, 4_000, 16_000):
    long = torch.randn(1, length, 1, dtype=torch.float64)
    taken = []
    for way in ways.values():
        begin = time.perf_counter()
        way(long)
        taken.append(time.perf_counter() - begin)
    print(
        f"{length:6,} steps:  " + "   ".join(f"{name} {1e3 * s:7.1f} ms" for name, s in zip(ways, taken, strict=True))
    )

# %% [markdown]
# ## Discretisation and stability
#
# The continuous system is stable as long as the real part of $A$ is negative. Is the discrete one? The zero-order hold
# is exact and always is. The bilinear rule always is too, but a mode that is fast for the step turns its sign at every
# step and decays *more slowly* the faster it should. The naive rule, $1 + \Delta A$, explodes.

# %%
dt = torch.logspace(-2, 1.5, 300, dtype=torch.float64)
mode = -torch.ones(len(dt), 1, dtype=torch.float64)
factors = {
    "zero-order hold": (zero_order_hold(mode, dt)[0].exp()[:, 0], BLUE),
    "bilinear": (bilinear(mode, dt)[0][:, 0], RED),
    "naive (Euler)": (1 - dt, GREY),
}
with canvas(size=(7.0, 3.2)) as (figure, axes):
    one = axes[0, 0]
    for name, (factor, colour) in factors.items():
        one.plot(dt, factor, color=colour, label=name)
    one.axhspan(-1, 1, color="#f0f2f5", zorder=0)
    one.set(xscale="log", ylim=(-1.6, 1.2), xlabel="step size times rate of decay", ylabel="factor per step")
    heading(one, "What a step leaves of a state", "grey: stable")
    legend(one, loc="lower left")
figure

# %% [markdown]
# ## Memory and half-life
#
# A mode with factor $\bar A$ has lost half of what it knew after $\log 2 / (-\log|\bar A|)$ steps, its half-life, and
# all but $1/e$ of it after $1 / (-\log|\bar A|)$, its time scale, which is 1.44 half-lives. One can choose them:
# `timescales` says in days (rows) between which time scales the modes start, and `sf.memory` reads off the half-lives
# that a model has.

# %%
sf.plot_memory(
    {
        "S4D, a day to a month": sf.S4D(timescales=(1, 22)),
        "S4D, a day to a year": sf.S4D(timescales=(1, 252)),
        "Mamba, a day to a year": sf.Mamba(timescales=(1, 252)),
    },
    unit="days",
)

# %% [markdown]
# Mamba's modes of one channel decay at 1, 2, 3, ... times a rate, so that most of them are short, and lengthen or
# shorten their memory as they go (below).
#
# ## HiPPO: a start that remembers
#
# Which matrix $A$ should one start with? HiPPO asks for a state that is, at all times, the best summary of
# *everything* so far: its coefficients in the first $N$ Legendre polynomials. The answer is a fixed matrix. Fed with
# twenty years of daily log variance of the S&P 500, one number a day, the state can be asked at the end what it has
# seen.

# %%
measures = {"kind": "range", "estimators": ["parkinson"]}
panel = sf.load_panel({"kind": "arch", "series": ["sp500"]}, measures=measures)
seen = torch.log(torch.tensor(panel.frame["parkinson"].to_numpy()))
days, dates = len(seen), panel.frame["ds"].to_numpy()


def remembered(states):
    """What a HiPPO-LegS state of this size knows at the end: (days,)."""
    A, B = hippo_legs_matrices(states)  # t c'(t) = A c(t) + B u(t), by the bilinear rule
    identity, c = torch.eye(states, dtype=torch.float64), torch.zeros(states, dtype=torch.float64)
    for k in range(1, days + 1):
        c = torch.linalg.solve(identity - A / (2 * k), c + A @ c / (2 * k) + B * seen[k - 1] / k)
    place = np.linspace(-1, 1, days)
    return np.polynomial.legendre.legval(place, (c * B).numpy())


with canvas(2 if QUICK else 3, 1, size=(10.0, 5.2), sharex=True, sharey=True) as (figure, axes):
    for one, states in zip(axes.flat, (8, 32, 128), strict=False):
        one.plot(dates, seen, color="#d5dae1", linewidth=0.6)
        one.plot(dates, remembered(states), color=RED, linewidth=1.4)
        heading(one, f"{states} numbers remember {days:,} days")
        one.set_ylabel("log variance")
        one.set_ylim(-13, -5)
figure

# %% [markdown]
# S4 starts from this matrix, S4D from its diagonal part; `s4` and `s4d` in a study do so without being told.
#
# ## What selectivity does
#
# All systems above treat every step alike. Markets do not: most days mean little, a few change the level of
# everything. Here is a stream with known events. At most steps there is noise; now and then a flag is up, and then the
# value holds *until the next flag*. The task is to say at each step which value holds.


# %%
def stream_with_events(sequences, length, seed, rate=0.04):
    """(B, T, 2) value and flag, and the (B, T) value at the last flag."""
    generator = torch.Generator().manual_seed(seed)
    flag = torch.rand(sequences, length, generator=generator) < rate
    flag[:, 0] = True
    value = torch.randn(sequences, length, generator=generator)
    last = torch.where(flag, torch.arange(length), 0).cummax(1).values
    return torch.stack((value, flag.float()), -1), value.gather(1, last)


def network_of(blocks):
    """The network that forecasters use, around these blocks."""
    return Network(features=2, horizons=1, limits=(4.0,), blocks=blocks, width=16, dropout=0.0, calendar=False, ids=0)


def answers(network, x):
    none = torch.zeros(x.shape[:2], dtype=torch.long)
    return network(Inputs(x, torch.stack((none, none), -1), none))[0][..., 0, 0]


def trained(blocks, updates):
    network, losses = network_of(blocks), []
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(updates):
        x, y = stream_with_events(16, 128, seed=step + 1)
        loss = (answers(network, x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return network, losses


torch.manual_seed(0)
UPDATES = 120 if QUICK else 400
mamba, mamba_losses = trained([MambaBlock(16, timescales=(1, 100))], UPDATES)
s4d, s4d_losses = trained([S4DBlock(16, timescales=(1, 100)) for _ in range(2)], UPDATES)
x, y = stream_with_events(200, 128, seed=0)
with torch.no_grad():
    for name, network in (("Mamba, one layer", mamba), ("S4D, two layers", s4d)):
        error = (answers(network, x) - y).square().mean()
        print(f"{name:17s} mean squared error {error:.3f} on new streams (guessing zero: {y.square().mean():.2f})")

# %%
with canvas(size=(7.0, 3.0)) as (figure, axes):
    one = axes[0, 0]
    one.plot(s4d_losses, color=BLUE, label="S4D, two layers", linewidth=1)
    one.plot(mamba_losses, color=RED, label="Mamba, one layer", linewidth=1)
    one.set(yscale="log", xlabel="update", ylabel="mean squared error")
    legend(one)
figure

# %% [markdown]
# A linear system cannot do it with ease: its memory fades at a rate of its own, whatever it is shown, so that it holds
# a value too long or forgets it too early. Mamba computes the step size from the input, and has learned what one would
# have programmed: a long step at a flag (forget, and write), a short one elsewhere (hold).

# %%
with torch.no_grad():
    layer = mamba.layers[0]
    sizes = step_sizes(layer.block, layer.norm(mamba.columns(x[:1])))[0]  # (T, channels)
    said = {"Mamba": answers(mamba, x[:1])[0], "S4D": answers(s4d, x[:1])[0]}
flags = np.flatnonzero(x[0, :, 1].numpy())
at_flag = np.isin(np.arange(len(sizes)), flags)
busiest = (sizes[at_flag].mean(0) / sizes[~at_flag].mean(0)).argsort()[-3:]
with canvas(2, 1, size=(10.0, 5.0), sharex=True) as (figure, axes):
    top, below = axes[:, 0]
    top.plot(x[0, :, 0], ".", color="#c3c9d2", label="values shown")
    top.step(range(len(y[0])), y[0], color="#1f2430", linewidth=1.2, where="post", label="what holds")
    top.step(range(len(y[0])), said["S4D"], color=BLUE, linewidth=1.2, where="post", label="S4D")
    top.step(range(len(y[0])), said["Mamba"], color=RED, linewidth=1.2, where="post", label="Mamba")
    top.set_ylim(-3.2, 4.4)
    heading(top, "A stream it has never seen")
    legend(top, ncols=4, loc="upper right")
    below.plot(sizes[:, busiest].mean(1), color=RED)
    below.set(yscale="log", xlabel="step", ylabel="step size")
    heading(below, "The step that Mamba takes", "mean of the three channels that answer most; lines: the flags")
    for one in (top, below):
        for flag in flags:
            one.axvline(flag, color=GREEN, linewidth=0.7, alpha=0.7, zorder=1)
figure

# %% [markdown]
# Whether there are such events in a series of your own is an empirical question. On daily volatility they are few, and
# `mamba` and `s4d` end up close to each other and to a linear model: notebook 4 looks at that.
