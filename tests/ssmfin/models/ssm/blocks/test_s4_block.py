"""The S4 block against HiPPO-LegS itself: its matrices, its eigenvalues, its response, its stability."""

from __future__ import annotations

import torch

from ssmfin.models.ssm.blocks.s4 import S4Block
from ssmfin.models.ssm.discretization import hippo_legs, hippo_legs_matrices
from ssmfin_kernels import fft_convolution


def block(width: int = 5, state: int = 8, **changes: object) -> S4Block:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return S4Block(width, state=state, **changes).double()  # type: ignore[arg-type]


def test_parameter_count() -> None:
    for D, N in ((5, 8), (16, 16)):
        own = D * (1 + N // 2 * (1 + 1 + 2 + 2 + 2) + 1)  # dt; decay, frequency, P, B, C; skip
        mixing = D * 2 * D + 2 * D
        assert sum(p.numel() for p in block(D, N).parameters()) == own + mixing


def test_kernel_is_the_bilinear_simulation_of_dense_hippo_legs() -> None:
    made, N, L = block(state=8), 8, 90
    A, B = hippo_legs_matrices(N)
    _, _, _, V = hippo_legs(N // 2)
    for channel in range(made.width):
        dt = made.log_dt[channel].exp().detach()
        left = torch.eye(N, dtype=torch.float64) - dt / 2 * A
        A_bar = torch.linalg.solve(left, torch.eye(N, dtype=torch.float64) + dt / 2 * A)
        h = torch.linalg.solve(left, dt * B)
        # the output weights live in the eigenbasis: y = 2 Re(C V^* h)
        C = 2 * (torch.view_as_complex(made.output[channel].detach()) @ V.conj().T).real
        taps = []
        for _ in range(L):
            taps.append(C @ h)
            h = A_bar @ h
        expected = torch.stack(taps)
        scale = float(expected.abs().max())
        # the parameters are float32, the Cauchy kernel and the dense simulation are not
        torch.testing.assert_close(made.kernel(L)[channel].detach(), expected, rtol=0, atol=2e-6 * scale)


def test_two_derivations_agree_chunks_of_powers_and_the_cauchy_kernel() -> None:
    made = block()
    x = torch.randn(2, 200, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    made.mix.weight.data.zero_()
    made.mix.weight.data[:5] = torch.eye(5)  # the output is gelu(y) sigmoid(0) = gelu(y) / 2
    made.mix.bias.data.zero_()
    convolved = fft_convolution(x, made.kernel(200)) + made.skip * x
    torch.testing.assert_close(made(x)[0], torch.nn.functional.gelu(convolved) / 2, rtol=1e-9, atol=1e-11)


def test_eigenvalues_start_at_minus_one_to_minus_N() -> None:
    made = block(state=4)
    A_bar, _, _ = made.transition()
    dt = made.log_dt.double().exp()[:, None].detach()
    eigenvalues = torch.linalg.eigvals(A_bar.detach())
    continuous = 2 / dt * (eigenvalues - 1) / (eigenvalues + 1)  # the bilinear map backwards
    found = continuous.real.sort(descending=True).values
    # the parameters are float32, and the eigenvalues of HiPPO-LegS are ill-conditioned
    torch.testing.assert_close(found, -torch.arange(1.0, 5, dtype=torch.float64).repeat(5, 1), rtol=1e-5, atol=0)


def test_slowest_memories_cover_the_time_scales() -> None:
    made = block(width=64, timescales=(4, 100))
    slowest = made.time_scales()[:, 0]
    assert slowest.min() >= 3.9
    assert slowest.max() <= 100.1
    assert slowest.min() < 4 * 25 ** (1 / 64) * 1.01
    assert slowest.max() > 100 / 25 ** (1 / 64) / 1.01


def test_no_state_grows_whatever_is_learned() -> None:
    made = block()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 3 * torch.randn(
                parameter.shape, dtype=parameter.dtype, generator=torch.Generator().manual_seed(0)
            )
    A_bar, _, _ = made.transition()
    assert float(torch.linalg.matrix_norm(A_bar.detach(), ord=2).max()) <= 1 + 1e-12
