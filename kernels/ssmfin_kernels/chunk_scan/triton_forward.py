"""Owns the Triton kernels of the chunked scan forwards; `gpu.py` says what each is for, `cpu.py` has the equations."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def decay_kernel(
    a_ptr, dt_ptr, reset_ptr, high_ptr, low_ptr, sequence_ptr, step_ptr, from_start_ptr, to_end_ptr,
    T, H, chunks,
    HAS_RESET: tl.constexpr, UNDERFLOW: tl.constexpr, Q: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """(B, T, H) -> (B, H, chunks Q): cs as high + low, the number of resets so far in the chunk, dt, e and w."""
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
    a = tl.where(cut > 0, 0.0, a).to(tl.float64)
    total, whole = tl.cumsum(a, 0), tl.sum(a, 0)[None, :]
    high = total.to(tl.float32)
    target = (b * H + h)[None, :] * (chunks * Q) + t[:, None]
    kept = tl.broadcast_to((h < H)[None, :], (Q, BLOCK_H))
    tl.store(high_ptr + target, high, mask=kept)
    tl.store(low_ptr + target, (total - high.to(tl.float64)).to(tl.float32), mask=kept)
    sequence = tl.cumsum(cut, 0)
    tl.store(sequence_ptr + target, sequence, mask=kept)
    tl.store(step_ptr + target, dt, mask=kept)
    tl.store(from_start_ptr + target, tl.where(sequence == 0, tl.exp(high), 0.0), mask=kept)
    to_end = tl.exp((whole - total).to(tl.float32))
    tl.store(to_end_ptr + target, tl.where(sequence == tl.sum(cut, 0)[None, :], to_end, 0.0), mask=kept)


@triton.jit
def state_kernel(
    x_ptr, B_ptr, step_ptr, from_start_ptr, to_end_ptr, before_ptr, first_ptr, states_ptr, last_ptr, through_ptr,
    batch, T, H, P, N, G, chunks,
    REVERSE: tl.constexpr, PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """The state before each chunk: S' = e_Q S + sum_s w_s dt_s x_s B_s^T.

    REVERSE: the gradient of the state after each, dS = e_Q dS' + sum_t e_t dy_t C_t^T (x is dy, B is C), and
    e_Q <dS', S> of the states S at before_ptr.
    """
    operand = states_ptr.dtype.element_ty
    head = tl.program_id(0).to(tl.int64)  # of B H
    b, h = head // H, head % H
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    q = tl.arange(0, Q)
    tile = p[:, None] * N + n[None, :]
    in_tile = (p < P)[:, None] & (n < N)[None, :]
    at_x, at_B = q[None, :] * (H * P) + p[:, None], q[:, None] * (G * N) + n[None, :]
    x_ptr += (b * T * H + h) * P
    B_ptr += (b * T * G + h // (H // G)) * N
    first_state, first_row = (b * chunks * H + h) * P * N, head * chunks * Q
    part = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    through_ptr += (part * batch * H + head) * chunks
    state = tl.load(first_ptr + head * P * N + tile, mask=in_tile, other=0.0)
    for i in tl.range(0, chunks, num_stages=STAGES):
        c = head * 0 + i  # in 64 bits
        if REVERSE:
            c = head * 0 + chunks - 1 - i
        inside = q < T - c * Q
        x = tl.load(x_ptr + c * Q * H * P + at_x, mask=(p < P)[:, None] & inside[None, :], other=0.0)  # (P, Q)
        B = tl.load(B_ptr + c * Q * G * N + at_B, mask=inside[:, None] & (n < N)[None, :], other=0.0)  # (Q, N)
        row = first_row + c * Q
        if REVERSE:
            weight = tl.load(from_start_ptr + row + q)
        else:
            weight = tl.load(to_end_ptr + row + q) * tl.load(step_ptr + row + q)
        end = tl.load(from_start_ptr + row + Q - 1)
        at_state = first_state + c * H * P * N
        if REVERSE:
            before = tl.load(before_ptr + at_state + tile, mask=in_tile, other=0.0)
            tl.store(through_ptr + c, end * tl.sum(state * before.to(tl.float32)))
        tl.store(states_ptr + at_state + tile, state.to(operand), mask=in_tile)
        weighted = (x.to(tl.float32) * weight[None, :]).to(operand)
        state = tl.dot(weighted, B.to(operand), end * state, input_precision=PRECISION)
    tl.store(last_ptr + head * P * N + tile, state, mask=in_tile)


@triton.jit
def output_kernel(
    x_ptr, B_ptr, C_ptr, D_ptr, step_ptr, high_ptr, low_ptr, sequence_ptr, from_start_ptr, states_ptr, y_ptr,
    batch, T, H, P, N, G, chunks, splits,
    PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, TILES: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """y_t = sum_s L_ts (C_t . B_s) dt_s x_s + e_t S C_t + D x_t of one chunk and a share of the heads of one group."""
    operand = states_ptr.dtype.element_ty
    pid = tl.program_id(0).to(tl.int64)
    share = pid % splits
    group = pid // splits % G
    chunk = pid // splits // G  # of B chunks
    b, c = chunk // chunks, chunk % chunks
    heads = H // G // splits
    n, q, p = tl.arange(0, BLOCK_N), tl.arange(0, Q), tl.arange(0, BLOCK_P)
    inside = q < T - c * Q
    in_B = inside[:, None] & (n < N)[None, :]
    at_B = ((b * T + c * Q) * G + group) * N + (q[:, None] * (G * N) + n[None, :])
    at_x, at_state = q[:, None] * (H * P) + p[None, :], p[:, None] * N + n[None, :]
    B = tl.load(B_ptr + at_B, mask=in_B, other=0.0).to(operand)
    C = tl.load(C_ptr + at_B, mask=in_B, other=0.0).to(operand)
    products = tl.dot(C, tl.trans(B), input_precision=PRECISION)  # (t, s)
    for i in tl.range(0, heads * TILES, num_stages=STAGES):
        h = (group * splits + share) * heads + i // TILES
        first_p = i % TILES * BLOCK_P
        in_x = inside[:, None] & (p < P - first_p)[None, :]
        first_x = ((b * T + c * Q) * H + h) * P + first_p
        first_state = (((b * chunks + c) * H + h) * P + first_p) * N
        row = (b * H + h) * (chunks * Q) + c * Q + q
        x = tl.load(x_ptr + first_x + at_x, mask=in_x, other=0.0)  # (Q, P)
        state = tl.load(
            states_ptr + first_state + at_state, mask=(p < P - first_p)[:, None] & (n < N)[None, :], other=0.0
        )  # (P, N)
        high, low, sequence = tl.load(high_ptr + row), tl.load(low_ptr + row), tl.load(sequence_ptr + row)
        step, e = tl.load(step_ptr + row), tl.load(from_start_ptr + row)
        D = tl.load(D_ptr + h * P + first_p + p, mask=p < P - first_p, other=0.0)
        y = e[:, None] * tl.dot(C, tl.trans(state), input_precision=PRECISION) + D[None, :] * x.to(tl.float32)
        allowed = (q[:, None] >= q[None, :]) & (sequence[:, None] == sequence[None, :])
        L = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
        L = tl.exp(tl.where(allowed, L, float("-inf")))
        y = tl.dot((L * products * step[None, :]).to(operand), x.to(operand), y, input_precision=PRECISION)
        in_x = inside[:, None] & (p < P - first_p)[None, :]
        tl.store(y_ptr + first_x + at_x, y.to(y_ptr.dtype.element_ty), mask=in_x)
