"""Slopes: the gradient of each sample's log-likelihood, by some of a policy's weights.

To first order all that a policy may become is told by how these lie to one another: what is made likelier by making
another response likelier. A few thousand weights, drawn at random, stand for all: a sum over them is, over their share,
right on average. One backward pass a sample serves every reward model, ground truth and algorithm, and needs no label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from rmpipe import policy
from rmpipe.config import StudyError
from rmpipe.foresight import known
from rmpipe.gradient import Progress, check_length, differentiable, likelihoods
from rmpipe.text import Text, parted

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Slopes:
    """Gradients of log pi(y | x) of n prompts' K samples by some of the weights."""

    values: NDArray[np.float32]
    """`(prompts, samples, weights)`, nats per unit of weight."""
    share: float
    """Of all weights that these are: a sum over them is divided by it."""

    def rows(self, kept: ArrayLike) -> Slopes:
        """Of some of the prompts."""
        return Slopes(self.values[np.asarray(kept)], self.share)


def slopes(
    language_model: policy.LanguageModel, prompts: Sequence[Text], responses: Sequence[Sequence[str]], *,
    finished: ArrayLike | None = None, weights: int = 4096, seed: int = 0, progress: Progress | None = None,
) -> Slopes:  # fmt: skip
    """One backward pass a sample; equal responses to a prompt are one. Held are one gradient and what is returned.

    Samples are to be drawn at temperature 1 from the whole vocabulary, and are tokenised anew, as in
    `gradient.policy_gradients`.

    Args:
        prompts: n of them.
        responses: K to each prompt.
        finished: (n, K), whether the end of sequence is a token of the response; by default of all.
        weights: how many are drawn; all where there are no more.
        seed: of the draw.
        progress: called with prompts done and prompts in all.

    Raises:
        StudyError: a text is longer than the model's context, or has no prompt, before any pass; the model is broken.
    """
    counts = len(prompts), len(responses[0])
    ended = np.ones(counts, dtype=bool) if finished is None else np.asarray(finished, dtype=bool)
    asked = [_asked(language_model, *row) for row in zip(range(counts[0]), prompts, responses, ended, strict=True)]
    with differentiable(language_model.model) as trained:
        drawn = _drawn(trained, weights, seed)
        width = sum(len(places) for places in drawn)
        found = np.empty((*counts, width), dtype=np.float32)
        for row, texts in enumerate(asked):
            for pair, columns in texts:
                found[row, columns] = _gradient(language_model, trained, drawn, pair)
            if not np.isfinite(found[row]).all():
                raise StudyError("a gradient is no number: the model's weights are broken; train it anew")
            if progress is not None:
                progress(row + 1, counts[0])
        total = sum(weight.numel() for weight in trained)
    return Slopes(found, width / total)


def _asked(
    language_model: policy.LanguageModel, row: int, prompt: Text, texts: Sequence[str], ended: NDArray[np.bool_]
) -> list[tuple[policy.Pair, list[int]]]:
    """The unlike responses to a prompt, each with the places where it stands."""
    same: dict[tuple[str, bool], list[int]] = {}
    for column, said in enumerate(zip(texts, ended.tolist(), strict=True)):
        same.setdefault(said, []).append(column)
    found = []
    for (text, end), columns in same.items():
        pair = parted(language_model.tokenizer, prompt, text, end=end)
        check_length(row, *pair, language_model.context)
        found.append((pair, columns))
    return found


def _drawn(trained: list[torch.Tensor], weights: int, seed: int) -> list[torch.Tensor]:
    """Which weights of each tensor are kept."""
    import torch

    sizes = [weight.numel() for weight in trained]
    total = sum(sizes)
    random = np.random.default_rng([seed, *b"slopes"])
    chosen = np.sort(random.choice(total, min(weights, total), replace=False))
    starts = np.cumsum([0, *sizes])
    parts = [chosen[(chosen >= a) & (chosen < b)] - a for a, b in pairwise(starts)]
    return [torch.from_numpy(part).to(weight.device) for part, weight in zip(parts, trained, strict=True)]


def _gradient(
    language_model: policy.LanguageModel, trained: list[torch.Tensor], drawn: list[torch.Tensor], pair: policy.Pair
) -> NDArray[np.float32]:
    """Of one response's log-likelihood by the weights that were drawn."""
    import torch

    if not pair[1]:  # a policy that said nothing, not even that it ended
        return np.zeros(sum(len(places) for places in drawn), dtype=np.float32)
    told = torch.autograd.grad(likelihoods(language_model, [pair])[0], trained, allow_unused=True)
    parts = [
        torch.zeros(len(places)) if slope is None else slope.flatten()[places].float().cpu()
        for slope, places in zip(told, drawn, strict=True)
    ]
    return torch.cat(parts).numpy()


def influence(found: Slopes, truth: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """How much each sample, made likelier, raises the expected ground truth: <grad log pi(y | x), grad E[g]>.

    What climbing a reward does to the ground truth, <grad E[r], grad E[g]>, is the covariance, within prompts, of the
    reward with these. The gradient of E[g] is estimated from the half of the prompts to which the sample does not
    belong, for noise that both share would look like agreement.

    Args:
        found: of the samples, (n, K).
        truth: (n, K), truth units, NaN where there is no label.
        seed: of the halves.

    Returns:
        (n, K), truth units per squared unit of weight, NaN where there is no label.

    Raises:
        StudyError: fewer than two prompts with two labels.
    """
    labels = np.asarray(truth, dtype=np.float64)
    mask = known(labels)
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) < 2:
        raise StudyError(f"truth: prompts with two labelled responses: {len(rows)}, but two are needed; label more")
    counts = np.maximum(mask.sum(axis=1, keepdims=True), 2)
    centred = np.where(mask, labels - np.where(mask, labels, 0).sum(axis=1, keepdims=True) / counts, 0.0)
    shares = (centred / (counts - 1)).astype(np.float32)  # as leave-one-out has it, over K
    told = np.full(labels.shape, np.nan)
    halves = np.array_split(np.random.default_rng(seed).permutation(rows), 2)
    for mine, others in (halves, halves[::-1]):
        counted = np.where(np.isin(np.arange(len(labels)), mine)[:, None], shares, np.float32(0))
        slope = np.tensordot(counted, found.values, 2) / len(mine)
        told[others] = (found.values @ slope)[others] / found.share
    return np.where(mask, told, math.nan)
