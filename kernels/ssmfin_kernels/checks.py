"""Owns the checks of arguments: shapes by their letters, types, devices, and the one wording of their errors.

Letters collect sizes as they are met, so that each argument is held against those before it:

    sizes: dict[str, int] = {}
    check_shape("u", u, "B T D", sizes)
    check_shape("A", A, "D N", sizes)           # A has shape (3, 4), expected (D, N) with D = 8.
    check_shape("state", state, "B K-1 D", sizes)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
REAL_OR_COMPLEX = (*REAL, torch.complex64, torch.complex128)


def check_shape(name: str, tensor: Tensor, letters: str, sizes: dict[str, int]) -> None:
    """Hold `tensor` against `letters`, adding the sizes of letters not met before to `sizes`.

    Args:
        name: of the argument, for the message.
        tensor: the argument.
        letters: one word per dimension: a letter ("B"), a number ("1"), or a letter less a number ("K-1"), whose
            letter must have been met.
        sizes: sizes of the letters met so far; extended in place.
    Raises:
        ValueError: the number of dimensions differs, or a size differs from the one its letter had before.

    >>> sizes: dict[str, int] = {}
    >>> check_shape("u", torch.zeros(2, 5, 8), "B T D", sizes)
    >>> sizes
    {'B': 2, 'T': 5, 'D': 8}
    >>> check_shape("A", torch.zeros(3, 4), "D N", sizes)
    Traceback (most recent call last):
    ValueError: A has shape (3, 4), expected (D, N) with D = 8.
    """
    words = letters.split()
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} is a {type(tensor).__name__}, expected a tensor ({', '.join(words)}).")
    shape = tensor.shape
    expected = [_known_size(word, sizes) for word in words]
    fits = len(shape) == len(words) and all(
        want is None or want == have for want, have in zip(expected, shape, strict=True)
    )
    if not fits:
        sized = {word: size for word, size in zip(words, expected, strict=True) if size is not None}
        known = [f"{word} = {size}" for word, size in sized.items() if word != str(size)]
        suffix = f" with {', '.join(known)}" if known else ""
        raise ValueError(f"{name} has shape {_tuple(shape)}, expected {_letters(words)}{suffix}.")
    for word, size in zip(words, shape, strict=True):
        # the same new letter twice in one shape ("N N") has to agree with itself
        if word.isalpha() and sizes.setdefault(word, size) != size:
            raise ValueError(f"{name} has shape {_tuple(shape)}, expected {_letters(words)}: both {word} alike.")


def check_dtype(name: str, tensor: Tensor, allowed: Sequence[torch.dtype] = REAL) -> None:
    """Refuse a dtype that is not among `allowed` (by default the real floating ones)."""
    if tensor.dtype not in allowed:
        raise ValueError(f"{name} has dtype {_short(tensor.dtype)}, expected {_either(_short(d) for d in allowed)}.")


def check_reset(reset: Tensor | None, sizes: dict[str, int]) -> None:
    """Refuse a `reset` that is not bool (B, T)."""
    if reset is not None:
        check_shape("reset", reset, "B T", sizes)
        check_dtype("reset", reset, (torch.bool,))


def check_devices(**tensors: Tensor | None) -> None:
    """Refuse tensors on different devices; None is skipped."""
    given = [(name, tensor.device) for name, tensor in tensors.items() if tensor is not None]
    for name, device in given[1:]:
        if device != given[0][1]:
            raise ValueError(f"{name} is on {device}, expected {given[0][1]}, the device of {given[0][0]}.")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is not among `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected {_either(repr(choice) for choice in choices)}.")


def check_nonempty(name: str, tensor: Tensor, letter: str, sizes: dict[str, int]) -> None:
    """Refuse a size of zero for `letter`, which `tensor` brought into `sizes`."""
    if sizes[letter] < 1:
        raise ValueError(f"{name} has shape {_tuple(tensor.shape)}, expected {letter} of at least 1.")


def _known_size(word: str, sizes: dict[str, int]) -> int | None:
    if word.isdigit():
        return int(word)
    letter, minus, number = word.partition("-")
    if minus:
        return sizes[letter] - int(number)
    return sizes.get(letter)


def _letters(words: list[str]) -> str:
    return "(" + ", ".join(words) + (",)" if len(words) == 1 else ")")


def _tuple(shape: Iterable[int]) -> str:
    return str(tuple(shape))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
