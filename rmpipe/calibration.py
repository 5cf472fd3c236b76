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

    def draws(self, count: int) -> NDArray[np.float64]:
        """The gain in as many resamples of the held-out prompts, (count,); the same ones for every calibrator."""
        each = [resamples(len(gain), count, seed) @ gain / len(gain) for seed, gain in enumerate(self.gains)]
        return np.mean(each, axis=0)


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
