"""Owns the selective scan on a CPU: numba loops, channels across vector lanes, states recomputed in the backward pass.

A task is one sequence and a block of channels. It walks through time in chunks. The forward pass keeps the state at
the start of each chunk (1 / CHUNK of what autograd would keep); the backward pass walks through the chunks from the
last, rebuilds the states of one from its start into a scratch of (CHUNK, N, WIDTH), and goes back through it. dB and dC
are sums over channels: each block writes its own part, and the parts are added in order. Nothing depends on the
number of threads. Half precision is widened before and narrowed after.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssmfin_kernels.selective_scan import loops, operators

_WORTH_A_THREAD = 100_000  # B T D N below which starting a thread takes longer than it saves


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    delta_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `operators.register`; `kept` is (B, chunks, N, D)."""
    batch, steps, channels = u.shape
    states, work = A.shape[1], A.dtype
    y = torch.empty(u.shape, dtype=work)
    ungated = torch.empty(u.shape if keep and z is not None else (batch, steps, 0), dtype=work)
    kept = torch.empty((batch, -(-steps // loops.CHUNK), states, channels) if keep else (batch, 0, 0, 0), dtype=work)
    final = torch.empty((batch, states, channels), dtype=work)
    if initial_state is None:
        initial = torch.zeros_like(final)
    else:
        initial = initial_state.transpose(1, 2).contiguous()
    _share(
        loops.forward,
        u,
        A,
        B,
        *_arrays(u, delta, A, B, C, D, z, delta_bias),
        initial.numpy(),
        _starts(reset, batch),
        delta_softplus,
        y.numpy(),
        ungated.numpy(),
        kept.numpy(),
        final.numpy(),
    )
    # the operator's layout, the same as its fake twin's: contiguous (B, D, N)
    return y.to(u.dtype), final.transpose(1, 2).contiguous(), ungated.to(u.dtype), kept


def backward(
    dy: Tensor,
    dfinal: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    reset: Tensor | None,
    ungated: Tensor,
    kept: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `operators.register`."""
    batch, steps, channels = u.shape
    groups, states, work = B.shape[2], A.shape[1], A.dtype
    blocks = -(-(channels // groups) // loops.WIDTH)
    du, ddelta = torch.empty(u.shape, dtype=work), torch.empty(u.shape, dtype=work)
    dz = torch.empty((batch, steps, 0 if z is None else channels), dtype=work)
    dA = torch.empty((batch, states, channels), dtype=work)
    dB = torch.empty((batch, blocks, steps, groups, states), dtype=work)
    dC = torch.empty_like(dB)
    dD = torch.zeros((batch, 0 if D is None else channels), dtype=work)
    dbias = torch.zeros((batch, 0 if delta_bias is None else channels), dtype=work)
    dinitial = torch.empty_like(dA)
    _share(
        loops.backward,
        u,
        A,
        B,
        dy.to(work).numpy(),
        (torch.zeros_like(dinitial) if dfinal is None else dfinal.transpose(1, 2).contiguous()).numpy(),
        *_arrays(u, delta, A, B, C, D, z, delta_bias),
        _starts(reset, batch),
        ungated.to(work).numpy(),
        kept.numpy(),
        delta_softplus,
        *(grad.numpy() for grad in (du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial)),
    )
    return (
        du.to(u.dtype),
        ddelta.to(delta.dtype),
        dA.sum(dim=0).T.contiguous(),
        (dB[:, 0] if blocks == 1 else dB.sum(dim=1)).to(B.dtype),
        (dC[:, 0] if blocks == 1 else dC.sum(dim=1)).to(C.dtype),
        dD.sum(dim=0),
        dz.to(u.dtype if z is None else z.dtype),
        dbias.sum(dim=0),
        dinitial.transpose(1, 2).contiguous() if initial_state is not None else dinitial.new_empty(0),
    )


def _arrays(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Any, ...]:
    """NumPy views in the working precision; A is (N, D) and times log2(e); what is absent has no channels."""
    work = A.dtype
    A2 = (A * loops.LOG2_E).T.contiguous()
    absent = A.new_empty(0)
    gate = u.new_empty((*u.shape[:2], 0)) if z is None else z
    tensors = (u, delta, A2, B, C, absent if D is None else D, gate, absent if delta_bias is None else delta_bias)
    return tuple(tensor.detach().to(work).numpy() for tensor in tensors)


def _share(function: Callable[..., None], u: Tensor, A: Tensor, B: Tensor, *arguments: Any) -> None:
    """Run the tasks of a numba loop on as many threads as torch may use.

    Threads of our own, started for the call, rather than numba's: its pool aborts a process that forks (a DataLoader),
    and its parallel loops double the time of compilation.
    """
    groups = B.shape[2]
    tasks = u.shape[0] * groups * -(-(u.shape[2] // groups) // loops.WIDTH)
    threads = min(torch.get_num_threads(), tasks, max(1, u.numel() * A.shape[1] // _WORTH_A_THREAD))
    bounds = [tasks * part // threads for part in range(threads + 1)]
    if threads > 1:
        # one thread compiles: the others would queue for the compiler's lock and find the work done
        function(0, 0, *arguments)
    others = [
        threading.Thread(target=function, args=(first, last, *arguments))
        for first, last in itertools.pairwise(bounds[1:])
    ]
    for thread in others:
        thread.start()
    function(bounds[0], bounds[1], *arguments)
    for thread in others:
        thread.join()


def _starts(reset: Tensor | None, batch: int) -> Any:
    return np.zeros((batch, 0), np.bool_) if reset is None else reset.numpy()


selective_scan_cpu, call = operators.register(
    "selective_scan_cpu",
    forward,
    backward,
    lambda batch, steps, channels, groups, states: (batch, -(-steps // loops.CHUNK), states, channels),
)
