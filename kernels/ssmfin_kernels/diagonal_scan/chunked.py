"""Owns the diagonal scan over chunks of Q steps as matrix products, forward and backward.

A channel at a time, x (rows, Q) its chunks of every sequence, H the state before each chunk, w = exp(dtA), J = w^Q:

    Y = X M + H L        M_st = k_{t-s}, k_l = scale Re sum_n C_n w_n^l        L_nt = scale C_n w_n^{t+1}
    H' = J H + V         V = X E, E_sn = w_n^{Q-1-s}

Complex numbers are real matrices: a state is (Re | Im), 2 N wide, and L is (Re; -Im). With G the gradient of the state
after a chunk (G of the chunk before: conj(J) G + dY L^T):

    dX = dY M^T + G E^T      dM = X^T dY      dL = H^T dY      dE = X^T G      dJ = sum conj(H) G

and gradients of C and dtA are sums over powers of w with the small dM, dL, dE, dJ. Powers are exp(dtA l) in float64,
rounded once. A reset cuts a chunk into stretches: M is applied to each by itself, E to the last, L to the first.
Kept for the backward pass: H, and u in the layout (D, B, T) in place of u.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ssmfin_kernels import library

STEPS = 64  # Q: as wide as the states of 32 pairs, so that states take as much memory as the input


class Factors(NamedTuple):
    """The matrices of a scan and powers of w: M (D, Q, Q), E (D, Q, 2 N), L (D, 2 N, Q), w^Q and w^last (D, 2 N)."""

    M: Tensor
    E: Tensor
    L: Tensor
    jump: Tensor
    onward: Tensor


class Products:
    """The products and copies of a scan in plain torch; a device may have faster ones.

    Rows are those of all chunks of all sequences: x, y (D, rows, K), matrices (D, K, W).
    """

    def factors(self, C: Tensor, dtA: Tensor, scale: float, last: int) -> Factors:
        """Of C and dtA (D, N, 2); `last` is the number of steps of the last chunk."""
        kind, powers = C.dtype, _powers(dtA)
        weighted = scale * torch.view_as_complex(C.double())[..., None] * powers  # (D, N, Q + 1)
        # row s of M begins Q - 1 - s places into 0 .. 0, k_0, k_1, ...
        taps = weighted[..., :-1].real.sum(1).to(kind)
        reverse = powers[..., :-1].flip(-1).mT
        leave = weighted[..., 1:]
        return Factors(
            M=pad(taps, (STEPS - 1, 0)).unfold(1, STEPS, 1).flip(1),
            E=torch.cat((reverse.real, reverse.imag), dim=2).to(kind),
            L=torch.cat((leave.real, -leave.imag), dim=1).to(kind),
            jump=planes(powers[..., STEPS]).to(kind),
            onward=planes(powers[..., last]).to(kind),
        )

    def gradients(self, C: Tensor, dtA: Tensor, scale: float, last: int, dfactors: Factors) -> tuple[Tensor, Tensor]:
        """Of C and dtA (D, N, 2), from those of the factors."""
        (_, N, _), Q = C.shape, STEPS
        dM, dE, dL, djump, donward = (tensor.double() for tensor in dfactors)
        conjugate, weight = _powers(dtA).conj(), scale * torch.view_as_complex(C.double())
        # the sums of dM over its diagonals: in rows of Q + 1 places they are columns
        dk = pad(dM.triu().flatten(1), (0, Q)).view(-1, Q, Q + 1).sum(1)[:, None, :Q]
        # of scale C w^l, l = 0 .. Q
        by_lag = pad(dk.expand(-1, N, -1).to(weight.dtype), (0, 1)) + pad(torch.complex(dL[:, :N], -dL[:, N:]), (1, 0))
        dpowers = by_lag * weight.conj()[..., None]
        dpowers[..., :-1] += torch.complex(dE[..., :N], dE[..., N:]).mT.flip(-1)
        dpowers[..., Q] += torch.complex(djump[:, :N], djump[:, N:])
        dpowers[..., last] += torch.complex(donward[:, :N], donward[:, N:])
        lags = torch.arange(Q + 1, dtype=torch.float64, device=C.device)
        dC, ddtA = scale * (by_lag * conjugate).sum(-1), (dpowers * conjugate * lags).sum(-1)
        return torch.view_as_real(dC).to(C.dtype), torch.view_as_real(ddtA).to(C.dtype)

    def by_channel(self, u: Tensor, n: int, kind: torch.dtype) -> Tensor:
        """(B, T, D) -> (D, B, n, Q), zero beyond T."""
        B, T, D = u.shape
        x = torch.empty(D, B, n * STEPS, dtype=kind, device=u.device)
        x[..., :T] = u.permute(2, 0, 1)
        x[..., T:] = 0
        return x.view(D, B, n, STEPS)

    def by_step(self, x: Tensor, like: Tensor) -> Tensor:
        """(D, B, n, Q) -> (B, T, D) in the type of `like`."""
        y = torch.empty_like(like, memory_format=torch.contiguous_format)
        return y.copy_(x.flatten(2)[..., : like.shape[1]].permute(1, 2, 0))

    def product(self, x: Tensor, matrix: Tensor) -> Tensor:
        """x matrix."""
        product: Tensor = x @ matrix
        return product

    def two_products(self, x: Tensor, matrix: Tensor, y: Tensor, other: Tensor) -> Tensor:
        """x matrix + y other."""
        return (x @ matrix).baddbmm_(y, other)

    def gram(self, x: Tensor, y: Tensor) -> Tensor:
        """x^T y, summed over rows."""
        product: Tensor = x.mT @ y
        return product

    def carry(self, added: Tensor, jump: Tensor, initial: Tensor, cut: Tensor | None) -> tuple[Tensor, Tensor]:
        """States before each chunk and after the last: h' = J h + V.

        Args:
            added: V (D, B, n, 2 N). jump: J (D, 2 N). initial: (B, D, N, 2). cut: (B, n) chunks no state crosses.
        """
        before, state = torch.empty_like(added), by_plane(initial)
        for c in range(added.shape[2]):
            before[:, :, c] = state
            state = _onward(jump, state, None if cut is None else cut[:, c]) + added[:, :, c]
        return before, by_pair(state)

    def carry_back(
        self, dbefore: Tensor, jump: Tensor, dlast: Tensor, cut: Tensor | None, before: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the states after each chunk, of the first state (B, D, N, 2), and of J (D, 2 N)."""
        after, state, djump = torch.empty_like(dbefore), by_plane(dlast), torch.zeros_like(jump)
        for c in reversed(range(dbefore.shape[2])):
            after[:, :, c] = state
            crossing = state if cut is None else torch.where(cut[:, c, None], 0.0, state)
            djump += times(before[:, :, c], crossing, conjugate=True).sum(1)
            state = times(jump[:, None], crossing, conjugate=True) + dbefore[:, :, c]
        return after, by_pair(state), djump


def _onward(jump: Tensor, state: Tensor, cut: Tensor | None) -> Tensor:
    """J h (D, B, 2 N), zero where (B,) the chunk is cut."""
    onward = times(jump[:, None], state)
    return onward if cut is None else torch.where(cut[:, None], 0.0, onward)


def _powers(dtA: Tensor) -> Tensor:
    """w^0 .. w^Q (D, N, Q + 1) in complex128."""
    lags = torch.arange(STEPS + 1, dtype=torch.float64, device=dtA.device)
    return torch.exp(torch.view_as_complex(dtA.double())[..., None] * lags)


def planes(z: Tensor) -> Tensor:
    """(..., N) complex -> (..., 2 N): real parts, imaginary parts."""
    return torch.cat((z.real, z.imag), dim=-1)


def times(z: Tensor, planes: Tensor, conjugate: bool = False) -> Tensor:
    """Complex product of two (..., 2 N), the first conjugated if asked."""
    real, imag = z.chunk(2, -1)
    other_real, other_imag = planes.chunk(2, -1)
    if conjugate:
        imag = -imag
    return torch.cat((real * other_real - imag * other_imag, real * other_imag + imag * other_real), dim=-1)


class _Cuts(NamedTuple):
    """How resets cut chunks: stretches (B, n, Q), the number of resets up to and including a step; most in a chunk."""

    stretch: Tensor
    most: int

    @classmethod
    def of(cls, reset: Tensor | None, n: int) -> _Cuts | None:
        if reset is None:
            return None
        stretch = pad(reset, (0, n * STEPS - reset.shape[1])).view(-1, n, STEPS).cumsum(-1)
        return cls(stretch, int(stretch.max()))

    @property
    def cut(self) -> Tensor:
        """(B, n): chunks that a state does not cross."""
        return self.stretch[..., -1] > 0

    def keep(self, x: Tensor, stretch: int | Tensor) -> Tensor:
        """(D, B, n, Q): x at steps of this stretch, zero elsewhere."""
        return torch.where(self.stretch == stretch, x, 0.0)


def _rows(x: Tensor) -> Tensor:
    """(D, B, n, ...) -> (D, B n, ...)."""
    return x.flatten(1, 2)


def register(name: str, products: Products) -> Any:
    """Make ssmfin::<name> of the products of a device.

    Returns:
        the operator (u (B, T, D), C, dtA (D, N, 2), initial state (B, D, N, 2), reset, scale) -> (y, final state,
        states before each chunk (D, B, n, 2 N), u by channel (D, B, n, Q)); the last two are for the backward pass and
        have no gradient.
    """

    def forward(
        u: Tensor, C: Tensor, dtA: Tensor, initial: Tensor, reset: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kind, (n, last) = C.dtype, _sizes(u)
        (M, enter, leave, jump, onward), cuts = products.factors(C, dtA, scale, last), _Cuts.of(reset, n)
        x = products.by_channel(u, n, kind)  # (D, B, n, Q)
        kept = x if cuts is None else cuts.keep(x, cuts.stretch[..., -1:])
        added = products.product(_rows(kept), enter).view(*x.shape[:3], -1)
        cut = None if cuts is None else cuts.cut
        before, final = products.carry(added, jump, initial, cut)
        del added
        if last < STEPS:  # the final state is not that after a whole last chunk
            entered = kept[:, :, -1, :last] @ enter[:, STEPS - last :]  # (D, B, 2 N)
            final = by_pair(_onward(onward, before[:, :, -1], None if cut is None else cut[:, -1]) + entered)
        del kept
        if cuts is None:
            y = products.two_products(_rows(x), M, _rows(before), leave).view(x.shape)
        else:
            y = cuts.keep(products.product(_rows(before), leave).view(x.shape), 0)
            for stretch in range(cuts.most + 1):
                y += cuts.keep(products.product(_rows(cuts.keep(x, stretch)), M).view(x.shape), stretch)
        return products.by_step(y, u), final, before, x

    def backward(
        dy: Tensor,
        dfinal: Tensor,
        before: Tensor,
        x: Tensor,
        C: Tensor,
        dtA: Tensor,
        initial: Tensor,
        reset: Tensor | None,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kind, (n, last) = C.dtype, _sizes(dy)
        (M, enter, leave, jump, onward), cuts = products.factors(C, dtA, scale, last), _Cuts.of(reset, n)
        cut = None if cuts is None else cuts.cut
        upstream = products.by_channel(dy, n, kind)
        first = upstream if cuts is None else cuts.keep(upstream, 0)
        dbefore = products.product(_rows(first), leave.mT).view_as(before)
        dL = products.gram(_rows(before), _rows(first))
        del first
        donward, ending = torch.zeros_like(onward), by_plane(dfinal)  # (D, B, 2 N)
        if last < STEPS:
            passing = ending if cut is None else torch.where(cut[:, -1:], 0.0, ending)
            dbefore[:, :, -1] += times(onward[:, None], passing, conjugate=True)
            donward = times(before[:, :, -1], passing, conjugate=True).sum(1)
            dfinal = torch.zeros_like(dfinal)
        after, dinitial, djump = products.carry_back(dbefore, jump, dfinal, cut, before)
        del dbefore
        kept = x if cuts is None else cuts.keep(x, cuts.stretch[..., -1:])
        dE = products.gram(_rows(kept), _rows(after))
        if last < STEPS:
            dE[:, STEPS - last :] += kept[:, :, -1, :last].mT @ ending
        del kept
        if cuts is None:
            dx = products.two_products(_rows(upstream), M.mT, _rows(after), enter.mT).view(x.shape)
            dM = products.gram(_rows(x), _rows(upstream))
            if last < STEPS:
                dx[:, :, -1, :last] += ending @ enter[:, STEPS - last :].mT
        else:
            dx = products.product(_rows(after), enter.mT).view(x.shape)
            if last < STEPS:
                dx[:, :, -1, :last] += ending @ enter[:, STEPS - last :].mT
            dx = cuts.keep(dx, cuts.stretch[..., -1:])
            dM = torch.zeros_like(M, memory_format=torch.contiguous_format)
            for stretch in range(cuts.most + 1):
                one = _rows(cuts.keep(upstream, stretch))
                dM += products.gram(_rows(cuts.keep(x, stretch)), one)
                dx += cuts.keep(products.product(one, M.mT).view(x.shape), stretch)
        dC, ddtA = products.gradients(C, dtA, scale, last, Factors(dM, dE, dL, djump, donward))
        return products.by_step(dx, dy), dC, ddtA, dinitial

    op, backward_op = library.operator(name)(forward), library.operator(f"{name}_backward")(backward)

    @op.register_fake
    def _(u: Tensor, C: Tensor, dtA: Tensor, initial: Tensor, reset: Any, scale: float) -> Any:
        B, T, D = u.shape
        n = -(-T // STEPS)
        y = torch.empty_like(u, memory_format=torch.contiguous_format)
        states, x = initial.new_empty(D, B, n, 2 * C.shape[1]), initial.new_empty(D, B, n, STEPS)
        return y, torch.empty_like(initial, memory_format=torch.contiguous_format), states, x

    @backward_op.register_fake
    def _(dy: Tensor, dfinal: Tensor, before: Tensor, x: Tensor, C: Tensor, dtA: Tensor, *rest: Any) -> Any:
        du = torch.empty_like(dy, memory_format=torch.contiguous_format)
        return du, torch.empty_like(C), torch.empty_like(dtA), torch.empty_like(dfinal)

    library.once_differentiable(backward_op)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        u, *rest, ctx.scale = inputs
        ctx.save_for_backward(output[2], output[3], *rest)
        ctx.like = u.shape, u.dtype
        ctx.mark_non_differentiable(output[2], output[3])
        ctx.set_materialize_grads(False)  # zeros for the states would be as large as the states

    def gradients(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, *_: None) -> tuple[Any, ...]:
        before, x, C, dtA, initial, reset = ctx.saved_tensors
        shape, dtype = ctx.like
        dy = x.new_zeros(shape, dtype=dtype) if dy is None else dy
        dfinal = torch.zeros_like(initial) if dfinal is None else dfinal.contiguous()
        return *backward_op(dy, dfinal, before, x, C, dtA, initial, reset, ctx.scale), None, None

    op.register_autograd(gradients, setup_context=setup_context)
    return op


def _sizes(u: Tensor) -> tuple[int, int]:
    """The number of chunks, the steps of the last one."""
    n = -(-u.shape[1] // STEPS)
    return n, u.shape[1] - (n - 1) * STEPS


def by_plane(state: Tensor) -> Tensor:
    """(B, D, N, 2) -> (D, B, 2 N)."""
    return state.permute(1, 0, 3, 2).flatten(2)


def by_pair(state: Tensor) -> Tensor:
    """(D, B, 2 N) -> (B, D, N, 2)."""
    return state.unflatten(-1, (2, -1)).permute(1, 0, 3, 2).contiguous()
