"""Races against rivals that find the best reward model otherwise, by simulation.

    python benchmarks/racing.py [--races 100] [--prompts 1600] [--worlds easy close] [--ways "race, 4 of 8"]
        [--predictors correlation] [--scores HOME] [--tails 4]

Reward models of known correlation with the ground truth, 12 of them: `easy`, one far above the others; `medium`, three
close at the top; `close`, two closer still; `twins`, two as good as each other; `alike`, all equal, with no tolerance,
so that whatever is dropped is a mistake. `--scores` races over real rollouts instead: those of a store that have a
ground truth and several reward models, the prompts drawn again with replacement.

`uniform` is the fair rival: the same rounds, confidence sequences, stopping rule and predicted labels, but nobody is
dropped, and labels are drawn with equal chances. `pool` is an oracle, since nobody knows its size beforehand: the
smallest of 2, 4, 8 or 16 responses a prompt, all labelled and scored by all, that tells the best from each of the
others, to within the tolerance, at the same level in 80 % of cases, by the true forecasts and their spread. `N of M`:
so many labels of so many responses a prompt. `plain` is a race that draws labels with equal chances, and `untaught` one
that predicts none of those that it does not ask for. `over`: settled or tied before the prompts ended; `lost`: the best
was dropped; `wrong`: over, and more than the tolerance is lost.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from rmpipe import lot
from rmpipe.racing import RULES, Course, Racing, coefficients, race

SAMPLES = 16
RESPONSES = (2, 4, 8, 16)
TOP = {
    "easy": [0.8, *np.linspace(0.5, 0.0, 11)], "medium": [0.7, 0.6, 0.55, *np.linspace(0.5, 0.1, 9)],
    "close": [0.7, 0.65, *np.linspace(0.5, 0.0, 10)], "twins": [0.7, 0.7, *np.linspace(0.5, 0.0, 10)],
    "alike": [0.5] * 12,
}  # fmt: skip
TOLERANCE = 0.05
POWER = 0.8


class Uniform(Course):
    """One that drops nobody, and draws labels with equal chances."""

    def odds(self, rewards: Any) -> Any:
        return np.ones(rewards.shape[1:])

    def add(self, rewards: Any, labels: Any, joint: Any) -> Any:
        found = super().add(rewards, labels, joint)
        self.left = self.names
        return found


class Untaught(Course):
    """One that predicts no labels."""

    def _expected(self, rewards: Any) -> Any:
        return np.zeros(rewards.shape[1:])


WAYS: dict[str, tuple[type[Course], dict[str, Any]]] = {
    **{f"race, {labels} of {samples}": (Course, {"labels": labels, "responses": samples})
       for samples in (4, 8, 16) for labels in (4, 2)},
    **{f"uniform, 4 of {samples}": (Uniform, {"responses": samples}) for samples in (4, 8, 16)},
    "plain, 4 of 16": (Course, {"responses": SAMPLES, "floor": 1e6}),
    "untaught, 4 of 16": (Untaught, {"responses": SAMPLES}),
}  # fmt: skip


def world(random: Any, correlations: Any, prompts: int, tails: float | None) -> tuple[Any, Any]:
    """Rewards and ground truth; slopes and scales differ from prompt to prompt, and offsets are each one's own."""
    along = np.asarray(correlations)[:, None, None]
    shape = (prompts, SAMPLES)
    draw = random.standard_normal if tails is None else lambda size: random.standard_t(tails, size=size)
    unit = 1.0 if tails is None else np.sqrt(tails / (tails - 2))
    truth, common, own = draw(shape) / unit, random.standard_normal(shape), draw((len(along), *shape)) / unit
    scale = np.exp(random.standard_normal((prompts, 1)) / 2)
    slope = along + random.standard_normal((len(along), prompts, 1)) / 5
    rewards = (slope * truth + np.sqrt((1 - along**2) / 2) * (common + own)) * scale
    return rewards + random.standard_normal((len(along), prompts, 1)), truth * scale


def stored(home: Path) -> Iterator[tuple[str, Any, Any]]:
    """Rollouts of a store, with their rewards by reward model, and the ground truth's."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(home.glob("store/score/*/rollouts.npy")):
        record = json.loads((file.parent / "record.json").read_text())
        name = record["labels"].get("reward_model")
        found.setdefault(record["inputs"]["texts"], {})[name] = np.load(file).astype(float)
    for texts, rewards in found.items():
        truth = rewards.pop("truth", None)
        names = [name for name in rewards if name]
        if truth is not None and len(names) > 2:
            yield texts, np.stack([rewards[name] for name in names]), truth


def raced(rewards: Any, truth: Any, way: str, predictor: Any, seed: int, tolerance: float) -> dict[str, Any]:
    """What one race took, and whether it went wrong."""
    kind, told = WAYS[way]
    config = Racing(**told, tolerance=tolerance)
    course = kind([str(place) for place in range(len(rewards))], config, predictor, "whitened", seed)
    samples = config.samples(truth.shape[1])
    rewards, truth = rewards[..., :samples], truth[:, :samples]

    def ask(part: range, left: tuple[str, ...]) -> Any:
        return np.stack([rewards[int(name), part.start : part.stop] for name in left])

    rounds = config.rounds(*truth.shape)
    *_, found = race(course, rounds, ask, lambda p, mask: np.where(mask, truth[p.start : p.stop], np.nan))
    told = {name: course.spent()[name] for name in ("samples", "labels", "scored")}
    left = {int(name) for name in found.left}
    return told | {"over": found.outcome != "running", "winner": int(found.leader), "left": left}


def line(name: str, way: str, told: list[dict[str, Any]], values: Any, tolerance: float) -> str:
    """Means over races, and the shares that lost the best, or more than the tolerance."""
    best = int(np.argmax(values))
    means = [np.mean([each[of] for each in told]) for of in ("samples", "labels", "scored")]
    over = np.mean([each["over"] for each in told])
    lost = np.mean([best not in each["left"] for each in told])
    wrong = np.mean([each["over"] and values[best] - values[each["winner"]] > tolerance for each in told])
    numbers = "".join(f"{value:10,.0f}" for value in means)
    return f"{name:28} {way:18}{numbers}{over:8.2f}{lost:8.3f}{wrong:8.3f}"


def show(name: str, predictor: Any, draw: Any, whole: tuple[Any, Any], told: argparse.Namespace) -> None:
    """A line a way, and the pool.

    Args:
        draw: from a seed to rewards and ground truth.
        whole: rewards and ground truth of so many prompts that forecasts from them are the true ones.
    """
    alike, name = name == "alike", f"{name} {predictor}"
    tolerance, values = 0.0 if alike else TOLERANCE, np.eye(12)[0] if alike else _values(*whole, predictor)
    for way in told.ways[:1] if alike else told.ways:
        found = [raced(*draw(seed), way, predictor, seed, tolerance) for seed in range(told.races)]
        print(line(name, way, found, values, tolerance), flush=True)
    if not alike:
        sizes = {each: pool(*whole, predictor, int(values.argmax()), each) for each in RESPONSES}
        least = min(sizes, key=lambda each: sizes[each])
        numbers = (sizes[least], sizes[least], sizes[least] * len(values))
        print(f"{name:28} {f'pool, {least} each':18}" + "".join(f"{value:10,.0f}" for value in numbers), flush=True)


def pool(rewards: Any, truth: Any, predictor: Any, best: int, samples: int) -> int:
    """Labels of the smallest pool that tells the best from each of the others, with so many responses a prompt."""
    rewards, truth = rewards[..., :samples], truth[:, :samples]
    course = Course([str(place) for place in range(len(rewards))], Racing(labels=samples), predictor, "whitened", 0)
    course.add(rewards, truth, lot.chances(np.ones_like(truth), samples))
    parts = course._parts(course.names)
    apart = np.delete(parts[best] - parts, best, axis=0)
    reach = ndtri(1 - course.error) + ndtri(POWER)
    prompts = (apart.std(axis=1, ddof=1) * reach / (apart.mean(axis=1) + TOLERANCE)) ** 2
    return int(np.ceil(prompts.max())) * samples


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="races against rivals")
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=1600)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--tails", type=float)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--worlds", nargs="+", choices=list(TOP), default=list(TOP))
    parser.add_argument("--predictors", nargs="+", choices=list(RULES), default=["correlation", "tilted"])
    told = parser.parse_args()
    columns = "".join(f"{column:>10}" for column in ("samples", "labels", "scored"))
    print(f"{'':47}{columns}{'over':>8}{'lost':>8}{'wrong':>8}")
    for predictor in told.predictors:
        for name, draw, whole in worlds(told) if told.scores is None else rollouts(told):
            show(name, predictor, draw, whole, told)


def worlds(told: argparse.Namespace) -> Iterator[tuple[str, Any, tuple[Any, Any]]]:
    """Of each simulated case its name, its draws, and a large one."""
    for name in told.worlds:
        correlations = TOP[name]

        def draw(seed: int, name: str = name, correlations: Any = correlations) -> tuple[Any, Any]:
            return world(np.random.default_rng([seed, *name.encode()]), correlations, told.prompts, told.tails)

        yield name, draw, world(np.random.default_rng(0), correlations, 10_000, told.tails)


def rollouts(told: argparse.Namespace) -> Iterator[tuple[str, Any, tuple[Any, Any]]]:
    """Of each policy's rollouts in a store their address, draws of their prompts, and all of them."""
    for place, rewards, truth in stored(told.scores):

        def draw(seed: int, rewards: Any = rewards, truth: Any = truth) -> tuple[Any, Any]:
            index = np.random.default_rng(seed).integers(len(truth), size=told.prompts)
            return rewards[:, index], truth[index]

        yield place, draw, (rewards, truth)


def _values(rewards: Any, truth: Any, predictor: Any) -> Any:
    """Forecasts from all labels, in standard deviations of the ground truth within a prompt."""
    centred = truth - truth.mean(axis=1, keepdims=True)
    unit = np.sqrt(truth.var(axis=1, ddof=1).mean())
    return (coefficients(rewards, predictor, "whitened").values * centred).sum(axis=2).mean(axis=1) / unit


if __name__ == "__main__":
    main()
