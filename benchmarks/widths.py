"""How wide intervals of rehearsals are, over how far what they are of varies from world to world: 1 is right.

    OMP_NUM_THREADS=1 python benchmarks/widths.py [--worlds 200]

A world is a policy of linear log-likelihoods, a ground truth and two equally good reward models. Of each it is
rehearsed what they teach, and prompts are resampled as `rmpipe.forecast` does: by their own rises alone, as if what is
learnt were known, and with what each of them teaches (`rehearsal.Rehearsed.taught`). Told are a gain, a share of what
the ground truth would teach, the difference of both reward models' shares, and how often that difference parts them, of
which there is nothing to part: 5 % is right.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from rmpipe import foresight
from rmpipe.recipe import Recipe
from rmpipe.rehearsal import rehearse
from rmpipe.slopes import Slopes

SAMPLES = 16
RECIPES = {
    "descent": Recipe(rates=(0.05,) * 8, adaptive=False, clip=0.0, kl=0.05, prompts=24, samples=4),
    "adam": Recipe(rates=(0.02,) * 8, adaptive=True, clip=1.0, kl=0.05, prompts=24, samples=4),
}
SIZES = ((48, 30), (96, 30), (96, 200), (48, 1000))
"""Prompts, and weights of the policy."""


def drawn(seed: int, prompts: int, weights: int) -> tuple[Slopes, np.ndarray]:
    """Slopes, and what is felt of the ground truth and of two reward models that are as good as one another."""
    random = np.random.default_rng(seed)
    slopes = random.normal(size=(prompts, SAMPLES, weights))
    ways = np.zeros((3, weights))
    ways[0, :3], ways[1, 3:6], ways[2, 6:9] = 0.35, 0.6, 0.6
    truth = slopes @ ways[0] + random.normal(size=(prompts, SAMPLES))
    models = [0.6 * truth + slopes @ way + random.normal(size=truth.shape) for way in ways[1:]]
    return Slopes(slopes.astype(np.float32), 1.0), np.stack([foresight.felt(each) for each in (truth, *models)])


def told(seed: int, how: Recipe, prompts: int, weights: int) -> list[tuple[list[float], list[float], float]]:
    """What is of interest with its standard errors and whether both are parted: alone, and with what is taught."""
    slopes, rewards = drawn(seed, prompts, weights)
    found = rehearse(slopes, rewards, {"g": rewards[0]}, how, seed=seed)
    rises, resampled = found.truth["g"][:, -1], foresight.resamples(prompts, 400, seed) / prompts
    answers = []
    for each in (rises, rises + found.taught["g"]):
        values = [_numbers(each.mean(axis=1)), _numbers(each @ resampled.T)]
        low, high = np.quantile(values[1][2], [0.025, 0.975])
        answers.append((list(values[0]), [draws.std() for draws in values[1]], float(not low < 0 < high)))
    return answers


def _numbers(rises: Any) -> tuple[Any, Any, Any]:
    """Gain of the first reward model, its share, and what that is above the other's."""
    itself, one, other = rises
    return one, one / itself, (one - other) / itself


def main() -> None:
    """Print a line for each recipe and size."""
    parser = argparse.ArgumentParser(description="widths of intervals of rehearsals, over what is right")
    parser.add_argument("--worlds", type=int, default=200)
    worlds = parser.parse_args().worlds
    for name, how in RECIPES.items():
        for size in SIZES:
            found = [told(seed, how, *size) for seed in range(worlds)]
            for label, mine in zip(("alone", "taught"), zip(*found, strict=True), strict=True):
                values, errors, parted = (np.array(each) for each in zip(*mine, strict=True))
                gain, share, apart = np.median(errors, axis=0) / values.std(axis=0, ddof=1)
                print(
                    f"{name}, {size[0]} prompts, {size[1]} weights, {label}: gain {gain:.2f}, share {share:.2f}, "
                    f"difference {apart:.2f}; equal ones parted {parted.mean():.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
