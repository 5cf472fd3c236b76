"""Overlap: how many tokens two responses share, and how much of a reward the identity of tokens alone explains.

2507.07981 holds that implicit reward models rest on token-level cues more than explicit ones do. `explained` makes that
a number: rewards are predicted from how often each token stands in a response, whatever its place, by ridge
regression, out of fold. It is no bound either way: a token's effect in its context is missed, and words that merely
go with better answers are counted. So compare shares of reward models on the same responses, and across a shift.

Counts and not relative frequencies: an implicit reward is a sum over tokens, so counts are its own form, and the
length, itself a sum of counts, can be part of the cues. `counts.sum(axis=1)` as the only column tells what the length
explains alone.

Rewards need no whitening: ridge is linear in them and its penalty is chosen from the data, so no shift or scale of a
reward model changes a share. There are two targets, and reward models are best compared by the second:

- rewards: with an intercept; their variance also holds what whole prompts differ in, which no ranking sees.
- differences `r_chosen - r_rejected` on differences of counts, with `intercept=False`: nothing else is added to the
  weighted tokens and the variance is about 0, so swapping the sides of any pairs changes nothing. "The chosen one is
  better by the mean" is therefore no explanation, though it would be if a mean could be learnt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.variance import matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Ids = Sequence[int]

PENALTIES = np.logspace(-2, 6, 5)  # the largest leaves next to nothing of any token's weight


# -- what two responses share -------------------------------------------------------------------------------------


def token_overlap(a_ids: Ids, b_ids: Ids) -> float:
    """The chance that a token of the one response and a token of the other are the same, from 0 to 1.

    #{(i, j): a_i = b_j} / (|a| |b|), the published code of 2507.07981. A response with itself has 1 only if it repeats
    one token, so an overlap says something beside that of the originals with themselves alone.

    Raises:
        ValueError: one of them has no token.
    """
    left, right = Counter(_listed(a_ids)), Counter(_listed(b_ids))
    if not left or not right:
        raise ValueError("a response without a token overlaps with nothing; leave out empty responses")
    return sum(count * right[token] for token, count in left.items()) / (left.total() * right.total())


def mean_overlap(
    chosen: Sequence[Ids], rejected: Sequence[Ids], shifted_chosen: Sequence[Ids], shifted_rejected: Sequence[Ids]
) -> dict[str, float]:
    """How far a shift changed the tokens: the mean overlap over chosen and rejected responses of all examples.

    Args:
        chosen: tokens of the original responses, one row an example.
        rejected: the same.
        shifted_chosen: tokens of the same responses after the shift, in the same order.
        shifted_rejected: the same.

    Returns:
        `shifted`: of the shifted responses with their originals; `itself`: of the originals with themselves. The paper
        reports 0.048 for its originals with themselves, and 0.019 to 0.023 after paraphrase and translation.
    """
    pairs = [*zip(chosen, shifted_chosen, strict=True), *zip(rejected, shifted_rejected, strict=True)]
    if not pairs:
        raise ValueError("no examples; an overlap is of at least one pair of responses")
    return {
        "shifted": float(np.mean([token_overlap(original, shifted) for original, shifted in pairs])),
        "itself": float(np.mean([token_overlap(original, original) for original, _ in pairs])),
    }


# -- what tokens explain ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explained:
    """What a bag of tokens says of rewards that it was not fitted to."""

    share: float
    """1 - SSE / SST. Below 0 where the predictions are worse than the mean: it is not raised to 0, since a share that
    may not fall below 0 has a mean above it where there is nothing to find. NaN for rewards without variance."""
    predictions: NDArray[np.float64]
    """(n,), reward units."""


def token_counts(*sets: Sequence[Ids]) -> list[Any]:
    """How often each token stands in each response, sparse `(responses, tokens)`, for every set over the same tokens.

    Args:
        sets: each the tokens of some responses, such as those of a test set and of its paraphrase.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    vectoriser = CountVectorizer(analyzer=_listed, dtype=np.float64)
    vectoriser.fit([row for rows in sets for row in rows])
    return [vectoriser.transform(rows) for rows in sets]


def explained(
    counts: Any, rewards: ArrayLike, prompts: Sequence[Hashable], *,
    intercept: bool = True, folds: int = 5, seed: int = 0,
) -> Explained:  # fmt: skip
    """The share of rewards, or of reward differences, that the identity of tokens explains, out of fold.

    All responses to a prompt are in one fold: they share its topic's words, and a response would else be predicted
    from its neighbour. The penalty is chosen within the other folds in the same way, for the same reason.

    Args:
        counts: `(n, tokens)`, from `token_counts`; for differences, chosen less rejected.
        rewards: `(n,)`, reward units; for differences, chosen less rejected.
        prompts: `(n,)`, what names the prompt of each row, such as its number.
        intercept: False for differences.
        folds: at least 3.
        seed: of the folds.

    Raises:
        ValueError: fewer prompts than folds. A NaN would look like a constant reward, and fewer folds can be asked for.
    """
    return transferred(counts, rewards, prompts, counts, rewards, prompts, intercept=intercept, folds=folds, seed=seed)


def transferred(
    counts: Any, rewards: ArrayLike, prompts: Sequence[Hashable],
    shifted_counts: Any, shifted_rewards: ArrayLike, shifted_prompts: Sequence[Hashable], *,
    intercept: bool = True, folds: int = 5, seed: int = 0,
) -> Explained:  # fmt: skip
    """The share of rewards on a shifted set that token weights fitted to the original set explain.

    Where it keeps near `explained` of the original set, the cues carry over; where it falls to 0, the shift took away
    the tokens that they rested on. A paraphrase has the original's prompts, so a row is predicted by weights fitted
    without its prompt; a prompt that the original set does not have, by weights fitted to all of it. A shifted set
    whose rewards lie higher or lower as a whole counts as an error here, and not for differences.

    Args:
        shifted_counts: `(m, tokens)`, over the same tokens as `counts`.
        shifted_rewards: `(m,)`, reward units.
        shifted_prompts: `(m,)`, named as in `prompts`.
        counts, rewards, prompts, intercept, folds, seed: as in `explained`.

    Returns:
        share and predictions of the shifted set.
    """
    bag = Bag(counts, rewards, prompts, intercept=intercept, folds=folds, seed=seed)
    return bag.explain(shifted_counts, shifted_rewards, shifted_prompts)


class Bag:
    """Token weights fitted to a set of rewards, asked about as many sets as wanted; each fold is fitted once.

    Args:
        counts, rewards, prompts, intercept, folds, seed: as in `explained`.
    """

    def __init__(
        self, counts: Any, rewards: ArrayLike, prompts: Sequence[Hashable], *,
        intercept: bool = True, folds: int = 5, seed: int = 0,
    ):  # fmt: skip
        self.counts, self.target, self.intercept = counts, _column(rewards, len(prompts)), intercept
        self.parts = _folds(prompts, folds, seed)
        self.fold_of = dict(zip(prompts, self.parts.tolist(), strict=True))
        self.models: dict[int, Any] = {}

    def explain(self, counts: Any, rewards: ArrayLike, prompts: Sequence[Hashable]) -> Explained:
        """The share of some rewards that the weights explain, each row by weights fitted without its prompt."""
        truth = _column(rewards, len(prompts))
        asked = np.array([self.fold_of.get(prompt, -1) for prompt in prompts])
        predictions = np.empty(len(truth))
        for fold in np.unique(asked):
            rows = np.flatnonzero(asked == fold)
            predictions[rows] = self._without(int(fold)).predict(counts[rows])
        return Explained(_share(truth, predictions, self.intercept), predictions)

    def _without(self, fold: int) -> Any:
        if fold not in self.models:
            kept = np.flatnonzero(self.parts != fold)
            self.models[fold] = _fitted(self.counts[kept], self.target[kept], self.parts[kept], self.intercept)
        return self.models[fold]


def _fitted(counts: Any, target: NDArray[np.float64], parts: NDArray[np.int64], intercept: bool) -> Any:
    """A ridge regression whose penalty predicts best what prompts it has not seen are worth."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import LeaveOneGroupOut

    within = list(LeaveOneGroupOut().split(target, groups=parts))
    told = {"fit_intercept": intercept, "cv": within, "scoring": "neg_mean_squared_error"}
    return RidgeCV(PENALTIES, **told).fit(counts, target)


def _folds(prompts: Sequence[Hashable], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each row, (n,)."""
    from sklearn.model_selection import GroupKFold

    number = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
    if folds < 3 or len(number) < folds:
        told = f"{len(number)} prompts in {folds} folds"
        raise ValueError(f"{told}: take at least 3 folds, and a prompt or more for each")
    parts = np.empty(len(prompts), dtype=np.int64)
    groups = [number[prompt] for prompt in prompts]
    for fold, (_, rows) in enumerate(GroupKFold(folds, shuffle=True, random_state=seed).split(groups, groups=groups)):
        parts[rows] = fold
    return parts


def _share(truth: NDArray[np.float64], predictions: NDArray[np.float64], intercept: bool) -> float:
    centred = truth - truth.mean() if intercept else truth
    if (np.ptp(truth) if intercept else np.abs(truth).max()) == 0:
        return float("nan")
    return float(1 - ((truth - predictions) ** 2).sum() / (centred**2).sum())


def _column(values: ArrayLike, count: int) -> NDArray[np.float64]:
    array = matrix(np.asarray(values, dtype=np.float64)[..., None], samples=1)[:, 0]
    if len(array) != count:
        raise ValueError(f"rewards and prompts must be of the same rows, got {len(array)} and {count}")
    return array


def _listed(ids: Any) -> list[int]:
    """Plain numbers: a tensor's elements are equal, and yet two keys."""
    listed: list[int] = np.asarray(ids).tolist()
    return listed
