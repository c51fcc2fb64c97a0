"""Owns the linear scan on a GPU: tiles, workspace and operators of the kernel in `triton_look_back.py`.

Every input is read once and every output written once, summed in an order that only the shapes decide. A kernel
compiles in two to ten seconds when first used with a set of types and options (18 at worst); Triton keeps it on disk.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ssmfin_kernels import library
from ssmfin_kernels.linear_scan import operators
from ssmfin_kernels.linear_scan.triton_look_back import look_back_kernel
from ssmfin_kernels.linear_scan.triton_maps import COMPLEX, PAIR, REAL


class Tile(NamedTuple):
    """SEGMENTS x STEPS steps of BLOCK channels, or pairs of channels; PREFETCH: the next tile is asked for early."""

    segments: int
    steps: int
    block: int
    warps: int
    prefetch: bool = False


# By (how numbers are read, backward); measured on an H200. STEPS is as large as registers hold with eight warps on a
# multiprocessor: it is bytes on the chip that hide the latency of memory and of looking back. Eight warps on one tile
# leave half as many tiles to look back over
_TILES = {
    ("single", False): Tile(32, 19, 32, 8),
    ("single", True): Tile(32, 14, 32, 8),
    ("half", False): Tile(16, 16, 32, 4),
    ("half", True): Tile(16, 16, 32, 4),
    ("pair", False): Tile(32, 14, 32, 8),
    ("pair", True): Tile(32, 10, 32, 8),
    ("double", False): Tile(8, 8, 32, 4),
    ("double", True): Tile(8, 8, 32, 4),
    ("complex", False): Tile(16, 14, 32, 8),
    ("complex", True): Tile(16, 9, 32, 8),
    ("double complex", False): Tile(8, 4, 32, 4),
    ("double complex", True): Tile(8, 4, 32, 4),
}
# Where a plain chain of tiles serves, the first that divides whole rows, else the last: lines of 256 bytes are read and
# written 2 to 4 % faster than lines of 128. Eight warps on one tile are slower here
_CHAINS = {
    ("single", False): (Tile(8, 20, 64, 4), Tile(16, 20, 32, 4)),
    ("single", True): (Tile(8, 14, 64, 4), Tile(16, 12, 32, 4)),
    ("pair", False): (Tile(16, 14, 32, 4, True),),
    ("pair", True): (Tile(16, 10, 32, 4, True),),
    ("complex", False): (Tile(8, 16, 32, 4, True),),
    ("complex", True): (Tile(8, 10, 32, 4, True),),
}
_MANY = 160  # sequences x channel blocks from which a plain chain of tiles is hidden behind the others
_GROUP = 4
_PACKED_STEPS = {False: 18, True: 12}  # by backward: with resets, more do not fit
_PROGRAMS = 4  # a multiprocessor: as many as find room take tiles, the others find none left


def _kind(a: Tensor, aligned: bool) -> str:
    """How numbers are read: by their type, half precision in pairs where a row is whole words of 16 bytes."""
    if a.is_complex():
        return "complex" if a.dtype == torch.complex64 else "double complex"
    if a.element_size() == 2 and aligned and a.shape[2] % 32 == 0:
        return "pair"
    return {2: "half", 4: "single", 8: "double"}[a.element_size()]


def _tile(kind: str, backward: bool, packed: bool, aligned: bool, B: int, D: int) -> tuple[Tile, int]:
    """The tile for B sequences of D numbers, and how many tiles form a group."""
    tile, group = _TILES[kind, backward], _GROUP
    chains = _CHAINS.get((kind, backward), (tile,))
    for chain in chains:
        whole = (aligned and D % chain.block == 0) or chain is chains[-1]
        if whole and B * triton.cdiv(D, chain.block) >= _MANY:
            tile, group = chain, 1
            break
    steps = min(tile.steps, _PACKED_STEPS[backward]) if packed else tile.steps
    if not aligned:
        # such rows are read number by number, each with an address and a predicate of its own. More steps than these
        # exhaust the registers: with 20, ptxas (12.8) gave up, and its code lost resets and masks
        steps = min(steps, 6 if backward or "complex" in kind else 8)
    return tile._replace(steps=steps, prefetch=tile.prefetch and aligned), group


def _launch(
    a: Tensor,
    x: Tensor,
    initial: Tensor | None,
    reset: Tensor | None,
    h: Tensor | None,
    before: Tensor | None,
    y: Tensor,
    da: Tensor | None,
    last: Tensor,
    reverse: bool,
) -> None:
    B, T, D = a.shape
    backward = h is not None
    state = library.state_dtype(a.dtype)
    word = torch.int64 if state in (torch.float64, torch.complex128) else torch.int32
    flags = None if reset is None else reset.view(torch.uint8)
    tensors = (a, x, initial, h, before, y, da, last)
    aligned = D % 16 == 0 and all(z is None or z.data_ptr() % 16 == 0 for z in tensors)
    name = _kind(a, aligned)
    kind, half = REAL, None
    if name == "pair":
        kind, half, D = PAIR, tl.bfloat16 if a.dtype == torch.bfloat16 else tl.float16, D // 2
    elif state.is_complex:
        kind = COMPLEX
    tile, group = _tile(name, backward, reset is not None, aligned, B, D)
    a_, x_, initial_, h_, before_, y_, da_, last_ = (_words(z, name) for z in tensors)
    parts = 1 if kind == REAL else 2
    lanes = B * triton.cdiv(D, tile.block)
    tiles = triton.cdiv(T, tile.segments * tile.steps)
    options: dict[str, Any] = {
        "BACKWARD": backward,
        "DOWN": reverse != backward,
        "HAS_INITIAL": initial is not None,
        "HAS_RESET": reset is not None,
        "HAS_BEFORE": before is not None,
        "KIND": kind,
        "STATE": tl.float64 if word == torch.int64 else tl.float32,
        "HALF": half,
        "GROUP": group,
        "SEGMENTS": tile.segments,
        "STEPS": tile.steps,
        "BLOCK": tile.block,
        "PREFETCH": tile.prefetch,
        "ROWS": triton.next_power_of_2(tile.segments * tile.steps),
        "num_warps": tile.warps,
    }
    # one workspace, filled by one launch: the number last drawn (a line of its own), states, maps
    sizes = (32, triton.cdiv(tiles, group) * lanes * parts * tile.block, tiles * lanes * 2 * parts * tile.block)
    workspace = torch.full((sum(sizes if group > 1 else sizes[:2]),), -1, dtype=word, device=a.device)
    drawn, states, maps = workspace, workspace[sizes[0] :], workspace[sizes[0] + sizes[1] :]
    programs = tiles * lanes
    if a.device.type == "cuda":
        programs = min(programs, _PROGRAMS * torch.cuda.get_device_properties(a.device).multi_processor_count)
    kernel: Any = look_back_kernel[(programs,)]
    kernel(a_, x_, initial_, flags, h_, before_, y_, da_, last_, drawn, maps, states, B, T, D, **options)


def _words(z: Tensor | None, kind: str) -> Tensor | None:
    """A tensor as the kernel is to see it."""
    if z is None:
        return None
    if z.is_complex():
        return torch.view_as_real(z)
    return z.view(torch.int32) if kind == "pair" else z


@library.operator("linear_scan_gpu")
def linear_scan_gpu(
    a: Tensor, b: Tensor, initial_state: Tensor | None, reset: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Contiguous (B, T, D), (B, T, D), (B, D) or None, (B, T) bool or None -> h (B, T, D), final state (B, D)."""
    h, final_state = torch.empty_like(b), b.new_empty(b.shape[0], b.shape[2])
    _launch(a, b, initial_state, reset, None, None, h, None, final_state, reverse)
    return h, final_state


@library.operator("linear_scan_gpu_backward")
def linear_scan_gpu_backward(
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    reset: Tensor | None,
    grad_h: Tensor,
    grad_final: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and the initial state; a, h, grad_h (B, T, D) and grad_final (B, D) or None contiguous."""
    da, db, d_initial = torch.empty_like(a), torch.empty_like(a), a.new_empty(a.shape[0], a.shape[2])
    _launch(a, grad_h, grad_final, reset, h, initial_state, db, da, d_initial, reverse)
    return da, db, d_initial


operators.register(linear_scan_gpu, linear_scan_gpu_backward)
