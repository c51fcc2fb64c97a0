"""Owns how long a deep state-space model remembers: the decay of its modes, fit by fit, and the steps it selects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssmfin.diagnostics.drawing import ACCENT, LINE, MUTED, SIZE, canvas, heading, over
from ssmfin.errors import InputError, nearest
from ssmfin.models.interface import LayerMemory
from ssmfin.reporting.memory import draw_memory, over_fits, stayed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (MUTED, LINE, ACCENT, "#009e73", "#882255", "#e69f00")
MARKS = ((1, "day"), (5, "week"), (22, "month"), (252, "year"))  # where rows are trading days


def memory(model: Any, name: str | None = None) -> pl.DataFrame:
    """The memory of every mode of a deep model's blocks, in rows (days, where rows are days); of a run, fit by fit.

        half_life = log(2) time_scale,        time_scale = -1 / log |A_bar|

    Of a selective model (mamba, mamba2): at the step size that its bias alone gives; what it selects shortens or
    lengthens that row by row (`step_sizes`).

    Args:
        model: what `sf.fit` or `fit` of a deep model returned, or a forecaster such as `sf.S4D()`, which shows what
            it starts with; or the folder of a finished run, or a `Result`.
        name: of a run: the model in it; None: all that have a memory.
    Returns:
        Of a model: network, layer, channel, mode, time_scale (rows to 1/e), half_life (rows), learned: false where
        these are starting values, of a model without a fit or a network whose training stayed at the base.
        Of a run: model, kind, level, days, rows, layer, learned, seed, fit, cutoff; the newest fit first. Of kind
        "used": the newest so many rows hold the share `level` of the sensitivity of the network's forecasts. Of kind
        "modes": that share of a layer's modes has at most this half-life, which each fit begins anew
        (`evaluation.memory`). In one line for each fit, half of it within .. days, 95 % within .. days:

            memory("runs/mine").filter(kind="used").pivot("level", index=["model", "seed", "cutoff"], values="days")

    Raises:
        InputError: the model is no deep one, or its blocks have no modes that decay; the run has no such model.

    >>> from ssmfin.models.ssm.s4d import S4D
    >>> table = memory(S4D(width=4, layers=1, state=2, timescales=(1, 252)))
    >>> table.columns
    ['network', 'layer', 'channel', 'mode', 'time_scale', 'half_life', 'learned']
    >>> bool((table["time_scale"] <= 252.001).all())
    True
    """
    if _is_run(model):
        at_a_glance = ("model", "kind", "level", "days", "rows", "layer", "learned", "seed", "fit", "cutoff")
        order, falling = ("model", "kind", "cutoff", "seed", "layer", "level"), (False, True, True, False, False, False)
        return _of_run(model, name).select(at_a_glance).sort(order, descending=falling)
    if name is not None:
        raise InputError(f"name is {name!r}, but the model is no run; leave the name out.")
    layers = _layers(model)
    rows = [
        (one.network, one.layer, channel, mode, scale)
        for one in layers
        for channel, modes in enumerate(one.time_scales.tolist())
        for mode, scale in enumerate(modes)
    ]
    table = pl.DataFrame(rows, schema=["network", "layer", "channel", "mode", "time_scale"], orient="row")
    learned = [one.learned for one in layers for _ in range(one.time_scales.size)]
    return table.with_columns(half_life=pl.col("time_scale") * math.log(2.0), learned=np.array(learned, dtype=bool))


def plot_memory(models: Any, name: str | None = None, *, unit: str = "rows", title: str = "") -> Figure:
    """Half-lives of the modes of one or several models, sorted, on a logarithmic axis: how much remembers how long.

    Of a run: how far back the forecasts of each network reach, from one fit to the next: the newest so many rows hold
    half of their sensitivity (the line), from a quarter to three quarters and from 5 to 95 % of it (the bands). Thin
    lines are the half-lives of the middle modes of its layers, hollow where training learned nothing.

    Args:
        models: as `memory`, or name -> model: what one starts with beside what it learned, say.
        name: of a run: the model in it; None: all that have a memory.
        unit: what a row is called; of a run, "days" counts days, however many rows a day has.
        title: of the figure, whose heading also says where training stayed at the base.
    Raises:
        InputError: as `memory`.
    """
    if _is_run(models):
        return _plot_run(memory(models, name), unit, title)
    named = models if isinstance(models, Mapping) else {"": models}
    tables = {name: memory(model)["half_life"].sort().to_numpy() for name, model in named.items()}
    stayed = {name: words for name, model in named.items() if (words := _stayed(model))}
    colours = (LINE,) if len(tables) == 1 else COLOURS * len(tables)
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    with canvas(1, 1, size=(8.0, 3.4)) as (figure, axes):
        one = axes[0, 0]
        for (name, half_lives), colour in zip(tables.items(), colours, strict=False):
            share = (np.arange(len(half_lives)) + 0.5) / len(half_lives)
            label = f"{name} *" if name in stayed else name
            one.step(half_lives, share, where="mid", color=colour, linewidth=1.6, label=label)
        one.set_xscale("log")
        one.set_ylim(0, 1)
        for rows, name in MARKS:
            one.axvline(rows, color="#c3c9d2", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
            if unit == "days":
                one.text(rows, 1.01, name, ha="center", va="bottom", fontsize=SIZE - 1, color=MUTED)
        one.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        one.xaxis.set_minor_formatter(NullFormatter())
        one.set_xlabel(f"half-life of a mode ({unit})", fontsize=SIZE, color=MUTED)
        one.set_ylabel("share of modes that forget faster", fontsize=SIZE, color=MUTED)
        if len(tables) > 1:
            one.legend(loc="lower right", frameon=False, fontsize=SIZE)
        over(figure, _heading(title, stayed, several=len(tables) > 1))
    return figure


def _plot_run(table: pl.DataFrame, unit: str, title: str) -> Figure:
    """Memory over the dates of the fits, a panel for each model."""
    names = table["model"].unique().sort().to_list()
    with canvas(len(names), 1, size=(8.0, 1.2 + 2.4 * len(names)), sharex=True) as (figure, axes):
        for one, name in zip(axes[:, 0], names, strict=True):
            fits = over_fits(table.filter(pl.col("model") == name))
            draw_memory(one, fits, "days" if unit == "days" else "rows")
            stayed, count = stayed_of(fits)
            heading(one, name, f"{stayed} of {count} fits learned nothing" if stayed else "")
            one.set_ylabel(f"memory ({unit})", fontsize=SIZE, color=MUTED)
        over(figure, title)
    return figure


def _stayed(model: Any) -> str:
    """What to say of a fitted model whose training, or that of some of its networks, stayed at the base."""
    fitted = getattr(model, "fitted", model)
    learned = getattr(fitted, "learned", ())
    if not learned or all(learned):
        return ""
    if not any(learned):
        return f"training stayed at {fitted.base_name}; these are the starting values"
    stayed = f"{len(learned) - sum(learned)} of {len(learned)} networks"
    return f"training of {stayed} stayed at {fitted.base_name}; theirs are the starting values"


def _heading(title: str, stayed: Mapping[str, str], *, several: bool) -> str:
    """The title, and below it a line for each different thing to say; starred where several models are drawn."""
    star = "* " if several else ""
    return "\n".join([*([title] if title else []), *(star + words for words in dict.fromkeys(stayed.values()))])


def step_sizes(block: Any, x: Any) -> np.ndarray:
    """The step that a selective block takes at each step of its input: large forgets what was and writes, small keeps.

        dt_t = softplus(W x_t + b),        state kept: exp(dt_t A)

    Args:
        block: a `MambaBlock` or `Mamba2Block`. x: (B, T, D) its input, a tensor.
    Returns:
        (B, T, E) of Mamba, (B, T, H) of Mamba-2.
    Raises:
        InputError: the block selects nothing.
    """
    import torch
    from torch.nn.functional import linear, softplus

    from ssmfin.models.ssm.blocks.mamba import MambaBlock
    from ssmfin.models.ssm.blocks.mamba2 import Mamba2Block

    if not isinstance(block, MambaBlock | Mamba2Block):
        raise InputError(
            f"block is a {type(block).__name__}, whose steps do not depend on its input; give a MambaBlock."
        )
    selecting = block.select if isinstance(block, MambaBlock) else block.enter
    seen: list[Any] = []
    handle = selecting.register_forward_hook(lambda module, given, answer: seen.append(answer))
    try:
        with torch.no_grad():
            block(x)
            if isinstance(block, MambaBlock):
                steps = softplus(linear(seen[0][..., : block.rank], block.dt_weight, block.dt_bias))
            else:
                steps = softplus(seen[0][..., -block.heads :] + block.dt_bias)
    finally:
        handle.remove()
    return np.asarray(steps.cpu())


def _layers(model: Any) -> list[LayerMemory]:
    """Of a fitted model, or of one as it starts.

    Raises:
        InputError: as `memory`.
    """
    from ssmfin.models.deep.forecaster import DeepForecaster

    fitted = getattr(model, "fitted", model)
    if isinstance(fitted, DeepForecaster):
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            blocks = fitted.blocks(fitted.width)
        scales = [block.time_scales() for block in blocks]
        found = [
            LayerMemory(0, layer, False, one.double().cpu().numpy())
            for layer, one in enumerate(scales)
            if one is not None
        ]
    elif hasattr(fitted, "groups"):
        from ssmfin.models.deep.memory import layer_memories

        blocks = [block for group in fitted.groups for network in group.networks for block in network.blocks]
        found = layer_memories(fitted)
    else:
        raise InputError(
            f"the model is a {type(fitted).__name__}; give a deep forecaster such as sf.S4D(), a fitted one, or the "
            "folder of a run."
        )
    if not found:
        names = sorted({type(block).__name__ for block in blocks})
        raise InputError(
            f"the model's blocks ({', '.join(names)}) have no modes that decay; memory is of state-space models: s4, "
            "s4d, s5, mamba, mamba2, hybrid."
        )
    return found


def _is_run(model: Any) -> bool:
    return isinstance(model, str | Path) or isinstance(getattr(model, "predictions", None), pl.DataFrame)


def _of_run(run: Any, name: str | None) -> pl.DataFrame:
    """The half-lives that a run's fits left, of one model or of all.

    Raises:
        InputError: the folder is no run's or was written before memories were kept, or no such model has one.
    """
    if isinstance(run, str | Path):
        folder = Path(run)
        if not (folder / "predictions.parquet").is_file():
            raise InputError(f"{run} holds no predictions.parquet; give the folder of a finished run.")
        file = folder / "memory.parquet"
        table = pl.read_parquet(file) if file.is_file() else None
    else:
        table = getattr(run, "memory", None)
    if table is None:
        raise InputError(
            f"{run if isinstance(run, str | Path) else 'the result'} keeps no memory; run a study with a state-space "
            "model (s4, s4d, s5, mamba, mamba2, hybrid), or run it again if the folder is older than this version."
        )
    if name is None:
        return table
    known = table["model"].unique().sort().to_list()
    if name not in known:
        raise InputError(f"model {name!r} has no memory in the run; {nearest(name, known)}.")
    return table.filter(pl.col("model") == name)
