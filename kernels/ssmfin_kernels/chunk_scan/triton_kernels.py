"""Owns the Triton kernels of the chunked scan; `gpu.py` says what each is for, `cpu.py` has the equations."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def decay_kernel(
    a_ptr, dt_ptr, reset_ptr, high_ptr, low_ptr, sequence_ptr, step_ptr, T, H, chunks,
    HAS_RESET: tl.constexpr, UNDERFLOW: tl.constexpr, Q: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """(B, T, H) -> (B, H, chunks Q): cs as high + low, the number of resets so far in the chunk, dt."""
    chunk = tl.program_id(0).to(tl.int64)
    b, c = chunk // chunks, chunk % chunks
    q = tl.arange(0, Q)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    t = c * Q + q
    inside = (t < T)[:, None] & (h < H)[None, :]
    source = (b * T + t)[:, None] * H + h[None, :]
    a = tl.load(a_ptr + source, mask=inside, other=0.0)
    dt = tl.load(dt_ptr + source, mask=inside, other=0.0)
    cut = (a < UNDERFLOW).to(tl.int32)
    if HAS_RESET:
        reset = tl.load(reset_ptr + b * T + t, mask=t < T, other=0).to(tl.int32)
        cut = tl.maximum(cut, tl.broadcast_to(reset[:, None], (Q, BLOCK_H)))
    total = tl.cumsum(tl.where(cut > 0, 0.0, a).to(tl.float64), 0)
    high = total.to(tl.float32)
    target = (b * H + h)[None, :] * (chunks * Q) + t[:, None]
    kept = tl.broadcast_to((h < H)[None, :], (Q, BLOCK_H))
    tl.store(high_ptr + target, high, mask=kept)
    tl.store(low_ptr + target, (total - high.to(tl.float64)).to(tl.float32), mask=kept)
    tl.store(sequence_ptr + target, tl.cumsum(cut, 0), mask=kept)
    tl.store(step_ptr + target, dt, mask=kept)


@triton.jit
def state_kernel(
    x_ptr, B_ptr, step_ptr, high_ptr, low_ptr, sequence_ptr, first_ptr, states_ptr, last_ptr, before_ptr, through_ptr,
    batch, T, H, P, N, G, chunks,
    REVERSE: tl.constexpr, PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """S' = e_Q S + sum_s w_s dt_s x_s B_s^T over chunks.

    REVERSE: dS = e_Q dS' + sum_t e_t dy_t C_t^T (x is dy, B is C), and e_Q <dS', S> of the states S at before_ptr.
    """
    head = tl.program_id(0).to(tl.int64)  # of B H
    b, h = head // H, head % H
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    q = tl.arange(0, Q)
    tile = p[:, None] * N + n[None, :]
    in_tile = (p < P)[:, None] & (n < N)[None, :]
    group = h // (H // G)
    state = tl.load(first_ptr + head * P * N + tile, mask=in_tile, other=0.0)
    for i in range(chunks):
        c = i
        if REVERSE:
            c = chunks - 1 - i
        t = c * Q + q
        row = head * (chunks * Q) + c * Q
        x = tl.load(
            x_ptr + ((b * T + c * Q) * H + h) * P + (q[None, :] * (H * P) + p[:, None]),
            mask=(p < P)[:, None] & (t < T)[None, :],
            other=0.0,
        )  # (P, Q)
        B = tl.load(
            B_ptr + ((b * T + c * Q) * G + group) * N + (q[:, None] * (G * N) + n[None, :]),
            mask=(t < T)[:, None] & (n < N)[None, :],
            other=0.0,
        )  # (Q, N)
        high, low = tl.load(high_ptr + row + q), tl.load(low_ptr + row + q)
        sequence = tl.load(sequence_ptr + row + q)
        high_end, low_end = tl.load(high_ptr + row + Q - 1), tl.load(low_ptr + row + Q - 1)
        sequence_end = tl.load(sequence_ptr + row + Q - 1)
        if REVERSE:
            weight = tl.where(sequence == 0, tl.exp(high + low), 0.0)
        else:
            decay = tl.exp((high_end - high) + (low_end - low))
            weight = tl.where(sequence == sequence_end, decay, 0.0) * tl.load(step_ptr + row + q)
        states = states_ptr + ((b * chunks + c) * H + h) * P * N + tile
        tl.store(states, state.to(states_ptr.dtype.element_ty), mask=in_tile)
        end = tl.where(sequence_end == 0, tl.exp(high_end + low_end), 0.0)
        if REVERSE:
            before = tl.load(before_ptr + ((b * chunks + c) * H + h) * P * N + tile, mask=in_tile, other=0.0)
            part = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
            tl.store(
                through_ptr + (part.to(tl.int64) * batch * H + head) * chunks + c,
                end * tl.sum(state * before.to(tl.float32)),
            )
        weighted = (x.to(tl.float32) * weight[None, :]).to(states_ptr.dtype.element_ty)
        state = end * state + tl.dot(weighted, B.to(states_ptr.dtype.element_ty), input_precision=PRECISION)
    tl.store(last_ptr + head * P * N + tile, state, mask=in_tile)


@triton.jit
def output_kernel(
    x_ptr, B_ptr, C_ptr, D_ptr, step_ptr, high_ptr, low_ptr, sequence_ptr, states_ptr, y_ptr, T, H, P, N, G, chunks,
    PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y_t = sum_s L_ts (C_t . B_s) dt_s x_s + e_t S C_t + D x_t of one chunk, head and tile of P."""
    operand = states_ptr.dtype.element_ty
    tiles = tl.cdiv(P, BLOCK_P)
    pid = tl.program_id(0).to(tl.int64)
    p = (pid % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    h = pid // tiles % H
    chunk = pid // tiles // H  # of B chunks
    b, c = chunk // chunks, chunk % chunks
    n, q = tl.arange(0, BLOCK_N), tl.arange(0, Q)
    t = c * Q + q
    row = (b * H + h) * (chunks * Q) + c * Q + q
    in_x = (t < T)[:, None] & (p < P)[None, :]
    in_B = (t < T)[:, None] & (n < N)[None, :]
    x_ptr += ((b * T + c * Q) * H + h) * P
    y_ptr += ((b * T + c * Q) * H + h) * P
    at_x = q[:, None] * (H * P) + p[None, :]
    B_ptr += ((b * T + c * Q) * G + h // (H // G)) * N
    C_ptr += ((b * T + c * Q) * G + h // (H // G)) * N
    at_B = q[:, None] * (G * N) + n[None, :]
    x = tl.load(x_ptr + at_x, mask=in_x, other=0.0)  # (Q, P)
    B = tl.load(B_ptr + at_B, mask=in_B, other=0.0).to(operand)
    C = tl.load(C_ptr + at_B, mask=in_B, other=0.0).to(operand)
    # (N, P): the state before this chunk, transposed by its addresses
    state = tl.load(
        states_ptr + ((b * chunks + c) * H + h) * P * N + (p[None, :] * N + n[:, None]),
        mask=(n < N)[:, None] & (p < P)[None, :],
        other=0.0,
    )
    high, low, sequence = tl.load(high_ptr + row), tl.load(low_ptr + row), tl.load(sequence_ptr + row)
    step = tl.load(step_ptr + row)
    start = tl.where(sequence == 0, tl.exp(high + low), 0.0)
    allowed = (q[:, None] >= q[None, :]) & (sequence[:, None] == sequence[None, :])
    decay = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    decay = tl.exp(tl.where(allowed, decay, float("-inf")))
    scores = (decay * tl.dot(C, tl.trans(B), input_precision=PRECISION) * step[None, :]).to(operand)  # (Q, Q)
    y = start[:, None] * tl.dot(C, state, input_precision=PRECISION)
    y += tl.dot(scores, x.to(operand), input_precision=PRECISION)
    D = tl.load(D_ptr + h * P + p, mask=p < P, other=0.0)
    y += D[None, :] * x.to(tl.float32)
    tl.store(y_ptr + at_x, y.to(y_ptr.dtype.element_ty), mask=in_x)


@triton.jit
def output_gradient_kernel(
    dy_ptr, x_ptr, B_ptr, C_ptr, step_ptr, high_ptr, low_ptr, sequence_ptr, states_ptr,
    dC_ptr, following_ptr, batch, T, H, P, N, G, chunks, splits,
    PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dC of one chunk and a share of the heads of one group, and e_t dy_t . S C_t, which da takes part in."""
    operand = states_ptr.dtype.element_ty
    tiles = tl.cdiv(P, BLOCK_P)
    pid = tl.program_id(0).to(tl.int64)
    share = pid % splits
    group = pid // splits % G
    chunk = pid // splits // G  # of B chunks
    b, c = chunk // chunks, chunk % chunks
    heads = H // G // splits
    n, q = tl.arange(0, BLOCK_N), tl.arange(0, Q)
    t = c * Q + q
    in_B = (t < T)[:, None] & (n < N)[None, :]
    at_B = q[:, None] * (G * N) + n[None, :]
    first_B = ((b * T + c * Q) * G + group) * N
    B = tl.load(B_ptr + first_B + at_B, mask=in_B, other=0.0).to(operand)
    C = tl.load(C_ptr + first_B + at_B, mask=in_B, other=0.0).to(tl.float32)
    dC = tl.zeros((Q, BLOCK_N), tl.float32)
    for i in range(heads * tiles):
        h = (group * splits + share) * heads + i // tiles
        p = (i % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
        in_x = (t < T)[:, None] & (p < P)[None, :]
        at_x = q[:, None] * (H * P) + p[None, :]
        first_x = ((b * T + c * Q) * H + h) * P
        row = (b * H + h) * (chunks * Q) + c * Q + q
        x = tl.load(x_ptr + first_x + at_x, mask=in_x, other=0.0).to(operand)  # (Q, P)
        dy = tl.load(dy_ptr + first_x + at_x, mask=in_x, other=0.0).to(operand)
        state = tl.load(
            states_ptr + ((b * chunks + c) * H + h) * P * N + (p[:, None] * N + n[None, :]),
            mask=(p < P)[:, None] & (n < N)[None, :],
            other=0.0,
        )  # (P, N)
        high, low, sequence = tl.load(high_ptr + row), tl.load(low_ptr + row), tl.load(sequence_ptr + row)
        step = tl.load(step_ptr + row)
        e = tl.where(sequence == 0, tl.exp(high + low), 0.0)
        arriving = e[:, None] * tl.dot(dy, state, input_precision=PRECISION)  # (Q, N)
        following = tl.sum(C * arriving, 1)
        dC += arriving
        allowed = (sequence[:, None] == sequence[None, :]) & (q[:, None] >= q[None, :])
        L = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])  # (t, s)
        L = tl.exp(tl.where(allowed, L, float("-inf")))
        K = L * tl.dot(dy, tl.trans(x), input_precision=PRECISION) * step[None, :]
        dC = tl.dot(K.to(operand), B, dC, input_precision=PRECISION)
        tl.store(following_ptr + (i % tiles) * batch * H * chunks * Q + row, following)
    first_B += share * batch * T * G * N  # (splits, B, T, G, N)
    tl.store(dC_ptr + first_B + at_B, dC.to(dC_ptr.dtype.element_ty), mask=in_B)


@triton.jit
def input_gradient_kernel(
    dy_ptr, x_ptr, B_ptr, C_ptr, D_ptr, step_ptr, high_ptr, low_ptr, sequence_ptr, dstates_ptr, following_ptr,
    through_ptr, dx_ptr, dstep_ptr, da_ptr, dB_ptr, dD_ptr, batch, T, H, P, N, G, chunks, splits,
    N_TILES: tl.constexpr, PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dx, ddt, da, dB and dD of one chunk and a share of the heads of one group."""
    operand = dstates_ptr.dtype.element_ty
    tiles = tl.cdiv(P, BLOCK_P)
    pid = tl.program_id(0).to(tl.int64)
    share = pid % splits
    group = pid // splits % G
    chunk = pid // splits // G  # of B chunks
    b, c = chunk // chunks, chunk % chunks
    heads = H // G // splits
    n, q = tl.arange(0, BLOCK_N), tl.arange(0, Q)
    t = c * Q + q
    in_B = (t < T)[:, None] & (n < N)[None, :]
    at_B = q[:, None] * (G * N) + n[None, :]
    first_B = ((b * T + c * Q) * G + group) * N
    B = tl.load(B_ptr + first_B + at_B, mask=in_B, other=0.0).to(operand)
    C = tl.load(C_ptr + first_B + at_B, mask=in_B, other=0.0).to(operand)
    products = tl.dot(B, tl.trans(C), input_precision=PRECISION)  # (s, t)
    dB = tl.zeros((Q, BLOCK_N), tl.float32)
    rows, columns = q[:, None], q[None, :]
    after = (rows >= columns).to(operand)  # (t, u)
    for i in range(heads * tiles):
        h = (group * splits + share) * heads + i // tiles
        p = (i % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
        in_x = (t < T)[:, None] & (p < P)[None, :]
        at_x = q[:, None] * (H * P) + p[None, :]
        first_x = ((b * T + c * Q) * H + h) * P
        row = (b * H + h) * (chunks * Q) + c * Q + q
        x = tl.load(x_ptr + first_x + at_x, mask=in_x, other=0.0).to(operand)  # (Q, P)
        dy = tl.load(dy_ptr + first_x + at_x, mask=in_x, other=0.0).to(operand)
        dstate = tl.load(
            dstates_ptr + ((b * chunks + c) * H + h) * P * N + (p[:, None] * N + n[None, :]),
            mask=(p < P)[:, None] & (n < N)[None, :],
            other=0.0,
        )  # (P, N)
        high, low, sequence = tl.load(high_ptr + row), tl.load(low_ptr + row), tl.load(sequence_ptr + row)
        step = tl.load(step_ptr + row)
        end = (b * H + h) * (chunks * Q) + c * Q + Q - 1
        decay = tl.exp((tl.load(high_ptr + end) - high) + (tl.load(low_ptr + end) - low))
        w = tl.where(sequence == tl.load(sequence_ptr + end), decay, 0.0)
        x32, dy32 = x.to(tl.float32), dy.to(tl.float32)
        dB = tl.dot((x32 * (w * step)[:, None]).to(operand), dstate, dB, input_precision=PRECISION)
        dinput = w[:, None] * tl.dot(B, tl.trans(dstate), input_precision=PRECISION)  # (Q, P)
        past = step * tl.sum(x32 * dinput, 1)
        allowed = (sequence[:, None] == sequence[None, :]) & (rows <= columns)
        L = (high[None, :] - high[:, None]) + (low[None, :] - low[:, None])  # (s, t)
        L = tl.exp(tl.where(allowed, L, float("-inf")))
        dinput = tl.dot((L * products).to(operand), dy, dinput, input_precision=PRECISION)
        K = L * tl.dot(x, tl.trans(dy), input_precision=PRECISION) * step[:, None]
        dB = tl.dot(K.to(operand), C, dB, input_precision=PRECISION)
        K *= products
        partial = (i % tiles) * batch * H * chunks * Q + row  # (tiles, B, H, chunks Q)
        following = tl.load(following_ptr + partial)
        # (s, u): pairs with t >= u, of which those with s < u pass u; nothing is summed that would have to cancel
        if operand == tl.bfloat16:
            pairs = tl.dot(K.to(operand), after)
        else:
            # two tf32 halves are float32: the other factor is zeros and ones
            upper = (K.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
            pairs = tl.dot(upper, after, input_precision="tf32")
            pairs = tl.dot(K - upper, after, pairs, input_precision="tf32")
        da = tl.sum(tl.where(rows < columns, pairs + past[:, None], following[:, None]), 0)
        # unrolled: a loop inside would keep the compiler from loading the next head ahead
        for tile in tl.static_range(N_TILES):
            through = tl.load(through_ptr + (((i % tiles) * N_TILES + tile) * batch * H + b * H + h) * chunks + c)
            da += through
        D = tl.load(D_ptr + h * P + p, mask=p < P, other=0.0)
        dx = step[:, None] * dinput + D[None, :] * dy32
        tl.store(dx_ptr + first_x + at_x, dx.to(dx_ptr.dtype.element_ty), mask=in_x)
        tl.store(dstep_ptr + partial, tl.sum(x32 * dinput, 1))
        tl.store(da_ptr + partial, da)
        tl.store(dD_ptr + ((b * chunks + c) * H + h) * P + p, tl.sum(dy32 * x32, 0), mask=p < P)
    first_B += share * batch * T * G * N  # (splits, B, T, G, N)
    tl.store(dB_ptr + first_B + at_B, dB.to(dB_ptr.dtype.element_ty), mask=in_B)
