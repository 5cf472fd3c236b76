"""Accuracy: how often a reward model orders two responses as the ground truth does, beside controls.

Arrays in (numpy, or torch tensors on the CPU), numpy arrays out, one value a prompt or pair, so that an interval can be
had; the accuracy itself is their mean. Which rule a tie falls under is always named:

- `"both"` (2503.15477): a pair is right when the signs of both differences agree, so a tie is right only if both tie.
- `"half"` (2507.07981): a tie of either side earns one half, so a constant reward scores exactly 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rmpipe.variance import matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Ties = Literal["both", "half"]


def on_policy_accuracy(rewards: ArrayLike, truth: ArrayLike, ties: Ties = "both") -> NDArray[np.float64]:
    """Share of a prompt's response pairs that reward and ground truth order alike, over all K(K-1)/2 pairs.

    2503.15477, Definition 1. With two samples (chosen, rejected) it is the off-policy accuracy against a known truth.

    Args:
        rewards: `(prompts, samples)`, reward units.
        truth: the same responses' ground truth, the same shape.
        ties: see the module.

    Returns:
        `(prompts,)`, from 0 to 1.
    """
    left, right = matrix(rewards), matrix(truth)
    if left.shape != right.shape:
        raise ValueError(f"rewards and truth must be of the same responses, got {left.shape} and {right.shape}")
    first, second = np.triu_indices(left.shape[1], k=1)
    ours, theirs = (np.sign(array[:, first] - array[:, second]) for array in (left, right))
    return _credit(ours, theirs, ties).mean(axis=1)


def ranking_accuracy(chosen: ArrayLike, rejected: ArrayLike, ties: Ties = "half") -> NDArray[np.float64]:
    """1 for each pair whose chosen response gets the higher reward, 0 for the lower; its mean is the accuracy.

    The truth never ties here, so under `"both"` a tie is wrong (as in TRL), under `"half"` it earns 0.5 (2507.07981).

    Args:
        chosen: `(pairs,)`, reward units.
        rejected: `(pairs,)`, reward units.
        ties: see the module.

    Returns:
        `(pairs,)`.
    """
    margins = _margins(chosen, rejected)
    return _credit(np.sign(margins), np.ones_like(margins), ties)


def _credit(ours: NDArray[np.float64], theirs: NDArray[np.float64], ties: Ties) -> NDArray[np.float64]:
    if ties == "both":
        return (ours == theirs).astype(np.float64)
    if ties == "half":
        return (1 + ours * theirs) / 2
    raise ValueError(f"ties: expected 'both' or 'half', got {ties!r}")


def _margins(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    left, right = np.asarray(chosen, dtype=np.float64), np.asarray(rejected, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or not len(left):
        raise ValueError(f"expected chosen and rejected of the same shape (pairs,), got {left.shape} and {right.shape}")
    return matrix(np.stack([left, right], axis=1)) @ np.array([1.0, -1.0])


def normalised_margin(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    """|r_chosen - r_rejected| over the standard deviation of all the rewards: how far apart, whichever way round.

    2507.07981's absolute reward margin is its mean: blind to sign, the two-sample kin of reward variance.

    Returns:
        `(pairs,)`, no unit.
    """
    margins = _margins(chosen, rejected)
    spread = np.concatenate([np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)]).std(ddof=1)
    return np.abs(margins) / (spread + 1e-8)


def bradley_terry_loss(chosen: ArrayLike, rejected: ArrayLike, centring: float = 0.0) -> float:
    """-mean log sigmoid(r_chosen - r_rejected) + centring * mean (r_chosen + r_rejected)^2, nats.

    The centring term keeps rewards around 0, where differences alone would let them drift; 0.01 in 2503.15477.
    """
    totals = np.asarray(chosen, np.float64) + np.asarray(rejected, np.float64)
    return float(bradley_terry_losses(chosen, rejected).mean() + centring * (totals**2).mean())


def bradley_terry_losses(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    """-log sigmoid(r_chosen - r_rejected) of each pair, `(pairs,)`, nats."""
    return np.logaddexp(0.0, -_margins(chosen, rejected))


def calibration(margins: ArrayLike, correct: ArrayLike, bins: int = 10) -> dict[str, Any]:
    """Whether sigmoid(|margin|), the confidence a Bradley-Terry reward model states, is how often it is right.

    Expected calibration error: |accuracy - confidence| over equal bins of confidence from 0.5 to 1, weighted by count.
    It is biased upwards where bins hold few pairs, so compare only models that judged the same pairs.

    Args:
        margins: `(pairs,)`, reward differences; the sign does not matter.
        correct: `(pairs,)`, 1 where the pair was ordered right, 0 where wrong, 0.5 for a tie.
        bins: how many.

    Returns:
        `{"error", "bins": [{"low", "high", "count", "confidence", "accuracy"}]}`; None where a bin is empty.
    """
    confidence = 1 / (1 + np.exp(-np.abs(np.asarray(margins, dtype=np.float64))))
    right = np.asarray(correct, dtype=np.float64)
    if confidence.shape != right.shape or not confidence.size:
        raise ValueError(f"margins and correct must be of the same pairs, got {confidence.shape} and {right.shape}")
    edges = np.linspace(0.5, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    table, error = [], 0.0
    for index in range(bins):
        mine = place == index
        row: dict[str, Any] = {"low": float(edges[index]), "high": float(edges[index + 1]), "count": int(mine.sum())}
        stated, seen = (float(array[mine].mean()) if mine.any() else None for array in (confidence, right))
        if stated is not None and seen is not None:
            error += abs(seen - stated) * mine.mean()
        table.append(row | {"confidence": stated, "accuracy": seen})
    return {"error": float(error), "bins": table}


def controls(
    lengths: ArrayLike, truth: ArrayLike, ties: Ties = "half", seed: int = 0
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    """What an accuracy must beat: rules that read nothing but the length, or nothing at all.

    `longer` prefers the longer response and `shorter` the other; when one of the two is well above one half, length
    alone explains that much of any accuracy. `constant` shows what the tie rule gives away; `random` is a coin.

    Args:
        lengths: `(prompts, samples)`, tokens; for dataset pairs `(pairs, 2)`.
        truth: the same responses' ground truth; for dataset pairs ones and zeros, `[[1, 0]] * pairs`.
        ties: the rule of the accuracy that these stand beside.
        seed: of the random scores.

    Returns:
        `{"longer", "shorter", "constant", "random"}`, each `(prompts,)`.
    """
    tokens = matrix(lengths)
    scores = {
        "longer": tokens,
        "shorter": -tokens,
        "constant": np.zeros_like(tokens),
        "random": np.random.default_rng(seed).random(tokens.shape),
    }
    return {name: on_policy_accuracy(score, truth, ties) for name, score in scores.items()}


def subsample(count: int, size: int | None, seed: int) -> NDArray[np.int64]:
    """Indices of a seeded subsample, in drawn order: RandomState(seed).permutation(count)[:size] (2503.15477).

    With `size` None, -1, or `count` and more, all in their own order (there the paper's code stops with an error).
    """
    if size is None or size == -1 or size >= count:
        return np.arange(count)
    if size < 0:
        raise ValueError(f"size: expected 0 or more, or None for all, got {size}")
    return np.random.RandomState(seed).permutation(count)[:size]
