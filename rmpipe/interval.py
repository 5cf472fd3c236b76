"""Numbers with intervals: what was measured, and how far it can be trusted.

Prompts are the unit within a run, seeds between runs, reward models in a correlation: an interval speaks only of the
unit that it was drawn over. All are two-sided 95 % unless told otherwise, and none is corrected for how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval; an end that cannot be known is NaN."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def json(self) -> dict[str, Any] | None:
        """`{"value", "low", "high"}`, null for an end that is not known; null as a whole without a value."""
        if not math.isfinite(self.value):
            return None
        ends = {"low": self.low, "high": self.high}
        return {"value": float(self.value)} | {name: float(x) if math.isfinite(x) else None for name, x in ends.items()}

    @classmethod
    def of(cls, number: dict[str, Any]) -> Estimate:
        """From what `json` gives."""
        return cls(number["value"], *(math.nan if number[end] is None else number[end] for end in ("low", "high")))

    def __str__(self) -> str:
        if not math.isfinite(self.low) or not math.isfinite(self.high):
            return _two_decimals(self.value)
        return f"{_two_decimals(self.value)} [{_two_decimals(self.low)}, {_two_decimals(self.high)}]"


@dataclass(frozen=True)
class Correlation(Estimate):
    """A correlation over `n` units; `undefined` is the share of resamples that had none and were left out."""

    n: int = 0
    undefined: float = 0.0

    def json(self) -> dict[str, Any] | None:
        """As `Estimate.json`, with `n` and `undefined`."""
        numbers = super().json()
        return numbers and numbers | {"n": self.n, "undefined": round(self.undefined, 4)}


def bootstrap(
    values: ArrayLike, statistic: Callable[[NDArray[np.float64]], Any] = np.mean, *, seed: int = 0, draws: int = 2000,
    level: float = LEVEL,
) -> Estimate:  # fmt: skip
    """A statistic with its percentile bootstrap interval, units resampled with replacement.

    Args:
        values: `(units,)` or `(units, columns)`: one row a prompt (or pair).
        statistic: from rows to one number.
        seed: of the resampling.
        draws: how many resamples.
        level: of the interval.

    Returns:
        The estimate. NaN in, NaN out: a unit that is not known is not left out silently. A single unit has no interval.

    Raises:
        ValueError: no units.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or not len(array):
        raise ValueError(f"expected one row a unit, at least one, got shape {array.shape}")
    value = float(statistic(array))
    if len(array) < 2 or not math.isfinite(value):
        return Estimate(value)
    random = np.random.default_rng(seed)
    resampled = [float(statistic(array[random.integers(len(array), size=len(array))])) for _ in range(draws)]
    return Estimate(value, *_percentiles(resampled, level))


def of_draws(value: float, draws: ArrayLike, level: float = LEVEL) -> Estimate:
    """A value with the percentiles of what resamples made of it; one that made no number is left out.

    Args:
        value: of the sample itself.
        draws: `(draws,)`.
        level: of the interval, which has no ends where no draw is a number.
    """
    array = np.asarray(draws, dtype=np.float64)
    known = array[np.isfinite(array)]
    return Estimate(float(value), *_percentiles(known, level)) if len(known) else Estimate(float(value))


def clustered(
    values: ArrayLike, clusters: Sequence[Any], statistic: Callable[[NDArray[np.float64]], Any] = np.mean, *,
    seed: int = 0, draws: int = 2000, level: float = LEVEL,
) -> Estimate:  # fmt: skip
    """As `bootstrap`, with rows of one cluster (pairs of one prompt) drawn together, for they are not independent.

    Args:
        values: `(rows,)` or `(rows, columns)`.
        clusters: `(rows,)`, what each row belongs to.
    """
    array = np.asarray(values, dtype=np.float64)
    members: dict[Any, list[int]] = {}
    for row, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(row)
    if len(members) == len(array):
        return bootstrap(array, statistic, seed=seed, draws=draws, level=level)
    groups = [np.array(rows) for rows in members.values()]
    places = np.arange(len(groups), dtype=np.float64)

    def gathered(drawn: NDArray[np.float64]) -> Any:
        return statistic(array[np.concatenate([groups[int(place)] for place in drawn])])

    return bootstrap(places, gathered, seed=seed, draws=draws, level=level)


def share(
    values: ArrayLike, clusters: Sequence[Any] | None = None, *, seed: int = 0, draws: int = 2000, level: float = LEVEL
) -> Estimate:
    """A share of units with its bootstrap interval, exact where all units are 0, or all are 1.

    Every resample is like the others there, and the bootstrap's interval would have no width. The exact one (Clopper
    and Pearson, 1934, Biometrika 26, 404-413) is then [a^(1/n), 1], or [0, 1 - a^(1/n)], a half of 1 - level, n units.

    Args:
        values: `(rows,)`, each from 0 to 1.
        clusters: as in `clustered`, n being how many there are; None where each row is a unit.
    """
    array = np.asarray(values, dtype=np.float64)
    clusters = range(len(array)) if clusters is None else clusters
    if not len(array) or array.min() != array.max() or array[0] not in (0, 1):
        return clustered(array, clusters, seed=seed, draws=draws, level=level)
    least = ((1 - level) / 2) ** (1 / len(set(clusters)))
    return Estimate(1.0, least, 1.0) if array[0] else Estimate(0.0, 0.0, 1 - least)


def t_interval(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """The mean of independent runs with Student's interval: wide with three, and honestly so.

    Args:
        values: `(runs,)`, usually one a seed. A single run has no interval.
        level: of the interval.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected (runs,), at least one, got shape {array.shape}")
    mean = float(array.mean())
    if len(array) < 2:
        return Estimate(mean)
    from scipy.special import stdtrit

    half = float(stdtrit(len(array) - 1, (1 + level) / 2) * array.std(ddof=1) / math.sqrt(len(array)))
    return Estimate(mean, mean - half, mean + half)


def paired_t(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Estimate:
    """The mean of a - b over runs that share a seed, with Student's interval: what is common to a seed cancels."""
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"expected the same runs in the same order, got shapes {left.shape} and {right.shape}")
    return t_interval(left - right, level)


def bootstrap_correlation(
    x: ArrayLike, y: ArrayLike, kind: Literal["pearson", "spearman"] = "spearman", draws: int = 2000, seed: int = 0
) -> Correlation:  # fmt: skip
    """A correlation over few units (reward models) with its percentile bootstrap interval.

    A resample in which either side is constant has no correlation: it is left out, and `undefined` says how many were.
    Below three units there is no value, for two points always correlate at 1 or -1. A perfect correlation has no
    interval: its resamples are all perfect too, which says nothing. With five or so the interval is itself rough; it is
    shown because a bare number would claim more.

    Args:
        x: `(units,)`.
        y: `(units,)`.
        kind: `"pearson"`, or `"spearman"` (ties get the mean of their ranks).
        draws: how many resamples.
        seed: of the resampling.
    """
    pair = np.stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    n = pair.shape[1]
    value = float(correlate(pair[0], pair[1], kind)) if n >= 3 else math.nan
    if not math.isfinite(value) or abs(value) > 1 - 1e-12:
        return Correlation(value, n=n)
    index = np.random.default_rng(seed).integers(n, size=(draws, n))
    resampled = correlate(pair[0][index], pair[1][index], kind)
    known = resampled[np.isfinite(resampled)]
    return Correlation(value, *_percentiles(known, LEVEL), n=n, undefined=1 - len(known) / draws)


def correlate(x: NDArray[np.float64], y: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """Correlation along the last axis; NaN where either side is constant."""
    if kind not in ("pearson", "spearman"):
        raise ValueError(f"kind: expected 'pearson' or 'spearman', got {kind!r}")
    if kind == "spearman":
        from scipy.stats import rankdata

        x, y = rankdata(x, axis=-1), rankdata(y, axis=-1)
    varies = (np.ptp(x, axis=-1) > 0) & (np.ptp(y, axis=-1) > 0)
    x, y = (array - array.mean(axis=-1, keepdims=True) for array in (x, y))
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    # Rounding may carry a perfect correlation a hair beyond 1.
    return np.where(varies, np.clip((x * y).sum(axis=-1) / np.where(varies, scale, 1.0), -1, 1), math.nan)


def _percentiles(values: list[float] | NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _two_decimals(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # + 0.0 turns -0.0 into 0.0
