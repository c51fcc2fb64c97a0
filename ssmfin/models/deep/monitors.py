"""Owns the plain facts about a trained network worth watching: spectrum, time scales, state sizes. Imports torch."""

from __future__ import annotations

import torch

from ssmfin.models.deep.skeleton import Network, NetworkState


def time_scale_notes(networks: list[Network]) -> dict[str, float]:
    """Shortest, median and longest time scale over the modes of all blocks that have one: rows until 1/e is left.

    A half-life, as which every reader is shown it, is log(2) of that.
    """
    found = [
        scales.flatten() for network in networks for b in network.blocks if (scales := b.time_scales()) is not None
    ]
    scales = torch.cat(found).double() if found else torch.empty(0)
    scales = scales[scales.isfinite()]
    if not len(scales):
        return {}
    return {
        "time_scale_shortest": scales.min().item(),
        "time_scale_median": scales.median().item(),
        "time_scale_longest": scales.max().item(),
    }


def spectrum_notes(networks: list[Network]) -> dict[str, float]:
    """Over the modes of all blocks that have a spectrum: the largest size, below 1 where every state forgets, and the
    shortest period, in rows, of what a state can follow; infinite where none oscillates.
    """
    found = [spectrum.flatten() for n in networks for b in n.blocks if (spectrum := b.spectrum()) is not None]
    if not found:
        return {}
    modes = torch.cat(found)
    turn = modes.angle().abs().max().item()
    notes = {"spectral_radius": modes.abs().max().item()}
    return notes | ({"period_shortest": 2 * torch.pi / turn} if turn else {})


def state_norm(state: NetworkState) -> float:
    """Root mean square of all numbers of a state; 0.0 without any."""
    total = sum(part.detach().double().square().sum().item() for block in state for part in block)
    count = sum(part.numel() for block in state for part in block)
    return float((total / count) ** 0.5) if count else 0.0
