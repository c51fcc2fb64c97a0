"""The S4D block: where its spectra start, its size, its stability, the convolution that it is."""

from __future__ import annotations

import math

import pytest
import torch

from ssmfin.models.ssm.blocks.s4d import S4DBlock
from ssmfin_kernels import fft_convolution, vandermonde_kernel


def block(width: int = 6, state: int = 8, **changes: object) -> S4DBlock:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return S4DBlock(width, state=state, **changes).double()  # type: ignore[arg-type]


def test_parameter_count() -> None:
    D, N = 6, 8
    mixing = D * 2 * D + 2 * D
    assert sum(p.numel() for p in block().parameters()) == D * (1 + 4 * N // 2 + 1) + mixing
    assert sum(p.numel() for p in block(spectrum="real").parameters()) == D * (1 + 2 * N + 1) + mixing


@pytest.mark.parametrize("spectrum", ["lin", "inv", "legs", "real"])
def test_spectrum_starts_at_its_closed_form(spectrum: str) -> None:
    made, N = block(spectrum=spectrum), 8
    decay = made.log_decay.exp()[0].detach()
    if spectrum == "real":
        torch.testing.assert_close(decay, torch.arange(1.0, N + 1, dtype=torch.float64), rtol=1e-6, atol=0)
        return
    torch.testing.assert_close(decay, torch.full_like(decay, 0.5), rtol=1e-6, atol=0)
    n = torch.arange(N // 2, dtype=torch.float64)
    frequency = made.frequency[0].detach()
    if spectrum == "legs":
        # slowest first, all different, none zero; S4D-Inv is their large-N form
        assert (frequency.diff() > 0).all()
        assert frequency[0] > 0
    else:
        expected = math.pi * n if spectrum == "lin" else N / math.pi * (N / (2 * n + 1) - 1)
        torch.testing.assert_close(frequency, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("spectrum, slowest", [("lin", 0.5), ("real", 1.0)])
def test_memories_are_log_uniform_over_the_time_scales(spectrum: str, slowest: float) -> None:
    made = block(width=200, spectrum=spectrum, timescales=(2, 250))
    scales = made.time_scales()
    memory = scales.max(dim=1).values
    dt = made.log_dt.exp().detach()
    torch.testing.assert_close(memory, 1 / (slowest * dt), rtol=1e-6, atol=0)
    place = (memory / 2).log() / math.log(125)
    assert place.min() >= -1e-6
    assert place.max() <= 1 + 1e-6
    # one in each of 200 equal parts of the logarithm
    assert sorted((place * 200).clamp(0, 199.999).int().tolist()) == list(range(200))


@pytest.mark.parametrize("spectrum", ["lin", "real"])
def test_block_is_the_convolution_with_its_vandermonde_kernel(spectrum: str) -> None:
    made = block(spectrum=spectrum)
    x = torch.randn(2, 200, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    made.mix.weight.data.zero_()
    made.mix.weight.data[:6] = torch.eye(6)  # the output is gelu(y) sigmoid(0) = gelu(y) / 2
    made.mix.bias.data.zero_()
    A_bar, weight = made.transition()
    kernel = vandermonde_kernel(weight / (2 if weight.is_complex() else 1), A_bar.log(), 200)
    convolved = fft_convolution(x, kernel) + made.skip * x
    torch.testing.assert_close(made(x)[0], torch.nn.functional.gelu(convolved) / 2, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("spectrum", ["lin", "inv", "legs", "real"])
def test_no_mode_grows_whatever_is_learned(spectrum: str, discretization: str) -> None:
    made = block(spectrum=spectrum, discretization=discretization)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 3 * torch.randn(
                parameter.shape, dtype=parameter.dtype, generator=torch.Generator().manual_seed(0)
            )
    assert float(made.transition()[0].detach().abs().max()) <= 1


def test_rules_agree_for_small_steps() -> None:
    slow = (2000.0, 20000.0)
    zoh, bilinear = (block(state=4, discretization=rule, timescales=slow) for rule in ("zoh", "bilinear"))
    x = torch.randn(1, 300, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    bilinear.load_state_dict(zoh.state_dict())
    torch.testing.assert_close(zoh(x)[0], bilinear(x)[0], rtol=0, atol=2e-3)
