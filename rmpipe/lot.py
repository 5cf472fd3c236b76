"""Lots: which few of a prompt's responses get a label, by given odds, and what their labels say of all of them.

The odds may be anything that was known before the labels. The chances are exact, so that what is estimated is right on
average whatever the odds; good ones make it waver less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]


def chances(odds: Array, count: int) -> Array:
    """How likely any two responses of a prompt are both chosen, where `count` are, and a set as its odds' product.

    Conditional Poisson sampling: of all designs of fixed size with these odds the one of most entropy (Chen, Dempster
    and Liu, 1994, Biometrika 81, 457-469).

    Args:
        odds: `(prompts, samples)`, above 0.
        count: at least 2.

    Returns:
        `(prompts, samples, samples)`; the diagonal says nothing.
    """
    samples = odds.shape[1]
    if count >= samples:
        return np.ones((len(odds), samples, samples))
    others, both = ~np.eye(samples, dtype=bool), np.empty((len(odds), samples, samples))
    for place in range(samples):
        without = np.where(others & others[place], odds[:, None], 0.0)
        both[:, place] = odds[:, place, None] * odds * _total(without, count - 2)
    return both / _total(odds, count)[:, None, None]


def _total(odds: Array, count: int) -> Array:
    """The sum over all sets of so many responses of the products of their odds."""
    sums = np.zeros((*odds.shape[:-1], count + 1))
    sums[..., 0] = 1.0
    for place in range(odds.shape[-1]):
        sums[..., 1:] += odds[..., place, None] * sums[..., :-1]
    return sums[..., -1]


def drawn(odds: Array, count: int, random: np.random.Generator) -> Mask:
    """Draw `count` responses of each prompt with the odds of `chances`, `(prompts, samples)`."""
    prompts, samples = odds.shape
    if count >= samples:
        return np.ones((prompts, samples), dtype=bool)
    sums, rows = _sets(odds, count), np.arange(prompts)
    left, mask = np.full(prompts, count), np.zeros((prompts, samples), dtype=bool)
    for place in range(samples):
        taken = odds[:, place] * sums[place + 1, rows, np.maximum(left - 1, 0)] * (left > 0)
        mask[:, place] = random.random(prompts) * sums[place, rows, left] < taken
        left -= mask[:, place]
    return mask


def _sets(odds: Array, count: int) -> Array:
    """As `_total`, of sets of 0, ..., `count` of the responses from each on, `(samples + 1, prompts, count + 1)`."""
    prompts, samples = odds.shape
    sums = np.zeros((samples + 1, prompts, count + 1))
    sums[samples, :, 0] = 1.0
    for place in reversed(range(samples)):
        sums[place] = sums[place + 1]
        sums[place, :, 1:] += odds[:, place, None] * sums[place + 1, :, :-1]
    return sums


def weights(mask: Mask, joint: Array) -> Array:
    """What makes of labels, some missing, an unbiased estimate of all of them, centred within their prompt.

    With w_jk = 1 / chance of both where both are chosen: sum_k w_jk (g_j - g_k) / K, a graph's Laplacian times g
    (Horvitz and Thompson's weights, of pairs, so that what a prompt's labels have in common does not matter).

    Args:
        mask: `(prompts, samples)`, which have a label.
        joint: of `chances`.

    Returns:
        `(prompts, samples, samples)`, to be multiplied with the labels (0 where there are none).
    """
    samples = mask.shape[1]
    pairs = (mask[:, :, None] & mask[:, None, :] & ~np.eye(samples, dtype=bool)) / joint
    return (np.eye(samples) * pairs.sum(axis=2)[:, :, None] - pairs) / samples
