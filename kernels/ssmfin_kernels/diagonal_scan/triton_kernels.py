"""Owns the Triton kernels of the diagonal scan; `gpu.py` launches them, `chunked.py` has the equations."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

from ssmfin_kernels.long_convolution.gpu import phasor


@triton.jit
def transpose_kernel(
    source_ptr, target_ptr, T, D, source_b, source_t, source_d, target_b, target_t, target_d, steps,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """target[b, t, d] = source[b, t, d], each with strides of its own; zero from T to `steps`."""
    tiles = tl.cdiv(steps, BLOCK_T)
    b = tl.program_id(0).to(tl.int64) // tiles
    t = tl.program_id(0).to(tl.int64) % tiles * BLOCK_T + tl.arange(0, BLOCK_T)[:, None]
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :].to(tl.int64)
    tile = tl.load(source_ptr + b * source_b + t * source_t + d * source_d, mask=(t < T) & (d < D), other=0.0)
    target = target_ptr + b * target_b + t * target_t + d * target_d
    tl.store(target, tile.to(target_ptr.dtype.element_ty), mask=(t < steps) & (d < D))


@triton.jit
def product_kernel(
    x_ptr, matrix_ptr, y_ptr, other_ptr, out_ptr, rows, K, K2, W, matrix_k, matrix_w, other_k, other_w, tiles,
    TWO: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_K2: tl.constexpr,
    BLOCK_W: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """x matrix (+ y other if TWO) of one channel and `tiles` tiles of rows."""
    pid = tl.program_id(0).to(tl.int64)
    shares = tl.cdiv(rows, tiles * ROWS)
    d, share = pid // shares, (pid % shares).to(tl.int32)
    r, k, k2, w = tl.arange(0, ROWS), tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_K2), tl.arange(0, BLOCK_W)
    matrix = tl.load(
        matrix_ptr + d * K * W + k[:, None] * matrix_k + w[None, :] * matrix_w,
        mask=(k < K)[:, None] & (w < W)[None, :], other=0.0,
    )  # fmt: skip
    if TWO:
        other = tl.load(
            other_ptr + d * K2 * W + k2[:, None] * other_k + w[None, :] * other_w,
            mask=(k2 < K2)[:, None] & (w < W)[None, :], other=0.0,
        )  # fmt: skip
    begin = share * tiles * ROWS
    for i in tl.range(0, tiles, num_stages=STAGES):
        row = begin + i * ROWS
        first = d * rows + row
        inside = (r < rows - row)[:, None]
        x = tl.load(x_ptr + first * K + (r[:, None] * K + k[None, :]), mask=inside & (k < K)[None, :], other=0.0)
        out = tl.dot(x, matrix, input_precision=PRECISION)
        if TWO:
            y = tl.load(
                y_ptr + first * K2 + (r[:, None] * K2 + k2[None, :]), mask=inside & (k2 < K2)[None, :], other=0.0
            )
            out = tl.dot(y, other, out, input_precision=PRECISION)
        tl.store(out_ptr + first * W + (r[:, None] * W + w[None, :]), out, mask=inside & (w < W)[None, :])


@triton.jit
def gram_kernel(
    x_ptr, y_ptr, out_ptr, rows, K, W, tiles,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_W: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """x^T y of one channel over `tiles` tiles of rows: (shares, D, K, W)."""
    pid = tl.program_id(0).to(tl.int64)
    shares = tl.cdiv(rows, tiles * ROWS)
    d, share = pid // shares, (pid % shares).to(tl.int32)
    r, k, w = tl.arange(0, ROWS), tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_W)
    total = tl.zeros((BLOCK_K, BLOCK_W), tl.float32)
    begin = share * tiles * ROWS
    for i in tl.range(0, tiles, num_stages=STAGES):
        row = begin + i * ROWS
        first = d * rows + row
        x = tl.load(
            x_ptr + first * K + (r[None, :] * K + k[:, None]),
            mask=(r < rows - row)[None, :] & (k < K)[:, None], other=0.0,
        )  # fmt: skip
        y = tl.load(
            y_ptr + first * W + (r[:, None] * W + w[None, :]),
            mask=(r < rows - row)[:, None] & (w < W)[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(x, y, total, input_precision=PRECISION)
    out = out_ptr + (share * (tl.num_programs(0) // shares) + d) * K * W + (k[:, None] * W + w[None, :])
    tl.store(out, total, mask=(k < K)[:, None] & (w < W)[None, :])


@triton.jit
def carry_kernel(
    added_ptr, jump_ptr, first_ptr, cut_ptr, states_ptr, before_ptr, last_ptr, djump_ptr, lanes, B, D, N, chunks,
    REVERSE: tl.constexpr, HAS_CUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """h' = J h + v over chunks, the states before each; planes of N real and N imaginary parts.

    REVERSE: from the last chunk to the first with conj(J), and conj(before) h summed over chunks, the gradient of J.
    """
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < lanes
    row, n = lane // N, lane % N  # row of D B
    pair = 2 * ((row % B * D + row // B) * N + n)  # of (B, D, N, 2)
    real = tl.load(first_ptr + pair, mask=inside, other=0.0)
    imag = tl.load(first_ptr + pair + 1, mask=inside, other=0.0)
    jump = row // B * 2 * N + n
    jump_real = tl.load(jump_ptr + jump, mask=inside, other=0.0)
    jump_imag = tl.load(jump_ptr + jump + N, mask=inside, other=0.0)
    djump_real, djump_imag = tl.zeros_like(real), tl.zeros_like(real)
    if REVERSE:
        jump_imag = -jump_imag
    at = row * chunks * 2 * N + n
    cut_ptr += row % B * chunks
    for i in tl.range(0, chunks, num_stages=6):
        c = i
        if REVERSE:
            c = chunks - 1 - i
        added_real = tl.load(added_ptr + at + c * 2 * N, mask=inside, other=0.0)
        added_imag = tl.load(added_ptr + at + c * 2 * N + N, mask=inside, other=0.0)
        tl.store(states_ptr + at + c * 2 * N, real, mask=inside)
        tl.store(states_ptr + at + c * 2 * N + N, imag, mask=inside)
        if HAS_CUT:
            cut = tl.load(cut_ptr + c, mask=inside, other=0) != 0
            real = tl.where(cut, 0.0, real)
            imag = tl.where(cut, 0.0, imag)
        if REVERSE:
            before_real = tl.load(before_ptr + at + c * 2 * N, mask=inside, other=0.0)
            before_imag = tl.load(before_ptr + at + c * 2 * N + N, mask=inside, other=0.0)
            djump_real += before_real * real + before_imag * imag
            djump_imag += before_real * imag - before_imag * real
        onward = jump_real * real - jump_imag * imag + added_real
        imag = jump_real * imag + jump_imag * real + added_imag
        real = onward
    tl.store(last_ptr + pair, real, mask=inside)
    tl.store(last_ptr + pair + 1, imag, mask=inside)
    if REVERSE:
        tl.store(djump_ptr + row * 2 * N + n, djump_real, mask=inside)
        tl.store(djump_ptr + row * 2 * N + N + n, djump_imag, mask=inside)


@triton.jit
def factor_kernel(
    C_ptr, dtA_ptr, taps_ptr, M_ptr, E_ptr, L_ptr, jump_ptr, onward_ptr, N, last, scale,
    Q: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The factors of one channel, from powers whose phase is reduced in float64."""
    d = tl.program_id(0).to(tl.int64)
    q = tl.arange(0, Q)
    taps = tl.zeros((Q,), tl.float32)
    E_ptr += d * Q * 2 * N
    L_ptr += d * Q * 2 * N
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = n < N
        at = 2 * (d * N + n)
        decay = tl.load(dtA_ptr + at, mask=inside, other=0.0)
        turns = tl.load(dtA_ptr + at + 1, mask=inside, other=0.0).to(tl.float64) * 0.15915494309189535
        C_real = scale * tl.load(C_ptr + at, mask=inside, other=0.0)
        C_imag = scale * tl.load(C_ptr + at + 1, mask=inside, other=0.0)
        real, imag = phasor(decay[None, :], turns[None, :], q[:, None].to(tl.float64))  # (lag, N)
        taps += tl.sum(C_real[None, :] * real - C_imag[None, :] * imag, 1)
        at_E = (Q - 1 - q[:, None]) * 2 * N + n[None, :]
        tl.store(E_ptr + at_E, real, mask=inside[None, :])
        tl.store(E_ptr + at_E + N, imag, mask=inside[None, :])
        real, imag = phasor(decay[:, None], turns[:, None], (q + 1)[None, :].to(tl.float64))  # (N, lag)
        at_L = n[:, None] * Q + q[None, :]
        tl.store(L_ptr + at_L, C_real[:, None] * real - C_imag[:, None] * imag, mask=inside[:, None])
        tl.store(L_ptr + at_L + N * Q, -(C_real[:, None] * imag + C_imag[:, None] * real), mask=inside[:, None])
        real, imag = phasor(decay, turns, tl.full((BLOCK_N,), Q, tl.float64))
        tl.store(jump_ptr + d * 2 * N + n, real, mask=inside)
        tl.store(jump_ptr + d * 2 * N + N + n, imag, mask=inside)
        real, imag = phasor(decay, turns, (tl.zeros((BLOCK_N,), tl.int32) + last).to(tl.float64))
        tl.store(onward_ptr + d * 2 * N + n, real, mask=inside)
        tl.store(onward_ptr + d * 2 * N + N + n, imag, mask=inside)
    tl.store(taps_ptr + d * Q + q, taps)
    tl.debug_barrier()  # taps are read by other threads than wrote them
    lag = q[None, :] - q[:, None]
    M = tl.load(taps_ptr + d * Q + lag, mask=lag >= 0, other=0.0)
    tl.store(M_ptr + d * Q * Q + (q[:, None] * Q + q[None, :]), M)


@triton.jit
def factor_gradient_kernel(
    C_ptr, dtA_ptr, dM_ptr, dE_ptr, dL_ptr, djump_ptr, donward_ptr, dC_ptr, ddtA_ptr, N, last, scale,
    Q: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Gradients of C and dtA of one channel and block of states."""
    d = tl.program_id(0).to(tl.int64)
    q = tl.arange(0, Q)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < N
    at = 2 * (d * N + n)
    decay = tl.load(dtA_ptr + at, mask=inside, other=0.0)
    turns = tl.load(dtA_ptr + at + 1, mask=inside, other=0.0).to(tl.float64) * 0.15915494309189535
    C_real = scale * tl.load(C_ptr + at, mask=inside, other=0.0)
    C_imag = scale * tl.load(C_ptr + at + 1, mask=inside, other=0.0)
    dM = tl.load(  # (lag, row): a diagonal in each row
        dM_ptr + d * Q * Q + (q[None, :] * (Q + 1) + q[:, None]), mask=q[None, :] + q[:, None] < Q, other=0.0
    )
    dk = tl.sum(dM, 1)[:, None]
    lag = q[:, None]
    real, imag = phasor(decay[None, :], turns[None, :], lag.to(tl.float64))  # (lag, N)
    # sums of conj(w^l) dk_l, and of those times l
    zero_real, zero_imag = tl.sum(real * dk, 0), -tl.sum(imag * dk, 0)
    dk *= lag.to(tl.float32)
    one_real, one_imag = tl.sum(real * dk, 0), -tl.sum(imag * dk, 0)
    at_E = d * Q * 2 * N + (Q - 1 - lag) * 2 * N + n[None, :]
    dE_real = lag * tl.load(dE_ptr + at_E, mask=inside[None, :], other=0.0)
    dE_imag = lag * tl.load(dE_ptr + at_E + N, mask=inside[None, :], other=0.0)
    ddtA_real = tl.sum(real * dE_real + imag * dE_imag, 0)
    ddtA_imag = tl.sum(real * dE_imag - imag * dE_real, 0)
    lag += 1
    real, imag = phasor(decay[None, :], turns[None, :], lag.to(tl.float64))
    at_L = d * Q * 2 * N + (n[None, :] * Q + q[:, None])
    dL_real = tl.load(dL_ptr + at_L, mask=inside[None, :], other=0.0)
    dL_imag = -tl.load(dL_ptr + at_L + N * Q, mask=inside[None, :], other=0.0)
    term_real, term_imag = real * dL_real + imag * dL_imag, real * dL_imag - imag * dL_real
    zero_real += tl.sum(term_real, 0)
    zero_imag += tl.sum(term_imag, 0)
    one_real += tl.sum(lag * term_real, 0)
    one_imag += tl.sum(lag * term_imag, 0)
    ddtA_real += C_real * one_real + C_imag * one_imag
    ddtA_imag += C_real * one_imag - C_imag * one_real
    plane = d * 2 * N + n
    real, imag = phasor(decay, turns, tl.full((BLOCK_N,), Q, tl.float64))
    d_real = tl.load(djump_ptr + plane, mask=inside, other=0.0)
    d_imag = tl.load(djump_ptr + plane + N, mask=inside, other=0.0)
    ddtA_real += Q * (real * d_real + imag * d_imag)
    ddtA_imag += Q * (real * d_imag - imag * d_real)
    real, imag = phasor(decay, turns, (tl.zeros((BLOCK_N,), tl.int32) + last).to(tl.float64))
    d_real = tl.load(donward_ptr + plane, mask=inside, other=0.0)
    d_imag = tl.load(donward_ptr + plane + N, mask=inside, other=0.0)
    ddtA_real += last * (real * d_real + imag * d_imag)
    ddtA_imag += last * (real * d_imag - imag * d_real)
    tl.store(dC_ptr + at, scale * zero_real, mask=inside)
    tl.store(dC_ptr + at + 1, scale * zero_imag, mask=inside)
    tl.store(ddtA_ptr + at, ddtA_real, mask=inside)
    tl.store(ddtA_ptr + at + 1, ddtA_imag, mask=inside)
