"""Owns the bootstrap particle filter of one latent state, over many series at once, and its random numbers.

At each step, with particles x^j of weight W^j and the density g of the observation given the state:

    x_t^j ~ f(. | x_{t-1}^j),   w^j = W^j g(y_t | x_t^j),   log p(y_t | past) ~ log sum_j w^j,   W^j <- w^j / sum w

and when the effective sample size 1 / sum W^2 falls below a threshold, systematic resampling: particle j is kept as
often as a comb of M teeth of distance 1 / M and one uniform offset hits its stretch of the cumulated weights. The
product of the sums is an unbiased estimate of the likelihood (Del Moral, 2004, proposition 7.4.1), so its log is biased
down by about half its variance.

The random numbers of a step are a function of (seed, id, step) alone: Philox, a counter-based generator (Salmon et al.,
2011), with the key from (seed, id) and the step in the counter. A series' result therefore depends neither on the
others in the batch nor on where a run was interrupted, nor on data after t.

Shapes: B series, T time, M particles, Q quantiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssmfin.errors import InputError

FloatArray = np.ndarray  # float64
Values = Mapping[str, FloatArray]

# Particles of one block of series: 256 kB an array, so that a step's dozen passes stay in the cache.
_BLOCK = 1 << 15


class ParticleModel(NamedTuple):
    """A state-space model with one latent state, as functions over arrays of particles.

    Attributes:
        initial: (normals (b, M), parameters) -> (b, M) draws of the first state.
        transition: (particles (b, M), normals (b, M), parameters) -> (b, M) draws of the next state.
        log_density: (y (b, 1), particles (b, M), parameters) -> (b, M), log g(y | state). Not finite counts as
            impossible.

    `normals` are independent standard normal; parameters come by name as (b, 1).
    """

    initial: Callable[[FloatArray, Values], FloatArray]
    transition: Callable[[FloatArray, FloatArray, Values], FloatArray]
    log_density: Callable[[FloatArray, FloatArray, Values], FloatArray]


class ParticleState(NamedTuple):
    """What a run that goes on starts from.

    Attributes:
        particles: (B, M). log_weights: (B, M), normalised.
        step: steps taken so far. keys: (B, 2) uint64, the series' random streams.
    """

    particles: FloatArray
    log_weights: FloatArray
    step: int
    keys: np.ndarray


class ParticleFiltered(NamedTuple):
    """What `bootstrap_filter` returns, given y_1 .. y_t unless a name says predicted (given y_1 .. y_{t-1}).

    Attributes:
        mean: (B, T) of the state. variance: (B, T).
        quantiles: (B, T, Q), the smallest particle at which the cumulated weight reaches the level.
        moments: by name (B, T), means of the functions asked for. predicted_moments: likewise.
        effective_size: (B, T), 1 / sum W^2, before resampling.
        log_likelihood: (B,); -inf where an observation was impossible for every particle (its weights then stay).
        log_likelihood_steps: (B, T); 0 where missing.
        carry: the state after the last step.
    """

    mean: FloatArray
    variance: FloatArray
    quantiles: FloatArray
    moments: dict[str, FloatArray]
    predicted_moments: dict[str, FloatArray]
    effective_size: FloatArray
    log_likelihood: FloatArray
    log_likelihood_steps: FloatArray
    carry: ParticleState


def bootstrap_filter(
    y: FloatArray,
    model: ParticleModel,
    *,
    parameters: Mapping[str, FloatArray | float] | None = None,
    particles: int = 1000,
    seed: int = 0,
    ids: Sequence[object] | None = None,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    moments: Mapping[str, Callable[[FloatArray], FloatArray]] | None = None,
    resample_below: float = 0.5,
    carry: ParticleState | None = None,
) -> ParticleFiltered:
    """Bootstrap particle filter of many series of one column.

    Args:
        y: (B, T), NaN where missing.
        model: the state-space model.
        parameters: what its functions read by name, scalars or (B,).
        particles: M, for each series. seed: of all random numbers.
        ids: (B,) names of the series, from which their random streams derive; None for their positions. A series that
            is to give the same result in another batch needs its own id there too.
        quantiles: levels in (0, 1) of the filtered state; an empty sequence saves the sort (about a third of the time).
        moments: functions of the particles, elementwise, whose means are wanted.
        resample_below: resample when the effective sample size is below this share of M; 1 for every step.
        carry: the `carry` of an earlier run, to go on from there; particles, seed and ids are then its own.
    Returns:
        ParticleFiltered. Values at t depend on y up to t alone, bit for bit.
    Raises:
        InputError: a shape does not fit, a value is infinite, or an argument is out of its range.
    References:
        Gordon, Salmond, Smith (1993); Durbin & Koopman (2012), section 12.4; systematic resampling: Carpenter,
        Clifford, Fearnhead (1999).
    """
    y, values = _checked(y, parameters or {}, particles, quantiles, resample_below)
    B, T = y.shape
    start = _start(B, particles, seed, ids) if carry is None else carry
    if start.particles.shape[0] != B:
        raise InputError(f"carry has {start.particles.shape[0]} series and y has {B}; give both the same series.")
    functions = dict(moments or {})
    M = start.particles.shape[1]
    out = ParticleFiltered(
        np.empty((B, T)),
        np.empty((B, T)),
        np.empty((B, T, len(quantiles))),
        {name: np.empty((B, T)) for name in functions},
        {name: np.empty((B, T)) for name in functions},
        np.empty((B, T)),
        np.empty(B),
        np.zeros((B, T)),
        ParticleState(start.particles.copy(), start.log_weights.copy(), start.step + T, start.keys.copy()),
    )
    levels = np.asarray(quantiles, dtype=float)
    height = max(1, _BLOCK // M)
    for first in range(0, B, height):
        rows = slice(first, min(first + height, B))
        block = {name: value[rows] for name, value in values.items()}
        _filter_block(y[rows], model, block, rows, start.step, levels, functions, resample_below * M, out)
    out.log_likelihood[:] = out.log_likelihood_steps.sum(axis=1)
    return out


def stream_keys(seed: int, ids: Sequence[object]) -> np.ndarray:
    """(B, 2) uint64 keys of independent random streams, a function of the seed and of each id as text.

    >>> keys = stream_keys(7, ["SPX", "DAX"])
    >>> bool((keys[1] == stream_keys(7, ["DAX"])[0]).all())
    True
    """
    digests = b"".join(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:16] for name in ids)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def _filter_block(
    y: FloatArray,
    model: ParticleModel,
    parameters: Values,
    rows: slice,
    steps_before: int,
    levels: FloatArray,
    functions: Mapping[str, Callable[[FloatArray], FloatArray]],
    resample_below: float,
    out: ParticleFiltered,
) -> None:
    """Filter a block of series and write its rows of `out`; `out.carry` holds their start."""
    T = y.shape[1]
    x, log_w = out.carry.particles[rows], out.carry.log_weights[rows]
    keys = out.carry.keys[rows]
    M = x.shape[1]
    for t in range(T):
        step = steps_before + t
        normals, offsets = _draw(keys, step, M)
        x = model.initial(normals, parameters) if step == 0 else model.transition(x, normals, parameters)
        weights = np.exp(log_w)
        for name, function in functions.items():
            out.predicted_moments[name][rows, t] = (weights * function(x)).sum(axis=1)
        observation = y[:, t : t + 1]
        density = model.log_density(observation, x, parameters)
        density = np.where(np.isfinite(density), density, -np.inf)
        seen = ~np.isnan(observation)
        log_w, out.log_likelihood_steps[rows, t] = _reweighted(log_w, np.where(seen, density, 0.0), seen[:, 0])
        weights = np.exp(log_w)
        size = 1.0 / (weights * weights).sum(axis=1)
        out.effective_size[rows, t] = size
        mean = (weights * x).sum(axis=1)
        out.mean[rows, t] = mean
        out.variance[rows, t] = (weights * (x - mean[:, None]) ** 2).sum(axis=1)
        for name, function in functions.items():
            out.moments[name][rows, t] = (weights * function(x)).sum(axis=1)
        if len(levels):
            out.quantiles[rows, t] = _quantiles(x, weights, levels)
        thin = np.flatnonzero(size < resample_below)
        if len(thin):
            x[thin] = _resampled(x[thin], weights[thin], offsets[thin])
            log_w[thin] = -np.log(M)
    out.carry.particles[rows], out.carry.log_weights[rows] = x, log_w


def _draw(keys: np.ndarray, step: int, particles: int) -> tuple[FloatArray, FloatArray]:
    """Normals (b, M) and uniform offsets (b,) of one step."""
    normals, offsets = np.empty((len(keys), particles)), np.empty(len(keys))
    stream = np.random.Philox(0)
    generator = np.random.Generator(stream)
    state = stream.state
    for row, key in enumerate(keys):  # setting the state takes a sixth of the time of a new generator
        state["state"] = {"key": key, "counter": np.array([0, 0, step, 0], dtype=np.uint64)}
        stream.state = state
        offsets[row] = generator.random()
        generator.standard_normal(out=normals[row])
    return normals, offsets


def _reweighted(log_w: FloatArray, density: FloatArray, seen: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Normalised log weights (b, M) after an observation and its log predictive density (b,)."""
    joint = log_w + density
    top = joint.max(axis=1)
    possible = np.isfinite(top)
    top = np.where(possible, top, 0.0)
    with np.errstate(divide="ignore"):  # log 0 = -inf where impossible
        step = top + np.log(np.exp(joint - top[:, None]).sum(axis=1))
    changed = possible & seen
    log_w = np.where(changed[:, None], joint - np.where(changed, step, 0.0)[:, None], log_w)
    return log_w, np.where(seen, step, 0.0)


def _quantiles(x: FloatArray, weights: FloatArray, levels: FloatArray) -> FloatArray:
    """(b, Q) weighted quantiles of particles."""
    order = np.argsort(x, axis=1)
    cumulated = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    below = np.stack([(cumulated < level).sum(axis=1) for level in levels], axis=1)
    places = np.minimum(below, x.shape[1] - 1)  # the cumulated weight may end a rounding error below 1
    return np.take_along_axis(x, np.take_along_axis(order, places, axis=1), axis=1)


def _resampled(x: FloatArray, weights: FloatArray, offsets: FloatArray) -> FloatArray:
    """Systematic resampling of every row: teeth (i + u) / M, i = 0 .. M - 1, counted below each cumulated weight."""
    b, M = x.shape
    below = np.ceil(M * np.cumsum(weights, axis=1) - offsets[:, None]).astype(np.int64)
    below[:, -1] = M
    below = np.clip(below, 0, M)
    copies = np.diff(below, axis=1, prepend=0)
    return np.repeat(x.reshape(-1), copies.reshape(-1)).reshape(b, M)


def _start(series: int, particles: int, seed: int, ids: Sequence[object] | None) -> ParticleState:
    names: Sequence[object] = range(series) if ids is None else ids
    if len(names) != series:
        raise InputError(f"ids has {len(names)} entries for {series} series; give one id a series.")
    if len({str(name) for name in names}) != series:
        raise InputError("ids repeat; give each series its own, or two series share their random numbers.")
    zeros = np.zeros((series, particles))
    return ParticleState(zeros, zeros - np.log(particles), 0, stream_keys(seed, names))


def _checked(
    y: FloatArray,
    parameters: Mapping[str, FloatArray | float],
    particles: int,
    quantiles: Sequence[float],
    resample_below: float,
) -> tuple[FloatArray, dict[str, FloatArray]]:
    y = np.asarray(y, dtype=float)
    if y.ndim != 2:
        raise InputError(f"y has shape {y.shape}; use (series, time).")
    if np.isinf(y).any():
        b, t = map(int, np.argwhere(np.isinf(y))[0])
        raise InputError(f"y is infinite at series {b}, step {t}; use NaN where it is missing.")
    if particles < 2:
        raise InputError(f"particles is {particles}; use at least 2, usually 500 or more.")
    if not all(0.0 < level < 1.0 for level in quantiles):
        raise InputError(f"quantiles are {tuple(quantiles)}; use levels between 0 and 1.")
    if not 0.0 < resample_below <= 1.0:
        raise InputError(f"resample_below is {resample_below}; use a share of the particles in (0, 1].")
    values = {}
    for name, value in parameters.items():
        array = np.asarray(value, dtype=float)
        if array.shape not in ((), (1,), (len(y),)) or not np.isfinite(array).all():
            raise InputError(
                f"parameters[{name!r}] is {np.array2string(array, threshold=4)}, of shape {array.shape}; "
                f"use finite values, one or {len(y)} (one a series)."
            )
        values[name] = np.broadcast_to(array, (len(y),))[:, None]
    return y, values
