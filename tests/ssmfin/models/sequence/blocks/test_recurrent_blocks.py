"""GRU and LSTM blocks are the textbook recurrences, and remember for the stated number of steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ssmfin.models.sequence.blocks.gru import GRUBlock
from ssmfin.models.sequence.blocks.gru_loops import gated_recurrence
from ssmfin.models.sequence.blocks.lstm import LSTMBlock
from ssmfin.models.sequence.blocks.recurrent import gate_memory, memory_bias

WIDTH = 5


def made(kind: type[GRUBlock] | type[LSTMBlock]) -> GRUBlock | LSTMBlock:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        block = kind(WIDTH).double()
        with torch.no_grad():
            for parameter in block.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return block


def sample() -> tuple[Tensor, Tensor]:
    """x (3, 31, D) and resets: none, a few, at every third step."""
    generator = torch.Generator().manual_seed(8)
    reset = torch.zeros(3, 31, dtype=torch.bool)
    reset[1, [0, 7, 8, 30]] = True
    reset[2, ::3] = True
    return torch.randn(3, 31, WIDTH, dtype=torch.float64, generator=generator), reset


def gates(block: GRUBlock | LSTMBlock) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """W, U, b of the input and b of the state for each gate, in torch's order."""
    W, U, b, c = (block.cell.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return [tuple(part[k : k + WIDTH] for part in (W, U, b, c)) for k in range(0, len(b), WIDTH)]


@pytest.mark.parametrize("with_resets", [False, True])
def test_gru_is_its_recurrence(with_resets: bool) -> None:
    block = made(GRUBlock)
    x, reset = sample()
    y, (final,) = block(x, None, reset if with_resets else None)
    (Wr, Ur, br, cr), (Wz, Uz, bz, cz), (Wn, Un, bn, cn) = gates(block)
    for row in range(3):
        h = torch.zeros(WIDTH, dtype=torch.float64)
        for t in range(31):
            if with_resets and reset[row, t]:
                h = torch.zeros_like(h)
            r = torch.sigmoid(Wr @ x[row, t] + br + Ur @ h + cr)
            z = torch.sigmoid(Wz @ x[row, t] + bz + Uz @ h + cz)
            n = torch.tanh(Wn @ x[row, t] + bn + r * (Un @ h + cn))
            h = (1 - z) * n + z * h
            torch.testing.assert_close(y[row, t], h, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(final[row], h, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("with_resets", [False, True])
def test_lstm_is_its_recurrence(with_resets: bool) -> None:
    block = made(LSTMBlock)
    x, reset = sample()
    y, (final_h, final_c) = block(x, None, reset if with_resets else None)
    for row in range(3):
        h = c = torch.zeros(WIDTH, dtype=torch.float64)
        for t in range(31):
            if with_resets and reset[row, t]:
                h = c = torch.zeros_like(h)
            i, f, g, o = (W @ x[row, t] + b + U @ h + d for W, U, b, d in gates(block))
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            torch.testing.assert_close(y[row, t], h, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(final_h[row], h, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(final_c[row], c, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", [GRUBlock, LSTMBlock])
def test_memories_start_log_uniform_over_the_stated_steps(kind: type[GRUBlock] | type[LSTMBlock]) -> None:
    memories = kind(200, timescales=(2.0, 500.0)).time_scales()[:, 0].sort().values
    assert 2.0 <= float(memories[0]) < 2.1
    assert 480 < float(memories[-1]) <= 500.01
    # one in each of 200 parts of equal ratio
    edges = 2.0 * 250.0 ** (torch.arange(201) / 200)
    assert torch.equal(torch.bucketize(memories * (1 + 1e-6), edges), torch.arange(1, 201))


def test_an_lstm_cell_left_alone_decays_to_one_eth_over_its_memory() -> None:
    block = LSTMBlock(3, timescales=(40, 40)).double()
    with torch.no_grad():
        block.cell.weight_ih_l0.zero_()
        block.cell.weight_hh_l0.zero_()
        block.cell.bias_ih_l0[6:9] = 0  # nothing new: tanh(0)
        block.cell.bias_hh_l0[6:9] = 0
        start = (torch.zeros(1, 3).double(), torch.ones(1, 3).double())
        _, (_, c) = block(torch.zeros(1, 40, 3).double(), start)
    torch.testing.assert_close(c, torch.full((1, 3), math.exp(-1), dtype=torch.float64), rtol=1e-5, atol=0)


def test_memory_and_bias_are_inverse() -> None:
    memory = gate_memory(memory_bias(50, (1, 252)))
    assert float(memory.min()) >= 1
    assert float(memory.max()) <= 252
    torch.testing.assert_close(
        torch.sigmoid(-torch.log(torch.expm1(1 / memory))) ** memory, torch.full_like(memory, math.exp(-1))
    )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("width", [1, 5, 32])
def test_the_loop_of_a_gru_is_torchs_layer_in_values_and_gradients(
    width: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    layer = nn.GRU(width, width, batch_first=True).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter *= 2  # gates nearly shut and nearly open
    x, h0 = torch.randn(3, 40, width, dtype=dtype), torch.randn(3, width, dtype=dtype)
    x, h0 = (3 * x).requires_grad_(), h0.requires_grad_()
    W, U, b, c = layer.all_weights[0]
    found = gated_recurrence(nn.functional.linear(x, W, b), U, c, h0, None)
    expected, _ = layer(x, h0[None])
    weight = torch.randn_like(expected)
    inputs = (x, h0, *layer.parameters())
    for one, other in zip(
        (found, *torch.autograd.grad((found * weight).sum(), inputs)),
        (expected, *torch.autograd.grad((expected * weight).sum(), inputs)),
        strict=True,
    ):
        assert float((one - other).detach().abs().max()) < tolerance * float(other.detach().abs().max())


def test_the_loop_of_a_gru_has_no_second_derivative() -> None:
    x = torch.randn(1, 4, 6, requires_grad=True)
    y = gated_recurrence(x, torch.randn(6, 2), torch.zeros(6), torch.zeros(1, 2), None)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
