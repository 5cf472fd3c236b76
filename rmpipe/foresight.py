"""Foresight: what climbing a reward will do to the ground truth, told from the initial policy's samples alone.

To first order E[g] rises at the rate <grad E[r], grad E[g]> when a policy climbs r. That is the covariance, within
prompts, of r with the influence s of each sample (`slopes.influence`), and where the policy's geometry is ignored
the covariance of r with g itself. An optimiser whose steps do not grow with the reward's spread divides it by that
spread. Where the first order ends, the policy tilted to pi exp(eta r) goes on: it saturates, and turns.

All functions take `(prompts, samples)` arrays. A sample is a response drawn from the initial policy; one whose ground
truth is NaN has no label and is left out of every number, as is a prompt with fewer than two labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rmpipe import variance
from rmpipe.variance import matrix, shift_and_scale

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

Felt = Literal["plain", "whitened", "group"]

FELT = ("plain", "whitened", "group")
"""What an algorithm may feel of rewards: as they are; whitened as a whole; divided by their spread within a prompt."""
NAMES = (
    "covariance", "correlation", "ip", "ip_free", "variance", "tilted", "tilted_proxy", "kl", "ess",
)  # fmt: skip
"""What `Terms.of` tells."""
BESIDE = ("rehearsed", "rehearsed_proxy", "rehearsed_ess", "accuracy_on")
"""What it tells too, once `Terms.beside` has been told of it."""
FREE = {"correlation": ("covariance", "variance", "spread"), "ip_free": ("ip", "variance")}
"""Which of them have no scale, and what is divided by the root of what."""
ETAS = (0.0, *(2.0 ** (power / 2) for power in range(-6, 7)))
"""How far a policy is tilted along a path, inverse reward units."""
GROUP = 1e-4  # added to the spread within a prompt, as GRPO has it


# -- what is felt, and of which samples -------------------------------------------------------------------------------


def known(truth: ArrayLike) -> NDArray[np.bool_]:
    """Which samples count: those with a label, at prompts that have two or more, `(prompts, samples)`."""
    labelled = ~np.isnan(np.asarray(truth, dtype=np.float64))
    return labelled & (labelled.sum(axis=1, keepdims=True) >= 2)


def felt(rewards: ArrayLike, form: Felt = "whitened") -> NDArray[np.float64]:
    """Rewards as an algorithm feels them; within a prompt an offset means nothing.

    `whitened` is what RLHF makes of them (`variance.shift_and_scale`), by the mean and spread of all samples. `group`
    divides those by their spread within each prompt too (GRPO, 2402.03300, section 4.1.2), plus 1e-4 as TRL has it.

    Args:
        rewards: `(prompts, samples)`, reward units; a NaN stays one and does not count.
        form: one of `FELT`.

    Returns:
        `(prompts, samples)`; a constant reward becomes 0, but for `plain`.
    """
    if form not in FELT:
        raise ValueError(f"form: expected one of {', '.join(FELT)}, got {form!r}")
    array = np.asarray(rewards, dtype=np.float64)
    if form == "plain":
        return array
    counted = array[~np.isnan(array)]
    if not counted.size or np.ptp(counted) == 0:
        return array * 0
    shift, scale = shift_and_scale(counted[None])
    white = (array + shift) * scale
    return _grouped(white) if form == "group" else white


def _grouped(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less their mean, over their spread, prompt by prompt."""
    there = ~np.isnan(rewards)
    values = np.where(there, rewards - _mean(np.where(there, rewards, 0.0), there), 0.0)
    freedom = np.maximum(there.sum(axis=1, keepdims=True) - 1, 1)
    scaled = values / (np.sqrt((values**2).sum(axis=1, keepdims=True) / freedom) + GROUP)
    return np.where(there, scaled, np.nan)


def grouped(
    rewards: ArrayLike, size: int, there: ArrayLike | None = None, draws: int = 64, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What GRPO feels of each sample, on average over the groups that it may be drawn with, and how much that varies.

    The advantage in a group of so many samples of a prompt is the reward less the group's mean over its spread, plus
    1e-4 as TRL has it (2402.03300, section 4.1.2). A rare reward is alone in its group and counts for little, which the
    spread of all samples would not show.

    Args:
        rewards: `(..., prompts, samples)`.
        size: of a group; of a prompt with fewer samples all are one.
        there: `(prompts, samples)`, which samples are draws; by default all.
        draws: how often the samples of a prompt are parted into groups.
        seed: of these.

    Returns:
        the mean advantage, and its variance from group to group, each `(..., prompts, samples)`; 0 where none is there.
    """
    array = np.asarray(rewards, dtype=np.float64)
    held = np.ones(array.shape[-2:], dtype=bool) if there is None else np.asarray(there, dtype=bool)
    random, sums = np.random.default_rng([seed, *b"groups"]), np.zeros((3, *array.shape))
    for _ in range(draws):
        order = np.where(held, random.random(held.shape), 2.0).argsort(axis=1)
        for told, full, places in _advantages(np.where(held, array, 0.0), order, held.sum(axis=1), size):
            for total, values in zip(sums, (told, told**2, full), strict=True):
                np.put_along_axis(total, places, np.take_along_axis(total, places, axis=-1) + values, axis=-1)
    mean, square = sums[:2] / np.maximum(sums[2], 1)
    return mean, np.maximum(square - mean**2, 0.0)


def _advantages(
    rewards: NDArray[np.float64], order: NDArray[np.int64], count: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]]:
    """The advantages in each group of one parting, 0 where it is not whole, where it is, and the samples' places."""
    whole = np.minimum(size, np.maximum(count, 1))[:, None]
    for start in range(0, order.shape[1], size):
        group = order[:, start : start + size]
        places = np.broadcast_to(group, (*rewards.shape[:-1], group.shape[1]))
        member = np.arange(places.shape[-1]) < whole
        full = member & (start + whole <= np.maximum(count, 1)[:, None])
        values = np.take_along_axis(rewards, places, axis=-1)
        mean = (values * full).sum(axis=-1, keepdims=True) / whole
        spread = np.sqrt((((values - mean) * full) ** 2).sum(axis=-1, keepdims=True) / np.maximum(whole - 1, 1))
        yield np.where(full, (values - mean) / (spread + GROUP), 0.0), full, places


def covariance(rewards: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """As `variance.covariance`, over samples with a label: unbiased, NaN at prompts that are left out.

    Args:
        rewards: `(prompts, samples)`, reward units; finite where there is a label.
        truth: the same shape: the ground truth, or the influences of `slopes.influence`.

    Returns:
        `(prompts,)`, reward units times truth units.
    """
    there, left, right = _counted(truth, rewards, truth)
    found = np.full(len(np.asarray(truth)), np.nan)
    found[known(truth).any(axis=1)] = _covariance(left, right, there)
    return found


def _counted(truth: ArrayLike, *values: ArrayLike) -> tuple[NDArray[Any], ...]:
    """Which samples count, and values of them, at the prompts that do; a value that does not count is 0.

    Raises:
        ValueError: the shapes are not alike, or a value that counts is no number.
    """
    mask = known(truth)
    kept = mask.any(axis=1)
    found = []
    for each in map(np.asarray, values):
        if each.shape != mask.shape:
            raise ValueError(f"expected {mask.shape}, a value for each label, got {each.shape}")
        found.append(np.where(mask, each, 0.0)[kept])
        if kept.any():
            matrix(found[-1])
    return mask[kept], *found


def _mean(values: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Over the samples of a prompt that count, `(prompts, 1)`; the others must be 0."""
    return values.sum(axis=1, keepdims=True) / np.maximum(there.sum(axis=1, keepdims=True), 1)


def _covariance(left: NDArray[np.float64], right: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Within prompts: what does not count is put at the mean, where it adds nothing."""
    if not len(left):
        return np.zeros(0)
    left, right = (np.where(there, each, _mean(each, there)) for each in (left, right))
    return variance.covariance(left, right) * (left.shape[1] - 1) / (there.sum(axis=1) - 1)


# -- what is foretold -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Path:
    """What comes of a policy that is tilted ever further: means over prompts, `(etas,)` or `(draws, etas)`."""

    eta: NDArray[np.float64]
    """How far it is tilted, inverse reward units, `(etas,)`."""
    truth: NDArray[np.float64]
    """Rise of the expected ground truth, truth units."""
    proxy: NDArray[np.float64]
    """Rise of the expected reward, units of the felt reward."""
    kl: NDArray[np.float64]
    """KL from the initial policy, nats a response; with K samples at most log K."""
    ess: NDArray[np.float64]
    """Effective sample size (Kong, 1992) as a share of the samples: how far the rest can be believed."""


@dataclass(frozen=True)
class Terms:
    """What every forecast of one reward is made of, prompt by prompt, so that a resample of prompts is a product."""

    columns: dict[str, NDArray[np.float64]]
    """Of each prompt that counts: variance (of the reward), spread (variance of the truth), covariance, ip, and the
    tilted policy at eta = 1, each `(prompts,)`."""
    eta: NDArray[np.float64]
    path: NDArray[np.float64]
    """Truth, proxy, kl and ess of `Path`, `(4, etas, prompts)`."""
    kept: NDArray[np.int64]
    """Which prompts count, places among those given, `(prompts,)`."""
    labels: int
    """How many samples count."""

    @property
    def prompts(self) -> int:
        """How many prompts count."""
        return len(self.kept)

    def beside(self, **columns: ArrayLike) -> Terms:
        """With more that is told of each prompt, counted or not: what was rehearsed, or an accuracy."""
        told = {name: np.asarray(values, dtype=np.float64)[self.kept] for name, values in columns.items()}
        return replace(self, columns=self.columns | told)

    def of(self, name: str, weights: ArrayLike | None = None) -> Any:
        """What is foretold, one of `NAMES` or `BESIDE`.

        covariance: mean Cov(r, g). correlation: mean Cov(r, g) over the root of mean Var(r) times mean Var(g). ip: mean
        Cov(r, s), s the influence. ip_free: ip over the root of mean Var(r). variance: mean Var(r). tilted: the rise of
        E[g] at eta = 1. tilted_proxy, kl, ess: of the same policy, its rise of E[r], KL from the initial one and
        effective sample size. rehearsed, rehearsed_proxy and
        rehearsed_ess: at the end of a rehearsal. accuracy_on: how often pairs of samples are ordered as by the truth.

        Args:
            weights: how often each prompt counts in each of a number of resamples, `(draws, prompts)`, from
                `resamples`; the same for all rewards that are compared. None for the sample itself.

        Returns:
            a number, or `(draws,)`; 0 of a reward that does not vary, NaN of `ip` without influences, of what was
            not rehearsed, or of no prompts.
        """
        if name not in (*NAMES, *BESIDE):
            raise ValueError(f"name: expected one of {', '.join((*NAMES, *BESIDE))}, got {name!r}")
        above, *squares = FREE.get(name, (name,))
        value = self._mean(self.columns.get(above, np.full(self.prompts, np.nan)), weights)
        if squares:
            below = np.sqrt(np.prod([self._mean(self.columns[each], weights) for each in squares], axis=0))
            value = np.where(below > 0, value / np.where(below > 0, below, 1.0), 0.0 * value)
        return float(value) if weights is None else value

    def along(self, weights: ArrayLike | None = None) -> Path:
        """The path of the tilted policy, of the sample or of each resample."""
        return Path(self.eta, *(self._mean(part.T, weights) for part in self.path))

    def _mean(self, values: NDArray[np.float64], weights: ArrayLike | None) -> Any:
        """Over prompts, the first axis."""
        counts = np.ones(self.prompts) if weights is None else np.asarray(weights, dtype=np.float64)
        total = counts.sum(axis=-1).reshape(counts.shape[:-1] + (1,) * (values.ndim - 1))
        with np.errstate(invalid="ignore"):
            return (counts @ values) / total


def terms(
    rewards: ArrayLike, truth: ArrayLike, influence: ArrayLike | None = None, form: Felt = "whitened",
    etas: Sequence[float] = ETAS, *, returned: ArrayLike | None = None,
) -> Terms:  # fmt: skip
    """The terms of all forecasts of one reward.

    What whitens is a number that RLHF uses too, and it stays as it is in a resample. An inner product of two gradients
    varies with the prompts of either; where `returned` is given, a prompt's ip holds what it adds to both (the
    projections of a U-statistic: Hoeffding, 1948), so that a resample of prompts knows of both.

    Args:
        rewards: `(prompts, samples)`, reward units, of all samples: those without a label count for `form` alone.
        truth: the same shape, NaN where there is no label. For what needs none (tilted_proxy, variance) give the
            rewards themselves.
        influence: the same shape, s of `slopes.influence`, known wherever a label is.
        form: one of `FELT`, as the algorithm feels rewards.
        etas: where the tilted policy's path is looked at.
        returned: the same shape, the influence of each sample on the felt reward.

    Raises:
        ValueError: the shapes are not alike, or a labelled sample has no reward or no influence.
    """
    there, left, right = _counted(truth, felt(rewards, form), truth)
    pairs = {"variance": (left, left), "spread": (right, right), "covariance": (left, right)}
    if influence is not None:
        pairs["ip"] = left, _counted(truth, influence)[1]
    found = {"ip": np.full(len(left), np.nan)} | {name: _covariance(*pair, there) for name, pair in pairs.items()}
    whole = dict(zip(("tilted", "tilted_proxy", "kl", "ess"), _tilt(left, right, there, 1.0), strict=True))
    found |= whole
    if returned is not None:
        back = _covariance(right, _counted(truth, returned)[1], there)
        found["ip"] = found["ip"] + back - back.mean()
    path = np.stack([_tilt(left, right, there, eta) for eta in etas], axis=1)
    return Terms(
        found, np.asarray(etas, dtype=np.float64), path, np.flatnonzero(known(truth).any(axis=1)), int(there.sum())
    )


def resamples(prompts: int, draws: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """How often each prompt is in each bootstrap resample, `(draws, prompts)`; share it between rewards compared."""
    drawn = np.random.default_rng(seed).integers(max(prompts, 1), size=(draws, prompts))
    return np.stack([np.bincount(row, minlength=prompts)[:prompts] for row in drawn]).astype(np.float64)


# -- the tilted policy, and the best of n -----------------------------------------------------------------------------


def tilted(rewards: ArrayLike, truth: ArrayLike, etas: Sequence[float] = ETAS) -> Path:
    """The path of pi exp(eta r), which KL-regularised RLHF aims at, by weighing the initial policy's samples.

    Weights are normalised within each prompt, which would make rises too small by a share of 1/K, K samples; that is
    mended, so that to first order they are eta Cov(r, g). (Self-normalised importance sampling; pi exp(r / beta) is
    what maximises E[r] - beta KL, 2305.18290, equation 4.)

    Args:
        rewards: `(prompts, samples)`, as they are felt.
        truth: the same shape, NaN where there is no label.
        etas: 0 and above, inverse reward units.
    """
    return terms(rewards, truth, form="plain", etas=etas).along()


def turn(path: Path, least: float = 0.0) -> Any:
    """The eta at which the ground truth is highest, where it falls again after; NaN where it does not.

    Args:
        least: effective sample size, a share, below which a path is not followed.

    Returns:
        a number, or `(draws,)` of a path that has resamples.
    """
    truth = np.where(path.ess >= least, path.truth, -np.inf)
    place = truth.argmax(axis=-1)
    last = np.isfinite(truth).sum(axis=-1) - 1
    inside = (place > 0) & (place < last)
    found = np.where(inside, path.eta[place], np.nan)
    return float(found) if found.ndim == 0 else found


def _tilt(
    rewards: NDArray[np.float64], truth: NDArray[np.float64], there: NDArray[np.bool_], eta: float
) -> NDArray[np.float64]:
    """Rise of truth and proxy, KL and effective share at each prompt, `(4, prompts)`."""
    weights, highest = _weights(rewards, there, eta)
    total = weights.sum(axis=1, keepdims=True)
    shares, count = weights / total, there.sum(axis=1)
    spare = count / (count - 1)
    truths, proxies = (spare * ((shares * each).sum(axis=1) - _mean(each, there)[:, 0]) for each in (truth, rewards))
    kl = eta * ((shares * rewards).sum(axis=1) - highest[:, 0]) - np.log(total[:, 0] / count)
    return np.stack([truths, proxies, np.maximum(kl, 0.0), 1 / (count * (shares**2).sum(axis=1))])


def _weights(
    rewards: NDArray[np.float64], there: NDArray[np.bool_], eta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """exp(eta r), 1 at the reward where it is highest, 0 where nothing counts; and that reward."""
    highest = np.where(there, rewards, -np.inf).max(axis=1, keepdims=True)
    return np.where(there, np.exp(eta * np.minimum(rewards - highest, 0.0)), 0.0), highest


@cache
def shown(share: float, samples: int) -> float:
    """The effective share that so few samples show, on average, where infinitely many would show `share`.

    Few samples hide how far a policy went, since those that would tell are not among them. Of log-normal weights, by
    draws that are always the same.

    Args:
        share: above 0, at most 1.
        samples: two or more.
    """
    spread = np.sqrt(-np.log(share))
    weights = np.exp(spread * np.random.default_rng(0).normal(size=(4096, samples)))
    return float((weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)).mean() / samples)


def best_of_n(
    rewards: ArrayLike, truth: ArrayLike, counts: Sequence[int], weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Expected ground truth of the response that the reward likes best of n, exact over all subsets of the samples.

    Of K samples, h of which have no higher reward, the highest of n drawn without replacement has no higher reward with
    probability C(h, n) / C(K, n). Samples that tie share what falls to them.

    Args:
        rewards: `(prompts, samples)`, any units.
        truth: the same shape, NaN where there is no label.
        counts: values of n. Prompts with fewer labels than the largest are left out at all.
        weights: as in `Terms.of`, of the prompts that are not left out.

    Returns:
        `(counts,)`, or `(draws, counts)`, truth units; NaN where no prompt is left.
    """
    there, left, right = _counted(truth, rewards, truth)
    enough = there.sum(axis=1) >= max(counts)
    left, right, there = left[enough], right[enough], there[enough]
    values = np.where(there, left, np.inf)
    below = (values[:, None, :] < values[:, :, None]).sum(axis=2)
    level = (values[:, None, :] <= values[:, :, None]).sum(axis=2)
    found = np.stack([_best(right, there, below, level, n) for n in counts], axis=-1)
    shares = np.ones(len(left)) if weights is None else np.asarray(weights, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return shares @ found / shares.sum(axis=-1, keepdims=True)


def _best(
    truth: NDArray[np.float64], there: NDArray[np.bool_], below: NDArray[np.int64], level: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """Of one n at each prompt."""
    from scipy.special import comb

    chance = (comb(level, n) - comb(below, n)) / (level - below) / comb(there.sum(axis=1, keepdims=True), n)
    return np.where(there, chance * truth, 0.0).sum(axis=1)
