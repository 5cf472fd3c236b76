"""A gauge of prompts: what a policy can learn of a reward at each, before it is trained on any.

Where the rewards of a policy's own responses hardly vary, the gradient of the expected reward vanishes, however far the
policy is from the best it could do (2310.20703, Theorem 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from rmpipe import gradient
from rmpipe.config import Config, Runtime
from rmpipe.interval import Estimate, bootstrap, bootstrap_correlation, correlate, of_draws, share
from rmpipe.variance import matrix, whiten

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

LOW = 0.25
DRAWS = 500
FEW = 10
"""Prompts, below which a correlation over them is not told, and a norm has no interval."""
LIMITS = {"bound": gradient.bound, "tighter": gradient.cauchy_schwarz}
"""What a gradient's norm is below at a prompt: the paper's bound, and that of Cauchy and Schwarz."""


class Gauging(Config):
    """What is asked of each prompt before any training."""

    prompts: int | None = Field(None, ge=1)
    """How many, those among them whose gain is measured; None for these alone. Of the others some may be labelled."""
    responses: int = Field(32, ge=2)
    """Drawn for this alone: neither a gain nor a gradient is taken of the draws that say where a reward varies."""
    threshold: float = Field(0.05, ge=0)
    """Reward std, of the whitened reward, below which a prompt teaches nothing."""
    low: float = Field(LOW, gt=0, lt=1)
    """The share of prompts of the least std that are called low, ties at its edge among them; the others are high."""
    gradients: int | None = Field(None, ge=0)
    """The most prompts of which the gradient is taken, of the draws before training; None for all that have these."""
    bounds: int = Field(0, ge=0)
    """Of how many of these the Jacobian's norm is taken too, which the paper's bound needs: some passes a prompt."""
    places: int = Field(3, ge=1)
    """At how many places of a response."""
    answers: tuple[str, ...] = ()
    """Where these are all that can be answered: std and gradient are exact, over the policy's shares of these."""
    batch_size: Annotated[int, Runtime] = Field(64, ge=1)
    """Responses at a time."""

    @field_validator("answers")
    @classmethod
    def _to_choose_from(cls, answers: tuple[str, ...]) -> tuple[str, ...]:
        if answers and (len(answers) < 2 or len(set(answers)) < len(answers)):
            raise ValueError("all that can be answered, two at least, each once; leave it out where that is not known")
        return answers


def moments(rewards: Any, threshold: float) -> dict[str, NDArray[Any]]:
    """Mean and std of the rewards at each prompt, and whether it teaches nothing.

    Args:
        rewards: (prompts, samples), reward units.
        threshold: of the whitened reward's std.

    Returns:
        `mean`, `std` (sample), `white_std`, each (prompts,); `flat`: std under the threshold, or exactly 0.
    """
    array = matrix(rewards)
    alike = np.ptp(array, axis=1) == 0  # rounding would tell some of these apart
    std, white = (np.where(alike, 0.0, each.std(axis=1, ddof=1)) for each in (array, whiten(array)))
    return {"mean": array.mean(axis=1), "std": std, "white_std": white, "flat": (white < threshold) | alike}


def low(std: Any, cut: float = LOW) -> NDArray[np.bool_]:
    """Which prompts are of low std: at most the quantile `cut` of all, so that ties at the edge are low together.

    Args:
        std: (prompts,), reward units.
        cut: a share of the prompts.
    """
    array = np.asarray(std, dtype=np.float64)
    found: NDArray[np.bool_] = array <= np.quantile(array, cut, method="lower")
    return found


def numbers(table: pd.DataFrame, cut: float = LOW) -> dict[str, Estimate]:
    """What is told of a policy and a reward over all prompts, each with an interval over prompts where it has one.

    Args:
        table: std, mean, flat, a row a prompt; `squared`, the unbiased estimate of the square of the gradient's norm
            from other draws than the std, and `bound` and `tighter`, the same over the square of what limits the norm;
            NaN where they were not taken.
        cut: as in `low`.

    Returns:
        `flat`, `zero` (shares of prompts), `mean`, `mean_low`, `mean_high`, `std`, `std_low`, `std_high`, `cut` (the
        std that parts them); of the gradient's norm `norm_low` and `norm_high` (roots of mean squares that noise does
        not raise; near 0 such a root is still a little too large), `norm_gap` and `ratio` (high less low, low over
        high), `spearman` and `pearson` of its square with the std and its square, `exponent` (how the norm grows with
        the std), `bound`, `tighter` (root means). NaN where it is not known.
    """
    few = low(table["std"], cut)
    std, mean = (table[name].to_numpy(float) for name in ("std", "mean"))
    found = {"flat": share(table["flat"].astype(float)), "zero": share((std == 0).astype(float))}
    found |= {"mean": bootstrap(mean), "mean_low": _mean(mean[few]), "mean_high": _mean(mean[~few])}
    found |= {"std": bootstrap(std)}
    found |= {"std_low": _mean(std[few]), "std_high": _mean(std[~few]), "cut": Estimate(float(std[few].max()))}
    return found | _of_gradients(table.assign(low=few)[table["squared"].notna()])


def _of_gradients(table: pd.DataFrame) -> dict[str, Estimate]:
    few = table["low"].to_numpy(bool)
    std, squared = (table[name].to_numpy(float) for name in ("std", "squared"))
    found = {"norm_low": _root_mean(squared[few]), "norm_high": _root_mean(squared[~few])}
    found |= _apart(squared[few], squared[~few])
    found |= {"spearman": related(std, squared), "pearson": related(std**2, squared, "pearson")}
    enough = len(table) >= FEW and (squared > 0).any()
    found["exponent"] = gradient.exponent_of_squares(std, squared) if enough else Estimate(np.nan)
    for name in LIMITS:
        found[name] = _root_mean(table[name][np.isfinite(table[name])].to_numpy())
    return found


def _apart(low: NDArray[np.float64], high: NDArray[np.float64]) -> dict[str, Estimate]:
    """How far the norms of both sides are apart, each side drawn by itself; no interval where one is of few prompts."""
    if not len(low) or not len(high):
        return {"norm_gap": Estimate(np.nan), "ratio": Estimate(np.nan)}
    random, found = np.random.default_rng(0), []
    for side in (low, high):
        drawn = side[random.integers(len(side), size=(DRAWS, len(side)))].mean(axis=1)
        found.append(np.sqrt(np.maximum(np.append(side.mean(), drawn), 0.0)))
    least, most = found
    told = {"norm_gap": most - least, "ratio": np.divide(least, most, out=np.full_like(most, np.nan), where=most > 0)}
    if min(len(low), len(high)) < FEW:
        return {name: Estimate(float(values[0])) for name, values in told.items()}
    return {
        name: of_draws(values[0], values[1:]) if np.isfinite(values[0]) else Estimate(np.nan)
        for name, values in told.items()
    }


def related(
    x: Any, y: Any, kind: Literal["pearson", "spearman"] = "spearman", *, alone: bool = True
) -> Estimate:  # fmt: skip
    """A correlation over prompts; NaN of few prompts, or where either side is constant.

    Args:
        x: (prompts,).
        y: (prompts,).
        kind: `spearman` or `pearson`.
        alone: with its interval over prompts.
    """
    left, right = np.asarray(x, float), np.asarray(y, float)
    if len(left) < FEW:
        return Estimate(np.nan)
    if not alone:
        return Estimate(float(correlate(left, right, kind)))
    found = bootstrap_correlation(left, right, kind, draws=500)
    return Estimate(found.value, found.low, found.high)


def _root_mean(squares: NDArray[np.float64]) -> Estimate:
    """The root of the mean square; 0 where noise has brought that below 0. Of few prompts it has no interval."""
    if not len(squares):
        return Estimate(np.nan)
    found = bootstrap(squares, lambda some: float(np.sqrt(max(some.mean(), 0.0))))
    return found if len(squares) >= FEW else Estimate(found.value)


def _mean(values: NDArray[np.float64]) -> Estimate:
    return bootstrap(values) if len(values) else Estimate(np.nan)
