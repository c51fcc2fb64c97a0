"""What the blocks must be able to learn, on tasks whose best answer is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from ssmfin.models.deep.block import SequenceBlock
from ssmfin.models.ssm.blocks.mamba import MambaBlock
from ssmfin.models.ssm.blocks.s4 import S4Block
from ssmfin.models.ssm.blocks.s4d import S4DBlock


class Stack(nn.Module):
    """head(norm(x + block(norm(x)) ...)) of embedded inputs: no more than a block needs to be trained."""

    def __init__(self, embedding: nn.Module, blocks: list[SequenceBlock], width: int, outputs: int) -> None:
        super().__init__()
        self.embedding, self.blocks = embedding, nn.ModuleList(blocks)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))[0]
        answer: Tensor = self.head(self.norm(x))
        return answer


class Linearly(nn.Module):
    """A linear read-out of one block without norms: what is left when the answer is linear in the past."""

    def __init__(self, block: SequenceBlock, width: int) -> None:
        super().__init__()
        self.embedding, self.block, self.head = nn.Linear(1, width), block, nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.block(self.embedding(x))[0])
        return answer


def train(network: nn.Module, loss: Callable[[nn.Module], Tensor], *, steps: int, rate: float) -> None:
    """AdamW with the slow parameters at a lower rate, warm-up and a cosine, clipped."""
    slow = {
        id(p)
        for module in network.modules()
        for name, p in module.named_parameters(recurse=False)
        if name in getattr(module, "slow_parameters", ())
    }
    groups = [
        {"params": [p for p in network.parameters() if (id(p) in slow) == is_slow], "lr": lr, "weight_decay": 0.0}
        for is_slow, lr in ((True, min(rate, 2e-3)), (False, rate))
    ]
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=0.1
    )
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(network)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@pytest.fixture(autouse=True)
def seeded() -> object:
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.set_num_threads(1)
        torch.manual_seed(0)
        yield
        torch.set_num_threads(threads)


def moving_average(e: Tensor, weights: Tensor) -> Tensor:
    """sum_j weights_j e_{t-j}, nothing before the first step."""
    n = 2 * e.shape[1]
    return torch.fft.irfft(torch.fft.rfft(e, n) * torch.fft.rfft(weights, n), n)[:, : e.shape[1]]


def autoregression(batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """x and its best forecast of the next value: x_t = 1.2 x_{t-1} - 0.5 x_{t-2} + e_t."""
    weights = [1.0, 1.2]
    while len(weights) < 100:  # of e in x; the roots are of modulus 0.7
        weights.append(1.2 * weights[-1] - 0.5 * weights[-2])
    x = moving_average(torch.randn(batch, steps + 100, dtype=torch.float64), torch.tensor(weights).double())
    best = 1.2 * x - 0.5 * x.roll(1, 1)
    return x[:, 100:].float(), best[:, 100:].float()


ORDER = 0.4  # d of (1 - L)^d x = e


def long_memory(batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """Fractional noise from a long past, and its forecast from all values that are given."""
    length = 4 * steps
    lag = torch.arange(1, length, dtype=torch.float64)
    sums = torch.cat((torch.ones(1, dtype=torch.float64), ((lag - 1 + ORDER) / lag).cumprod(0)))  # of (1 - L)^-d
    weights = torch.cat((torch.ones(1, dtype=torch.float64), ((lag - 1 - ORDER) / lag).cumprod(0)))  # of (1 - L)^d
    e = torch.randn(batch, length, dtype=torch.float64)
    x = moving_average(e, sums)[:, 3 * steps :]
    # e_t = sum_j weights_j x_{t-j}: the forecast of x_{t+1} is -sum_{j >= 1} weights_j x_{t+1-j}
    return x.float(), moving_average(x, -weights[1 : steps + 1]).float()


@pytest.mark.slow
@pytest.mark.parametrize("process", [autoregression, long_memory])
def test_s4d_forecasts_at_the_bayes_error(process: Callable[[int, int], tuple[Tensor, Tensor]]) -> None:
    network = Linearly(S4DBlock(16, state=8, timescales=(1, 252)), 16)

    def loss(network: nn.Module) -> Tensor:
        x, _ = process(16, 512)
        return mse_loss(network(x[:, :-1, None])[:, 64:, 0], x[:, 65:])

    train(network, loss, steps=600, rate=1e-2)
    x, best = process(64, 2048)
    with torch.no_grad():
        forecast = network(x[:, :-1, None])[..., 0]
    late = slice(1024, None)
    ours = mse_loss(forecast[:, late], x[:, 1:][:, late])
    bayes = mse_loss(best[:, :-1][:, late], x[:, 1:][:, late])
    assert ours / bayes < 1.02


@pytest.mark.slow
def test_s4_solves_the_delay_task() -> None:
    """What came 100 steps ago, of band-limited noise; the kernel is a spike, for which HiPPO's polynomials are made."""
    delay, steps = 100, 400
    network = Linearly(S4Block(16, state=32, timescales=(100, 200)), 16)

    def noise(batch: int) -> Tensor:
        spectrum = torch.randn(batch, steps // 2 + 1, dtype=torch.complex64)
        spectrum[:, 20:] = 0  # periods of 20 steps and longer
        x = torch.fft.irfft(spectrum, n=steps)
        return x / x.std()

    def loss(network: nn.Module) -> Tensor:
        x = noise(16)
        return mse_loss(network(x[..., None])[:, delay:, 0], x[:, :-delay])

    train(network, loss, steps=600, rate=1e-2)
    with torch.no_grad():
        error = loss(network)
    assert error < 0.01  # of a variance of one; to answer with the mean costs 1


def selective_copying(batch: int, *, steps: int = 32, marked: int = 4, symbols: int = 8) -> tuple[Tensor, Tensor]:
    """Symbols at random places among blanks; then, at as many cues, they are asked for in their order."""
    blank, cue = symbols, symbols + 1
    values = torch.randint(symbols, (batch, marked))
    places = torch.rand(batch, steps).argsort(1)[:, :marked].sort(1).values
    x = torch.full((batch, steps + marked), blank)
    x.scatter_(1, places, values)
    x[:, steps:] = cue
    return x, values


def induction(batch: int, *, steps: int = 16, symbols: int = 8) -> tuple[Tensor, Tensor]:
    """The last symbol was seen once before: which symbol came after it? Any symbol may be the one that is asked for.

    With one fixed cue, as in the Mamba paper, a gate that knows the cue is enough, and S4D learns it.
    """
    rows = torch.arange(batch)
    asked, place = torch.randint(symbols, (batch,)), torch.randint(steps - 2, (batch,))
    other = torch.randint(symbols - 1, (batch, steps))
    x = other + (other >= asked[:, None])  # all but the one that is asked for
    x[rows, place] = asked
    x[:, -1] = asked
    return x, x[rows, place + 1][:, None]


def accuracy(
    task: Callable[[int], tuple[Tensor, Tensor]], make: Callable[[], SequenceBlock], *, steps: int, width: int = 32
) -> float:
    tokens = 10
    network = Stack(nn.Embedding(tokens, width), [make(), make()], width, tokens)

    def loss(network: nn.Module) -> Tensor:
        x, answer = task(64)
        return cross_entropy(network(x)[:, -answer.shape[1] :].flatten(0, 1), answer.flatten())

    train(network, loss, steps=steps, rate=6e-3)
    with torch.no_grad():
        x, answer = task(1000)
        return float((network(x)[:, -answer.shape[1] :].argmax(-1) == answer).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("task, steps", [(selective_copying, 1000), (induction, 1500)])
def test_mamba_solves_what_a_fixed_convolution_cannot(task: Callable[[int], tuple[Tensor, Tensor]], steps: int) -> None:
    """Content decides what to keep: equal depth, width, training; a convolution weighs by place alone."""
    mamba = accuracy(task, lambda: MambaBlock(32, state=16, layers=2, timescales=(1, 100)), steps=steps)
    s4d = accuracy(task, lambda: S4DBlock(32, state=32, timescales=(1, 100)), steps=steps)
    assert mamba > 0.97
    assert s4d < mamba - 0.2
