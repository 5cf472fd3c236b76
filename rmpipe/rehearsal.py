"""Rehearsal: RLHF gone through on the initial policy's samples, with nothing drawn and nothing trained.

Where a policy stays near its beginning its log-likelihoods move along their gradients: log pi_d(y | x) - log pi(y | x)
is <grad log pi(y | x), d>, less what keeps a prompt's samples a distribution. So the samples, weighed anew at each
step, stand for those that RLHF would draw, and the expected step of its optimiser moves d: learning rate, clipping,
Adam's geometry, the KL penalty and saturation all count, and gains come in truth units, step by step. Each prompt is
told of by a policy that has not learnt from it (cross-fitting), since gains are asked of prompts held out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from rmpipe.config import StudyError
from rmpipe.recipe import FOLDS, HELD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rmpipe.recipe import Recipe
    from rmpipe.slopes import Slopes

Moments = tuple[torch.Tensor, torch.Tensor]

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8
"""Adam's decays and what it adds to a root, as torch has them."""
TINY, NEVER = 1e-30, -1e30
"""Stand for 0, of which roots and logarithms have no derivative, and for minus infinity."""
LOOKS = 50
"""Steps that are told of, at most, beside the beginning."""


@dataclass(frozen=True)
class Rehearsed:
    """What became of policies taught by each of some rewards, by look and prompt."""

    steps: list[int]
    """Of the looks, from 0 to the last."""
    truth: dict[str, NDArray[np.float32]]
    """Rise of each ground truth, `(rewards, looks, prompts)`, truth units; NaN at prompts without two labels."""
    taught: dict[str, NDArray[np.float32]]
    """What each prompt, as one that teaches, adds to the mean rise at the last look, `(rewards, prompts)`, 0 in all.
    Beside the prompt's own rise it makes the spread of prompts that of the whole estimate (see `rehearse`)."""
    proxy: NDArray[np.float32]
    """Rise of the reward itself, `(rewards, looks, prompts)`, units of the felt reward."""
    kl: NDArray[np.float32]
    """From the initial policy, nats a response, at most log K; NaN at prompts without samples, as the next."""
    ess: NDArray[np.float32]
    """Effective sample size as a share of the samples: how far the rest can be believed."""


def rehearse(
    found: Slopes, rewards: NDArray[np.float64], truths: Mapping[str, NDArray[np.float64]], recipe: Recipe, *,
    there: NDArray[np.bool_] | None = None, varying: NDArray[np.float64] | float = 0.0, tokens: float = 1.0,
    folds: int = FOLDS, seed: int = 0,
) -> Rehearsed:  # fmt: skip
    """Go through RLHF on samples, with several rewards side by side.

    A mean rise depends on the prompts twice: on those that it is told of, and on those that teach. A bootstrap over
    prompts of their own rises knows the first alone; what the second adds is each prompt's share in the derivative of
    the mean rise by how much prompts count in teaching (the infinitesimal jackknife: Jaeckel, 1972; Efron, 1982, The
    Jackknife, the Bootstrap and Other Resampling Plans, chapter 6), taken by going back through all the steps.

    Args:
        found: of the samples.
        rewards: `(rewards, prompts, samples)`, as they are felt (`foresight.felt`), finite where samples are draws.
        truths: `(prompts, samples)` each, truth units, by name, NaN where there is no label; they move nothing.
        there: `(prompts, samples)`, which samples are draws; by default all.
        varying: as rewards: how much what is felt of a sample varies from group to group, which is noise alone.
        tokens: mean length of a response, for a loss that is a mean over tokens.
        folds: how many parts the prompts are in, two or more; each is told of by a policy that the others taught.
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
    part = np.empty(shape[0], dtype=np.int64)
    for number, prompts in enumerate(np.array_split(order, min(folds, shape[0]))):
        part[prompts] = number
    way = _Way(recipe, found, part, there, tokens)
    varying = np.broadcast_to(varying, rewards.shape)
    size = max(1, HELD // recipe.held(there.size, way.slopes.shape[1], len(way.teach)))
    told = [way.gone(rewards[at : at + size], varying[at : at + size], truths) for at in range(0, len(rewards), size)]
    truth, taught = (
        {name: np.concatenate([getattr(each, kind)[name] for each in told]) for name in truths}
        for kind in ("truth", "taught")
    )
    proxy, kl, ess = (np.concatenate([getattr(each, kind) for each in told]) for kind in ("proxy", "kl", "ess"))
    return Rehearsed(way.looks, truth, taught, proxy, kl, ess)


class _Way:
    """Where policies go on some samples, one for each part of the prompts, that the others teach."""

    def __init__(self, recipe: Recipe, found: Slopes, part: NDArray[np.int64], there: NDArray[np.bool_], tokens: float):
        self.recipe, self.share = recipe, found.share
        self.slopes = torch.from_numpy(found.values).flatten(0, 1).float()
        self.squares = self.slopes**2 if recipe.adaptive or recipe.clip else self.slopes
        self.there, self.part = torch.from_numpy(there), torch.from_numpy(part)
        apart = torch.arange(int(part.max()) + 1)[:, None] != self.part
        self.teach = (apart & (self.there.sum(dim=1) >= 2)).double()
        self.scale = 1 / (tokens if recipe.tokens is None else recipe.tokens)
        last = len(recipe.rates)
        self.looks = np.unique(np.linspace(0, last, min(last, LOOKS) + 1).round().astype(int)).tolist()

    def gone(
        self, rewards: NDArray[np.float64], varying: NDArray[np.float64], truths: Mapping[str, NDArray[np.float64]]
    ) -> Rehearsed:
        """What becomes of policies that some of the rewards teach."""
        recipe, count = self.recipe, self.there.sum(dim=1, keepdim=True)
        given, noise = (torch.from_numpy(np.array(each)) for each in (rewards, varying))
        labels = {name: torch.from_numpy(each) for name, each in truths.items()}
        # the mean that is taken off is of the samples themselves
        spare = 1.0 if recipe.grouped else count / (count - 1).clamp(min=1)
        counted = torch.ones(rewards.shape[:2], dtype=torch.float64, requires_grad=bool(truths))
        place = torch.zeros((len(self.teach), len(rewards), self.slopes.shape[1]))
        moments, looks = (place, place), []
        for step in range(len(recipe.rates) + 1):
            moved = self._moved(place)
            weights = moved.masked_fill(~self.there, NEVER).softmax(dim=-1) * self.there
            if step in self.looks:
                own = self._own(weights)
                rises = [_rise(own, each, self.there) for each in (given, *labels.values())]
                looks.append([each.detach().float() for each in (*rises, *_strayed(own.detach(), self.there))])
            if step < len(recipe.rates):
                felt = recipe.gain * given - recipe.kl * moved
                felt = felt - (weights * felt).sum(dim=-1, keepdim=True)
                shares, squares = weights * felt * spare, weights * (felt**2 + noise)
                go, moments = self._step(step, counted, shares, squares, moments)
                place = place + recipe.rates[step] * go
        proxy, *told, kl, ess = (torch.stack(each, dim=1).numpy() for each in zip(*looks, strict=True))
        taught = {name: _taught(rise, counted) for name, rise in zip(labels, rises[1:], strict=True)}
        return Rehearsed(self.looks, dict(zip(labels, told, strict=True)), taught, proxy, kl, ess)

    def _moved(self, place: torch.Tensor) -> torch.Tensor:
        """log pi_d - log pi of every sample, but for a number a prompt: `(parts, rewards, prompts, samples)`, nats."""
        return (place @ self.slopes.T).unflatten(-1, self.there.shape).double() / self.share

    def _own(self, weights: torch.Tensor) -> torch.Tensor:
        """Of each prompt those of the policy that it did not teach, `(rewards, prompts, samples)`."""
        return weights[self.part, :, torch.arange(len(self.part))].transpose(0, 1)

    def _step(
        self, step: int, counted: torch.Tensor, shares: torch.Tensor, squares: torch.Tensor, moments: Moments
    ) -> tuple[torch.Tensor, Moments]:
        """The expected step over its rate: of the gradient, and for Adam and clipping of a batch's noisy square.

        Args:
            counted: how much each prompt counts, `(rewards, prompts)`.
            shares: what each sample's slope counts for, `(parts, rewards, prompts, samples)`.
            squares: its square, on average, likewise.
            moments: Adam's, before the step.
        """
        recipe, own = self.recipe, self.recipe.samples
        slope = self._mean(counted, shares, self.slopes) * self.scale
        if recipe.adaptive or recipe.clip:
            noise = self._mean(counted, squares, self.squares) * self.scale**2
            square = noise / (recipe.prompts * (own if recipe.grouped else own - 1)) + slope**2  # else one is left out
            if recipe.clip:
                norm = (square.sum(dim=2, keepdim=True) / self.share).clamp(min=TINY).sqrt()
                cut = (recipe.clip / norm).clamp(max=1)
                slope, square = slope * cut, square * cut**2
        if recipe.adaptive:
            first = FIRST * moments[0] + (1 - FIRST) * slope
            second = SECOND * moments[1] + (1 - SECOND) * square
            moments, root = (first, second), (second / (1 - SECOND ** (step + 1))).clamp(min=TINY).sqrt()
            slope = first / (1 - FIRST ** (step + 1)) / (root + EPSILON)
        return slope, moments

    def _mean(self, counted: torch.Tensor, shares: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        """Over the prompts that teach, of the sums of slopes under shares: `(parts, rewards, weights)`."""
        counts = self.teach[:, None] * counted
        counts = counts / counts.sum(dim=-1, keepdim=True).clamp(min=TINY)
        return (shares * counts[..., None]).flatten(2).float() @ slopes


def _taught(rise: torch.Tensor, counted: torch.Tensor) -> NDArray[np.float32]:
    """Each prompt's share in the derivative of the mean rise, times how many prompts there are, truth units."""
    whole = torch.where(rise.isfinite(), rise, 0.0).sum()  # over rewards too: no one feels another's
    (share,) = torch.autograd.grad(whole, counted, retain_graph=True)
    return share.float().numpy()


def _rise(weights: torch.Tensor, values: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Of a mean under the weights over that of the samples, where there are values of two at least.

    Weights that add up to 1 over K samples make it too small by a share of 1/K, to first order; it is mended.
    """
    mask = there & values.isfinite()
    count, filled = mask.sum(dim=-1), torch.where(mask, values, 0.0)
    told = weights * mask
    rise = (told * filled).sum(dim=2) / told.sum(dim=2).clamp(min=TINY) - filled.sum(dim=-1) / count.clamp(min=1)
    return torch.where((count >= 2) & (told.sum(dim=2) > 0), rise * count / (count - 1).clamp(min=1), math.nan)


def _strayed(weights: torch.Tensor, there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL from the initial policy and effective share, `(rewards, prompts)` each."""
    count = torch.where(there.any(dim=1), there.sum(dim=1), math.nan)
    kl = (weights * (weights * count[:, None]).clamp(min=TINY).log()).sum(dim=2)
    return kl, 1 / (count * (weights**2).sum(dim=2))
