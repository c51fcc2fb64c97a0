"""Owns how the 32 lanes of a warp share a tile of states, and how they exchange numbers, in the backward kernels.

Every tensor here is (32,), one number a lane, so that the layout is ours and not the compiler's; or (32 W,) for W
warps. A warp owns 4 NR states of 8 CR channels, NR x CR of them in each lane's registers: NR and CR are the slots.
Lane l has place a of 4 among the states and place k of 8 among the channels, l = a % CR + CR k + 8 CR (a // CR), and

    slot i is state 4-block a, NR a + (i xor k % NR)          slot j is channel (l % 8 CR) xor j

The xor makes sums over lanes cheap: to add up over the lanes that differ in one bit, each keeps its even slots and
sends the odd ones, which are the other's even ones, so that every exchange halves what is left (`fold`); no number is
added twice, nothing is chosen at run time. Sums over states end where they are needed, one channel a lane.

What belongs to a channel and a step, not to a state (u, dt, gates), is held once: a register has SB = 4 // CR steps of
8 CR channels, lane l has channel l % 8 CR of step l // 8 CR. Rows of B and C likewise. `pick` hands them to the slots.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.selective_scan.triton_memory import fetch, fetch_all, put
from ssmfin_kernels.selective_scan.triton_parts import INTERPRETED, LOG2_E


@triton.jit
def lanes(W: tl.constexpr):
    """The lane of each of the 32 W numbers of a tensor, W warps."""
    return tl.arange(0, 32 * W) % 32


@triton.jit
def swap(x, MASK: tl.constexpr):
    """x of the lane whose number differs in the bits of MASK."""
    if INTERPRETED:
        return tl.gather(x, tl.arange(0, x.shape[0]) ^ MASK, 0)
    else:
        mask = tl.full(x.shape, MASK, tl.int32)
        return tl.inline_asm_elementwise(
            "shfl.sync.bfly.b32 $0, $1, $2, 31, -1;", "=f,f,r", [x, mask], tl.float32, True, 1
        )


@triton.jit
def pick(x, source):
    """x of the lane `source`."""
    if INTERPRETED:
        return tl.gather(x, tl.arange(0, x.shape[0]) // 32 * 32 + source, 0)
    else:
        return tl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, $2, 31, -1;", "=f,f,r", [x, source], tl.float32, True, 1
        )


@triton.jit
def fold(slots, COUNT: tl.constexpr, MASK: tl.constexpr):
    """Half as many slots: each lane's even ones, with those of the lane beyond MASK added."""
    half = ()
    for j in tl.static_range(COUNT // 2):
        half = half + (slots[2 * j] + swap(slots[2 * j + 1], MASK),)
    return half


@triton.jit
def fold_choice(low, high, upper, MASK: tl.constexpr):
    """low where not `upper`, else high, with that of the lane beyond MASK added; `upper` is that bit of the lane."""
    return tl.where(upper, high, low) + swap(tl.where(upper, low, high), MASK)


@triton.jit
def over_states(slots, CR: tl.constexpr):
    """One sum a lane out of CR slots of channels: over the states of the lanes that differ in a % CR."""
    if CR > 1:
        slots = fold(slots, CR, 1)
    if CR > 2:
        slots = fold(slots, CR // 2, 2)
    return slots[0]


@triton.jit
def over_steps(sums, CR: tl.constexpr, W: tl.constexpr = 1):
    """The sum of the lane's own step, out of those of SB steps that `over_states` gave, now over all states."""
    lane = lanes(W)
    if CR == 1:
        upper = lane // 16 == 1
        sums = (fold_choice(sums[0], sums[2], upper, 16), fold_choice(sums[1], sums[3], upper, 16))
    if CR < 4:
        return fold_choice(sums[0], sums[1], lane // (8 * CR) % 2 == 1, 8 * CR)
    else:
        return sums[0]


@triton.jit
def over_channels(first, second, NR: tl.constexpr, CR: tl.constexpr, W: tl.constexpr = 1):
    """One sum a lane, of state NR a + k % NR over all channels: of `first` where k // NR is even, else of `second`."""
    lane = lanes(W)
    if NR > 1:
        first = fold(first, NR, CR)
        second = fold(second, NR, CR)
    if NR > 2:
        first = fold(first, NR // 2, 2 * CR)
        second = fold(second, NR // 2, 2 * CR)
    total = fold_choice(first[0], second[0], lane // (CR * NR) % 2 == 1, CR * NR)
    if NR < 4:
        total += swap(total, 4 * CR)
    if NR < 2:
        total += swap(total, 2 * CR)
    return total


@triton.jit
def own_channel(CR: tl.constexpr, W: tl.constexpr = 1):
    """The channel, and the step among SB, whose numbers this lane holds."""
    lane = lanes(W)
    return lane % (8 * CR), lane // (8 * CR)


@triton.jit
def state_of(i, NR: tl.constexpr, CR: tl.constexpr, W: tl.constexpr = 1):
    """The state in slot i."""
    lane = lanes(W)
    a = lane % CR + CR * (lane // (8 * CR))
    return a * NR + ((lane // CR) % NR ^ i)


@triton.jit
def channel_slots(held, s: tl.constexpr, CR: tl.constexpr, W: tl.constexpr = 1):
    """The numbers of step s for CR slots, out of registers that hold 4 // CR steps each."""
    lane = lanes(W)
    SB: tl.constexpr = 4 // CR
    slots = ()
    for j in tl.static_range(CR):
        slots = slots + (pick(held[s // SB], ((lane % (8 * CR)) ^ j) + 8 * CR * (s % SB)),)
    return slots


@triton.jit
def state_slots(held, s: tl.constexpr, SN: tl.constexpr, NR: tl.constexpr, CR: tl.constexpr, W: tl.constexpr = 1):
    """The row of B or C of step s for NR slots, out of registers that hold SN steps each."""
    slots = ()
    for i in tl.static_range(NR):
        slots = slots + (pick(held[s // SN], state_of(i, NR, CR, W) + 4 * NR * (s % SN)),)
    return slots


@triton.jit
def held(ptr, at, t, limit, COUNT: tl.constexpr, SPAN: tl.constexpr, STRIDE: tl.constexpr):
    """COUNT registers of SPAN steps each, for `numbers`, from step t on, `at` for the lane; zero from its limit on."""
    values = ()
    for r in tl.static_range(COUNT):
        values = values + (fetch(ptr + at + r * SPAN * STRIDE, t + r * SPAN < limit),)
    return values


@triton.jit
def lane_tile(ptr, first, end, n0, N, NR: tl.constexpr, CR: tl.constexpr, W: tl.constexpr = 1):
    """The lane's numbers of a matrix (D, N), slot i of states and j of channels at i CR + j."""
    own, _ = own_channel(CR, W)
    values = ()
    for i in tl.static_range(NR):
        for j in tl.static_range(CR):
            n = n0 + state_of(i, NR, CR, W)
            d = first + (own ^ j)
            values = values + (fetch(ptr + d * N + n, (n < N) & (d < end)),)
    return values


@triton.jit
def lane_rates(A, first, end, n0, N, NR: tl.constexpr, CR: tl.constexpr, W: tl.constexpr = 1):
    """A log2(e), as `lane_tile` has it."""
    values = ()
    A = lane_tile(A, first, end, n0, N, NR, CR, W)
    for e in tl.static_range(NR * CR):
        values = values + (A[e] * LOG2_E,)
    return values


@triton.jit
def lane_states(
    ptr,
    first,
    end,
    begin,
    n0,
    N: tl.constexpr,
    NL: tl.constexpr,
    S: tl.constexpr,
    NR: tl.constexpr,
    CR: tl.constexpr,
    W: tl.constexpr = 1,
):
    """The lane's numbers of states that `triton_quads.keep` wrote; past the last state or channel those of the last."""
    own, _ = own_channel(CR, W)
    values = ()
    for i in tl.static_range(NR):
        for j in tl.static_range(CR):
            n = tl.minimum(n0 + state_of(i, NR, CR, W), N - 1)
            d = tl.minimum(first + (own ^ j), end - 1) - begin
            tile = d // 8 * (S * NL) + n // (4 * NL) * NL + n % NL
            values = values + (fetch_all(ptr + (tile * 32 + d % 8 * 4 + n // NL % 4)),)
    return values


@triton.jit
def store_lane_tile(ptr, values, first, end, n0, N, NR: tl.constexpr, CR: tl.constexpr, W: tl.constexpr = 1):
    own, _ = own_channel(CR, W)
    for i in tl.static_range(NR):
        for j in tl.static_range(CR):
            n = n0 + state_of(i, NR, CR, W)
            d = first + (own ^ j)
            put(ptr + d * N + n, values[i * CR + j], (n < N) & (d < end))
