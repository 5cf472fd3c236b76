"""Racing: which reward model is foretold to teach best, found by no more samples, scores and labels than that takes.

Prompts come in rounds. Of each prompt's responses some get a label, likelier those that the reward models still in
question disagree on; weights by the chances keep every forecast unbiased, and what the rewards tell of the labels that
were not asked for is learnt from earlier rounds, which keeps it from wavering. After each round a reward model that is
surely below another is dropped, and scored no more. "Surely" is said at every round and holds at all of them together:
the intervals are confidence sequences.

Rewards are `(reward models, prompts, samples)`, and `form` and `predictor` are words of `rmpipe.foresight`. A forecast
is a sum over a prompt's responses of the centred ground truth times a coefficient that the rewards say: the centred
reward for the covariance, how much likelier a response becomes for the tilted policy. Gradients are not taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from rmpipe import lot
from rmpipe.config import Config
from rmpipe.foresight import felt
from rmpipe.interval import LEVEL
from rmpipe.verdict import listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

Predictor = Literal["covariance", "correlation", "tilted"]
Form = Literal["whitened", "group"]
Ask = Callable[[range, tuple[str, ...]], Any]
Label = Callable[[range, Any], Any]
Outcome = Literal["running", "settled", "tied"]
SOON = 100
"""Prompts at which the boundary is narrowest; a race of a tenth or of ten times as many loses little by it."""
ROUNDING = 1e-9
"""Reward models that are alike but for rounding are alike."""
RULES = {
    "covariance": "the covariance of rewards with labels", "correlation": "the correlation of rewards with labels",
    "tilted": "the tilted policy",
}  # fmt: skip
"""What a race goes by, in words."""


class Racing(Config):
    """How samples, scores and labels are shared out among the reward models still in question."""

    prompts: int = Field(8, ge=2)
    """Prompts a round."""
    labels: int = Field(4, ge=2)
    """Labels a prompt, at most all its responses."""
    responses: int = Field(4, ge=2)
    """Responses a prompt, at most the sampling's."""
    floor: float = Field(0.5, gt=0)
    """The odds of a label where nobody disagrees, beside odds of 1 by disagreement on average."""
    fewest: int = Field(24, ge=8)
    """Prompts before anything is decided."""
    tolerance: float = Field(0.05, ge=0)
    """What may be lost by a wrong choice, in standard deviations of the ground truth within a prompt; 0 races on until
    one is left, or those left are twins."""
    level: float = Field(LEVEL, ge=0.8, lt=1)
    """The chance that, at every round, the best was not dropped and no more than the tolerance is lost."""
    budget: int | None = Field(None, ge=1)
    """The most labels; None for as many as the sampling's prompts take."""

    def samples(self, most: int) -> int:
        """Responses of each prompt, of so many at most."""
        return min(self.responses, most)

    def rounds(self, prompts: int, samples: int) -> list[range]:
        """Which of so many prompts each round takes, as far as the budget goes.

        Args:
            samples: of each prompt, at most.
        """
        if self.budget is not None:
            prompts = min(prompts, self.budget // min(self.labels, self.samples(samples)))
        return [range(start, min(start + self.prompts, prompts)) for start in range(0, prompts, self.prompts)]


# -- what the rewards say ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coefficients:
    """How forecasts depend on the ground truth of each response, `(reward models, prompts, samples)`.

    Attributes:
        values: a forecast is their product with the centred ground truth, summed over samples.
        change: of the values, as the logarithm of the rewards' scale grows.
        spread: `(reward models, prompts)`, each prompt's part in the square of that scale, 1 on average.
    """

    values: Array
    change: Array
    spread: Array


def coefficients(rewards: Array, predictor: Predictor, form: Form) -> Coefficients:
    """Of rewards as RLHF feels them (`foresight.felt`).

    What whitens is the standard deviation over all prompts and samples so far; for the correlation, what is felt is
    divided by that within prompts too. A scale so far is itself an estimate, and `change` and `spread` carry its error
    into the intervals.
    """
    white, samples = np.stack([felt(each, form) for each in rewards]), rewards.shape[2]
    centred = white - white.mean(axis=2, keepdims=True)
    if predictor == "correlation":
        parts = (centred**2).sum(axis=2) / (samples - 1)
    else:
        parts = (white**2).mean(axis=2) if form == "whitened" else np.ones(white.shape[:2])
    square = parts.mean(axis=1, keepdims=True)
    spread = np.divide(parts, square, out=np.ones_like(parts), where=square > 0)
    if predictor == "correlation":
        scale = np.sqrt(square)[..., None]
        centred = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)
    if predictor != "tilted":
        return Coefficients(centred / (samples - 1), -centred / (samples - 1), spread)
    weights = np.exp(centred - centred.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    change = weights * ((weights * centred).sum(axis=2, keepdims=True) - centred)
    spare = samples / (samples - 1)  # as `foresight.tilted` has it
    return Coefficients(spare * (weights - 1 / samples), spare * change, spread)


# -- what can be said by now ------------------------------------------------------------------------------------------


def boundary(prompts: int, error: float) -> float:
    """How far above its expectation a mean of unit variance gets at ANY number of prompts, but for a chance of `error`.

    The one-sided asymptotic confidence sequence of 2103.06476, a mixture over half a normal distribution: valid at all
    numbers together as the first looked at grows, whatever the distribution. At few prompts the variance is not well
    known, so the normal quantile that it comes to is made Student's.
    """
    from scipy.special import ndtr, stdtrit

    told = -2 * math.log(2 * error)
    square = (told + math.log(told) + 1) / SOON
    scale = prompts * square + 1
    normal = math.sqrt(2 * scale / (prompts * square) * math.log1p(math.sqrt(scale) / (2 * error)))
    return float(-stdtrit(prompts - 1, ndtr(-normal))) / math.sqrt(prompts)


def _apart(parts: Array) -> Array:
    """Standard deviation over prompts of the difference of any two, `(names, names)`."""
    square = np.atleast_2d(np.cov(parts))
    own = np.diag(square)
    return np.sqrt(np.maximum(own[:, None] + own - 2 * square, 0.0))


@dataclass(frozen=True)
class Standing:
    """What can be said after a round, of the reward models that were in question.

    Attributes:
        names: of these.
        prompts: so far.
        values: `(names,)`, forecasts, in standard deviations of the ground truth within a prompt.
        above: `(names, names)`, the most by which the one may be above the other; infinite while too few labels
            differ for that standard deviation to be known.
        left: those still in question.
        alike: no prompt has labels that differ, so that nothing is known of anybody.
        outcome: `settled` with one left; `tied` where taking the leader loses no more than the tolerance; else
            `running`.
    """

    names: tuple[str, ...]
    prompts: int
    values: Array
    above: Array
    left: tuple[str, ...]
    outcome: Outcome
    alike: bool = False

    @property
    def leader(self) -> str:
        """Who is foretold to teach best."""
        return self.names[int(self.values.argmax())]

    def loss(self) -> float:
        """The most that taking the leader may lose."""
        at = int(self.values.argmax())
        return max([0.0, *(float(self.above[self.names.index(name), at]) for name in self.left if name != self.leader)])

    def rows(self) -> list[dict[str, Any]]:
        """One a reward model: its forecast, how far it is behind the leader, with ends, and whether it is dropped."""
        at = int(self.values.argmax())
        behind = np.stack([self.values[at] - self.values, -self.above[:, at], self.above[at]], axis=1)
        behind[at] = 0.0
        return [
            {"prompts": self.prompts, "reward_model": name, "forecast": float(value), "behind": float(ends[0]),
             "behind_low": float(ends[1]), "behind_high": float(ends[2]), "dropped": name not in self.left}
            for name, value, ends in zip(self.names, self.values, behind, strict=True)
        ]  # fmt: skip


class Course:
    """All that a race has seen, and what follows from it.

    Args:
        names: of the reward models; the intervals are widened for how many there are.
        seed: of which responses get a label.
    """

    def __init__(self, names: Sequence[str], config: Racing, predictor: Predictor, form: Form, seed: int):
        self.names, self.config, self.predictor, self.form = tuple(names), config, predictor, form
        self.left, self.seed = self.names, seed
        self.rewards: dict[str, list[Array]] = {name: [] for name in names}
        self.truth: list[Array] = []  # centred within its prompt, estimated
        self.labels: list[Array] = []  # NaN where there is none
        self.squares: list[Array] = []  # the ground truth's variance within each prompt, estimated

    @property
    def error(self) -> float:
        """Of one bound: the best is compared with each of the others, and the unit of it all is bounded too."""
        return (1 - self.config.level) / len(self.names)

    def odds(self, rewards: Array) -> Array:
        """Of a label: by how much those in question differ in what they would make of a response.

        Args:
            rewards: of those in question over a round, `(left, prompts, samples)`.
        """
        seen = self._seen(self.left, rewards)
        spread = coefficients(seen, self.predictor, self.form).values[:, -rewards.shape[1] :].std(axis=0)
        mean = spread.mean(axis=1, keepdims=True)
        return self.config.floor + np.divide(spread, mean, out=np.ones_like(spread), where=mean > 0)

    def choose(self, rewards: Array) -> tuple[Mask, Array]:
        """Which responses of a round get a label, and the chances of any two."""
        odds, random = self.odds(rewards), np.random.default_rng([self.seed, len(self.truth)])
        return lot.drawn(odds, self.config.labels, random), lot.chances(odds, self.config.labels)

    def add(self, rewards: Array, labels: Array, joint: Array) -> Standing:
        """Take a round in, and say what can be said.

        Args:
            rewards: of those in question, `(left, prompts, samples)`.
            labels: `(prompts, samples)`, NaN where there is none.
            joint: of `choose`.
        """
        weights, expected = lot.weights(np.isfinite(labels), joint), self._expected(rewards)
        rest = np.where(np.isfinite(labels), labels - expected, 0.0)
        centred = expected - expected.mean(axis=1, keepdims=True)
        self.truth.append(centred + np.einsum("pjk,pk->pj", weights, rest))
        self.labels.append(labels)
        self.squares.append(_squares(weights, labels))
        for name, each in zip(self.left, rewards, strict=True):
            self.rewards[name].append(each)
        found = self.standing()
        self.left = found.left
        return found

    def _seen(self, names: Sequence[str], rewards: Array | None = None) -> Array:
        """Rewards over all rounds in which all of these were scored, and maybe of one more."""
        rounds = min(len(self.rewards[name]) for name in names)
        more = [[]] * len(names) if rewards is None else [[each] for each in rewards]
        return np.stack([np.concatenate([*self.rewards[name][:rounds], *last])
                         for name, last in zip(names, more, strict=True)])  # fmt: skip

    def _expected(self, rewards: Array) -> Array:
        """The ground truth that earlier rounds lead one to expect of rewards: by ridge regression within prompts."""
        if not self.truth:
            return np.zeros(rewards.shape[1:])
        seen = self._seen(self.left, rewards)
        scale = np.sqrt(seen.var(axis=2).mean(axis=1))[:, None, None]
        seen = np.divide(seen, scale, out=np.zeros_like(seen), where=scale > 0)
        labels = np.concatenate(self.labels)
        known = np.isfinite(labels)
        sides = np.where(known, np.stack([*seen[:, : len(labels)], np.nan_to_num(labels)]), 0.0)
        sides -= np.where(known, sides.sum(axis=2, keepdims=True) / known.sum(axis=1)[:, None], 0.0)
        flat = sides.reshape(len(sides), -1)
        square = flat[:-1] @ flat[:-1].T + len(seen) * np.eye(len(seen))
        told: Array = np.tensordot(np.linalg.solve(square, flat[:-1] @ flat[-1]), seen[:, len(labels) :], axes=1)
        return told

    def _parts(self, names: Sequence[str]) -> Array:
        """Each prompt's part in the forecasts, `(names, prompts)`, the errors of the scales and of the unit in it."""
        seen, truth, squares = self._seen(names), np.concatenate(self.truth), np.concatenate(self.squares)
        how = coefficients(seen, self.predictor, self.form)
        drift = (how.change * truth).sum(axis=2).mean(axis=1, keepdims=True)
        parts: Array = ((how.values * truth).sum(axis=2) + drift * (how.spread - 1) / 2) / self.unit()
        return parts - parts.mean(axis=1, keepdims=True) * (squares / squares.mean() - 1) / 2

    def unit(self) -> float:
        """The ground truth's standard deviation within a prompt, estimated; 0 where no prompt's labels differ."""
        return math.sqrt(np.concatenate(self.squares).mean())

    def _surely(self) -> bool:
        """Whether that is surely above 0. While few labels differ it is not, and a mean of few is far from normal."""
        squares = np.concatenate(self.squares)
        return bool(squares.mean() > squares.std(ddof=1) * boundary(len(squares), self.error))

    def standing(self) -> Standing:
        """What can be said by now of those in question."""
        prompts, count, alike = sum(map(len, self.truth)), len(self.left), self.unit() == 0
        parts = np.zeros((count, prompts)) if alike else self._parts(self.left)
        values, above = parts.mean(axis=1), np.full((count, count), math.inf)
        if prompts < self.config.fewest or not self._surely():
            return Standing(self.left, prompts, values, above, self.left, "running", alike)
        above = values[:, None] - values + _apart(parts) * boundary(prompts, self.error)
        left = tuple(name for name, row in zip(self.left, above, strict=True) if not (row < -ROUNDING).any())
        found = Standing(self.left, prompts, values, above, left, "settled" if len(left) == 1 else "running")
        within = found.outcome == "running" and found.loss() <= self.config.tolerance + ROUNDING
        return replace(found, outcome="tied") if within else found

    def spent(self) -> dict[str, Any]:
        """Prompts, samples, labels, and how many samples each reward model has scored."""
        labels = np.concatenate(self.labels)
        scored = {name: sum(each.size for each in self.rewards[name]) for name in self.names}
        told = {"prompts": len(labels), "samples": labels.size, "labels": int(np.isfinite(labels).sum())}
        return told | {"scored": sum(scored.values()), "scored_by": scored}


def _squares(weights: Array, labels: Array) -> Array:
    """Variance within each prompt, `(prompts,)`, from what is known of pairs: exactly 0 where its labels are alike.

    Args:
        weights: of `lot.weights`.
        labels: `(prompts, samples)`, NaN where there is none.
    """
    apart = np.nan_to_num(labels[:, :, None] - labels[:, None, :])
    found: Array = -(weights * apart**2).sum(axis=(1, 2)) / (2 * (labels.shape[1] - 1))
    return found


def race(course: Course, rounds: Sequence[range], ask: Ask, label: Label) -> Iterator[Standing]:
    """Run a race until it is over or its rounds are, and say after each round what can be said.

    Args:
        rounds: of `Racing.rounds`.
        ask: from a round's prompts and the reward models in question to rewards, `(left, prompts, samples)`.
        label: from a round's prompts and which responses to label to the ground truth, NaN elsewhere.
    """
    for prompts in rounds:
        rewards = ask(prompts, course.left)
        mask, joint = course.choose(rewards)
        found = course.add(rewards, label(prompts, mask), joint)
        yield found
        if found.outcome != "running":
            return


def answer(course: Course, last: Standing, pool: tuple[int, int]) -> dict[str, Any]:
    """How a race ended, as JSON holds it, in a sentence too.

    Args:
        last: what could be said after the last round.
        pool: prompts, and samples of each, that a forecast without a race takes, which scores and labels all.
    """
    config, loss, samples = course.config, last.loss(), math.prod(pool)
    told: dict[str, Any] = {
        "outcome": "open" if last.outcome == "running" else last.outcome,
        "winner": None if last.alike else last.leader, "left": list(last.left), "forecast": float(last.values.max()),
        "loss": loss if math.isfinite(loss) else None, "level": config.level, "tolerance": config.tolerance,
        "predictor": course.predictor, "felt": course.form, "spent": course.spent(),
        "pool": {"prompts": pool[0], "samples": samples, "labels": samples, "scored": samples * len(course.names)},
    }  # fmt: skip
    return told | {"sentence": _sentence(told)}


def _sentence(told: dict[str, Any]) -> str:
    """What a race supports, and what it cost."""
    spent, pool = told["spent"], told["pool"]
    cost = f"{spent['samples']:,} samples, {spent['labels']:,} labels and {spent['scored']:,} scores"
    whole = f"a forecast without a race takes {pool['samples']:,}, {pool['labels']:,} and {pool['scored']:,}"
    return f"{_said(told)}, after {cost}; {whole}."


def _said(told: dict[str, Any]) -> str:
    """What a race supports."""
    winner, by = told["winner"], f"by {RULES[told['predictor']]}"
    if winner is None:
        return "Not settled: the labels of each prompt are all alike, so that they tell nothing of any reward model"
    if told["outcome"] == "settled":
        return f"{winner} is foretold to teach best {by}"
    alike = f"{listed([winner, *(name for name in told['left'] if name != winner)])} are not told apart {by}"
    lost = f"taking {winner} loses at most {told['loss']:.2f} sd" if told["loss"] is not None else (
        f"there are too few labels to say what taking {winner} may lose"
    )  # fmt: skip
    return f"{alike}; {lost}" if told["outcome"] == "tied" else f"Not settled: {alike}; {lost}"
