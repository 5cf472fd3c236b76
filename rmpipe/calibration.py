"""Calibration: forecasts turned into gains in reward units, and into curves, by the RLHF of one or two reward models.

A forecast says by how much faster one reward model teaches than another; how far a step of the study's own recipe
goes, it cannot know. One run that was paid for tells: the gains of others are as many times its own as their forecasts
are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmpipe.foresight import resamples

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Calibrator:
    """What came of RLHF on one reward model.

    Attributes:
        gains: of the ground truth at held-out prompts, one (prompts,) a seed, standard deviations.
        steps: of the looks, the first of them 0.
        curve: the ground truth at the looks, (seeds, looks), standard deviations.
    """

    gains: Sequence[NDArray[np.float64]]
    steps: Sequence[int]
    curve: ArrayLike

    def value(self) -> float:
        """The gain, mean over seeds."""
        return float(np.mean([np.mean(each) for each in self.gains]))

    def resampled(self, draws: int) -> NDArray[np.float64]:
        """The gain of the first seed, of as many prompts drawn anew as there are, (draws,)."""
        gain = self.gains[0]
        return resamples(len(gain), draws, seed=1) @ gain / len(gain)  # other prompts than the forecast's


def slope(gains: Sequence[ArrayLike], forecasts: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Gain a unit of forecast, by least squares through 0: who is foretold nothing gains nothing.

    Args:
        gains: of each calibrator, a number or (draws,).
        forecasts: theirs, likewise.

    Returns:
        a number or (draws,), standard deviations of the ground truth.
    """
    y, x = np.asarray(gains, dtype=np.float64), np.asarray(forecasts, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x * y).sum(axis=0) / (x**2).sum(axis=0)


def slopes(
    calibrators: Sequence[Calibrator], forecasts: Sequence[float], drawn: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:  # fmt: skip
    """The slope as it might have been too, (draws,).

    With two seeds or more it is Student's over the slopes of the seeds, as intervals over seeds are everywhere else;
    what is common to a seed moves all calibrators. One seed does not say how far seeds differ: its held-out prompts
    alone are resampled, the same ones for all.

    Args:
        calibrators: one or more.
        forecasts: theirs.
        drawn: theirs, as they might have been too, (draws,).
    """
    seeds = min(len(each.gains) for each in calibrators)
    if seeds == 1:
        return slope([each.resampled(len(drawn[0])) for each in calibrators], drawn)
    from scipy.special import stdtrit

    each = np.array([slope([float(np.mean(one.gains[seed])) for one in calibrators], forecasts)
                     for seed in range(seeds)])  # fmt: skip
    chances = (np.random.default_rng(0).permutation(len(drawn[0])) + 0.5) / len(drawn[0])
    noise = stdtrit(seeds - 1, chances) * each.std(ddof=1) / np.sqrt(seeds)
    return slope([[one.value()] for one in calibrators], drawn) + noise


def course(calibrators: Mapping[str, Calibrator]) -> tuple[list[int], list[float]] | None:
    """The share of its last gain that the ground truth has reached at each look, over all runs together.

    Returns:
        steps and shares; None where the gain at the end is not above 0, so that no share can be told.
    """
    looks = min(len(each.steps) for each in calibrators.values())
    curves = np.concatenate([np.asarray(each.curve, dtype=np.float64)[:, :looks] for each in calibrators.values()])
    mean = (curves - curves[:, :1]).mean(axis=0)
    if not mean[-1] > 0:
        return None
    return list(next(iter(calibrators.values())).steps[:looks]), (mean / mean[-1]).tolist()
