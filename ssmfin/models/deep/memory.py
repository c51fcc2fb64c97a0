"""Owns what a fitted network remembers: how long the modes of its layers last, and how old the rows are that it uses.

The two differ: modes are there from the start, drawn anew for each fit, and training decides which of them are heard.
Imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ssmfin.models.deep.sequences import input_rows
from ssmfin.models.deep.skeleton import Network
from ssmfin.models.deep.training import one_thread
from ssmfin.models.interface import Design, FloatArray, LayerMemory

if TYPE_CHECKING:
    from ssmfin.models.deep.prediction import FittedDeep, Group

OLDEST = 512  # rows looked back
SEQUENCES = 4  # ids looked at, spread evenly


def layer_memories(fitted: FittedDeep) -> list[LayerMemory]:
    """Of every network's layers with modes that decay."""
    networks = [network for group in fitted.groups for network in group.networks]
    return [
        LayerMemory(number, layer, learned, scales.detach().double().cpu().numpy())
        for number, (network, learned) in enumerate(zip(networks, fitted.learned, strict=True))
        for layer, block in enumerate(network.blocks)
        if (scales := block.time_scales()) is not None
    ]


def sensitivity_by_age(fitted: FittedDeep, design: Design) -> FloatArray:
    """How much the correction at an id's newest row hangs on the row k rows before it.

        s_k = mean over networks and ids of sum_h sum_f |d g_h(t) / d x_f(t - k)|,     x standardised

    at the newest rows of up to `SEQUENCES` ids. A network that learned nothing has s = 0 throughout.

    Args:
        design: ends at the moment of fitting.
    Returns:
        (ages,) for k = 0, 1, ..; as long as the longest of the histories, at most `OLDEST`.
    """
    sequences = input_rows(design)
    total, count = np.zeros(min(OLDEST, max(len(rows) for rows in sequences))), 0
    for group in fitted.groups:
        members = [k for k in group.members(design) if len(sequences[k])]
        chosen = [members[i] for i in np.unique(np.linspace(0, len(members) - 1, SEQUENCES).round().astype(int))]
        for rows in (sequences[k][-OLDEST:] for k in chosen if members):
            for network in group.networks:
                total[: len(rows)] += _by_age(fitted, group, network, design, rows)
                count += 1
    return total / max(count, 1)


def _by_age(fitted: FittedDeep, group: Group, network: Network, design: Design, rows: np.ndarray) -> FloatArray:
    """(n,) of one network at the last of some rows (n,) of one id."""
    device = next(network.parameters()).device
    # without cuDNN, whose recurrent layers have no gradient outside of training
    with one_thread(), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), fitted.autocast(device):
        inputs = fitted.reader.inputs(design, rows[None]).to(device)
        columns = inputs.columns.requires_grad_()
        raw, _ = network(inputs._replace(columns=columns))
        found = np.zeros(len(rows))
        for h, trust in enumerate(group.credibility):
            (slope,) = torch.autograd.grad(raw[0, -1, h, 0], columns, retain_graph=True)
            found += trust * slope[0].abs().sum(-1).double().cpu().numpy()
    return found[::-1]
