"""Owns the block contract: a causal map of sequences, (B, T, D) -> (B, T, D), that can be cut anywhere and streamed.

What a block must satisfy; tests/ssmfin/models/deep/test_block_contract.py holds every block to it:

    forward(x) = forward(x[:, :k]) then forward(x[:, k:]) with the carried state = T calls of step
    a reset at step t starts a new sequence there: nothing crosses it, in gradients neither
    outputs up to t keep their bits when inputs after t change, as long as the shape is the same
    a sequence's outputs do not depend on what the other sequences of the batch are (on how many: by rounding alone)

Norm, residual connection and dropout belong to the network around the blocks. Imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ssmfin_kernels.library import state_dtype

State = tuple[Tensor, ...]  # of fixed shapes, batch first, float32 (float64 in double); () without memory


class SequenceBlock(nn.Module, ABC):
    """A causal sequence map with a state. Its parameters are drawn from torch's global generator: seed it outside.

    The zero state is the state before a first step, so a stream starts one sequence anew by zeroing its rows.

    Attributes:
        slow_parameters: names of this module's own parameters that learn slowly and without decay: A, dt, B, C.
        step_sizes: those of them that set dt; their gradients are watched, for they say first that training goes wrong.
        receptive_field: steps that an output may depend on, its own included; None where nothing bounds them.
    """

    slow_parameters: ClassVar[tuple[str, ...]] = ()
    step_sizes: ClassVar[tuple[str, ...]] = ()
    receptive_field: int | None = None
    _frozen: tuple[Tensor, ...] | None = None

    @abstractmethod
    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """Map whole sequences, or the next part of them.

        Args:
            x: (B, T, D), finite. T >= 1.
            state: left by the part before; None: the sequences start here.
            reset: (B, T) bool, a new sequence starts at that step. Give None where there is none: it is faster, and
                blocks may sum in another order.
        Returns:
            y (B, T, D), and the state after the last step.
        """

    @abstractmethod
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each tensor of the state, without the batch."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: x (B, D) -> y (B, D) and the state after it, in constant time and memory. Changes no argument."""
        y, after = self(x[:, None], state)
        return y[:, 0], after

    def initial_state(
        self, batch: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> State:
        """Zeros for `batch` sequences; float32 at least, whatever the `dtype` of the inputs."""
        kept = state_dtype(dtype)
        return tuple(torch.zeros(batch, *shape, device=device, dtype=kept) for shape in self.state_shapes())

    def spectrum(self) -> Tensor | None:
        """(channels, modes) eigenvalues of the step from state to state, complex128, on the CPU; None without such."""
        return None

    def time_scales(self) -> Tensor | None:
        """(channels, modes) time scales tau in steps; None where that has no meaning.

            what a mode holds after t steps = exp(-t / tau),        half-life = ln 2 tau = .69 tau

        `timescales` of the kinds are such tau, to 1/e; what is shown (`ssmfin.memory`, reports) are half-lives. By
        default those of the spectrum, -1 / log |eigenvalue|.
        """
        spectrum = self.spectrum()
        return None if spectrum is None else -1 / spectrum.abs().log()

    def discrete(self) -> tuple[Tensor, ...]:
        """What `step` needs of the parameters alone (discretised matrices); nothing by default."""
        return ()

    def freeze(self) -> None:
        """Compute `discrete` now and keep it, for streams, where it would be most of the time of a step.

        Parameters must not change afterwards, and have no gradient through `step`. `train`, `eval`, `load_state_dict`
        and a move to another device or dtype undo it.
        """
        with torch.no_grad():
            self._frozen = self.discrete()

    def held(self) -> tuple[Tensor, ...]:
        """`discrete`, as frozen or computed now."""
        return self.discrete() if self._frozen is None else self._frozen

    def train(self, mode: bool = True) -> Self:
        self._frozen = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._frozen = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *arguments: Any, **more: Any) -> None:
        self._frozen = None
        super()._load_from_state_dict(*arguments, **more)


def full_precision(x: Tensor) -> tuple[Tensor, torch.autocast]:
    """x in the type of a state (float32 at least), and a context without autocast in which to use it."""
    return x.to(state_dtype(x.dtype)), torch.autocast(x.device.type, enabled=False)
