"""What is reported about a trained network: its spectrum, its memories, the gradients of its step sizes."""

from __future__ import annotations

import math

import pytest
import torch
from deep_support.blocks import BLOCKS, KINDS, moved

from ssmfin.models.deep.block import SequenceBlock
from ssmfin.models.deep.monitors import spectrum_notes, time_scale_notes
from ssmfin.models.deep.skeleton import Network

LINEAR = [name for name in BLOCKS if name.startswith(("s4", "s5"))]


def network_of(blocks: list[SequenceBlock], width: int = 8) -> Network:
    return Network(
        features=2, horizons=1, limits=(1.0,), blocks=blocks, width=width, dropout=0.0, calendar=False, ids=0
    )


@pytest.mark.parametrize("name", LINEAR)
def test_the_spectrum_is_what_a_state_left_alone_does(name: str) -> None:
    """After a step without input the state is the matrix times the state: unit states give the matrix."""
    block = moved(name)
    (shape,) = block.state_shapes()
    size = math.prod(shape)
    units = torch.eye(size, dtype=torch.float64).view(size, *shape)
    with torch.no_grad():
        _, (after,) = block.step(torch.zeros(size, 8, dtype=torch.float64), (units,))
    expected = torch.linalg.eigvals(after.view(size, size).T)
    found = block.spectrum().flatten()
    both = torch.cat((found, found.conj()))  # one of a conjugate pair stands for both
    apart = (expected[:, None] - both).abs()
    assert apart.min(dim=1).values.max() < 1e-9
    assert apart.min(dim=0).values.max() < 1e-9


@pytest.mark.parametrize("name", [name for name in BLOCKS if moved(name).spectrum() is not None])
def test_memories_are_those_of_the_spectrum(name: str) -> None:
    block = moved(name)
    spectrum, scales = block.spectrum(), block.time_scales()
    assert spectrum.dtype == torch.complex128
    assert (spectrum.abs() < 1).all()
    expected = (-1 / spectrum.abs().log()).flatten().sort().values
    torch.testing.assert_close(scales.double().flatten().sort().values, expected, rtol=1e-5, atol=0)


def test_notes_are_the_extremes_over_all_blocks() -> None:
    blocks = [moved("s4d-lin"), moved("s5"), moved("gru")]
    notes = spectrum_notes([network_of(blocks)])
    modes = torch.cat([block.spectrum().flatten() for block in blocks[:2]])
    assert notes["spectral_radius"] == pytest.approx(float(modes.abs().max()))
    assert notes["period_shortest"] == pytest.approx(2 * math.pi / float(modes.angle().abs().max()))
    assert time_scale_notes([network_of(blocks[:2])])["time_scale_longest"] == pytest.approx(
        -1 / math.log(notes["spectral_radius"])
    )
    assert "period_shortest" not in spectrum_notes([network_of([moved("mamba")])])  # none oscillates
    assert spectrum_notes([network_of([moved("gru")])]) == {}


@pytest.mark.parametrize("name", BLOCKS)
def test_step_sizes_are_slow_parameters_of_every_block_that_has_them(name: str) -> None:
    block = BLOCKS[name]()
    assert set(block.step_sizes) <= set(block.slow_parameters)
    assert bool(block.step_sizes) == any("dt" in parameter for parameter, _ in block.named_parameters(recurse=False))


def test_every_kind_of_state_space_model_has_step_sizes_to_watch() -> None:
    for kind in ("s4", "s4d", "s5", "mamba", "mamba2", "hybrid"):
        assert any(block.step_sizes for block in KINDS[kind](16)), kind
