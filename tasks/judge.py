"""The answer to `generalise`: which reward model to trust on which set, by how much, and what was not settled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import audited, generalisation, trust
from rmpipe.artifact import Audit, Measurement, Ranking, Rollouts
from rmpipe.interval import Estimate, share
from rmpipe.text import readable
from tasks.execution import Log
from tasks.stage import stage

EXAMPLES = 2
"""Pairs of each set that the report shows, with every reward model's rewards."""


@stage(version=1)
def judge(
    trials: list[dict[str, Any]], claims: list[dict[str, Any]], about: dict[str, Any], measurements: list[Measurement],
    separations: list[Measurement], written: list[Rollouts | None], audits: dict[str, list[Audit]] | None = None,
    *, out: Path, log: Log,
) -> Ranking:  # fmt: skip
    """Accuracies on every set with intervals over bases, every two reward models compared, the claims judged.

    Args:
        trials: what each measurement is of: seed, policy, base, reward_model, kind, trained, made_here, and steps, how
            many it was trained for, None where it was not.
        claims: comparisons stated beforehand.
        about: name, question and sets of the study; `places` are the seed and policy of each separation, `draws` the
            bootstrap's draws.
        measurements: one a trial.
        separations: what each policy's representations foretold.
        written: what implicit reward models wrote themselves, one a trial, None where nothing was asked for.
        audits: of each reward model, one a trial.
    """
    import pandas as pd

    told = [measurement.numbers() for measurement in measurements]
    rows = pd.DataFrame(
        [_row(trial, index, name, shift, about["of_training"], told[index]) for index, trial in enumerate(trials)
         for name, shift in about["sets"].items()]
    )  # fmt: skip
    pairs = pd.concat([each.table().assign(trial=index) for index, each in enumerate(measurements)], ignore_index=True)
    answer = {**about, "seeds": sorted({trial["seed"] for trial in trials}), "correlations": []}
    answer["policies"] = list(dict.fromkeys(trial["policy"] for trial in trials))
    answer["rows"] = generalisation.rows(rows, pairs, about["draws"])
    _address(answer["rows"], trials, measurements)
    answer["contests"] = generalisation.contests(rows, pairs, about["draws"])
    answer["contrasts"] = generalisation.judged(claims, rows, pairs, about["draws"])
    answer["groups"] = _groups(trials, told, about["sets"])
    answer["phrases"] = _phrases(trials, measurements)
    answer["curves"] = [_curve(*item) for item in zip(trials, measurements, strict=True)]
    answer["separations"] = _separations(about, separations)
    answer["generation"] = _generation(trials, told, written, about["draws"])
    answer["samples"] = _samples(trials, pairs)
    answer["audits"] = audited.told(audits or {})
    answer["rows"] = audited.marked(answer["rows"], answer["audits"])
    said = audited.sentences(answer["audits"], about["ground_truth"])
    answer["sentences"] = [*trust.sentences(answer["rows"], answer["generation"]), *said]
    (out / "answer.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False))
    (out / "table.txt").write_text(trust.table(answer))
    return Ranking.at(out, f"{len(answer['rows'])} rows")


def _row(
    trial: dict[str, Any], index: int, name: str, shift: str, of_training: list[str], numbers: dict[str, Any]
) -> dict[str, Any]:
    row = {**trial, "trial": index, "set": name, "shift": shift, "of_training": name in of_training}
    for number in generalisation.SHOWN:
        found = numbers.get(f"{name}.{number}") or {"value": None, "low": None, "high": None}
        row |= {number: found["value"], f"{number}_low": found["low"], f"{number}_high": found["high"]}
    return row


def _address(rows: list[dict[str, Any]], trials: list[dict[str, Any]], measurements: list[Measurement]) -> None:
    """Give each row the addresses that its numbers came from."""
    for row in rows:
        row["addresses"] = {
            "evaluate": [
                measurement.address
                for trial, measurement in zip(trials, measurements, strict=True)
                if trial["reward_model"] == row["reward_model"]
                and row["policy"] in (trial["policy"], generalisation.EVERY)
            ]
        }


def _groups(trials: list[dict[str, Any]], told: list[dict[str, Any]], sets: dict[str, str]) -> list[dict[str, Any]]:
    """Accuracy group by group, the mean over the bases and seeds of each policy and reward model."""
    found = []
    for trial, numbers in zip(trials, told, strict=True):
        for key, number in numbers.items():
            name = next((one for one in sets if key.startswith(f"{one}.accuracy.")), None)
            if name and number:
                found.append((trial, name, key.removeprefix(f"{name}.accuracy."), Estimate.of(number)))
    return _gathered(found, "group", "accuracy")


def _phrases(trials: list[dict[str, Any]], measurements: list[Measurement]) -> list[dict[str, Any]]:
    """The mean reward of each response that comes again and again, as controlled phrases do."""
    found = [
        (trial, name, phrase, Estimate(mean))
        for trial, measurement in zip(trials, measurements, strict=True)
        for name, phrases in measurement.json("phrases.json").items() for phrase, mean in phrases.items()
    ]  # fmt: skip
    return _gathered(found, "phrase", "reward")


def _gathered(found: list[tuple[dict[str, Any], str, str, Estimate]], part: str, value: str) -> list[dict[str, Any]]:
    """Numbers of parts of a set, over the bases and seeds of each policy and reward model."""
    runs: dict[tuple[str, ...], list[tuple[str, Estimate]]] = {}
    for trial, name, what, number in found:
        runs.setdefault((trial["policy"], trial["reward_model"], name, what), []).append((trial["base"], number))
    keys = ("policy", "reward_model", "set", part)
    over = generalisation.over_runs
    return [dict(zip(keys, key, strict=True)) | {value: over(each)} for key, each in runs.items()]


def _curve(trial: dict[str, Any], measurement: Measurement) -> dict[str, Any]:
    """Accuracy on each set at each look, the end among them; none where nothing was kept before the end."""
    looks, numbers = measurement.json("looks.json"), measurement.numbers()
    names = {key: trial[key] for key in ("policy", "reward_model", "seed")}
    sets = [key for key in looks[0] if key != "step"] if looks else []
    ends = {name: [(numbers[f"{name}.accuracy"] or {}).get("value")] for name in sets}
    lines = {name: [*(look[name]["accuracy"] for look in looks), *ends[name]] for name in sets}
    return names | {"steps": [*(look["step"] for look in looks), trial["steps"]] if looks else [], "sets": lines}


def _separations(about: dict[str, Any], separations: list[Measurement]) -> list[dict[str, Any]]:
    found = []
    for (seed, policy), measurement in zip(about["places"], separations, strict=True):
        for row in measurement.table().to_dict("records"):
            known = {key: value for key, value in row.items() if value == value}
            found.append({"policy": policy, "seed": seed, "address": measurement.address, **known})
    return found


def _generation(
    trials: list[dict[str, Any]], told: list[dict[str, Any]], written: list[Rollouts | None], draws: int
) -> list[dict[str, Any]]:
    """Each implicit reward model as a writer, over its bases and seeds, beside its accuracy on the held-out pairs."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for trial, numbers, rollouts in zip(trials, told, written, strict=True):
        if rollouts is not None:
            part = {"base": trial["base"], "accuracy": numbers["test.accuracy"], "table": rollouts.table()}
            found.setdefault((trial["policy"], trial["reward_model"]), []).append(part)
    return [
        {"policy": policy, "reward_model": name, **_as_writer(parts, draws)} for (policy, name), parts in found.items()
    ]


def _as_writer(parts: list[dict[str, Any]], draws: int) -> dict[str, Any]:
    over = generalisation.over_bases
    told = {"accuracy": over([(part["base"], Estimate.of(part["accuracy"])) for part in parts])}
    for name, column in {"solved": "solved_after", "solved_by_base": "solved_before"}.items():
        right = [(part["base"], part["table"][column].astype(float)) for part in parts]
        told[name] = over([(base, share(values, draws=draws)) for base, values in right])
    return told


def _samples(trials: list[dict[str, Any]], pairs: Any) -> list[dict[str, Any]]:
    """The first pairs of each set, of the first seed and policy, with what each reward model gives them."""
    first = [index for index, trial in enumerate(trials)
             if (trial["seed"], trial["policy"]) == (trials[0]["seed"], trials[0]["policy"])]  # fmt: skip
    found = []
    for name in dict.fromkeys(pairs["set"]):
        there = pairs[(pairs["set"] == name) & (pairs["trial"] == first[0])].head(EXAMPLES)
        for row in there.to_dict("records"):
            mine = pairs[(pairs["set"] == name) & (pairs["id"] == row["id"])].set_index("trial")
            rewards = {
                trials[index]["reward_model"]: [
                    float(mine.loc[index, side]) for side in ("chosen_reward", "rejected_reward")
                ]
                for index in first
            }
            texts = {side: row[side] for side in ("chosen", "rejected")}
            found.append({"set": name, "prompt": readable(json.loads(row["asked"])), **texts, "rewards": rewards})
    return found
