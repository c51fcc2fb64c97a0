"""Owns the timing of the blocks on a CPU: an epoch of training against a plain loop, steps of a stream a second.

    python tests/benchmarks/bench_blocks.py [--quick]        (PYTHONPATH=.:kernels, or an installed ssmfin)

1. An epoch of the Mamba block (forward, backward, AdamW) against the same block with the same parameters whose
   convolution and scan are a plain torch loop over time; the largest difference of their outputs is printed.
2. A training pass of S4D and S4 by chunks (with the final state) against the FFT convolution with their kernels
   (without it), for several lengths.
3. A training pass of the GRU against torch's own layer with the same numbers, and torch's LSTM.
4. Steps a second of every block in a stream of one id, and of 21 ids at once, frozen.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, glu, linear, silu, softplus

from ssmfin.models.deep.block import SequenceBlock
from ssmfin.models.sequence.blocks.gru import GRUBlock
from ssmfin.models.sequence.blocks.lstm import LSTMBlock
from ssmfin.models.sequence.blocks.recurrent import run_recurrent
from ssmfin.models.sequence.blocks.transformer import AttentionBlock
from ssmfin.models.ssm.blocks.mamba import MambaBlock
from ssmfin.models.ssm.blocks.mamba2 import Mamba2Block
from ssmfin.models.ssm.blocks.s4 import S4Block
from ssmfin.models.ssm.blocks.s4d import S4DBlock
from ssmfin.models.ssm.blocks.s5 import S5Block
from ssmfin_kernels import fft_convolution, vandermonde_kernel

WIDTH, STATE = 32, 16


def plain_mamba(block: MambaBlock, x: Tensor) -> Tensor:
    """The block as one would write it without kernels: (B, T, D) -> (B, T, D)."""
    u, z = block.enter(x).chunk(2, dim=-1)
    taps = block.convolution.shape[1]
    u = nn.functional.conv1d(
        u.transpose(1, 2), block.convolution[:, None], block.convolution_bias, padding=taps - 1, groups=block.inner
    )[..., : x.shape[1]]
    u = silu(u.transpose(1, 2))
    r, B, C = block.select(u).split([block.rank, block.states, block.states], dim=-1)
    dt = softplus(linear(r, block.dt_weight) + block.dt_bias)  # (B, T, E)
    A = -block.log_A.exp()
    h = x.new_zeros(len(x), block.inner, block.states)
    rows = []
    for dt_t, u_t, B_t, C_t in zip(*(part.unbind(1) for part in (dt, u, B, C)), strict=True):
        h = torch.exp(dt_t[..., None] * A) * h + (dt_t * u_t)[..., None] * B_t[:, None]
        rows.append((h * C_t[:, None]).sum(-1))
    y = torch.stack(rows, dim=1) + block.skip * u
    left: Tensor = block.leave(y * silu(z))
    return left


def median(run: Callable[[], object], repeats: int) -> float:
    """Seconds of processor time: on one thread the time of a machine that has nothing else to do."""
    run()
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        spent.append(time.process_time() - begin)
    return sorted(spent)[repeats // 2]


def epoch(forward: Callable[[Tensor], Tensor], block: nn.Module, data: Tensor, batch: int) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(block.parameters(), lr=1e-4)

    def run() -> None:
        for x in data.split(batch):
            optimizer.zero_grad()
            (forward(x)[:, :-1] - x[:, 1:]).square().mean().backward()
            optimizer.step()

    return run


def bench_epoch(repeats: int, sequences: int) -> None:
    torch.manual_seed(0)
    block, data = MambaBlock(WIDTH, state=STATE), torch.randn(sequences, 512, WIDTH)
    with torch.no_grad():
        difference = float((block(data[:2])[0] - plain_mamba(block, data[:2])).abs().max())
    ours = median(epoch(lambda x: block(x)[0], block, data, 8), repeats)
    plain = median(epoch(lambda x: plain_mamba(block, x), block, data, 8), max(1, repeats // 2))
    print(f"mamba epoch, {sequences} sequences of 512, width {WIDTH}, state {STATE}, batches of 8")
    print(f"  block {ours:7.3f} s    plain loop {plain:7.3f} s    ratio {plain / ours:.1f}x")
    print(f"  largest difference of outputs {difference:.1e}")


def by_fft(block: S4DBlock | S4Block, x: Tensor) -> Tensor:
    """The block by a kernel as long as the sequence and FFTs; no final state."""
    if isinstance(block, S4Block):
        kernel = block.kernel(x.shape[1])
    else:
        A_bar, weight = block.discrete()
        kernel = vandermonde_kernel(weight / 2, A_bar.log(), x.shape[1])
    return glu(block.mix(gelu(fft_convolution(x, kernel) + block.skip * x)), dim=-1)


def bench_convolution(repeats: int, lengths: list[tuple[int, int]]) -> None:
    print(f"forward and backward, width {WIDTH}, state {STATE}: chunks (with the final state), FFT (without), ms")
    for batch, steps in lengths:
        x = torch.randn(batch, steps, WIDTH)
        for block in (S4DBlock(WIDTH, state=STATE), S4Block(WIDTH, state=STATE)):
            chunks = median(lambda block=block, x=x: block(x)[0].square().mean().backward(), repeats)
            fourier = median(lambda block=block, x=x: by_fft(block, x).square().mean().backward(), repeats)
            print(
                f"  {type(block).__name__:9} {batch:3} x {steps:6}   chunks {1e3 * chunks:8.1f}   FFT "
                f"{1e3 * fourier:8.1f}   ratio {fourier / chunks:.2f}x"
            )


def bench_recurrent(repeats: int) -> None:
    x = torch.randn(16, 384, WIDTH, requires_grad=True)
    gru, lstm = GRUBlock(WIDTH), LSTMBlock(WIDTH)
    ours, theirs, fused = (
        1e3 * median(lambda run=run: run().square().mean().backward(), repeats)
        for run in (
            lambda: gru(x)[0],
            lambda: run_recurrent(gru.cell, x, gru.initial_state(16), None)[0],
            lambda: lstm(x)[0],
        )
    )
    print(f"forward and backward of 16 sequences of 384, width {WIDTH}: gru {ours:.1f} ms, torch's own {theirs:.1f} ms")
    print(f"  ({theirs / ours:.1f}x), torch's lstm {fused:.1f} ms")


def bench_streams(steps: int) -> None:
    blocks: dict[str, SequenceBlock] = {
        "s4": S4Block(WIDTH, state=STATE),
        "s4d": S4DBlock(WIDTH, state=STATE),
        "s5": S5Block(WIDTH),
        "mamba": MambaBlock(WIDTH, state=STATE),
        "mamba2": Mamba2Block(WIDTH),
        "attention": AttentionBlock(WIDTH, window=63),
        "lstm": LSTMBlock(WIDTH),
        "gru": GRUBlock(WIDTH),
    }
    print(f"steps a second, width {WIDTH}, one block, frozen: one id, 21 ids at once (all of them count as one step)")
    for name, block in blocks.items():
        block.eval()
        block.freeze()
        rates = []
        for ids in (1, 21):
            x = torch.randn(ids, WIDTH)

            def run(block: SequenceBlock = block, x: Tensor = x) -> None:
                state = block.initial_state(len(x))
                with torch.inference_mode():
                    for _ in range(steps):
                        _, state = block.step(x, state)

            rates.append(steps / median(run, 3))
        print(f"  {name:10} {rates[0]:9,.0f} {rates[1]:9,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller, in a few seconds")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    bench_epoch(*((1, 16) if quick else (5, 64)))
    bench_convolution(*((3, [(8, 512)]) if quick else (7, [(8, 512), (2, 4096), (1, 16384), (1, 65536)])))
    bench_recurrent(3 if quick else 15)
    bench_streams(200 if quick else 2000)


if __name__ == "__main__":
    main()
