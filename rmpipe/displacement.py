"""Displacement: what training on preference pairs did to likelihoods, and what foretold it.

Likelihood displacement (2410.08847, Definition 1): the loss falls, and with it the mean log pi(y+) of the preferred
responses. Arrays in, numbers out; log-probabilities are in nats, of whole responses unless told otherwise.

A rank correlation with a similarity stands beside the same given the difference in length (`partial_spearman`), since a
sum over tokens knows lengths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rmpipe.accuracy import ranking_accuracy
from rmpipe.interval import correlate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

By = Literal["prob", "logprob"]

ROUNDING = 1e-9  # what may be left of the variance of ranks that another order explains whole


# -- likelihoods of responses -----------------------------------------------------------------------------------------


def displaced(before: ArrayLike, after: ArrayLike) -> NDArray[np.bool_]:
    """Whether each response has become strictly less likely, (n,).

    Args:
        before: (n,), nats.
        after: (n,), nats.
    """
    earlier, later = _columns(before=before, after=after)
    return later < earlier


def preference_accuracy(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """The share of pairs whose preferred response is the likelier one; a tie is wrong.

    Args:
        chosen: (n,), nats.
        rejected: (n,), nats.
    """
    return float(ranking_accuracy(chosen, rejected, "both").mean())


def largest_decrease(values: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The largest fall between any two steps of a run, the first of equal ones (2410.08847, Table 1).

    Args:
        values: (runs, steps + 1), usually pi(y+ | x), the first column before training.

    Returns:
        the steps at which it starts and ends, (runs,), and the change, (runs,), 0 or below; a run that never falls has
        0, 0 and 0.

    Raises:
        ValueError: not two-dimensional, empty, or not finite.
    """
    runs = np.asarray(values, dtype=np.float64)
    if runs.ndim != 2 or not runs.size or not np.isfinite(runs).all():
        raise ValueError(f"expected finite (runs, steps + 1), at least one of each, got shape {runs.shape}")
    peaks = np.maximum.accumulate(runs, axis=1)
    row = np.arange(len(runs))
    end = (peaks - runs).argmax(axis=1)
    start = (runs == peaks[row, end][:, None]).argmax(axis=1)
    return start, end, runs[row, end] - runs[row, start]


# -- likelihoods of tokens --------------------------------------------------------------------------------------------


def gain_order(before: ArrayLike, after: ArrayLike, by: By = "prob") -> NDArray[np.int64]:
    """Token ids, that which gained most first, (..., vocabulary); of equal ones the lower id.

    Args:
        before: (..., vocabulary), log-probabilities of all tokens at a place, nats.
        after: the same after training.
        by: what is to have gained.
    """
    earlier, later = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    gain = np.exp(later) - np.exp(earlier) if by == "prob" else later - earlier
    return np.argsort(-gain, axis=-1, kind="stable")


def gainers(before: ArrayLike, after: ArrayLike, k: int) -> list[int]:
    """Ids of the k tokens whose probability gained most, in that order: where the mass went.

    Args:
        before: (vocabulary,), log-probabilities, nats.
        after: the same after training.
    """
    return [int(token) for token in gain_order(before, after)[:k]]


def gain_ranks(before: ArrayLike, after: ArrayLike, tokens: ArrayLike) -> dict[By, NDArray[np.int64]]:
    """How many tokens gained more than the one that training prefers: 0 for the most gained (2410.08847, appendix H).

    Args:
        before: (n, vocabulary), log-probabilities, nats.
        after: the same after training.
        tokens: (n,), ids of the preferred tokens.

    Returns:
        (n,) each, by the gain of the probability and of its logarithm.
    """
    asked = np.asarray(tokens)[:, None]
    return {by: (gain_order(before, after, by) == asked).argmax(axis=-1) for by in ("prob", "logprob")}


def unembedding_geometry(chosen: ArrayLike, rejected: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """How the unembeddings of two tokens lie to each other (2410.08847, Theorems 1 and 2: where mass goes).

    Args:
        chosen: w+, (..., width), of the preferred token.
        rejected: w-, (..., width).

    Returns:
        (...) each: `chosen_norm` |w+|; `rejected_norm` |w-|; `inner` <w+, w->; `projection` c = <w+, w-> / |w+|;
        `excess` |w+| - c; `orthogonal` |w- - c w+ / |w+||. The last three are NaN of a w+ of zeros.
    """
    plus, minus = np.asarray(chosen, dtype=np.float64), np.asarray(rejected, dtype=np.float64)
    norm, inner = np.linalg.norm(plus, axis=-1), (plus * minus).sum(axis=-1)
    known = np.where(norm > 0, norm, np.nan)
    projection = inner / known
    return {
        "chosen_norm": norm, "rejected_norm": np.linalg.norm(minus, axis=-1), "inner": inner,
        "projection": projection, "excess": norm - projection,
        "orthogonal": np.linalg.norm(minus - (projection / known)[..., None] * plus, axis=-1),
    }  # fmt: skip


# -- what a similarity foretold ---------------------------------------------------------------------------------------


def partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> NDArray[np.float64]:
    """Rank correlation of x and y along the last axis, once what the ranks of `given` explain of either is taken out.

    The correlation of the residuals of ranks, (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)). A `given` that
    does not vary explains nothing, and leaves the plain correlation.

    Args:
        x: (..., n), such as a similarity.
        y: (..., n), such as the change of log pi(y+).
        given: (..., n), such as the difference in length.

    Returns:
        (...). NaN below four units, which always correlate at 1 or -1; where x or y is constant; and where `given` has
        the order of either.
    """
    one, other, third = (np.asarray(values, dtype=np.float64) for values in (x, y, given))
    if one.shape[-1] < 4:
        return np.full(one.shape[:-1], np.nan)
    straight = correlate(one, other, "spearman")
    varies = np.ptp(third, axis=-1) > 0
    left, right = (np.where(varies, correlate(values, third, "spearman"), 0.0) for values in (one, other))
    unexplained = (1 - left**2) * (1 - right**2)
    known = (1 - left**2 > ROUNDING) & (1 - right**2 > ROUNDING)
    return np.where(known, np.clip((straight - left * right) / np.sqrt(np.where(known, unexplained, 1)), -1, 1), np.nan)


def buckets(x: ArrayLike, y: ArrayLike, quantiles: int = 4) -> list[dict[str, Any]]:
    """What became of the pairs in each part of a similarity's range, as 2410.08847's Figure 2 asks it.

    Equal similarities are never parted, so that buckets may differ in size, and one that would be empty is left out.

    Args:
        x: (n,), a similarity.
        y: (n,), the change of log pi(y+), nats.
        quantiles: how many buckets of about equal size.

    Returns:
        from the lowest similarity up: `low` and `high`, the ends of the bucket's own similarities; `n`; `mean` of y;
        `displaced`, the share of pairs whose y is below 0.
    """
    one, other = _columns(x=x, y=y)
    place = np.searchsorted(np.quantile(one, np.arange(1, quantiles) / quantiles), one)
    parts = [(one[place == bucket], other[place == bucket]) for bucket in np.unique(place)]
    return [
        {
            "low": float(mine.min()), "high": float(mine.max()), "n": len(mine), "mean": float(moved.mean()),
            "displaced": float((moved < 0).mean()),
        }
        for mine, moved in parts
    ]  # fmt: skip


def _columns(**given: ArrayLike) -> list[NDArray[np.float64]]:
    """As float64 (n,), checked: a NaN would else count as a response that did not fall, silently."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in given.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1 or not next(iter(shapes))[0]:
        told = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"expected (n,) of the same units, at least one, got {told}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ValueError(f"{name} of unit {row} is {array[row]}; it must be finite")
    return list(arrays.values())
