"""Owns how long a deep state-space model remembers: the decay of its modes in rows, and the step sizes it selects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssmfin.diagnostics.drawing import ACCENT, LINE, MUTED, SIZE, canvas, over
from ssmfin.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (MUTED, LINE, ACCENT, "#009e73", "#882255", "#e69f00")
MARKS = ((1, "day"), (5, "week"), (22, "month"), (252, "year"))  # where rows are trading days


def memory(model: Any) -> pl.DataFrame:
    """The memory of every mode of a deep model's blocks, in rows (days, where rows are days).

        half_life = log(2) time_scale,        time_scale = -1 / log |A_bar|

    Of a selective model (mamba, mamba2): at the step size that its bias alone gives; what it selects shortens or
    lengthens that row by row (`step_sizes`).

    Args:
        model: what `sf.fit` or `fit` of a deep model returned, or a forecaster such as `sf.S4D()`, which shows what
            it starts with.
    Returns:
        network, layer, channel, mode, time_scale (rows to 1/e), half_life (rows), learned: false where these are
        starting values, of a model without a fit or a network whose training stayed at the base.
    Raises:
        InputError: the model is no deep one, or its blocks have no modes that decay.

    >>> from ssmfin.models.ssm.s4d import S4D
    >>> table = memory(S4D(width=4, layers=1, state=2, timescales=(1, 252)))
    >>> table.columns
    ['network', 'layer', 'channel', 'mode', 'time_scale', 'half_life', 'learned']
    >>> bool((table["time_scale"] <= 252.001).all())
    True
    """
    rows = []
    networks = _blocks(model)
    for number, blocks in enumerate(networks):
        for layer, block in enumerate(blocks):
            scales = block.time_scales()
            if scales is None:
                continue
            for channel, modes in enumerate(scales.double().cpu().tolist()):
                rows += [(number, layer, channel, mode, scale) for mode, scale in enumerate(modes)]
    if not rows:
        names = sorted({type(block).__name__ for blocks in networks for block in blocks})
        raise InputError(
            f"the model's blocks ({', '.join(names)}) have no modes that decay; memory is of state-space models: s4, "
            "s4d, s5, mamba, mamba2, hybrid."
        )
    table = pl.DataFrame(rows, schema=["network", "layer", "channel", "mode", "time_scale"], orient="row")
    learned = getattr(getattr(model, "fitted", model), "learned", (False,) * len(networks))
    return table.with_columns(
        half_life=pl.col("time_scale") * math.log(2.0),
        learned=np.array(learned, dtype=bool)[table["network"].to_numpy()],
    )


def plot_memory(models: Any, *, unit: str = "rows", title: str = "") -> Figure:
    """Half-lives of the modes of one or several models, sorted, on a logarithmic axis: how much remembers how long.

    Args:
        models: as `memory`, or name -> model: what one starts with beside what it learned, say.
        unit: what a row is called. title: of the figure, whose heading also says where training stayed at the base.
    Raises:
        InputError: as `memory`.
    """
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


def _blocks(model: Any) -> list[list[Any]]:
    """The blocks of each network."""
    from ssmfin.models.deep.forecaster import DeepForecaster

    model = getattr(model, "fitted", model)
    if hasattr(model, "groups"):
        return [network.blocks for group in model.groups for network in group.networks]
    if isinstance(model, DeepForecaster):
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [model.blocks(model.width)]
    raise InputError(
        f"the model is a {type(model).__name__}; give a deep forecaster such as sf.S4D(), or a fitted one."
    )
