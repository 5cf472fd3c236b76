"""Two artifacts of one stage, or two rankings, side by side: what came out differently, B less A throughout.

A difference is that of the two values beside it. It has an interval where one can be had: paired over the seeds that
both have, two or more; over the prompts of one seed, where each has that one alone; else between seeds that are not
paired. Where none can be had, it is said why. For accuracies on sets of pairs, bases stand in the place of seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.accuracy import bradley_terry_losses
from rmpipe.ancestry import Cell, cells
from rmpipe.answer import Form
from rmpipe.artifact import Artifact, Measurement, Policy, Ranking, Scores, open_artifact
from rmpipe.attribution import MEASURED, SINGLES
from rmpipe.config import StudyError
from rmpipe.contrast import GAINS
from rmpipe.diagnosis import LENGTH
from rmpipe.generalisation import EVERY
from rmpipe.interval import Estimate, clustered, correlate, paired_t, t_interval
from rmpipe.text import readable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

ONE_SEED = "paired over {} {} of one {}, whose own luck is not in the interval"
Runs = dict[Any, tuple[Any, Artifact]]
"""What tells a run from the others -> (the seed, or the base, that it counts to; what has its number)."""


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
    name: str, a: dict[str, Sample], b: dict[str, Sample], left: dict[str, Estimate], right: dict[str, Estimate],
    unit: str = "seed",
) -> tuple[Estimate, str]:  # fmt: skip
    """The difference of a number over the prompts (or pairs) that both have, and how that was done."""
    if name not in left or name not in right:
        return Estimate(math.nan), "only one of them has it"
    if name not in a or name not in b:
        return Estimate(right[name].value - left[name].value), "no interval: it is not kept prompt by prompt"
    if a[name].units != b[name].units:
        return Estimate(right[name].value - left[name].value), "no interval: they are of unlike prompts"
    units = "pairs" if a[name].clusters else "prompts"
    return b[name].less(a[name]), ONE_SEED.format(len(a[name].units), units, unit)


def samples(artifact: Artifact) -> dict[str, Sample]:
    """The numbers of a measurement or a trained policy whose rows are kept, by name; none where files are gone."""
    try:
        if isinstance(artifact, Policy) and artifact.built:
            return _gains(artifact)
        if isinstance(artifact, Measurement) and artifact.built:
            rows = ROWS.get(artifact.record["stage"])
            return rows(artifact) if rows else {}
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


def _measured(measurement: Measurement) -> dict[str, Sample]:
    found, pairs = _by_prompt(measurement), measurement.inputs["pair_scores"]
    return found | _by_pair(pairs) if pairs else found


@lru_cache(maxsize=64)
def _by_set(measurement: Measurement) -> dict[str, Sample]:
    """What is measured on sets of pairs, those of one prompt drawn together."""
    found = {}
    for name, frame in measurement.table().groupby("set", sort=False):
        asked = [readable(json.loads(prompt)) for prompt in frame["asked"]]
        units = [json.dumps(part) for part in zip(asked, frame["chosen"], frame["rejected"], strict=True)]
        loss = bradley_terry_losses(frame["chosen_reward"], frame["rejected_reward"])
        columns = {"accuracy": frame["correct"], "margin": frame["margin"], "loss": loss,
                   "chosen": frame["chosen_reward"], "rejected": frame["rejected_reward"]}  # fmt: skip
        for column, values in columns.items():
            found[f"{name}.{column}"] = Sample(units, np.asarray(values, np.float64)[:, None], clusters=asked)
    return found


def _texts(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The pairs of a table as units, and their prompts."""
    asked = [readable(json.loads(prompt)) for prompt in table["prompt"]]
    return [json.dumps(part) for part in zip(asked, table["chosen"], table["rejected"], strict=True)], asked


def _diagnosed(diagnosis: Measurement) -> dict[str, Sample]:
    """Quantiles of similarities over pairs, and their correlations with the difference in length."""
    table, found = diagnosis.table(), {}
    units, asked = _texts(table)
    for key in diagnosis.numbers():
        name, _, what = key.rpartition(".")
        statistic: Callable[[NDArray[np.float64]], Any] = partial(_quantile, at=what[1:])
        columns = [name]
        if what == LENGTH:
            columns, statistic = [name, LENGTH], lambda rows: correlate(rows[:, 0], rows[:, 1], "spearman")
        found[key] = Sample(units, table[columns].to_numpy(np.float64), statistic, asked)
    return found


def _quantile(rows: NDArray[np.float64], at: str) -> float:
    return float(np.quantile(rows, float(at) / 100))


def _alone(single: Measurement) -> dict[str, Sample]:
    """What training on each pair alone did to it."""
    table = single.table()
    units, asked = _texts(table)
    return {name: Sample(units, table[[column]].to_numpy(np.float64), clusters=asked)
            for name, column in SINGLES.items()}  # fmt: skip


def _tracked(measurement: Measurement) -> dict[str, Sample]:
    """What training on a subset did to each pair that was followed."""
    found = {}
    for name, frame in measurement.table().groupby("set", sort=False):
        units, asked = _texts(frame)
        change = frame["chosen_after"] - frame["chosen_before"]
        columns = {"chosen": change, "rejected": frame["rejected_after"] - frame["rejected_before"],
                   "displaced": change < 0, "fall": frame["fall"],
                   "accuracy_before": frame["chosen_before"] > frame["rejected_before"],
                   "accuracy": frame["chosen_after"] > frame["rejected_after"]}  # fmt: skip
        for column, values in columns.items():
            found[f"{name}.{column}"] = Sample(units, np.asarray(values, np.float64)[:, None], clusters=asked)
    return found


def _gauged(measurement: Measurement) -> dict[str, Sample]:
    """What a policy can learn at each prompt; those of low std are others in each resample, and have no rows here."""
    table = measurement.table()
    table = table.assign(zero=table["std"] == 0, variance=table["std"] ** 2)
    taken = table[table["squared"].notna()]
    found = {name: _asked(table, [name]) for name in ("flat", "zero", "mean", "std")}
    found["spearman"] = _asked(taken, ["std", "squared"], partial(_related, kind="spearman"))
    found["pearson"] = _asked(taken, ["variance", "squared"], partial(_related, kind="pearson"))
    return found


def _asked(table: pd.DataFrame, columns: list[str], statistic: Callable[..., Any] = np.mean) -> Sample:
    """Columns of a table that has a row a prompt."""
    asked = [readable(json.loads(prompt)) for prompt in table["prompt"]]
    return Sample(asked, table[columns].to_numpy(np.float64), statistic)


def _related(rows: NDArray[np.float64], kind: str) -> float:
    return float(correlate(rows[:, 0], rows[:, 1], kind))


def _refused(measurement: Measurement) -> dict[str, Sample]:
    """How often each prompt is refused, of those with an answer that could be told."""
    rates = measurement.table().groupby("prompt", sort=False)["refused"].mean().dropna()
    asked = [readable(json.loads(prompt)) for prompt in rates.index]
    return {"refusal": Sample(asked, rates.to_numpy(np.float64)[:, None])}


ROWS: dict[str, Callable[[Any], dict[str, Sample]]] = {
    "measure": _measured, "evaluate": _by_set, "diagnose": _diagnosed, "single": _alone, "track": _tracked,
    "classify": _refused, "gauge": _gauged,
}  # fmt: skip
"""The stages that keep the rows of their numbers, and how these are had."""


# -- rankings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A row that both have: its ranks, and each number that is not of the same artifacts."""

    names: Cell
    ranks: tuple[str, str]
    numbers: list[Number]
    keys: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """The names, `rank` of both, and the numbers; none where, on the seeds or bases of both, all is the same."""
        names = dict(zip(self.keys, self.names, strict=True))
        return names | {"rank": dict(zip("ab", self.ranks, strict=True)), "numbers": [n.json() for n in self.numbers]}


def rows(a: Ranking, b: Ranking) -> tuple[list[Row], list[Cell], list[Cell]]:
    """The rows that both have, in A's order; those of A alone; those of B alone.

    Args:
        a: an answer to the same question as `b`.

    Raises:
        StudyError: the record only of a ranking is here.
    """
    left, right = _answered(a), _answered(b)
    form, made, others = Form.of(a.answer()), _made(a), _made(b)
    both = []
    for cell in (cell for cell in left if cell in right):
        mine, other = left[cell], right[cell]
        found = _numbers(form, mine, other, partial(made, cell), partial(others, cell))
        both.append(Row(cell, (mine["rank"], other["rank"]), found, form.keys))
    return both, [cell for cell in left if cell not in right], [cell for cell in right if cell not in left]


def _answered(ranking: Ranking) -> dict[Cell, dict[str, Any]]:
    if not ranking.built:
        raise StudyError(f"{ranking.address}: its record only is here, and no answer; run its study to have it")
    answer = ranking.answer()
    return {Form.of(answer).names(row): row for row in answer["rows"]}


def _made(ranking: Ranking) -> Callable[[Cell, str], tuple[str, Runs]]:
    """From a row's names and a column: what its records call that number, and the runs that have it."""
    record = ranking.record
    if record["stage"] == "judge":
        trials = list(zip(record["config"]["trials"], record["inputs"]["measurements"], strict=True))
        return partial(_examined, [(trial, Measurement(address, ranking.home)) for trial, address in trials])
    if record["stage"] == "weigh":
        return partial(_treated, record, ranking.home)
    if record["stage"] == "conclude":
        return partial(_tried, record, ranking.home, ranking.answer().get("runs", []))
    taught = cells(ranking)

    def of(cell: Cell, name: str) -> tuple[str, Runs]:
        stage = "align" if name in GAINS.values() else "measure"
        return name, {seed: (seed, made[stage]) for seed, made in taught[cell].items()}

    return of


def _examined(trials: list[tuple[dict[str, Any], Measurement]], cell: Cell, name: str) -> tuple[str, Runs]:
    """The runs of one policy, or of every one, in which a reward model was asked about a set."""
    policy, asked, reward_model = cell
    mine = [each for each in trials if each[0]["reward_model"] == reward_model and policy in (each[0]["policy"], EVERY)]
    return f"{asked}.{name}", {(trial["policy"], trial["seed"]): (trial["base"], made) for trial, made in mine}


def _treated(record: dict[str, Any], home: Path, cell: Cell, name: str) -> tuple[str, Runs]:
    """The trainings of one policy, or of every one, on a subset; what they refuse is measured apart."""
    policy, *kind = cell
    made = record["inputs"]["tracked" if name in MEASURED else "after"]
    runs: Runs = {
        (each["policy"], each["seed"]): (each["base"], Measurement(address, home))
        for each, address in zip(record["config"]["about"]["treatments"], made, strict=bool(made))
        if [each["training"], each["subset"]] == kind and policy in (each["policy"], EVERY)
    }
    return MEASURED.get(name, name), runs


def _tried(
    record: dict[str, Any], home: Path, told: list[dict[str, Any]], cell: Cell, name: str
) -> tuple[str, Runs]:  # fmt: skip
    """The rewards after one arm, with what the answer tells of each run: a gain takes those before as well."""
    keys: tuple[str, ...] = ("policy", "reward", "arm")
    runs: Runs = {}
    numbers = {each["seed"]: each for each in told if tuple(each[key] for key in keys) == cell}
    for trial, address in zip(record["config"]["about"]["trials"], record["inputs"]["after"], strict=True):
        made = Scores(address, home)
        if tuple(trial[key] for key in keys) == cell and (made.built or made.only_told):
            made.record = made.record | {"metrics": numbers.get(trial["seed"], {})}
            runs[trial["seed"]] = (trial["base"], made)
    return name, runs


def _numbers(
    form: Form, a: dict[str, Any], b: dict[str, Any], made: Callable[[str], Any], others: Callable[[str], Any]
) -> list[Number]:
    found = []
    for name in form.numbers:
        (told, mine), (_, other) = made(name), others(name)
        if not _same(mine, other) and (a.get(name) or b.get(name)):
            first, second = (Estimate.of(row[name]) if row.get(name) else None for row in (a, b))
            number = _number(told, form.unit, first, second, mine, other)
            found.append(replace(number, name=name))
    return found


def _same(a: Runs, b: Runs) -> bool:
    """Whether there are runs that both have, and the same artifacts of each: then there is nothing to compare."""
    shared = a.keys() & b.keys()
    return bool(shared) and all(a[run][1].address == b[run][1].address for run in shared)


def _number(name: str, unit: str, first: Estimate | None, second: Estimate | None, a: Runs, b: Runs) -> Number:
    """A number of two rows, and their difference, all three over the same units: seeds, or bases."""
    left, right = _units(_known(name, a), _known(name, b))
    mine, other = ({key: _mean(name, made) for key, made in side.items()} for side in (left, right))
    shared = [key for key in mine if key in other]
    if len(shared) > 1:
        mine, other = ({key: side[key] for key in shared} for side in (mine, other))
        difference, how = paired_t(list(other.values()), list(mine.values())), f"paired over {len(shared)} {unit}s"
        if len(shared) < max(len({of for of, _ in side.values()}) for side in (a, b)):
            how += f" that both have, and A and B are over these alone; ranks are over all {unit}s of each"
    elif shared and len(mine) == len(other) == 1:
        return _within_unit(name, unit, (first, second), left[shared[0]], right[shared[0]])
    else:
        difference, how = _between(mine, other, unit)
    return Number(name, _over(mine, first), _over(other, second), difference, how)


def _known(name: str, runs: Runs) -> Runs:
    """The runs whose record has a number; one whose record is gone has not."""
    found = {}
    for run, (of, made) in runs.items():
        value = made.record["metrics"].get(name) if made.built or made.only_told else None
        if value is not None and math.isfinite(value):
            found[run] = (of, made)
    return found


def _mean(name: str, made: list[Artifact]) -> float:
    return float(np.mean([each.record["metrics"][name] for each in made]))


def _units(a: Runs, b: Runs) -> tuple[dict[Any, list[Artifact]], dict[Any, list[Artifact]]]:
    """The runs by unit, under one key where they are paired; where two or more units are, the runs of both alone."""
    runs = [run for run in a if run in b]
    pairs = {run: (a[run][0], b[run][0]) for run in runs}
    if len(set(pairs.values())) > 1 or (runs and len(a) == len(b) == len(runs)):
        return _grouped(a, pairs), _grouped(b, pairs)
    return _grouped(a, {run: of for run, (of, _) in a.items()}), _grouped(b, {run: of for run, (of, _) in b.items()})


def _grouped(runs: Runs, keys: dict[Any, Any]) -> dict[Any, list[Artifact]]:
    found: dict[Any, list[Artifact]] = {}
    for run, key in keys.items():
        found.setdefault(key, []).append(runs[run][1])
    return found


def _within_unit(
    name: str, unit: str, told: tuple[Estimate | None, Estimate | None], a: list[Artifact], b: list[Artifact]
) -> Number:
    """A number of the one unit that both have: its prompts are drawn, those of all its runs together."""
    sides = [_over({unit: _mean(name, made)}, each) for made, each in zip((a, b), told, strict=True)]
    drawn = [_pooled([samples(open_artifact(one.address, one.home)).get(name) for one in made]) for made in (a, b)]
    ends = [each and {name: each} for each in drawn]
    if len(a) > 1 or len(b) > 1:
        sides = [sample.estimate() if sample else side for sample, side in zip(drawn, sides, strict=True)]
    values = [{name: side} for side in sides if side]
    difference, how = _over_units(name, ends[0] or {}, ends[1] or {}, values[0], values[1], unit)
    return Number(name, sides[0], sides[1], difference, how)


def _pooled(parts: list[Sample | None]) -> Sample | None:
    """The rows of several runs as of one; None where those of one are not kept."""
    known = [part for part in parts if part]
    if len(known) < len(parts) or len(known) < 2:
        return known[0] if len(known) == len(parts) else None
    units = [unit for part in known for unit in part.units]
    asked = [prompt for part in known for prompt in part.clusters or part.units]
    return replace(known[0], units=units, values=np.concatenate([part.values for part in known]), clusters=asked)


def _over(values: dict[Any, float], told: Estimate | None) -> Estimate | None:
    """The mean over seeds or bases; of one what the ranking told of it, whose interval is over prompts."""
    if not values:
        return told
    found = t_interval(list(values.values()))
    alone = told and len(values) == 1 and math.isclose(told.value, found.value, rel_tol=1e-6, abs_tol=1e-9)
    return told if alone else found


def _between(a: dict[Any, float], b: dict[Any, float], unit: str) -> tuple[Estimate, str]:
    """The difference over all units of each, fewer than two of which are of both."""
    if not a or not b:
        return Estimate(math.nan), f"no interval: its numbers, {unit} by {unit}, are not known of both"
    if min(len(a), len(b)) > 1:
        one = ", one of them the same" if a.keys() & b.keys() else ""
        return _unpaired(list(a.values()), list(b.values())), f"unpaired, {len(a)} and {len(b)} {unit}s{one}"
    value = float(np.mean(list(b.values())) - np.mean(list(a.values())))
    return Estimate(value), f"no interval: unlike {unit}s, and but one of A or B"


def _unpaired(a: list[float], b: list[float]) -> Estimate:
    """B less A over seeds that are not paired, by Welch's interval."""
    from scipy.stats import ttest_ind

    value = float(np.mean(b) - np.mean(a))
    if np.ptp(a) == np.ptp(b) == 0:
        return Estimate(value, value, value)
    found = ttest_ind(b, a, equal_var=False).confidence_interval()
    return Estimate(value, float(found.low), float(found.high))


def claims(a: Ranking, b: Ranking) -> list[dict[str, Any]]:
    """Claims that both judged, with another verdict: what names each, and `a` and `b`, a sentence each."""
    keys = Form.of(a.answer()).claims
    left, right = ({tuple(item[k] for k in keys): item for item in side.answer()["contrasts"]} for side in (a, b))
    return [
        dict(zip(keys, which, strict=True)) | {"a": left[which]["sentence"], "b": right[which]["sentence"]}
        for which in left
        if which in right and verdict(left[which]["sentence"]) != verdict(right[which]["sentence"])
    ]


def verdict(sentence: str) -> str:
    """What a claim's sentence begins with: `Held`, `Reversed`, `Not settled, ...`, `Not tested`."""
    return sentence.partition(":")[0]
