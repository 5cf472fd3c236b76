"""The answer to `displace`: what goes with displacement, what length explains of it, and which pairs to drop."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rmpipe import advice, attribution, single
from rmpipe.artifact import Diagnosis, Measurement, Ranking
from rmpipe.attribution import ALONE, MEASURED, Outcome
from rmpipe.generalisation import EVERY, over_runs
from rmpipe.interval import Estimate, clustered, share
from rmpipe.text import readable
from tasks.execution import Log
from tasks.stage import stage

EXAMPLES = 3
"""Pairs of either end of CHES, and of those to drop, that the report shows."""
UNCHOSEN = ("whole", "random")
"""Subsets that no similarity has chosen."""


@stage(version=1)
def weigh(
    about: dict[str, Any], claims: list[dict[str, Any]], diagnoses: list[Diagnosis], singles: list[Measurement],
    tracked: list[Measurement], before: list[Measurement], after: list[Measurement], *, out: Path, log: Log,
) -> Ranking:  # fmt: skip
    """Correlations of each similarity with what training did, the subsets compared, the claims judged, the advice.

    Args:
        about: name, question and rules of the study; `places` are the seed, policy and base of each diagnosis, single
            and refusal before; `treatments` those of each tracked training and refusal after.
        claims: comparisons stated beforehand.
        singles: pairs trained on alone; none where the study did not ask.
    """
    tables = [diagnosis.table() for diagnosis in diagnoses]
    outcomes = [_alone(place, single) for place, single in zip(about["places"], singles, strict=bool(singles))]
    runs = _runs(about, tracked, before, after)
    outcomes += _together(about, tables, tracked)
    similarities, treated = about["similarities"], about["subsets"]
    answer: dict[str, Any] = {**about, "seeds": sorted({place["seed"] for place in about["places"]})}
    answer["policies"] = list(dict.fromkeys(place["policy"] for place in about["places"]))
    answer["rows"] = attribution.rows(runs)
    answer["correlations"] = attribution.correlations(outcomes, similarities)
    answer["parts"] = attribution.parts(outcomes, similarities)
    answer["ladders"] = attribution.ladders(answer["rows"], treated, runs)
    answer["contrasts"] = attribution.judged(claims, outcomes, runs)
    answer["advice"] = _advice(answer, outcomes, runs, len(tables[0]))
    answer["diagnoses"] = [_diagnosed(*item, similarities) for item in zip(about["places"], diagnoses, strict=True)]
    answer["singles"] = _singles(about["places"], singles)
    answer["curves"] = [
        {**treatment, **measurement.json("curves.json"), "address": measurement.address}
        for treatment, measurement in zip(about["treatments"], tracked, strict=True)
    ]
    answer["gained"] = [
        {**treatment, **measurement.json("gained.json")}
        for treatment, measurement in zip(about["treatments"], tracked, strict=True)
    ]
    answer["samples"] = _samples(tables[0], outcomes[0].table if singles else None)
    answer["sentences"] = advice.sentences(answer)
    answer["dropped"] = []
    if by := answer["advice"]["by"]:
        dropped = _dropped(by, about["places"], tables)
        dropped.to_parquet(out / advice.LISTED, index=False)
        answer["dropped"] = _readable(dropped.head(EXAMPLES), by, "length")
    (out / "answer.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False))
    (out / "table.txt").write_text(advice.table(answer))
    return Ranking.at(out, answer["sentences"][0].split(". ")[0])


def _alone(place: dict[str, Any], single: Measurement) -> Outcome:
    table = single.table().rename(columns={"chosen_change": "change"})
    return Outcome(place["policy"], place["base"], place["seed"], ALONE, "", table)


def _together(about: dict[str, Any], tables: list[Any], tracked: list[Measurement]) -> list[Outcome]:
    """What became of each diagnosed pair of a subset that no similarity chose, so that its range is whole."""
    found = []
    at = {(place["seed"], place["policy"]): table for place, table in zip(about["places"], tables, strict=True)}
    for treatment, measurement in zip(about["treatments"], tracked, strict=True):
        rule = about["subsets"][treatment["subset"]]
        if rule["kind"] in UNCHOSEN and rule["equal_length"] is None:
            frame = measurement.table()
            frame = frame[frame["set"] == "trained"]
            frame = frame.assign(change=frame["chosen_after"] - frame["chosen_before"])[["id", "change"]]
            joined = at[treatment["seed"], treatment["policy"]].merge(frame, on="id")
            names = {key: treatment[key] for key in ("policy", "base", "seed", "training", "subset")}
            found.append(Outcome(**names, table=joined))
    return found


def _runs(
    about: dict[str, Any], tracked: list[Measurement], before: list[Measurement], after: list[Measurement]
) -> list[dict[str, Any]]:
    begun = {
        (place["seed"], place["policy"]): measurement
        for place, measurement in zip(about["places"], before, strict=bool(before))
    }
    found = []
    for index, (treatment, measurement) in enumerate(zip(about["treatments"], tracked, strict=True)):
        numbers: dict[str, Any] = measurement.numbers()
        run = {**treatment, "address": measurement.address, "pairs": int(numbers["pairs"]["value"])}
        run |= {name: numbers.get(key) for name, key in MEASURED.items()}
        if after:
            refused, first = after[index], begun[treatment["seed"], treatment["policy"]]
            run |= {name: refused.numbers()[name] for name in ("refusal", "unparsed")}
            run |= {"refusal_before": first.numbers()["refusal"], "refused": [first.address, refused.address]}
        found.append(run)
    return found


def _advice(answer: dict[str, Any], outcomes: list[Outcome], runs: list[dict[str, Any]], pairs: int) -> dict[str, Any]:
    """By which similarity pairs are dropped, None for by none; what it is expected to save, and what was measured.

    `refuted` is one that pairs would be dropped by, were that not measured to do harm.
    """
    by, items = advice.best(answer["correlations"]), advice.headline(answer["correlations"])
    told: dict[str, Any] = {"by": by, "refuted": None, "savings": [], "measured": [], "of": pairs}
    if by is None:
        return told | {"training": items[0]["training"] if items else None}
    policy, training, subset = (items[0][name] for name in ("policy", "training", "subset"))
    mine = [one for one in outcomes if (one.training, one.subset) == (training, subset)]
    mine = [one for one in mine if policy in (EVERY, one.policy)]
    lowest, random = _filtered(answer["subsets"], by)
    if lowest and random:
        trained = [run for run in runs if policy in (EVERY, run["policy"])]
        told["measured"] = attribution.measured(trained, lowest, random)
    if advice.harmful(told["measured"]):
        told |= {"by": None, "refuted": by}
    return told | {"savings": attribution.savings(mine, by), "training": training}


def _filtered(rules: dict[str, Any], by: str) -> tuple[str | None, str | None]:
    """A subset of lowest similarity, and a random one of as many pairs, drawn from the same ones."""
    for lowest, rule in rules.items():
        if rule["kind"] == "lowest" and rule["by"] == by:
            alike = {key: rule.get(key) for key in ("count", "share", "equal_length")} | {"kind": "random"}
            for name, other in rules.items():
                if alike == {key: other.get(key) for key in alike}:
                    return lowest, name
    return None, None


def _diagnosed(place: dict[str, Any], diagnosis: Diagnosis, similarities: list[str]) -> dict[str, Any]:
    numbers = diagnosis.numbers()
    told = {name: {key.split(".", 1)[1]: number and number["value"] for key, number in numbers.items()
                   if key.rsplit(".", 1)[0] == name} for name in similarities}  # fmt: skip
    return {**place, "address": diagnosis.address, "pairs": len(diagnosis.table()), "similarities": told}


def _singles(places: list[dict[str, Any]], singles: list[Measurement]) -> list[dict[str, Any]]:
    """Of pairs trained on alone, policy by policy: the published tables' quantities (2410.08847, Tables 1 to 3).

    `decrease` is the largest fall of pi(y+) within a run, from `start` to `end`, means over all runs; `..._steady` over
    those whose loss never rose, which alone were published.
    """
    found: dict[str, list[Any]] = {}
    for place, measurement in zip(places, singles, strict=bool(singles)):
        found.setdefault(place["policy"], []).append((place["base"], measurement))
    return [{"policy": policy, **_single(each)} for policy, each in found.items()]


def _single(each: list[tuple[str, Measurement]]) -> dict[str, Any]:
    runs = [run for _, measurement in each for run in measurement.json("runs.json")]
    told: dict[str, Any] = {"addresses": [measurement.address for _, measurement in each], "gained": _gained(runs)}
    tables = [(base, _followed(measurement)) for base, measurement in each]
    steady = [(base, table[table["steady"]]) for base, table in tables]
    for ending, some in (("", tables), ("_steady", steady)):
        told[f"pairs{ending}"] = sum(len(table) for _, table in some)
        told |= {f"{name}{ending}": _mean(some, name) for name in ("decrease", "start", "end")}
    told |= {name: _mean(tables, name) for name in ("chosen_change", "rejected_change", "displaced")}
    told["ranks"] = [
        {"step": look["step"]} | {by: _mean(tables, f"{by}.{look['step']}") for by in single.RANKED}
        for look in runs[0]["ranks"]
    ]
    told["unembedding"] = {name: _mean(tables, name) for name in single.UNEMBEDDED}
    return told


def _followed(measurement: Measurement) -> Any:
    """The table of pairs trained on alone, with what their runs tell beyond it."""
    import pandas as pd

    table = measurement.table()
    return table.join(pd.DataFrame(map(single.followed, measurement.json("runs.json")), index=table.index))


def _mean(tables: list[tuple[str, Any]], column: str) -> dict[str, Any] | None:
    """The mean of a column over bases, or seeds, or the pairs of a single run, those of one prompt together."""
    known = [(base, table[table[column].notna()]) for base, table in tables if column in table]
    known = [(base, table) for base, table in known if len(table)]
    if len(tables) == 1 and known:
        ((_, table),) = known
        values, prompts = table[column].to_numpy(float), table["prompt"].to_list()
        return (share if table[column].dtype == bool else clustered)(values, prompts).json()
    return over_runs([(base, Estimate(float(table[column].mean()))) for base, table in known])


def _gained(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How often a token is among those that gained most, at each step that was looked at, over runs."""
    counted: dict[int, Counter[str]] = {}
    for run in runs:
        for look in run["gained"]:
            counted.setdefault(look["step"], Counter()).update(look["tokens"])
    return [
        {"step": step, "tokens": [[token, count / len(runs)] for token, count in counter.most_common(5)]}
        for step, counter in sorted(counted.items())
    ]


def _samples(table: Any, alone: Any) -> list[dict[str, Any]]:
    """The pairs at either end of CHES, of the first seed and policy, with what training on them alone did."""
    order = table.sort_values("ches", ascending=False, kind="stable")
    if alone is not None:
        order = order.merge(alone[["id", "change"]], on="id")
    ends = [("highest", order.head(EXAMPLES)), ("lowest", order.tail(EXAMPLES))]
    return [{"end": end} | row for end, part in ends for row in _readable(part, "ches", "length", "change")]


def _readable(table: Any, *columns: str) -> list[dict[str, Any]]:
    """Pairs with their texts, and some of their numbers."""
    names = ("chosen", "rejected", *columns)
    return [
        {"prompt": readable(json.loads(row["prompt"]))} | {name: row.get(name) for name in names}
        for row in table.to_dict("records")
    ]


def _dropped(by: str, places: list[dict[str, Any]], tables: list[Any]) -> Any:
    """The pairs that are best dropped, for each policy and seed, with their texts."""
    import pandas as pd

    parts = []
    for place, table in zip(places, tables, strict=True):
        count = max(1, round(advice.DROPPED * len(table)))
        worst = table.sort_values(by, ascending=False, kind="stable").head(count)
        names = dict.fromkeys(("id", "prompt", "chosen", "rejected", by, "length"))
        parts.append(worst[list(names)].assign(policy=place["policy"], seed=place["seed"]))
    return pd.concat(parts, ignore_index=True)
