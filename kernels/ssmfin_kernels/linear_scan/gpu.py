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


class Tile(NamedTuple):
    """SEGMENTS x STEPS steps of BLOCK channels; on a GPU 32 channels, as the kernel explains."""

    segments: int
    steps: int
    block: int
    warps: int


# By (kind of type, backward); measured on an H200. STEPS is as large as registers hold with two programs on a
# multiprocessor: it is bytes on the chip that hide the latency of memory and of looking back
_TILES = {
    ("single", False): Tile(16, 20, 32, 4),
    ("single", True): Tile(16, 12, 32, 4),
    ("half", False): Tile(16, 16, 32, 4),
    ("half", True): Tile(16, 16, 32, 4),
    ("double", False): Tile(8, 8, 32, 4),
    ("double", True): Tile(8, 8, 32, 4),
    ("complex", False): Tile(8, 8, 32, 4),
    ("complex", True): Tile(8, 8, 32, 4),
    ("double complex", False): Tile(8, 4, 32, 4),
    ("double complex", True): Tile(8, 4, 32, 4),
}
_MANY = 160  # sequences x channel blocks from which a plain chain of tiles is hidden behind the others
_GROUP = 16
# Rows that are not whole words of 16 bytes are read number by number, each with an address and a predicate of its own.
# More steps than these exhaust the registers: with 20, ptxas (12.8) gave up, and its code lost resets and masks
_UNALIGNED_STEPS = {False: 8, True: 6}  # by backward
_PROGRAMS = 4  # a multiprocessor: as many as find room take tiles, the others find none left


def _kind(a: Tensor) -> str:
    if a.is_complex():
        return "complex" if a.dtype == torch.complex64 else "double complex"
    return {2: "half", 4: "single", 8: "double"}[a.element_size()]


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
    words = 2 if state.is_complex else 1
    word = torch.int64 if state in (torch.float64, torch.complex128) else torch.int32
    given = [None if z is None else torch.view_as_real(z) if z.is_complex() else z for z in (initial, h, before, da)]
    real = [torch.view_as_real(z) if z.is_complex() else z for z in (a, x, y, last)]
    flags = None if reset is None else reset.view(torch.uint8)
    pointers = (real[0], real[1], given[0], flags, given[1], given[2], real[2], given[3], real[3])
    tile = _TILES[_kind(a), backward]
    if D % 16 or any(z is not None and z.data_ptr() % 16 for z in (a, x, h, y, da)):
        tile = tile._replace(steps=min(tile.steps, _UNALIGNED_STEPS[backward]))
    lanes = B * triton.cdiv(D, tile.block)
    tiles = triton.cdiv(T, tile.segments * tile.steps)
    group = 1 if lanes >= _MANY else _GROUP
    options: dict[str, Any] = {
        "BACKWARD": backward,
        "DOWN": reverse != backward,
        "HAS_INITIAL": initial is not None,
        "HAS_RESET": reset is not None,
        "HAS_BEFORE": before is not None,
        "COMPLEX": words == 2,
        "STATE": tl.float64 if word == torch.int64 else tl.float32,
        "SEGMENTS": tile.segments,
        "STEPS": tile.steps,
        "BLOCK": tile.block,
        "num_warps": tile.warps,
    }
    # one workspace, filled by one launch: the number last drawn (a line of its own), states, maps
    sizes = (32, triton.cdiv(tiles, group) * lanes * words * tile.block, tiles * lanes * 2 * words * tile.block)
    workspace = torch.full((sum(sizes if group > 1 else sizes[:2]),), -1, dtype=word, device=a.device)
    drawn, states, maps = workspace, workspace[sizes[0] :], workspace[sizes[0] + sizes[1] :]
    programs = tiles * lanes
    if a.device.type == "cuda":
        programs = min(programs, _PROGRAMS * torch.cuda.get_device_properties(a.device).multi_processor_count)
    kernel: Any = look_back_kernel[(programs,)]
    kernel(*pointers, drawn, maps, states, B, T, D, GROUP=group, **options)


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
    grad_final: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and the initial state; a, h, grad_h (B, T, D) and grad_final (B, D) contiguous."""
    da, db, d_initial = torch.empty_like(a), torch.empty_like(a), a.new_empty(a.shape[0], a.shape[2])
    _launch(a, grad_h, grad_final, reset, h, initial_state, db, da, d_initial, reverse)
    return da, db, d_initial


operators.register(linear_scan_gpu, linear_scan_gpu_backward)
