"""Two artifacts of one stage, or two rankings, side by side: what came out differently, B less A throughout.

A difference is that of the two values beside it. It has an interval where one can be had: paired over the seeds that
both have, two or more; over the prompts of one seed, where each has that one alone; else between seeds that are not
paired. Where none can be had, it is said why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.ancestry import Cell, cells
from rmpipe.artifact import Artifact, Measurement, Policy, Ranking, open_artifact
from rmpipe.config import StudyError
from rmpipe.contrast import GAINS
from rmpipe.interval import Estimate, clustered, paired_t, t_interval
from rmpipe.ranking import KEYS
from rmpipe.text import readable
from rmpipe.verdict import COLUMNS

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONE_SEED = "paired over {} {} of one seed, whose own luck is not in the interval"


@dataclass(frozen=True)
class Number:
    """A number of both and their difference.

    Attributes:
        how: how the interval of the difference was made, or why there is none.
    """

    name: str
    a: Estimate | None
    b: Estimate | None
    difference: Estimate
    how: str

    @property
    def apart(self) -> bool | None:
        """Whether the interval of the difference leaves 0 out; None without an interval."""
        low, high = self.difference.low, self.difference.high
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        nought = 1e-9 * max(abs(side.value) for side in (self.a, self.b) if side)  # rounding is no difference
        return low > nought or high < -nought

    def json(self) -> dict[str, Any]:
        """Each as `{"value", "low", "high"}`, null where it is not known."""
        sides = {name: side and side.json() for name, side in (("a", self.a), ("b", self.b))}
        told = {"difference": self.difference.json(), "told_apart": self.apart, "how": self.how}
        return {"name": self.name, **sides, **told}


@dataclass(frozen=True)
class Sample:
    """The rows that a number was made from, one a unit, so that two can be paired.

    Attributes:
        units: what each row is of, in words: a prompt, a pair.
        values: (units, columns).
        statistic: from rows to the number.
        clusters: rows of one cluster are resampled together.
    """

    units: list[str]
    values: NDArray[np.float64]
    statistic: Callable[[NDArray[np.float64]], Any] = np.mean
    clusters: list[str] | None = None

    def estimate(self) -> Estimate:
        """The number, with its interval over units."""
        return clustered(self.values, self.clusters or self.units, self.statistic)

    def less(self, other: Sample) -> Estimate:
        """This number less that of the other, over the units that are the same."""
        columns = self.values.shape[1]
        both = np.hstack([self.values, other.values])

        def difference(rows: NDArray[np.float64]) -> float:
            return float(self.statistic(rows[:, :columns]) - other.statistic(rows[:, columns:]))

        return clustered(both, self.clusters or self.units, difference)


def numbers(a: Artifact, b: Artifact) -> list[Number]:
    """Every number of two artifacts of one stage, side by side."""
    mine, other = samples(a), samples(b)
    left, right = _estimates(a, mine), _estimates(b, other)
    return [
        Number(name, left.get(name), right.get(name), *_over_units(name, mine, other, left, right))
        for name in {**left, **right}
    ]


def _estimates(artifact: Artifact, drawn: dict[str, Sample]) -> dict[str, Estimate]:
    """The numbers of an artifact's record, with intervals where they are kept or can be had."""
    if isinstance(artifact, Measurement) and artifact.built:
        return {name: Estimate.of(number) for name, number in artifact.numbers().items() if number}
    found = {name: Estimate(value) for name, value in artifact.record["metrics"].items()}
    return found | {name: sample.estimate() for name, sample in drawn.items()}


def _over_units(
    name: str, a: dict[str, Sample], b: dict[str, Sample], left: dict[str, Estimate], right: dict[str, Estimate]
) -> tuple[Estimate, str]:
    """The difference of a number over the prompts (or pairs) that both have, and how that was done."""
    if name not in left or name not in right:
        return Estimate(math.nan), "only one of them has it"
    if name not in a or name not in b:
        return Estimate(right[name].value - left[name].value), "no interval: it is not kept prompt by prompt"
    if a[name].units != b[name].units:
        return Estimate(right[name].value - left[name].value), "no interval: they are of unlike prompts"
    units = "pairs" if a[name].clusters else "prompts"
    return b[name].less(a[name]), ONE_SEED.format(len(a[name].units), units)


def samples(artifact: Artifact) -> dict[str, Sample]:
    """The numbers of a measurement or a trained policy whose rows are kept, by name; none where files are gone."""
    try:
        if isinstance(artifact, Policy) and artifact.built:
            return _gains(artifact)
        if isinstance(artifact, Measurement) and artifact.built:
            return _by_prompt(artifact) | _by_pair(artifact.inputs["pair_scores"])
    except (StudyError, FileNotFoundError):  # what it was made from was tidied away, or is elsewhere
        pass
    return {}


def _gains(policy: Policy) -> dict[str, Sample]:
    table = policy.samples()
    asked = [readable(prompt) for prompt in table["prompt"]]
    return {name: Sample(asked, table[[name]].to_numpy()) for name in GAINS.values() if name in table}


def _by_prompt(measurement: Measurement) -> dict[str, Sample]:
    """Means over prompts; what is whitened is so anew in each resample, by the spread that it has there."""
    from rmpipe.variance import covariance, reward_variance, whitened_mean

    inputs, table = measurement.inputs, measurement.table().drop(columns="prompt_id")
    asked = [readable(prompt) for prompt in inputs["rollouts"].table()["prompt"]]
    found = {name: Sample(asked, table[[name]].to_numpy()) for name in table}
    rewards = inputs["scores"].rewards().astype(np.float64)
    truth = inputs["truth_scores"].rewards().astype(np.float64) if inputs["truth_scores"] else rewards
    within = {"variance": (reward_variance(rewards), rewards), "covariance": (covariance(rewards, truth), truth)}
    for name in within.keys() & found.keys():
        values, second = within[name]
        sides = [moment for side in (rewards, second) for moment in (reward_variance(side), side.mean(axis=1))]
        mean = partial(whitened_mean, samples=rewards.shape[1])
        found[name] = Sample(asked, np.stack([values, *sides], axis=1), mean)
    return found


def _by_pair(scores: Any) -> dict[str, Sample]:
    """What is measured off-policy, on test pairs: those of one prompt are drawn together."""
    from rmpipe.accuracy import calibration, normalised_margin, ranking_accuracy

    table, rewards = scores.inputs["texts"].split("test"), scores.pairs()
    asked = [readable(prompt) for prompt in table["prompt"]]
    parts = zip(asked, table["chosen"], table["rejected"], strict=True)
    units = [json.dumps([prompt, readable(chosen), readable(rejected)]) for prompt, chosen, rejected in parts]
    first, second = rewards[:, 0], rewards[:, 1]
    correct = ranking_accuracy(first, second)
    columns = {"accuracy_off": correct, "margin": normalised_margin(first, second)}
    found = {name: Sample(units, values[:, None], clusters=asked) for name, values in columns.items()}
    margins = np.stack([first - second, correct], axis=1)
    error = Sample(units, margins, lambda rows: calibration(rows[:, 0], rows[:, 1])["error"], asked)
    return found | {"calibration_error": error}


# -- rankings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A reward model that taught a policy in both: its ranks, and each number that is not of the same artifacts."""

    names: Cell
    ranks: tuple[str, str]
    numbers: list[Number]

    def json(self) -> dict[str, Any]:
        """The names, `rank` of both, and the numbers; none where, on the seeds of both, all is the same."""
        names = dict(zip(KEYS, self.names, strict=True))
        return names | {"rank": dict(zip("ab", self.ranks, strict=True)), "numbers": [n.json() for n in self.numbers]}


def rows(a: Ranking, b: Ranking) -> tuple[list[Row], list[Cell], list[Cell]]:
    """The rows that both have, in A's order; those of A alone; those of B alone.

    Raises:
        StudyError: the record only of a ranking is here.
    """
    left, right = _answered(a), _answered(b)
    made, others = cells(a), cells(b)
    both = []
    for cell in (cell for cell in left if cell in right):
        mine, other = left[cell], right[cell]
        both.append(Row(cell, (mine["rank"], other["rank"]), _numbers(mine, other, made[cell], others[cell])))
    return both, [cell for cell in left if cell not in right], [cell for cell in right if cell not in left]


def _answered(ranking: Ranking) -> dict[Cell, dict[str, Any]]:
    if not ranking.built:
        raise StudyError(f"{ranking.address}: its record only is here, and no answer; run its study to have it")
    return {tuple(row[key] for key in KEYS): row for row in ranking.answer()["rows"]}


def _numbers(
    a: dict[str, Any], b: dict[str, Any], made: dict[int, dict[str, Artifact]], others: dict[int, dict[str, Artifact]]
) -> list[Number]:
    found = []
    for name in COLUMNS:
        stage = "align" if name in GAINS.values() else "measure"
        mine, other = ({seed: cell[stage] for seed, cell in side.items()} for side in (made, others))
        if not _same(mine, other) and (a.get(name) or b.get(name)):
            first, second = (Estimate.of(row[name]) if row.get(name) else None for row in (a, b))
            found.append(_number(name, first, second, mine, other))
    return found


def _same(a: dict[int, Artifact], b: dict[int, Artifact]) -> bool:
    """Whether there are seeds that both have, and the same artifacts on each: then there is nothing to compare."""
    shared = a.keys() & b.keys()
    return bool(shared) and all(a[seed].address == b[seed].address for seed in shared)


def _number(
    name: str, first: Estimate | None, second: Estimate | None, a: dict[int, Artifact], b: dict[int, Artifact]
) -> Number:
    """A number of two rows, and their difference, all three over the same seeds."""
    mine, other = _by_seed(name, a), _by_seed(name, b)
    shared = [seed for seed in mine if seed in other]
    if len(shared) > 1:
        mine, other = ({seed: side[seed] for seed in shared} for side in (mine, other))
        difference, how = paired_t(list(other.values()), list(mine.values())), f"paired over {len(shared)} seeds"
        if len(shared) < max(len(a), len(b)):
            how += " that both have, and A and B are over these alone; ranks are over all seeds of each"
    elif shared and len(mine) == len(other) == 1:
        one, another = (samples(open_artifact(side[shared[0]].address, side[shared[0]].home)) for side in (a, b))
        ends = ({name: Estimate(side[shared[0]])} for side in (mine, other))
        difference, how = _over_units(name, one, another, *ends)
    else:
        difference, how = _between_seeds(mine, other)
    return Number(name, _over(mine, first), _over(other, second), difference, how)


def _over(values: dict[int, float], told: Estimate | None) -> Estimate | None:
    """The mean over seeds; of one seed what the ranking told of it, whose interval is over prompts."""
    if not values:
        return told
    found = t_interval(list(values.values()))
    alone = told and len(values) == 1 and math.isclose(told.value, found.value, rel_tol=1e-6, abs_tol=1e-9)
    return told if alone else found


def _between_seeds(a: dict[int, float], b: dict[int, float]) -> tuple[Estimate, str]:
    """The difference over all seeds of each, fewer than two of which are of both."""
    if not a or not b:
        return Estimate(math.nan), "no interval: its numbers, seed by seed, are not known of both"
    if min(len(a), len(b)) > 1:
        one = ", one of them the same" if a.keys() & b.keys() else ""
        return _unpaired(list(a.values()), list(b.values())), f"unpaired, {len(a)} and {len(b)} seeds{one}"
    value = float(np.mean(list(b.values())) - np.mean(list(a.values())))
    return Estimate(value), "no interval: unlike seeds, and but one of A or B"


def _by_seed(name: str, artifacts: dict[int, Artifact]) -> dict[int, float]:
    """A number seed by seed, as the records have it; a seed whose record is gone is left out."""
    found = {}
    for seed, artifact in artifacts.items():
        value = artifact.record["metrics"].get(name) if artifact.built or artifact.only_told else None
        if value is not None and math.isfinite(value):
            found[seed] = float(value)
    return found


def _unpaired(a: list[float], b: list[float]) -> Estimate:
    """B less A over seeds that are not paired, by Welch's interval."""
    from scipy.stats import ttest_ind

    value = float(np.mean(b) - np.mean(a))
    if np.ptp(a) == np.ptp(b) == 0:
        return Estimate(value, value, value)
    found = ttest_ind(b, a, equal_var=False).confidence_interval()
    return Estimate(value, float(found.low), float(found.high))


def claims(a: Ranking, b: Ranking) -> list[dict[str, Any]]:
    """Claims that both judged, with another verdict: name, policy, algorithm, and `a` and `b`, a sentence each."""
    keys = ("name", "policy", "algorithm", "gain")
    left, right = ({tuple(item[k] for k in keys): item for item in side.answer()["contrasts"]} for side in (a, b))
    return [
        dict(zip(keys, which, strict=True)) | {"a": left[which]["sentence"], "b": right[which]["sentence"]}
        for which in left
        if which in right and verdict(left[which]["sentence"]) != verdict(right[which]["sentence"])
    ]


def verdict(sentence: str) -> str:
    """What a claim's sentence begins with: `Held`, `Reversed`, `Not settled, ...`, `Not tested`."""
    return sentence.partition(":")[0]
