"""Owns which columns a Kalman or regime feature can have, by model: names alone, light to import.

<output>          filtered mean of a quantity of the model (level, slope, beta_1, factor, ..), from rows up to t
<output>_se       its standard error
variance          filtered variance of the model's first quantity
predicted_mean, predicted_variance            of the observation at t, from rows before t
innovation, standardised_innovation           the observation less that mean; divided by the standard deviation
gain, half_life   weight of the observation at t in the first quantity; rows until that weight has halved
log_score         log density of the observation at t given rows before t, nats
spread_zscore     dynamic regression: the standardised innovation; ar1_plus_noise: deviation of the level from its
                  mean in stationary standard deviations
volatility        stochastic volatility: exp(log_variance / 2), per row
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ssmfin.errors import InputError, nearest

OBSERVED = (
    "variance",
    "predicted_mean",
    "predicted_variance",
    "innovation",
    "standardised_innovation",
    "gain",
    "half_life",
    "log_score",
)
JOINT = ("variance", "log_score")  # models of several observed components have no single innovation


class KalmanModel(NamedTuple):
    """What a study may ask of one Kalman model.

    Attributes:
        outputs: quantities of the model. extra: further names besides those of the observation.
        default: what is emitted where nothing is asked for. options: of its specification.
        joint: whether it sees several series at once.
    """

    outputs: tuple[str, ...]
    default: tuple[str, ...]
    options: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    joint: bool = False


KALMAN_MODELS: dict[str, KalmanModel] = {
    "local_level": KalmanModel(("level",), ("level", "innovation", "variance")),
    "local_linear_trend": KalmanModel(("level", "slope"), ("level", "slope", "innovation"), ("smooth", "damped")),
    "seasonal": KalmanModel(("level", "seasonal"), ("level", "seasonal", "innovation"), ("period",)),
    "ar1_plus_noise": KalmanModel(("level",), ("level", "innovation"), (), ("spread_zscore",)),
    "sum_of_ar1": KalmanModel(("level", "component_#"), ("level", "component_#", "innovation"), ("terms",)),
    "stochastic_volatility": KalmanModel(("log_variance",), ("log_variance",), (), ("volatility",)),
    "dynamic_regression": KalmanModel(
        ("alpha", "beta_#"), ("beta_#", "innovation", "spread_zscore"), ("intercept",), ("spread_zscore",)
    ),
    "dynamic_nelson_siegel": KalmanModel(
        ("level", "slope", "curvature"),
        ("level", "slope", "curvature"),
        ("maturities", "decay"),
        joint=True,
    ),
    "dynamic_factor": KalmanModel(("factor",), ("factor",), (), joint=True),
}

KALMAN_OPTIONS = ("smooth", "damped", "period", "terms", "intercept", "maturities", "decay")

REGIME_MODELS: dict[str, tuple[str, ...]] = {  # model -> options of its own
    "switching_mean": ("lags",),
    "switching_variance": ("lags",),
    "switching_mean_variance": ("lags",),
    "switching_autoregression": ("lags", "variance"),
    "gaussian_hmm": ("columns",),
    "switching_local_level": (),
}


def kalman_emits(model: str, emit: Sequence[str] | None, *, count: int, intercept: bool = True) -> tuple[str, ...]:
    """The columns of a Kalman feature: those asked for, checked, with `beta` and `component` written out.

    Args:
        emit: names; None: the model's defaults. count: regressors of a dynamic regression, terms of a sum of AR(1)s.
        intercept: of a dynamic regression.
    Raises:
        InputError: the model has no such column, or one is named twice.

    >>> kalman_emits("local_level", None, count=0)
    ('level', 'innovation', 'variance')
    >>> kalman_emits("dynamic_regression", ["beta", "beta_se"], count=1)
    ('beta_1', 'beta_1_se')
    """
    found = KALMAN_MODELS[model]
    outputs = [name for name in _expanded(found.outputs, count) if intercept or name != "alpha"]
    observed = JOINT if found.joint else OBSERVED
    known = [*outputs, *(f"{name}_se" for name in outputs), *observed, *found.extra]
    wanted: list[str] = []
    for name in found.default if emit is None else emit:
        family = name.removesuffix("_se")
        if f"{family}_#" in found.outputs and family not in outputs:
            family += "_#"
        wanted += _expanded((f"{family}_se" if name.endswith("_se") else family,), count)
    return _checked("emit", model, wanted, known, [*known, *_families(found.outputs)])


def regime_emits(model: str, emit: Sequence[str] | None, *, regimes: int) -> tuple[str, ...]:
    """The columns of a regime feature, likewise; `probability` stands for those of all regimes but the first.

    >>> regime_emits("switching_variance", ["probability", "entropy"], regimes=2)
    ('probability_1', 'entropy')
    """
    each = [str(k) for k in range(regimes)]
    families = ("probability", "predicted", "next")
    known = [f"{name}_{k}" for name in families for k in each]
    known += ["entropy", "expected_duration", "regime", "log_score"]
    wanted: list[str] = []
    for name in ("probability", "entropy") if emit is None else emit:
        wanted += [f"{name}_{k}" for k in each[1:]] if name in families else [name]
    return _checked("emit", model, wanted, known, [*known, *families])


def _expanded(names: Sequence[str], count: int) -> list[str]:
    """`beta_#` as beta_1 .. beta_count."""
    return [name.replace("#", str(k + 1)) for name in names for k in range(count if "#" in name else 1)]


def _families(outputs: Sequence[str]) -> list[str]:
    return [name.removesuffix("_#") + end for name in outputs if "#" in name for end in ("", "_se")]


def _checked(
    what: str, model: str, wanted: Sequence[str], known: Sequence[str], suggested: Sequence[str]
) -> tuple[str, ...]:
    for position, name in enumerate(wanted):
        if name not in known:
            raise InputError(f"{what} has {name!r}, which {model} does not give; {nearest(name, suggested)}")
        if name in wanted[:position]:
            raise InputError(f"{what} has {name!r} twice; remove one of them.")
    if not wanted:
        raise InputError(f"{what} is empty; name at least one column ({', '.join(suggested)}).")
    return tuple(wanted)


def check_kalman_options(
    model: str, options: dict[str, Any], *, regressors: Sequence[str], columns: Sequence[str] | None
) -> None:
    """Refuse an option that the model does not have, or lacks what it needs.

    Raises:
        InputError: naming the option and what to do.
    """
    own = KALMAN_MODELS[model].options
    for name, value in options.items():
        if value is not None and name not in own:
            has = f"it has {', '.join(own)}" if own else "it has no options"
            raise InputError(f"{name} is {value!r}, which {model} does not have ({has}); leave it out.")
    if (model == "dynamic_regression") != bool(regressors):
        if regressors:
            raise InputError(f"regressors are {list(regressors)}, but {model} has none; use dynamic_regression.")
        raise InputError("regressors are empty, and dynamic_regression needs one or more; name columns of the panel.")
    if columns and not KALMAN_MODELS[model].joint:
        raise InputError(f"columns are {list(columns)}, but {model} observes one column; use `column`.")
    if model == "dynamic_nelson_siegel":
        maturities = options["maturities"]
        if not maturities or not columns or len(maturities) != len(columns):
            raise InputError(
                f"dynamic_nelson_siegel has columns {list(columns or ())} and maturities {list(maturities or ())}; "
                "give one column of yields for each maturity."
            )


def check_regime_options(model: str, options: dict[str, Any], *, regimes: int) -> None:
    """Refuse an unknown model, an option that it does not have, or a number of regimes out of range.

    Raises:
        InputError: naming the option and what to do.
    """
    if model not in REGIME_MODELS:
        raise InputError(f"model is {model!r}; {nearest(model, REGIME_MODELS)}")
    if isinstance(regimes, bool) or not isinstance(regimes, int) or not 2 <= regimes <= 4:
        raise InputError(f"regimes is {regimes!r}; give 2, 3 or 4.")
    own = REGIME_MODELS[model]
    for name, value in options.items():
        if value is not None and name not in own:
            has = f"it has {', '.join(own)}" if own else "it has no options"
            raise InputError(f"{name} is {value!r}, which {model} does not have ({has}); leave it out.")
    if model == "gaussian_hmm" and not options.get("columns"):
        raise InputError("gaussian_hmm has no columns; name one or more columns of the panel in `columns`.")
