"""Rehearsal: RLHF gone through on the initial policy's samples, with nothing drawn and nothing trained.

Where a policy stays near its beginning its log-likelihoods move along their gradients: log pi_d(y | x) - log pi(y | x)
is <grad log pi(y | x), d>, less what keeps a prompt's samples a distribution. So the samples, weighed anew at each
step, stand for those that RLHF would draw, and the expected step of its optimiser moves d: learning rate, clipping,
Adam's geometry, the KL penalty and saturation all count, and gains come in truth units, step by step. Each sample is
weighed by a policy that has not learnt from its prompt (cross-fitting), since gains are asked of prompts held out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from rmpipe.config import Config, StudyError
from rmpipe.reinforcement import Algorithm, Grpo, Rloo
from rmpipe.slopes import Slopes
from rmpipe.study import Drawing

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8
"""Adam's decays and what it adds to a root, as torch has them."""
LOOKS = 50
"""Steps that are told of, at most, beside the beginning."""


class Recipe(Config):
    """What RLHF does at each step, as far as a rehearsal follows it."""

    rates: tuple[float, ...]
    """Learning rate of each step."""
    adaptive: bool
    """Whether a step is Adam's, or plain descent's."""
    clip: float
    """Largest norm of the gradient; 0 for no clipping."""
    kl: float
    """Reward units a nat."""
    prompts: int = Field(ge=1)
    """A step."""
    samples: int = Field(ge=2)
    """A prompt."""
    gain: float = 1.0
    """What rewards count for: less than 1 where the mean that is taken off a sample's has its own in it."""
    grouped: bool = False
    """Whether what is felt is an advantage already, in a group of samples by its spread (`foresight.grouped`)."""
    tokens: float | None = 1.0
    """What the gradient of a response's log-likelihood is divided by; None for the mean length of responses."""


DRAWN = ("temperature", "top_k", "top_p", "max_new_tokens")
"""What samples must be drawn by as RLHF draws its own, to stand for these."""


def recipe(algorithm: Algorithm, sampling: Drawing) -> Recipe | None:
    """What a rehearsal follows of an algorithm; None where it would leave out what decides. Weight decay it leaves out.

    Samples must be drawn as the algorithm draws its own, from the policy as it is (temperature 1, all words). GRPO
    takes off the mean of all of a prompt's K rewards, and so feels (K - 1) / K of what RLOO does. Its loss is a mean
    over tokens (dapo), or a sum over them and the greatest length (dr_grpo).
    """
    if unfollowed(algorithm, sampling):
        return None
    own, more = algorithm.optimiser, {}
    if isinstance(algorithm, Grpo):
        tokens = algorithm.max_new_tokens if algorithm.loss == "dr_grpo" else None
        group = algorithm.scale_rewards == "group"  # whose advantages leave a sample's own part out already
        more = {"grouped": group, "gain": 1 if group else 1 - 1 / algorithm.samples_per_prompt, "tokens": tokens}
    return Recipe(
        rates=_rates(algorithm), adaptive=own.name == "adamw", clip=own.clip, kl=algorithm.kl_coefficient,
        prompts=algorithm.prompts_per_step, samples=algorithm.samples_per_prompt, **more,
    )  # fmt: skip


def unfollowed(algorithm: Algorithm, sampling: Drawing) -> str:
    """Why a rehearsal cannot follow an algorithm, with what would have to be otherwise; "" where it can."""
    asked = [name for name in ("adapter", "entropy_bonus", "kl_target", "normalise_advantages")
             if getattr(algorithm, name, None)]  # fmt: skip
    if type(algorithm) not in (Rloo, Grpo) or algorithm.optimiser.name == "rmsprop":
        who = "rmsprop" if type(algorithm) in (Rloo, Grpo) else algorithm.kind
        return f"a rehearsal does not follow {who}"
    if asked:
        return f"a rehearsal does not follow {asked[0]}"
    if isinstance(algorithm, Grpo) and (algorithm.scale_rewards == "batch" or algorithm.loss == "grpo"):
        name = "scale_rewards" if algorithm.scale_rewards == "batch" else "loss"
        return f"a rehearsal does not follow {name} = {getattr(algorithm, name)}"
    if algorithm.temperature != 1 or algorithm.top_k or algorithm.top_p < 1:
        return "RLHF draws otherwise than the policy would by itself (temperature, top_k, top_p)"
    for name in DRAWN:
        if (told := getattr(sampling, name)) != getattr(algorithm, name):
            return f"samples are drawn by {name} = {told}, and RLHF's by {getattr(algorithm, name)}; set them alike"
    return ""


def _rates(algorithm: Algorithm) -> tuple[float, ...]:
    """The learning rate of each step, as transformers schedules it."""
    own, steps = algorithm.optimiser, algorithm.steps
    rise = [min(1.0, step / own.warmup_steps) if own.warmup_steps else 1.0 for step in range(steps)]
    left = [max(0.0, (step - own.warmup_steps) / max(1, steps - own.warmup_steps)) for step in range(steps)]
    fall = {"constant": lambda _: 1.0, "linear": lambda x: 1 - x, "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2}
    return tuple(own.learning_rate * up * fall[own.schedule](x) for up, x in zip(rise, left, strict=True))


@dataclass(frozen=True)
class Rehearsed:
    """What became of policies taught by each of some rewards, by look and prompt."""

    steps: list[int]
    """Of the looks, from 0 to the last."""
    truth: dict[str, NDArray[np.float32]]
    """Rise of each ground truth, `(rewards, looks, prompts)`, truth units; NaN at prompts without two labels."""
    proxy: NDArray[np.float32]
    """Rise of the reward itself, `(rewards, looks, prompts)`, units of the felt reward."""
    kl: NDArray[np.float32]
    """From the initial policy, nats a response, at most log K; NaN at prompts without samples, as the next."""
    ess: NDArray[np.float32]
    """Effective sample size as a share of the samples: how far the rest can be believed."""


def rehearse(
    found: Slopes, rewards: NDArray[np.float64], truths: Mapping[str, NDArray[np.float64]], recipe: Recipe, *,
    there: NDArray[np.bool_] | None = None, varying: NDArray[np.float64] | float = 0.0, tokens: float = 1.0,
    folds: int = 4, seed: int = 0,
) -> Rehearsed:  # fmt: skip
    """Go through RLHF on samples, with several rewards side by side.

    Args:
        found: of the samples.
        rewards: `(rewards, prompts, samples)`, as they are felt (`foresight.felt`), finite where samples are draws.
        truths: `(prompts, samples)` each, truth units, by name, NaN where there is no label; they move nothing.
        there: `(prompts, samples)`, which samples are draws; by default all.
        varying: as rewards: how much what is felt of a sample varies from group to group, which is noise alone.
        tokens: mean length of a response, for a loss that is a mean over tokens.
        folds: how many parts the prompts are in, two or more; each is told of by what the others teach. What these make
            of their own samples does depend on the first, but in the second order only.
        seed: of the parts.

    Raises:
        ValueError: a reward is no number.
        StudyError: fewer than two prompts with two samples.
    """
    shape = rewards.shape[1:]
    there = np.ones(shape, dtype=bool) if there is None else there
    rewards, teach = np.where(there, rewards, 0.0), there.sum(axis=1) >= 2
    if not np.isfinite(rewards).all():
        raise ValueError("a reward is no number; leave out its sample by `there`")
    if teach.sum() < 2:
        raise StudyError(f"rollouts: prompts with two samples: {teach.sum()}, but two are needed; draw more")
    order = np.random.default_rng([seed, *b"folds"]).permutation(shape[0])
    way = _Way(recipe, found, np.array_split(order, min(folds, shape[0])), teach, len(rewards), tokens)
    looks, count, last = [], there.sum(axis=1, keepdims=True), len(recipe.rates)
    steps = np.unique(np.linspace(0, last, min(last, LOOKS) + 1).round().astype(int)).tolist()
    # the mean that is taken off is of the samples themselves
    spare = 1.0 if recipe.grouped else count / np.maximum(count - 1, 1)
    for step in range(last + 1):
        moved = way.moved()
        weights = _weights(moved, there)
        if step in steps:
            looks.append([each.astype(np.float32) for each in _told(weights, rewards, truths, there)])
        if step < last:
            felt = recipe.gain * rewards - recipe.kl * moved
            felt -= (weights * felt).sum(axis=2, keepdims=True)
            way.go(step, weights * felt * spare, weights * (felt**2 + varying))
    told = [np.stack(each, axis=1) for each in zip(*looks, strict=True)]
    return Rehearsed(steps, dict(zip(truths, told[3:], strict=True)), *told[:3])


def _weights(moved: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What draws count for, `(rewards, prompts, samples)`; at each prompt 1 in all, or 0 where none is there."""
    moved = np.where(there, moved, -np.inf)
    top = np.where(there.any(axis=1), moved.max(axis=2), 0.0)[:, :, None]
    raised = np.exp(moved - top)
    return raised / np.maximum(raised.sum(axis=2, keepdims=True), 1.0)  # the largest of a prompt is 1


def _told(
    weights: NDArray[np.float64], rewards: NDArray[np.float64], truths: Mapping[str, NDArray[np.float64]],
    there: NDArray[np.bool_],
) -> list[NDArray[np.float64]]:  # fmt: skip
    """Rise of the proxy, KL and effective share, then the rise of each truth, `(rewards, prompts)` each."""
    count = np.where(there.any(axis=1), there.sum(axis=1), np.nan)
    kl = (weights * np.log(np.maximum(weights * count[:, None], 1e-30))).sum(axis=2)
    share = 1 / (count * (weights**2).sum(axis=2))
    return [_rise(weights, rewards, there), kl, share, *(_rise(weights, each, there) for each in truths.values())]


def _rise(
    weights: NDArray[np.float64], values: NDArray[np.float64], there: NDArray[np.bool_]
) -> NDArray[np.float64]:  # fmt: skip
    """Of a mean under the weights over that of the samples, where there are values of two at least."""
    mask = there & np.isfinite(values)
    count, filled = mask.sum(axis=-1), np.where(mask, values, 0.0)
    told = np.where(mask, weights, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = (told * filled).sum(axis=2) / told.sum(axis=2) - filled.sum(axis=-1) / count
    return np.where(count >= 2, rise, np.nan)


class _Way:
    """Where the weights have gone, for each part of the prompts by what the others teach: `(rewards, weights)` each."""

    def __init__(
        self, recipe: Recipe, found: Slopes, parts: list[NDArray[np.int64]], teach: NDArray[np.bool_], rewards: int,
        tokens: float,
    ):  # fmt: skip
        self.recipe, self.share, self.parts = recipe, found.share, parts
        self.order = np.argsort(np.concatenate(parts))
        width = found.values.shape[2]
        self.slopes = [found.values[part].reshape(-1, width).astype(np.float32, copy=False) for part in parts]
        self.squares = [part**2 for part in self.slopes] if recipe.adaptive or recipe.clip else []
        self.sizes = np.array([teach[part].sum() for part in parts])
        shape = (len(parts), rewards, width)
        self.place: NDArray[np.floating] = np.zeros(shape, dtype=np.float32)
        self.first, self.second = self.place.copy(), self.place.copy()
        self.scale = 1 / (tokens if recipe.tokens is None else recipe.tokens)

    def moved(self) -> NDArray[np.float64]:
        """log pi_d - log pi of every sample, but for a number a prompt: `(rewards, prompts, samples)`, nats."""
        each = [
            (slopes @ place.T).T.reshape(len(place), len(part), -1)
            for slopes, place, part in zip(self.slopes, self.place, self.parts, strict=True)
        ]
        return np.concatenate(each, axis=1)[:, self.order].astype(np.float64) / self.share

    def go(self, step: int, shares: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        """The expected step: of the gradient, and for Adam and clipping of the square of a batch's noisy one.

        Args:
            shares: what each sample's slope counts for, `(rewards, prompts, samples)`.
            squares: its square, on average, likewise.
        """
        recipe, own = self.recipe, self.recipe.samples
        slope = self._of_others(shares, self.slopes) * self.scale
        if recipe.adaptive or recipe.clip:
            noise = self._of_others(squares, self.squares) * self.scale**2
            square = noise / (recipe.prompts * (own if recipe.grouped else own - 1)) + slope**2  # else one is left out
            if recipe.clip:
                norm = np.sqrt(square.sum(axis=2, keepdims=True) / self.share)
                cut = np.minimum(1, recipe.clip / np.maximum(norm, 1e-30))
                slope, square = slope * cut, square * cut**2
        if recipe.adaptive:
            self.first = FIRST * self.first + (1 - FIRST) * slope
            self.second = SECOND * self.second + (1 - SECOND) * square
            first, second = self.first / (1 - FIRST ** (step + 1)), self.second / (1 - SECOND ** (step + 1))
            slope = first / (np.sqrt(second) + EPSILON)
        self.place += (recipe.rates[step] * slope).astype(np.float32)

    def _of_others(
        self, shares: NDArray[np.float64], slopes: list[NDArray[np.float32]]
    ) -> NDArray[np.float32]:  # fmt: skip
        """Means over prompts of the sums of slopes under shares, for each part over the others."""
        sums = np.stack(
            [
                shares[:, part].reshape(len(shares), -1).astype(np.float32) @ each
                for part, each in zip(self.parts, slopes, strict=True)
            ]
        )
        others = np.maximum(self.sizes.sum() - self.sizes, 1)
        return (sums.sum(axis=0) - sums) / others[:, None, None].astype(np.float32)
