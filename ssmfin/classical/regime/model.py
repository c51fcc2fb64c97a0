"""Owns what a regime model is before its parameters are known: names, how data become observations, what a fit needs.

    data  --prepare-->  Prepared: vectors z_t in units of their own, for the fit
    free (unconstrained)  --natural-->  parameters (transition rows sum to one, variances above a floor, |AR roots| < 1)
    parameters  --emission-->  c_m, L_m of log f_m(z) = c_m - 1/2 |L_m z|^2     (ssmfin_kernels: gaussian.py)

Parameters of a series are a row: transition_0_0, transition_0_1, .. (K K of them), then those of the emission.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from ssmfin.errors import InputError

if TYPE_CHECKING:
    from ssmfin.classical.regime.problem import Problem

Switching = Literal["switching", "common"]

State = dict[str, np.ndarray]  # what a filter knows of the past, by name; every array (B, ..)


class Run(NamedTuple):
    """What a filter of B series returns.

    Attributes:
        predicted, filtered: (B, T, K).
        steps: (B, T), log p(y_t | rows before t); NaN where the row says nothing.
        state: where it goes on.
    """

    predicted: np.ndarray
    filtered: np.ndarray
    steps: np.ndarray
    state: State


@dataclass(frozen=True)
class Specification(ABC):
    """A model of K regimes moved by a Markov chain, up to its parameters.

    Args:
        regimes: K, 2 to 4.
        variance_floor: least variance of a regime, as a share of the variance left in the training data by least
            squares (for vectors and state-space models: of the variance): the likelihood is unbounded where a
            regime's variance goes to zero on a few equal values.
    """

    kind: ClassVar[str]
    vectors: ClassVar[bool] = False  # whether y is (B, T, P)
    regimes: int = 2
    variance_floor: float = 1e-4

    def __post_init__(self) -> None:
        if not isinstance(self.regimes, int) or isinstance(self.regimes, bool) or not 2 <= self.regimes <= 4:
            raise InputError(f"regimes is {self.regimes!r}, outside 2 to 4; use 2, 3 or 4.")
        if not 0 < self.variance_floor < 1:
            raise InputError(f"variance_floor is {self.variance_floor!r}; use a share between 0 and 1, such as 1e-4.")

    @property
    @abstractmethod
    def emission_names(self) -> tuple[str, ...]:
        """Names of the parameters besides the transition matrix."""

    @property
    @abstractmethod
    def free_count(self) -> int:
        """How many numbers a fit finds, the K (K - 1) of the transition matrix included."""

    @property
    def components(self) -> int:
        """P, columns of y."""
        return 1

    @property
    def regressors(self) -> int:
        """X, columns of x."""
        return 0

    @property
    def memory(self) -> int:
        """How many earlier rows an observation reads."""
        return 0

    @property
    def parameter_names(self) -> tuple[str, ...]:
        K = self.regimes
        return (*(f"transition_{i}_{j}" for i in range(K) for j in range(K)), *self.emission_names)

    @abstractmethod
    def problem(self, y: np.ndarray, x: np.ndarray) -> Problem:
        """What a fit of y (B, T) or (B, T, P) and x (B, T, X) minimises."""

    @abstractmethod
    def run(self, parameters: np.ndarray, y: np.ndarray, x: np.ndarray, state: State | None) -> Run:
        """Filter series from a state or from the start; parameters are finite."""

    @abstractmethod
    def smooth(self, parameters: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(B, T, K) probabilities given the whole series."""

    @abstractmethod
    def signature(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What regimes are told apart by: locations (B, K, F) and variances (B, K, F) in the user's units."""

    @abstractmethod
    def order_key(self, parameters: np.ndarray) -> np.ndarray:
        """(B, K): regimes are numbered by it, the smallest first."""

    @abstractmethod
    def permute(self, parameters: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Parameters with regime order[b, k] renamed to k; also for standard errors."""

    def transition(self, parameters: np.ndarray) -> np.ndarray:
        """(B, N) -> (B, K, K)."""
        K = self.regimes
        return parameters[:, : K * K].reshape(-1, K, K)

    def to_dict(self) -> dict[str, Any]:
        """The kind and its options, as JSON can hold them."""
        options = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {"kind": self.kind, **options}

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the options."""
        return tuple(field.name for field in fields(cls))


def permuted_transition(parameters: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(B, K K): the transition part of `parameters` with regime order[b, k] renamed to k."""
    B, K = order.shape
    matrix = parameters[:, : K * K].reshape(B, K, K)
    rows = np.arange(B)[:, None, None]
    return np.asarray(matrix[rows, order[:, :, None], order[:, None, :]].reshape(B, K * K))


def check_choice(what: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is not among `choices`."""
    if value not in choices:
        raise InputError(f"{what} is {value!r}; use one of {', '.join(map(repr, choices))}.")


def check_names(what: str, value: object) -> None:
    """Refuse what is not a tuple of different names."""
    if not isinstance(value, tuple) or not all(isinstance(v, str) and v for v in value):
        raise InputError(f"{what} is {value!r}; use a tuple of column names.")
    if len(set(value)) < len(value):
        raise InputError(f"{what} is {value!r}, with a name twice; name each column once.")


def check_count(what: str, value: object, least: int, most: int) -> None:
    """Refuse what is not a whole number between `least` and `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{what} is {value!r}; use a whole number from {least} to {most}.")
