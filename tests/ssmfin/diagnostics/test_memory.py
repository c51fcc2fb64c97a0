"""The memory of deep models: half-lives by the closed form, and the steps that a selective block takes."""

import math

import numpy as np
import pytest
import torch

import ssmfin as sf
from ssmfin.data.synthetic import simulate_volatility_panel
from ssmfin.diagnostics import memory, plot_memory, step_sizes
from ssmfin.errors import InputError
from ssmfin.models.ssm.blocks.mamba import MambaBlock
from ssmfin.models.ssm.blocks.mamba2 import Mamba2Block
from ssmfin.models.ssm.blocks.s4d import S4DBlock

KINDS = [sf.S4, sf.S4D, sf.S5, sf.Mamba, sf.Mamba2, sf.Hybrid]


@pytest.mark.parametrize("kind", KINDS)
def test_half_lives_are_positive_and_the_longest_memories_are_those_asked_for(kind):
    table = memory(kind(timescales=(1, 100)))
    assert (table["half_life"] > 0).all()
    assert table["half_life"].to_numpy() == pytest.approx(math.log(2) * table["time_scale"].to_numpy())
    assert 50 < table["time_scale"].max() < 150


def test_half_of_an_impulse_is_left_after_a_half_life():
    """Of one real mode: what the block's own transition leaves after that many steps."""
    torch.manual_seed(0)
    block = S4DBlock(4, state=2, spectrum="real")
    A_bar = block.transition()[0].detach().abs().numpy()
    half_life = math.log(2) * block.time_scales().numpy()
    assert A_bar**half_life == pytest.approx(np.full_like(A_bar, 0.5))


def test_looking_at_an_unfitted_model_leaves_the_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    memory(sf.S4D())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("model, message", [(sf.TCN(), "no modes that decay"), (sf.HAR(), "the model is a HAR")])
def test_models_without_memory_of_this_kind_are_told_apart(model, message):
    with pytest.raises(InputError, match=message):
        memory(model)


def test_the_plot_has_a_line_for_each_model():
    figure = plot_memory({"short": sf.S4D(timescales=(1, 5)), "long": sf.S4D()}, unit="days")
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["short", "long"]


@pytest.fixture(scope="module")
def panel():
    return simulate_volatility_panel(ids=2, dates=420, seed=1).frame


def fitted(panel, **more):
    small = {"layers": 1, "width": 4, "segment": 64, "context": 16, "device": "cpu", "epochs": 1}
    model = sf.S4D(**small | more)
    return sf.fit(model, panel, target="rv", horizons=[1], train=300, validation=60)


def heading(figure):
    return figure.get_suptitle()


def test_training_that_stayed_at_the_base_is_said(panel):
    """No epoch: the correction is exactly zero, and what is read off are the starting values."""
    stayed, base = fitted(panel, epochs=0), sf.fit(sf.LogHAR(), panel, target="rv", horizons=[1], train=300)
    assert stayed.forecast(panel).equals(base.forecast(panel))
    assert stayed.stayed_at_base
    assert stayed.fitted.learned == (False,)
    assert not memory(stayed)["learned"].any()
    words = "training stayed at log_har; these are the starting values"
    assert heading(plot_memory(stayed)) == words
    assert heading(plot_memory(stayed, title="Memory")) == f"Memory\n{words}"
    both = plot_memory({"at the start": stayed.forecaster, "after": stayed})
    assert [text.get_text() for text in both.axes[0].get_legend().get_texts()] == ["at the start", "after *"]
    assert heading(both) == f"* {words}"


def test_training_that_learned_says_nothing_of_the_base(panel):
    trained = fitted(panel, early_stopping=False)
    assert not trained.stayed_at_base
    assert memory(trained)["learned"].all()
    assert heading(plot_memory(trained)) == ""
    assert not memory(trained.forecaster)["learned"].any()
    assert heading(plot_memory(trained.forecaster)) == ""


def test_networks_that_stayed_are_told_from_those_that_learned(panel):
    trained = fitted(panel, early_stopping=False, ensemble=2)
    with torch.no_grad():
        for parameter in trained.fitted.groups[0].networks[1].head.parameters():
            parameter.zero_()
    table = memory(trained)
    assert (table["learned"] == (table["network"] == 0)).all()
    assert heading(plot_memory(trained)).startswith("training of 1 of 2 networks stayed at log_har; theirs are")


def test_step_sizes_of_mamba_are_those_that_its_scan_uses(monkeypatch):
    """A block whose step does not depend on its input takes the step of its bias."""
    torch.manual_seed(0)
    block, x = MambaBlock(8), torch.randn(2, 7, 8)
    expected = torch.nn.functional.softplus(block.dt_bias).detach().numpy()
    with torch.no_grad():
        block.dt_weight.zero_()
    assert step_sizes(block, x) == pytest.approx(np.broadcast_to(expected, (2, 7, 16)), rel=1e-6)


@pytest.mark.parametrize("make, scan", [(MambaBlock, "selective_scan"), (Mamba2Block, "chunk_scan")])
def test_step_sizes_are_those_handed_to_the_scan(make, scan, monkeypatch):
    torch.manual_seed(0)
    module = __import__(make.__module__, fromlist=[scan])
    whole, seen = getattr(module, scan), []

    def watched(u, dt, *arguments, **more):
        bias = more.get("dt_bias", arguments[5] if len(arguments) > 5 else None)
        seen.append(torch.nn.functional.softplus(dt + bias))
        return whole(u, dt, *arguments, **more)

    monkeypatch.setattr(module, scan, watched)
    found = step_sizes(make(16), torch.randn(2, 5, 16))
    np.testing.assert_allclose(found, seen[0].numpy(), rtol=1e-5)


def test_a_block_that_selects_nothing_is_refused():
    with pytest.raises(InputError, match="whose steps do not depend on its input"):
        step_sizes(S4DBlock(4), torch.randn(1, 3, 4))
