"""Races against pools of fixed size that are labelled whole and scored by every reward model, by simulation.

    python benchmarks/racing.py [--races 100] [--prompts 800] [--scores HOME] [--tails 4]

Reward models of known correlation with the ground truth, 12 of them and 16 samples a prompt: `easy`, one far above the
others; `medium`, three close at the top; `close`, two closer still; `twins`, two as good as each other; `alike`, all
equal, with no tolerance, so that whatever is dropped is a mistake. `--scores` races over real rollouts instead: those
of a store that have a ground truth and several reward models, the prompts drawn again with replacement.

`pool` is the smallest that tells the best from all others, to within the tolerance, at the same level in 80 % of cases,
its size being known beforehand: from the true forecasts and their spread. `all` is the same race with every
response labelled, and nobody dropped: uniform allocation that is looked at after each round. `plain` draws labels
uniformly, and `untaught` expects nothing of the labels that it does not ask for. `over`: settled before the prompts
ended; `lost`: the best was dropped; `wrong`: over, and more than the tolerance is lost; `said`: the pool's prompts as
each race tells them from what it saw, their median.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rmpipe import lot
from rmpipe.racing import Course, Racing, race, slopes

SAMPLES = 16
TOP = {
    "easy": [0.8, *np.linspace(0.5, 0.0, 11)], "medium": [0.7, 0.6, 0.55, *np.linspace(0.5, 0.1, 9)],
    "close": [0.7, 0.65, *np.linspace(0.5, 0.0, 10)], "twins": [0.7, 0.7, *np.linspace(0.5, 0.0, 10)],
    "alike": [0.5] * 12,
}  # fmt: skip
WAYS = {
    "race": {}, "all": {"labels": SAMPLES}, "labels 2": {"labels": 2}, "labels 8": {"labels": 8},
    "plain": {"floor": 1e6}, "untaught": {}, "plain, untaught": {"floor": 1e6},
}  # fmt: skip


class Untaught(Course):
    """One that expects nothing of labels that it does not ask for."""

    def _expected(self, rewards: Any) -> Any:
        return np.zeros(rewards.shape[1:])


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
    config = Racing(**WAYS[way], tolerance=tolerance)
    kind = Untaught if "untaught" in way else Course
    course = kind([str(place) for place in range(len(rewards))], config, predictor, "whitened", seed)

    def ask(part: range, left: tuple[str, ...]) -> Any:
        return np.stack([rewards[int(name), part.start : part.stop] for name in left])

    rounds = config.rounds(*truth.shape)
    *_, found = race(course, rounds, ask, lambda p, mask: np.where(mask, truth[p.start : p.stop], np.nan))
    spent = course.spent()
    scored = spent["samples"] * len(rewards) if way == "all" else spent["scored"]
    told = {"prompts": spent["prompts"], "samples": spent["samples"], "labels": spent["labels"], "scored": scored}
    over = float(found.outcome != "running")
    pool = course.uniform(found.leader) if over else np.nan
    left = {int(name) for name in found.left}
    return told | {"over": over, "winner": int(found.leader), "left": left, "pool": pool}


def line(name: str, way: str, told: list[dict[str, Any]], values: Any, tolerance: float) -> str:
    """Means over races, and the shares that lost the best, or more than the tolerance."""
    best = int(np.argmax(values))
    means = [np.mean([each[of] for each in told]) for of in ("samples", "labels", "scored")]
    over = np.mean([each["over"] for each in told])
    pool = np.nanmedian([each["pool"] for each in told]) if over else np.nan
    lost = np.mean([best not in each["left"] for each in told])
    wrong = np.mean([each["over"] and values[best] - values[each["winner"]] > tolerance for each in told])
    numbers = "".join(f"{value:10,.0f}" for value in means)
    return f"{name:28} {way:16}{numbers}{over:8.2f}{lost:8.3f}{wrong:8.3f}{pool:8.0f}"


def show(name: str, predictor: Any, draw: Any, whole: tuple[Any, Any], told: argparse.Namespace) -> None:
    """A line a way, and the pool.

    Args:
        draw: from a seed to rewards and ground truth.
        whole: rewards and ground truth of so many prompts that forecasts from them are the true ones.
    """
    alike, name = name == "alike", f"{name} {predictor}"
    tolerance, values = 0.0 if alike else 0.05, np.eye(12)[0] if alike else _values(*whole, predictor)
    for way in ["race"] if alike else list(WAYS):
        found = [raced(*draw(seed), way, predictor, seed, tolerance) for seed in range(told.races)]
        print(line(name, way, found, values, tolerance), flush=True)
    if not alike:
        prompts = _pool(*whole, predictor, int(values.argmax()))
        numbers = (prompts * SAMPLES, prompts * SAMPLES, prompts * SAMPLES * len(values))
        print(f"{name:28} {'pool':16}" + "".join(f"{value:10,.0f}" for value in numbers), flush=True)


def _pool(rewards: Any, truth: Any, predictor: Any, best: int) -> int:
    """Prompts of the smallest pool."""
    course = Course([str(place) for place in range(len(rewards))], Racing(labels=SAMPLES), predictor, "whitened", 0)
    course.add(rewards, truth, lot.chances(np.ones_like(truth), SAMPLES))
    return course.uniform(str(best))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="races against pools of fixed size")
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--tails", type=float)
    told = parser.parse_args()
    columns = "".join(f"{column:>10}" for column in ("samples", "labels", "scored"))
    print(f"{'':45}{columns}{'over':>8}{'lost':>8}{'wrong':>8}{'said':>8}")
    for predictor in ("correlation", "tilted"):
        for name, draw, whole in worlds(told) if told.scores is None else rollouts(told):
            show(name, predictor, draw, whole, told)


def worlds(told: argparse.Namespace) -> Iterator[tuple[str, Any, tuple[Any, Any]]]:
    """Of each simulated case its name, its draws, and a large one."""
    for name, correlations in TOP.items():

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
    return (slopes(rewards, predictor, "whitened").slopes * centred).sum(axis=2).mean(axis=1) / unit


if __name__ == "__main__":
    main()
