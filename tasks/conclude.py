"""The answer to `vanish`: where the gradient vanishes, who gained under which arm, and how many labels are worth it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import reckoning, recovery, remedy
from rmpipe.artifact import Gauge, Measurement, Policy, Ranking, Scores, Sieve, Weights
from rmpipe.attribution import over_seeds
from rmpipe.gauge import LIMITS, related
from rmpipe.interval import Estimate
from rmpipe.recovery import Run, Unit
from rmpipe.text import readable
from tasks.execution import Log
from tasks.stage import stage

EXAMPLES = 3
"""Prompts of the least and of the most std that the report shows."""
POINTS = 200
"""Prompts of the first seed that are drawn in a figure."""


@stage(version=1)
def conclude(
    about: dict[str, Any], claims: list[dict[str, Any]], gauges: list[Gauge], before: list[Scores],
    after: list[Scores], imitated: list[Weights], aligned: list[Policy], sieves: list[Sieve],
    controlled: list[Measurement], *, out: Path, log: Log,
) -> Ranking:  # fmt: skip
    """Gains of prompts of low and of high reward std under each arm, what they recover, the claims judged, the advice.

    Args:
        about: name, question and arms of the study; `places` are the seed, policy, base and reward of each gauge and
            of each of the rewards before; `trials` those of each of the rewards after, with their arm; `controlled` the
            name and seed of each experiment.
        claims: what was stated beforehand.
        imitated: what learnt labels; None for an arm without.
        aligned: what was taught by a reward; None for an arm without.
        sieves: which prompts were left out; None for an arm that takes all.
    """
    places, trials = about["places"], about["trials"]
    gauged = [(place, gauge.numbers()) for place, gauge in zip(places, gauges, strict=True)]
    made = list(zip(trials, after, imitated, aligned, sieves, strict=True))
    runs = _runs(about, gauges, before, made)
    experiments = _experiments(about["controlled"], controlled)
    answer: dict[str, Any] = {key: value for key, value in about.items() if key != "trials"}
    answer["vanished"] = _vanished(about, gauged, gauges)
    answer["rows"] = _rows(recovery.rows(runs, about["reference"], about["arms"]), made)
    answer["runs"] = recovery.each(runs, about["reference"])
    answer["quarters"] = recovery.quarters(runs)
    answer["curves"] = _curves(made, before, places)
    answer["labelled"] = recovery.curve(answer["rows"])
    answer["points"] = _points(runs, places, gauges)
    answer["prompts"] = _prompts(places, gauges)
    answer["sieves"] = _sieves(made)
    answer["advice"] = recovery.advised(runs, answer["rows"])
    answer["controlled"] = [_controlled(name, each) for name, each in experiments.items()]
    told = {name: [(seed, _methods(each)) for seed, each in mine] for name, mine in experiments.items()}
    answer["contrasts"] = reckoning.judged(claims, gauged, runs, about["reference"], told)
    answer["sentences"] = remedy.sentences(answer)
    (out / "answer.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False))
    (out / "table.txt").write_text(remedy.table(answer))
    return Ranking.at(out, answer["sentences"][0].split(". ")[0])


def _runs(about: dict[str, Any], gauges: list[Gauge], before: list[Scores], made: list[Any]) -> list[Run]:
    keys = ("seed", "policy", "reward")
    begun = {
        tuple(place[key] for key in keys): (gauge.table(), _means(first))
        for place, gauge, first in zip(about["places"], gauges, before, strict=True)
    }
    runs = []
    for trial, last, imitated, aligned, _ in made:
        gauge, first = begun[tuple(trial[key] for key in keys)]
        told = {"tokens": last.inputs["texts"].record["metrics"]["length"]}
        told |= {"labels": imitated.record["metrics"]["labels"]} if imitated else {}
        told |= {"kl": aligned.record["metrics"]["kl"]} if aligned else {}
        table = recovery.outcome(gauge, first, _means(last), about["low"])
        runs.append(Run(trial["policy"], trial["base"], trial["seed"], trial["reward"], trial["arm"], table, told))
    return runs


def _means(scores: Scores) -> Any:
    """The mean reward at each prompt."""
    import pandas as pd

    keys = scores.inputs["texts"].table()["prompt_id"].astype(str)
    return pd.DataFrame({"prompt_id": keys, "reward": scores.rewards().astype(float).mean(axis=1)})


def _vanished(about: dict[str, Any], gauged: list[Any], gauges: list[Gauge]) -> list[dict[str, Any]]:
    found = recovery.vanished(gauged)
    for row in found:
        mine = [gauge for (place, _), gauge in zip(gauged, gauges, strict=True)
                if (place["policy"], place["reward"]) == (row["policy"], row["reward"])]  # fmt: skip
        row |= {"prompts": len(mine[0].table()), "samples": about["samples"]}
        row["addresses"] = {"gauge": [gauge.address for gauge in mine]}
    return found


def _rows(rows: list[dict[str, Any]], made: list[Any]) -> list[dict[str, Any]]:
    """Each with the addresses of what it is told from."""
    for row in rows:
        mine = [each for each in made if all(each[0][key] == row[key] for key in ("policy", "reward", "arm"))]
        told = {"score": [each[1] for each in mine], "imitate": [each[2] for each in mine],
                "align": [each[3] for each in mine]}  # fmt: skip
        row["addresses"] = {
            stage: list(dict.fromkeys(each.address for each in found)) for stage, found in told.items() if all(found)
        }
    return rows


def _curves(made: list[Any], before: list[Scores], places: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Held-out reward while an arm was taught, back in reward units."""
    from rmpipe.variance import shift_and_scale

    keys, found = ("seed", "policy", "reward"), []
    scaled = {tuple(place[key] for key in keys): shift_and_scale(first.rewards())
              for place, first in zip(places, before, strict=True)}  # fmt: skip
    for trial, _, _, aligned, _ in made:
        if aligned:
            (shift, scale), table = scaled[tuple(trial[key] for key in keys)], aligned.table()
            names = {key: trial[key] for key in ("policy", "reward", "arm", "seed")} | {"address": aligned.address}
            told = {"steps": table["step"].tolist(), "kl": table["kl"].tolist()}
            found.append(names | told | {"rewards": (table["proxy"] / scale - shift).tolist()})
    return found


def _points(runs: list[Run], places: list[dict[str, Any]], gauges: list[Gauge]) -> list[dict[str, Any]]:
    """Prompts of the first seed: std, gradient norm, the gain under each arm, and the std that parts low from high."""
    found = []
    for place, gauge in zip(places, gauges, strict=True):
        keys = {key: place[key] for key in ("policy", "reward", "seed")}
        if keys["seed"] == places[0]["seed"]:
            mine = [run for run in runs if (run.policy, run.reward, run.seed) == tuple(keys.values())]
            table = (mine[0].table if mine else gauge.table())[:POINTS]
            told: dict[str, Any] = {name: _listed(table[name]) for name in ("std", "norm")}
            told["cut"] = (cut := gauge.numbers()["cut"]) and cut["value"]
            found.append(keys | told | {"gains": {run.arm: _listed(run.table["gain"][:POINTS]) for run in mine}})
    return found


def _listed(column: Any) -> list[float | None]:
    """Numbers as JSON holds them."""
    return [None if value != value else value for value in column.tolist()]


def _prompts(places: list[dict[str, Any]], gauges: list[Gauge]) -> list[dict[str, Any]]:
    """Prompts of the least and of the most std, of the first seed, with samples."""
    found = []
    for place, gauge in zip(places, gauges, strict=True):
        if place["seed"] != places[0]["seed"]:
            continue
        table = gauge.table().sort_values("std", kind="stable")
        for end, part in (("least", table.head(EXAMPLES)), ("most", table.tail(EXAMPLES)[::-1])):
            for row in part.to_dict("records"):
                told = {"prompt": readable(json.loads(row["prompt"])), "samples": json.loads(row["samples"])}
                told |= {name: None if row[name] != row[name] else row[name] for name in ("mean", "std", "norm")}
                found.append({key: place[key] for key in ("policy", "reward", "seed")} | {"end": end} | told)
    return found


def _sieves(made: list[Any]) -> list[dict[str, Any]]:
    """How many prompts were kept, policy by policy and reward by reward."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for trial, *_, sieve in made:
        if sieve:
            found.setdefault((trial["policy"], trial["reward"]), {})[sieve.address] = (trial, sieve)
    told = []
    for (policy, reward), mine in found.items():
        item: dict[str, Any] = {"policy": policy, "reward": reward, "addresses": {"sift": list(mine)}}
        for name in ("kept", "dropped", "deferred"):
            each = [(Unit.of(trial), Estimate(sieve.record["metrics"][name])) for trial, sieve in mine.values()]
            item[name] = over_seeds(each)
        told.append(item)
    return told


def _experiments(told: list[list[Any]], measured: list[Measurement]) -> dict[str, list[tuple[int, Measurement]]]:
    """Controlled experiments by name, each with its seeds."""
    found: dict[str, list[tuple[int, Measurement]]] = {}
    for (name, seed), measurement in zip(told, measured, strict=True):
        found.setdefault(name, []).append((seed, measurement))
    return found


def _methods(measurement: Measurement) -> dict[str, dict[str, float]]:
    """What each method of an experiment gained with one seed."""
    numbers = {name: Estimate.of(number).value for name, number in measurement.numbers().items() if number}
    names = dict.fromkeys(name.split(".")[0] for name in numbers if ".gain" in name)
    return {
        name: {part: numbers[f"{name}.gain_{part}"] for part in ("modified", "unmodified")}
        | {"accuracy": numbers[f"{name}.accuracy"]}
        for name in names
    }  # fmt: skip


def _controlled(name: str, mine: list[tuple[int, Measurement]]) -> dict[str, Any]:
    """A controlled experiment over its seeds."""
    import numpy as np

    units = [Unit(f"seed {seed}", seed) for seed, _ in mine]
    seeds = [_methods(measurement) for _, measurement in mine]
    methods = []
    for method in seeds[0]:
        each = [told[method] | {"gap": told[method]["unmodified"] - told[method]["modified"]} for told in seeds]
        numbers = {key: _over(units, [one[key] for one in each]) for key in each[0]}
        methods.append({"method": method, **numbers})
    tables = [measurement.table() for _, measurement in mine]
    before = {
        f"{what}_{part}": _over(units, [_value(one, f"initial.{what}_{part}") for _, one in mine])
        for what in ("std", "norm") for part in ("modified", "unmodified")
    }  # fmt: skip
    before["spearman"] = _over(units, [related(one["std"], one["norm"], alone=False).value for one in tables])
    for key, limit in LIMITS.items():
        told = {"half_range": _half_range(mine[0][1])} if key == "bound" else {}
        medians = [float(np.median(one["norm"] / limit(one["std"], one["gamma"], 1, **told))) for one in tables]
        before[key] = _over(units, medians)
    curves = [{"seed": seed, **curve} for seed, one in mine for curve in one.json("curves.json")]
    points = {key: tables[0][key].tolist() for key in ("std", "norm", "modified", "gamma")}
    return {
        "name": name, "seeds": [seed for seed, _ in mine], "methods": methods, "before": before,
        "curves": _by_method(curves), "points": points, "addresses": {"control": [one.address for _, one in mine]},
    }  # fmt: skip


def _half_range(measurement: Measurement) -> float:
    """Half of what a controlled experiment's rewards range over."""
    rewards = measurement.record["config"]["rewards"]
    wrong = [rewards[name] for name in ("wrong", "wrong_modified") if rewards[name] is not None]
    return (rewards["right"] - min(wrong)) / 2


def _value(measurement: Measurement, name: str) -> float:
    number = measurement.numbers()[name]
    return float("nan") if number is None else number["value"]


def _over(units: list[Unit], values: list[float]) -> dict[str, Any] | None:
    return over_seeds([(unit, Estimate(value)) for unit, value in zip(units, values, strict=True)])


def _by_method(looks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each method and seed, from a row for each look."""
    lines: dict[tuple[str, int], dict[str, Any]] = {}
    for look in looks:
        line = lines.setdefault((look["method"], look["seed"]), {"method": look["method"], "seed": look["seed"]})
        for name, value in look.items():
            if name not in ("method", "seed"):
                line.setdefault("steps" if name == "step" else name, []).append(value)
    return list(lines.values())
