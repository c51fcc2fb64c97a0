"""Owns the Triton kernels of the chunked scan backwards; `gpu.py` says what each is for, `cpu.py` has the equations."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pair_kernel(
    dy_ptr, x_ptr, B_ptr, C_ptr, step_ptr, high_ptr, low_ptr, sequence_ptr, states_ptr, da_ptr, K_ptr,
    batch, T, H, P, N, G, chunks, splits,
    PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, TILES: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """The sum of K over a share of the heads of one group, in one chunk, and what pairs of steps add to da."""
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
    at_x = q[:, None] * (H * P) + p[None, :]
    B = tl.load(B_ptr + at_B, mask=in_B, other=0.0).to(operand)
    C = tl.load(C_ptr + at_B, mask=in_B, other=0.0).to(operand)
    products = tl.dot(C, tl.trans(B), input_precision=PRECISION)  # (t, s)
    total = tl.zeros((Q, Q), tl.float32)
    rows, columns = q[:, None], q[None, :]
    before = (rows < columns).to(operand)  # (s, u)
    for i in tl.range(0, heads * TILES, num_stages=STAGES):
        h = (group * splits + share) * heads + i // TILES
        part = i % TILES
        first_p = part * BLOCK_P
        in_x = inside[:, None] & (p < P - first_p)[None, :]
        first_x = ((b * T + c * Q) * H + h) * P + first_p
        row = (b * H + h) * (chunks * Q) + c * Q + q
        x = tl.load(x_ptr + first_x + at_x, mask=in_x, other=0.0).to(operand)  # (Q, P)
        dy = tl.load(dy_ptr + first_x + at_x, mask=in_x, other=0.0).to(operand)
        high, low, sequence = tl.load(high_ptr + row), tl.load(low_ptr + row), tl.load(sequence_ptr + row)
        step = tl.load(step_ptr + row)
        allowed = (sequence[:, None] == sequence[None, :]) & (rows >= columns)
        L = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])  # (t, s)
        L = tl.exp(tl.where(allowed, L, float("-inf")))
        K = L * step[None, :] * tl.dot(dy, tl.trans(x), input_precision=PRECISION)
        total += K
        K *= products
        # (t, u): pairs with s < u, of which those with t >= u pass u; nothing is summed that would have to cancel
        if operand == tl.bfloat16:
            pairs = tl.dot(K.to(operand), before)
        else:
            # two tf32 halves are float32: the other factor is zeros and ones
            upper = (K.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
            pairs = tl.dot(upper, before, input_precision="tf32")
            pairs = tl.dot(K - upper, before, pairs, input_precision="tf32")
        da = tl.sum(tl.where(rows >= columns, pairs, 0.0), 0)
        tl.store(da_ptr + part * batch * H * chunks * Q + row, da)  # (tiles, B, H, chunks Q)
    tl.store(K_ptr + pid * (Q * Q) + rows * Q + columns, total)


@triton.jit
def input_gradient_kernel(
    dy_ptr, x_ptr, B_ptr, C_ptr, D_ptr, step_ptr, high_ptr, low_ptr, sequence_ptr, to_end_ptr, dstates_ptr,
    dx_ptr, dstep_ptr, past_ptr, dD_ptr, batch, T, H, P, N, G, chunks, splits,
    PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    TILES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dx, ddt, dD and what leaves the chunk past each step, of one chunk and a share of the heads of one group."""
    operand = dstates_ptr.dtype.element_ty
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
    products = tl.dot(B, tl.trans(C), input_precision=PRECISION)  # (s, t)
    rows, columns = q[:, None], q[None, :]
    for i in tl.range(0, heads * TILES, num_stages=STAGES):
        h = (group * splits + share) * heads + i // TILES
        part = i % TILES
        first_p = part * BLOCK_P
        in_x = inside[:, None] & (p < P - first_p)[None, :]
        first_x = ((b * T + c * Q) * H + h) * P + first_p
        first_state = (((b * chunks + c) * H + h) * P + first_p) * N
        row = (b * H + h) * (chunks * Q) + c * Q + q
        x = tl.load(x_ptr + first_x + at_x, mask=in_x, other=0.0)  # (Q, P)
        dy = tl.load(dy_ptr + first_x + at_x, mask=in_x, other=0.0).to(operand)
        dstate = tl.load(
            dstates_ptr + first_state + at_state, mask=(p < P - first_p)[:, None] & (n < N)[None, :], other=0.0
        )  # (P, N)
        high, low, sequence = tl.load(high_ptr + row), tl.load(low_ptr + row), tl.load(sequence_ptr + row)
        step, w = tl.load(step_ptr + row), tl.load(to_end_ptr + row)
        D = tl.load(D_ptr + h * P + first_p + p, mask=p < P - first_p, other=0.0)
        dinput = w[:, None] * tl.dot(B, tl.trans(dstate), input_precision=PRECISION)  # (Q, P)
        past = step * tl.sum(x.to(tl.float32) * dinput, 1)
        partial = part * batch * H * chunks * Q + row  # (tiles, B, H, chunks Q)
        # what passes a step is what came before it
        tl.store(past_ptr + partial + 1, tl.cumsum(past, 0), mask=q < Q - 1)
        allowed = (sequence[:, None] == sequence[None, :]) & (rows <= columns)
        L = (high[None, :] - high[:, None]) + (low[None, :] - low[:, None])  # (s, t)
        L = tl.exp(tl.where(allowed, L, float("-inf")))
        dinput = tl.dot((L * products).to(operand), dy, dinput, input_precision=PRECISION)
        x32, dy32 = x.to(tl.float32), dy.to(tl.float32)
        tl.store(dstep_ptr + partial, tl.sum(x32 * dinput, 1))
        tl.store(dD_ptr + ((b * chunks + c) * H + h) * P + first_p + p, tl.sum(dy32 * x32, 0), mask=p < P - first_p)
        dx = step[:, None] * dinput + D[None, :] * dy32
        in_x = inside[:, None] & (p < P - first_p)[None, :]
        tl.store(dx_ptr + first_x + at_x, dx.to(dx_ptr.dtype.element_ty), mask=in_x)


@triton.jit
def side_kernel(
    x_ptr, other_ptr, C_ptr, decay_ptr, step_ptr, states_ptr, K_ptr, past_ptr, through_ptr, da_ptr, out_ptr,
    batch, T, H, P, N, G, chunks, splits,
    OUTPUT: tl.constexpr, N_TILES: tl.constexpr, PRECISION: tl.constexpr, Q: tl.constexpr, BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr, TILES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dB_s = sum over heads of w_s dt_s dS'^T x_s + K_st C_t, of one chunk and a share of the heads of one group.

    OUTPUT: dC_t = e_t S^T dy_t + K_st B_s (x is dy, other is B, C is C), and the rest of da.
    """
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
    first_B = ((b * T + c * Q) * G + group) * N
    at_B = q[:, None] * (G * N) + n[None, :]
    at_x, at_state = q[:, None] * (H * P) + p[None, :], p[:, None] * N + n[None, :]
    other = tl.load(other_ptr + first_B + at_B, mask=in_B, other=0.0).to(operand)
    rows, columns = q[:, None], q[None, :]
    # K of all heads: B and C are theirs in common
    if OUTPUT:
        K = tl.load(K_ptr + pid * (Q * Q) + rows * Q + columns)
        C = tl.load(C_ptr + first_B + at_B, mask=in_B, other=0.0).to(operand)
    else:
        K = tl.load(K_ptr + pid * (Q * Q) + columns * Q + rows)
    out = tl.dot(K.to(operand), other, input_precision=PRECISION)
    for i in tl.range(0, heads * TILES, num_stages=STAGES):
        h = (group * splits + share) * heads + i // TILES
        part = i % TILES
        first_p = part * BLOCK_P
        in_x = inside[:, None] & (p < P - first_p)[None, :]
        first_x = ((b * T + c * Q) * H + h) * P + first_p
        first_state = (((b * chunks + c) * H + h) * P + first_p) * N
        row = (b * H + h) * (chunks * Q) + c * Q + q
        x = tl.load(x_ptr + first_x + at_x, mask=in_x, other=0.0).to(operand)  # (Q, P)
        state = tl.load(
            states_ptr + first_state + at_state, mask=(p < P - first_p)[:, None] & (n < N)[None, :], other=0.0
        )  # (P, N)
        weight = tl.load(decay_ptr + row)
        if OUTPUT:
            following = weight * tl.sum(x.to(tl.float32) * tl.dot(C, tl.trans(state), input_precision=PRECISION), 1)
            at_da = part * batch * H * chunks * Q + row
            da = tl.load(da_ptr + at_da) + tl.load(past_ptr + at_da, mask=q > 0, other=0.0)
            da += tl.cumsum(following, 0, reverse=True)
            # unrolled: a loop inside would keep the compiler from loading the next head ahead
            for tile in tl.static_range(N_TILES):
                da += tl.load(through_ptr + ((part * N_TILES + tile) * batch * H + b * H + h) * chunks + c)
            tl.store(da_ptr + at_da, da)
        else:
            weight *= tl.load(step_ptr + row)
        out += weight[:, None] * tl.dot(x, state, input_precision=PRECISION)
    first_B += share * batch * T * G * N  # (splits, B, T, G, N)
    tl.store(out_ptr + first_B + at_B, out.to(out_ptr.dtype.element_ty), mask=in_B)
