"""Owns what a fit of regimes leaves: parameters, status, reason and numbering of every series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmfin.classical.regime.kinds import specification
from ssmfin.classical.regime.model import Specification
from ssmfin.errors import InputError

CONVERGED, NOT_CONVERGED, FAILED, GIVEN = "converged", "not_converged", "failed", "given"
ORDERED = "ordered"


@dataclass(frozen=True)
class RegimeFit:
    """Parameters of B series under one specification, and how they were found; K regimes, N parameters.

    Attributes:
        specification: the model.
        parameters: (B, N), user's units, in the order of specification.parameter_names; NaN where failed.
        log_likelihood: (B,) nats; NaN where failed or given.
        status: (B,) of str: converged; not_converged (the best point found: use with care); failed (no parameters);
            given (`RegimeFit.at`).
        reason: B strings, empty where there is nothing to say.
        matching: B strings: "ordered", "matched", or why the regimes could not be matched to those of `previous`.
        iterations: (B,) steps of the optimiser, of the start that won.
        observations: (B,) rows used.
        standard_errors: (B, N) by the observed information, NaN at a border; None unless asked for.
    """

    specification: Specification
    parameters: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray
    reason: tuple[str, ...]
    matching: tuple[str, ...]
    iterations: np.ndarray
    observations: np.ndarray
    standard_errors: np.ndarray | None = None

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return self.specification.parameter_names

    @property
    def usable(self) -> np.ndarray:
        """(B,) bool: has parameters."""
        return np.asarray(np.isfinite(self.parameters).all(1))

    @property
    def transition(self) -> np.ndarray:
        """(B, K, K), P(s_{t+1} = j | s_t = i) at [i, j]."""
        return self.specification.transition(self.parameters)

    def select(self, index: Sequence[int] | np.ndarray | slice) -> RegimeFit:
        """The series of an index, in its order."""
        rows = np.arange(len(self.reason))[index if isinstance(index, slice) else np.asarray(index)]
        return RegimeFit(
            self.specification,
            self.parameters[rows],
            self.log_likelihood[rows],
            self.status[rows],
            tuple(self.reason[int(b)] for b in rows),
            tuple(self.matching[int(b)] for b in rows),
            self.iterations[rows],
            self.observations[rows],
            None if self.standard_errors is None else self.standard_errors[rows],
        )

    @classmethod
    def at(cls, spec: Specification, parameters: Any) -> RegimeFit:
        """Known parameters (B, N) instead of fitted ones; a row of NaN is a series without.

        Raises:
            InputError: the shape does not fit, rows of a transition matrix do not sum to one, a variance is not
                positive.
        """
        values = np.array(parameters, dtype=np.float64)
        names = spec.parameter_names
        if values.ndim == 1:
            values = values[None]
        if values.ndim != 2 or values.shape[1] != len(names):
            raise InputError(
                f"parameters of {spec.kind} have shape {values.shape}; give (series, {len(names)}): {', '.join(names)}."
            )
        B = len(values)
        has = np.asarray(np.isfinite(values).all(1))
        transition = spec.transition(values[has])
        if (transition < 0).any() or (np.abs(transition.sum(2) - 1) > 1e-8).any():
            raise InputError("a row of a transition matrix is no distribution; give probabilities that sum to one.")
        variances = spec.signature(values[has])[1]
        if not (variances > 0).all():
            raise InputError(f"a variance is {variances.min():g}; give positive ones.")
        return cls(
            spec,
            values,
            np.full(B, np.nan),
            np.where(has, GIVEN, FAILED),
            tuple("" if row else "has no parameters." for row in has),
            ("as given",) * B,
            np.zeros(B, dtype=np.int64),
            np.zeros(B, dtype=np.int64),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it: NaN becomes null."""
        return {
            "specification": self.specification.to_dict(),
            "parameter_names": list(self.parameter_names),
            "parameters": nulls(self.parameters),
            "log_likelihood": nulls(self.log_likelihood),
            "status": [str(s) for s in self.status],
            "reason": list(self.reason),
            "matching": list(self.matching),
            "iterations": self.iterations.tolist(),
            "observations": self.observations.tolist(),
            "standard_errors": None if self.standard_errors is None else nulls(self.standard_errors),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> RegimeFit:
        """The inverse of `to_dict`.

        Raises:
            InputError: something is missing, or does not fit the specification.
        """
        try:
            spec = specification(**saved["specification"])
            B, N = len(saved["parameters"]), len(spec.parameter_names)
            errors = saved["standard_errors"]
            return cls(
                spec,
                numbers(saved["parameters"], (B, N)),
                numbers(saved["log_likelihood"], (B,)),
                np.array(saved["status"], dtype=np.str_).reshape(B),
                tuple(saved["reason"]),
                tuple(saved["matching"]),
                np.array(saved["iterations"], dtype=np.int64).reshape(B),
                np.array(saved["observations"], dtype=np.int64).reshape(B),
                None if errors is None else numbers(errors, (B, N)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the saved regime fit is unreadable ({error}); fit again and use to_dict.") from None


def nulls(values: np.ndarray) -> list[Any]:
    """Nested lists with None for what is not finite."""
    found: list[Any] = np.where(np.isfinite(values), values.astype(object), np.array(None)).tolist()
    return found


def numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `nulls`, of this shape."""
    return np.array(values, dtype=np.float64).reshape(shape)
