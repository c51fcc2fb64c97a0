"""The network around the blocks: zero at the start, within its limits, cut anywhere, streamed, seeded."""

from __future__ import annotations

import pytest
import torch

from ssmfin.models.deep.skeleton import Inputs, Network
from ssmfin.models.ssm.blocks.s4d import S4DBlock

LIMITS = (0.5, 2.0)


def network(*, trained: bool = True, calendar: bool = True, ids: int = 2, seed: int = 3) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Network(
            features=3,
            horizons=2,
            limits=LIMITS,
            blocks=[S4DBlock(8, state=4), S4DBlock(8, state=4)],
            width=8,
            dropout=0.1,
            calendar=calendar,
            ids=ids,
        )
        if trained:
            for parameter in made.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
    return made.double().eval()


def inputs(batch: int, time: int, reset: bool = False) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    return Inputs(
        torch.randn(batch, time, 3, dtype=torch.float64, generator=generator),
        torch.stack([torch.arange(time) % 7, torch.arange(time) % 12], dim=-1).expand(batch, -1, -1),
        torch.arange(batch)[:, None].expand(-1, time) % 3,
        torch.rand(batch, time, generator=generator) < 0.2 if reset else None,
    )


def part(whole: Inputs, begin: int, end: int) -> Inputs:
    return Inputs(*(None if each is None else each[:, begin:end] for each in whole))


def test_every_number_is_exactly_zero_before_training() -> None:
    made = network(trained=False)
    raw, _ = made(inputs(2, 20)._replace(columns=100 * inputs(2, 20).columns))
    assert raw.shape == (2, 20, 2, 2)
    assert (raw == 0).all()


def test_numbers_stay_within_their_limits() -> None:
    made = network()
    made.head.weight.data *= 1e3
    raw, _ = made(inputs(1, 30))
    assert (raw.abs().amax((0, 1, 2)) <= torch.tensor(LIMITS)).all()
    assert (raw[..., 1].abs() > LIMITS[0]).any()


def test_calendar_and_ids_start_without_effect_and_have_one_after_training() -> None:
    here = inputs(3, 12)
    elsewhere = here._replace(calendar=here.calendar.flip(1), ids=(here.ids + 1) % 3)
    bare, rich = (network(trained=False, calendar=c, ids=i) for c, i in ((False, 0), (True, 2)))
    with torch.no_grad():
        for made in (bare, rich):
            made.head.weight.fill_(0.1)
        assert not bare(here)[0].eq(0).all()
        assert rich(here)[0].equal(rich(elsewhere)[0])
        trained = network()
        for changed in ("calendar", "ids"):
            assert not trained(here)[0].equal(trained(here._replace(**{changed: getattr(elsewhere, changed)}))[0])


@pytest.mark.parametrize("reset", [False, True])
def test_parts_with_carried_state_and_single_steps_equal_the_whole(reset: bool) -> None:
    made, everything = network(), inputs(3, 25, reset)
    with torch.no_grad():
        whole, last = made(everything)
        first, state = made(part(everything, 0, 9))
        second, after = made(part(everything, 9, 25), state)
        torch.testing.assert_close(torch.cat((first, second), dim=1), whole, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(after, last, rtol=1e-12, atol=1e-13)
        if not reset:
            state = made.initial_state(3)
            for t in range(25):
                one = Inputs(everything.columns[:, t], everything.calendar[:, t], everything.ids[:, t])
                raw, state = made.step(one, state)
                torch.testing.assert_close(raw, whole[:, t], rtol=1e-10, atol=1e-12)


def test_padding_to_the_right_changes_nothing_before_it() -> None:
    made, x = network(), inputs(2, 25)
    longer = Inputs(
        torch.cat((x.columns, torch.full((2, 9, 3), 5.0)), 1),
        torch.cat((x.calendar, torch.zeros(2, 9, 2, dtype=torch.int64)), 1),
        torch.cat((x.ids, torch.zeros(2, 9, dtype=torch.int64)), 1),
    )
    torch.testing.assert_close(made(longer)[0][:, :25], made(x)[0], rtol=1e-12, atol=1e-13)


def test_the_start_is_drawn_from_the_seed() -> None:
    states = [network(trained=False, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    assert not all(states[0][name].equal(states[2][name]) for name in states[0])


def test_half_precision_keeps_states_and_numbers_in_float32() -> None:
    made, x = network().float(), inputs(2, 40)
    x = x._replace(columns=x.columns.float())
    with torch.no_grad():
        exact, _ = made(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            raw, state = made(x)
    assert raw.dtype == torch.float32
    assert {part.dtype for block in state for part in block} == {torch.float32}
    assert 0 < (raw - exact).abs().max() < 0.05
