"""Reward variance: how much a reward model tells apart the responses that a policy really gives.

All functions take `(prompts, samples)` arrays (numpy, or a torch tensor on the CPU) and give numpy arrays. A sample is
a response drawn from the initial policy. Variances and standard deviations are the sample ones (n - 1) throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def matrix(rewards: ArrayLike, samples: int = 2) -> NDArray[np.float64]:
    """Rewards as float64 `(prompts, samples)`, checked: a NaN would count as a wrong answer further on, silently.

    Raises:
        ValueError: not two-dimensional, empty, fewer than `samples` samples a prompt, or a value that is not finite.
    """
    array = np.asarray(rewards, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < samples:
        raise ValueError(f"expected (prompts, samples) with at least {samples} samples a prompt, got {array.shape}")
    if not np.isfinite(array).all():
        prompt, sample = np.argwhere(~np.isfinite(array))[0]
        value = array[prompt, sample]
        raise ValueError(f"the reward of prompt {prompt}, sample {sample} is {value}; rewards must be finite")
    return array


def reward_variance(rewards: ArrayLike) -> NDArray[np.float64]:
    """Variance of the reward over a policy's own responses, prompt by prompt.

    Var_y[r(x, y)], Definition 2 of 2503.15477; the paper reports its mean over prompts, of whitened rewards.

    Args:
        rewards: `(prompts, samples)`, reward units.

    Returns:
        `(prompts,)`, squared reward units.

    Raises:
        ValueError: fewer than two samples a prompt.
    """
    return matrix(rewards).var(axis=1, ddof=1)


def whiten(rewards: ArrayLike) -> NDArray[np.float64]:
    """Rewards with mean 0 and standard deviation 1 over ALL prompts and samples together (2503.15477, appendix F.1).

    Reward models have units of their own; afterwards the mean of `reward_variance` is the share of all variance that
    lies within prompts, at most about 1. Whiten per reward model, policy and split. A constant reward becomes 0.

    Args:
        rewards: `(prompts, samples)`, reward units.

    Returns:
        `(prompts, samples)`, no unit.
    """
    array = matrix(rewards, samples=1)
    if np.ptp(array) == 0:
        return np.zeros_like(array)
    return (array - array.mean()) / array.std(ddof=1)


def whitened_mean(moments: ArrayLike, samples: int) -> float:
    """The mean over prompts of a whitened variance or covariance, from each prompt's moments alone.

    What `reward_variance(whiten(rewards)).mean()` gives, for any resample of prompts: the spread that whitens is that
    of the resample, so that an interval has its luck too.

    Args:
        moments: `(prompts, 5)`: the variance or covariance within a prompt, then variance and mean of the one side, and
            of the other (the same side twice for a variance).
        samples: how many of each prompt.
    """
    within, *sides = np.asarray(moments, dtype=np.float64).T
    scale = 1.0
    for variances, means in (sides[:2], sides[2:]):
        spread = (samples - 1) * variances.sum() + samples * ((means - means.mean()) ** 2).sum()
        scale *= spread / (samples * len(within) - 1)
    return float(within.mean() / np.sqrt(scale)) if scale > 0 else 0.0


def shift_and_scale(rewards: ArrayLike) -> tuple[float, float]:
    """What RLHF makes of a reward, `(reward + shift) * scale`, from the rewards of the initial policy.

    shift = -mean, scale = 1 / sqrt(variance + 1e-8), over all prompts and samples (2503.15477, section 4.1). The small
    term is theirs: it keeps a constant reward finite, and it is what `whiten` lacks.

    Args:
        rewards: `(prompts, samples)`, reward units.

    Returns:
        shift in reward units, and scale in 1 / reward units.
    """
    array = matrix(rewards, samples=1)
    variance = array.var(ddof=1) if array.size > 1 else 0.0
    return float(-array.mean()), float(1 / np.sqrt(variance + 1e-8))


def quartiles(values: ArrayLike) -> dict[str, float]:
    """Minimum, quartiles and maximum: `{"min", "25", "median", "75", "max"}`.

    The median of an even count is the LOWER middle value, as the papers' code has it (torch.median); the quartiles
    are interpolated linearly.
    """
    array = np.sort(np.asarray(values, dtype=np.float64).ravel())
    lower, upper = np.quantile(array, [0.25, 0.75])
    five = (array[0], lower, array[(len(array) - 1) // 2], upper, array[-1])
    return dict(zip(("min", "25", "median", "75", "max"), map(float, five), strict=True))


def flat(rewards: ArrayLike, threshold: float = 0.0) -> NDArray[np.bool_]:
    """Prompts that teach next to nothing: their rewards' standard deviation is under the threshold, or exactly 0.

    Args:
        rewards: `(prompts, samples)`; whiten first to compare reward models.
        threshold: in the same units as the rewards.

    Returns:
        `(prompts,)`.
    """
    array = matrix(rewards)
    return (array.std(axis=1, ddof=1) < threshold) | (np.ptp(array, axis=1) == 0)


def flat_share(rewards: ArrayLike, threshold: float = 0.0) -> float:
    """The share of prompts that are `flat`, from 0 to 1. (2310.20703: their expected gradient vanishes.)"""
    return float(flat(rewards, threshold).mean())


def covariance(rewards: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Covariance of a reward and the ground truth within each prompt: the rate at which climbing one raises the other.

    With `truth` the reward itself this is `reward_variance`: the paper's quantity, which foretells the proxy's gain.
    The mean over prompts is the predictor.

    Args:
        rewards: `(prompts, samples)`, reward units.
        truth: the same responses' ground truth, the same shape.

    Returns:
        `(prompts,)`, reward units times truth units.
    """
    left, right = _centred(rewards, truth)
    return (left * right).sum(axis=1) / (left.shape[1] - 1)


def correlation(rewards: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Pearson correlation of a reward and the ground truth within each prompt: `covariance` without either's scale.

    The predictor under optimisers that undo the gradient's scale (Adam, or GRPO's group scaling). A prompt where
    either is constant has no correlation; it counts as 0, for it teaches nothing, and is not left out.

    Returns:
        `(prompts,)`, from -1 to 1.
    """
    left, right = _centred(rewards, truth)
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    varies = (np.ptp(matrix(rewards), axis=1) > 0) & (np.ptp(matrix(truth), axis=1) > 0) & (scale > 0)
    return np.where(varies, (left * right).sum(axis=1) / np.where(varies, scale, 1.0), 0.0)


def _centred(rewards: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = matrix(rewards), matrix(truth)
    if left.shape != right.shape:
        raise ValueError(f"rewards and truth must be of the same responses, got {left.shape} and {right.shape}")
    return left - left.mean(axis=1, keepdims=True), right - right.mean(axis=1, keepdims=True)


def rlhf_rewards(
    scores: ArrayLike, kl: ArrayLike, kl_coefficient: float = 0.05, *, factor: ArrayLike | None = None,
    per_prompt: bool = False, whitened: Literal["with_kl", "without_kl"] | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """What RLOO maximises: the score less the KL penalty, with the variants of 2503.15477's trainer.

    Args:
        scores: `(prompts, samples)`, reward units, already shifted and scaled.
        kl: `(prompts, samples)`, log pi - log pi_ref summed over the response, nats.
        kl_coefficient: reward units per nat.
        factor: `(prompts,)`, multiplies the score (not the penalty) of a prompt.
        per_prompt: divide the scores of a prompt (not the penalty) by their standard deviation.
        whitened: divide by the standard deviation over the batch, its mean kept; the penalty before or after.

    Returns:
        `(prompts, samples)`.
    """
    score, penalty = matrix(scores), kl_coefficient * matrix(kl)
    if factor is not None:
        score = score * np.asarray(factor, dtype=np.float64)[:, None]
    if per_prompt:
        score = score / (score.std(axis=1, ddof=1, keepdims=True) + 1e-8)
    rewards = score if whitened == "without_kl" else score - penalty
    if whitened:
        mean = rewards.mean()
        rewards = (rewards - mean) / np.sqrt(rewards.var(ddof=1) + 1e-8) + mean
    return rewards - penalty if whitened == "without_kl" else rewards


def rloo_advantages(rewards: ArrayLike) -> NDArray[np.float64]:
    """Each reward less the mean of the OTHER samples of its prompt: REINFORCE leave-one-out, `(prompts, samples)`."""
    array = matrix(rewards)
    others = (array.sum(axis=1, keepdims=True) - array) / (array.shape[1] - 1)
    return array - others
