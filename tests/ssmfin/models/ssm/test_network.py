"""The network as a function of a sequence: what it sees, what absent steps do, that it starts at zero."""

from __future__ import annotations

import pytest
import torch

from ssmfin.models.ssm.network import ResidualForecaster, s4d_network, split_context


def network(*, context: int = 12, layers: int = 2, trained: bool = True, **changes: object) -> ResidualForecaster:
    settings: dict[str, object] = {
        "width": 8,
        "layers": layers,
        "state": 8,
        "context": context,
        "spectrum": "lin",
        "dt_range": (0.05, 0.5),
        "dropout": 0.0,
        "bound": 1.0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = s4d_network(3, 2, **(settings | changes))  # type: ignore[arg-type]
        if trained:
            for parameter in made.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
    return made.double().eval()


def sequence(batch: int, time: int) -> torch.Tensor:
    return torch.randn(batch, time, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spectrum", ["lin", "inv"])
def test_output_is_exactly_zero_before_training(spectrum: str) -> None:
    x = 100 * sequence(2, 20)
    made = network(trained=False, spectrum=spectrum).float()
    assert (made(x.float(), torch.ones(2, 20)) == 0).all()


def test_output_stays_within_the_bound() -> None:
    made = network(bound=0.5)
    made.head.weight.data *= 1e3
    assert made(sequence(1, 30), torch.ones(1, 30, dtype=torch.float64)).abs().max() <= 0.5


@pytest.mark.parametrize("context, layers", [(1, 1), (1, 3), (2, 3), (7, 1), (12, 2), (13, 3)])
def test_output_depends_on_exactly_the_last_context_steps(context: int, layers: int) -> None:
    assert sum(taps - 1 for taps in split_context(context, layers)) == context - 1
    x = sequence(1, 20).requires_grad_()
    made = network(context=context, layers=layers)
    made(x, torch.ones(1, 20, dtype=torch.float64))[0, -1].sum().backward()
    assert x.grad is not None
    reach = x.grad[0].abs().sum(-1) > 1e-12
    assert reach[20 - context]
    assert not reach[: 20 - context].any()


@pytest.mark.parametrize("start", [0, 5])
def test_sequence_wise_equals_windows_with_absent_steps_before_the_start(start: int) -> None:
    """Training runs over whole stretches, forecasting over padded windows: the same numbers."""
    made, context = network(), 12
    x = sequence(1, 40)
    present = torch.ones(1, 40, dtype=torch.float64)
    present[:, :start] = 0
    x = x * present[..., None]
    whole = made(x, present)
    padded_x = torch.cat([torch.zeros(1, context - 1, 3, dtype=torch.float64), x], dim=1)
    padded_present = torch.cat([torch.zeros(1, context - 1, dtype=torch.float64), present], dim=1)
    for end in range(start, 40):
        window = made(padded_x[:, end : end + context], padded_present[:, end : end + context])
        torch.testing.assert_close(window[:, -1], whole[:, end], rtol=1e-9, atol=1e-11)


def test_padding_to_the_right_changes_nothing_before_it() -> None:
    made, x = network(), sequence(1, 25)
    present = torch.ones(1, 25, dtype=torch.float64)
    longer = torch.cat([x, torch.zeros(1, 9, 3, dtype=torch.float64)], dim=1)
    longer_present = torch.cat([present, torch.zeros(1, 9, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(made(longer, longer_present)[:, :25], made(x, present), rtol=1e-9, atol=1e-11)


def test_state_matrix_starts_at_minus_one_half_and_is_stable_whatever_is_learned() -> None:
    untrained = network(trained=False).blocks[0].ssm
    torch.testing.assert_close(untrained.log_decay.exp(), torch.full_like(untrained.log_decay, 0.5))
    assert (untrained.log_dt.exp() >= 0.0499).all()
    assert (untrained.log_dt.exp() <= 0.501).all()
    learned = network(context=4001, layers=1).blocks[0].ssm
    kernel = learned.kernel().abs()
    assert kernel[:, 2000:].max() < kernel[:, :2000].max()
