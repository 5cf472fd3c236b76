"""The answer: which reward model teaches each policy best, and what the numbers support."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmpipe import audited, curriculum, hindsight, overoptimisation, ranking
from rmpipe.artifact import Artifact, Audit, Forecast, Measurement, Policy, Ranking
from rmpipe.sieve import DIFFERENCE
from rmpipe.text import readable
from rmpipe.verdict import WIDTH
from tasks.execution import Log
from tasks.stage import stage

FLATTEST = 3
"""Prompts that a report shows of each policy and reward model."""
NONE = {"value": None, "low": None, "high": None}


@stage(version=2)
def rank(
    cells: list[dict[str, Any]], claims: list[dict[str, Any]], about: dict[str, Any],
    measurements: list[Measurement], policies: list[Policy], audits: dict[str, list[Audit]] | None = None,
    foreseen: Forecast | None = None, *, out: Path, log: Log,
) -> Ranking:  # fmt: skip
    """One table with intervals, the correlations of every property with both gains, and the study's claims judged.

    Args:
        cells: what each measurement and policy belongs to: seed, policy, reward_model, algorithm, kind, trained.
        claims: comparisons stated beforehand.
        about: name, question and ground truth of the study.
        measurements: one a cell.
        policies: the policy that each cell trained.
        audits: of each reward model and of the ground truth, one a seed.
        foreseen: what was foretold of them, where there are labels to tell it by.
    """
    import pandas as pd

    rows = [_row(*item) for item in zip(cells, measurements, policies, strict=True)]
    answer = ranking.answer(pd.DataFrame(rows), claims)
    answer |= about | {"seeds": sorted({cell["seed"] for cell in cells})}
    answer["audits"] = audited.told(audits or {})
    answer["rows"] = audited.marked(answer["rows"], answer["audits"])
    answer["policies"] = list(dict.fromkeys(cell["policy"] for cell in cells))
    answer["algorithms"] = list(dict.fromkeys(cell["algorithm"] for cell in cells))
    answer["controls"] = _controls(rows)
    answer["curves"] = [_curve(cell, policy) for cell, policy in zip(cells, policies, strict=True)]
    answer["overoptimisation"] = overoptimisation.answer(answer["curves"])
    answer["variance_per_prompt"] = _variances(cells, measurements)
    answer["flattest"] = _flattest(cells, measurements)
    answer["samples"] = [
        text for item in zip(cells, policies, strict=True) for text in _samples(*item, cells[0]["seed"])
    ]
    _address(answer["rows"], cells, measurements, policies)
    if foreseen is not None:
        answer["forecast"] = hindsight.told(foreseen.answer(), rows, about["ground_truth"])
    table = ranking.table(answer)
    if sifted := _sifted(policies):
        answer["sentences"][-2:-2] = [sifted, DIFFERENCE]
        table += textwrap.fill(sifted, WIDTH, subsequent_indent="  ") + "\n"
    table += _paragraphs("How far to go:", answer["overoptimisation"]["sentences"])
    if foreseen is not None:
        table += _paragraphs("Foretold before RLHF:", hindsight.sentences(answer["forecast"]))
    said = audited.sentences(answer["audits"], about["ground_truth"])
    answer["sentences"] = [*said, *answer["sentences"]]
    table += _paragraphs("", said)
    (out / "answer.json").write_text(json.dumps(answer, indent=1, ensure_ascii=False))
    (out / "table.txt").write_text(table)
    return Ranking.at(out, f"{len(answer['rows'])} rows", **_seconds(foreseen, policies))


def _seconds(foreseen: Forecast | None, policies: list[Policy]) -> dict[str, float]:
    """What the forecast took, samples, scores and gradients with it, and RLHF: seconds of all jobs together.

    They go with the run and not into the answer, which is the same wherever it is made.
    """
    if foreseen is None:
        return {}
    given = foreseen.inputs
    parts = [*given["rewards"], *given["labels"].values(), *given["gradients"].values(), *given["rehearsals"].values()]
    drawn = [texts for scores in given["rewards"] if (texts := scores.inputs.get("texts")) is not None]
    told = {part.address: _own(part) for part in [foreseen, *parts, *drawn]}
    return {"forecast_seconds": sum(told.values()), "rlhf_seconds": sum(map(_own, policies))}


def _own(artifact: Artifact) -> float:
    """The seconds that an artifact took, as its record has them; 0 where it was made elsewhere."""
    return float(artifact.record.get("seconds") or 0.0)


def _sifted(policies: list[Policy]) -> str:
    """How many prompts were left out of what policies trained on, where any were looked at for that."""
    sieves = [sieve for policy in policies if (sieve := policy.inputs.get("sieve")) is not None]
    if not sieves:
        return ""
    told = []
    for name in ("dropped", "deferred"):
        counts = [int(sieve.record["metrics"][name]) for sieve in sieves]
        if max(counts):
            told.append(f"{' to '.join(map(str, sorted({min(counts), max(counts)})))} {name}")
    left = " and ".join(told) or "none left out"
    return f"Sifted: of the prompts that were sampled, {left} by each reward model under its policy; others are kept."


def _paragraphs(title: str, sentences: list[str]) -> str:
    """Sentences below a title, as a terminal shows them; nothing where there are none."""
    told = [textwrap.fill(text, WIDTH, subsequent_indent="  ") for text in sentences]
    return "\n".join(["", *([title] if title else []), *told, ""]) if told else ""


def _row(cell: dict[str, Any], measurement: Measurement, policy: Policy) -> dict[str, Any]:
    """One cell as the ranking wants it: numbers, their bounds, and the gains prompt by prompt."""
    from rmpipe import interval

    numbers: dict[str, dict[str, Any]] = {name: number or NONE for name, number in measurement.numbers().items()}
    prompts, curve = policy.samples(), policy.table()
    row = dict(cell)
    for gain in (name for name in prompts if name.endswith("_gain")):
        numbers[gain] = interval.bootstrap(prompts[gain].to_numpy()).json() or NONE
        row[f"{gain}_per_prompt"] = prompts[gain].to_list()
    for name, number in numbers.items():
        row |= {name: number["value"], f"{name}_low": number["low"], f"{name}_high": number["high"]}
    last, first = curve.iloc[-1], curve.iloc[0]
    return row | {"kl": last["kl"], "length_gain": last["length"] - first["length"]}


def _controls(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What length alone, a constant and a coin score where the accuracies are taken: means over seeds, per policy."""
    found = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        mine = [row for row in rows if row["policy"] == policy]
        names = [name for name in mine[0] if name.startswith("control_") and not name.endswith(("_low", "_high"))]
        means = {name.removeprefix("control_"): sum(row[name] for row in mine) / len(mine) for name in names}
        found.append({"policy": policy} | means)
    return found


def _curve(cell: dict[str, Any], policy: Policy) -> dict[str, Any]:
    table = policy.table()
    names = {key: cell[key] for key in ("policy", "algorithm", "reward_model", "seed")}
    return names | {("steps" if name == "step" else name): table[name].to_list() for name in table}


def _variances(cells: list[dict[str, Any]], measurements: list[Measurement]) -> list[dict[str, Any]]:
    """Variance prompt by prompt, of the first seed, each policy and reward model once."""
    return [
        {**names, "values": measurement.table()["variance"].round(4).to_list()}
        for names, measurement in _first_seed(cells, measurements)
    ]


def _flattest(cells: list[dict[str, Any]], measurements: list[Measurement]) -> list[dict[str, Any]]:
    """How many prompts teach nothing, and the flattest with samples; of the first seed."""
    found = []
    for names, measurement in _first_seed(cells, measurements):
        rollouts, scores = measurement.inputs["rollouts"], measurement.inputs["scores"]
        threshold, share = measurement.record["config"]["threshold"], measurement.numbers()["flat_share"]
        rows = curriculum.flattest(rollouts, scores, threshold, FLATTEST, 2)
        prompts = [{name: row[name] for name in ("white_std", "flat", "responses")}
                   | {"prompt": readable(row["prompt"])} for row in rows]  # fmt: skip
        found.append(names | {"threshold": threshold, "share": share and share["value"], "prompts": prompts})
    return found


def _first_seed(
    cells: list[dict[str, Any]], measurements: list[Measurement]
) -> Iterator[tuple[dict[str, str], Measurement]]:
    """The measurements of the first seed, each policy and reward model once."""
    seed, seen = cells[0]["seed"], {}
    for cell, measurement in zip(cells, measurements, strict=True):
        if cell["seed"] == seed:
            seen[cell["policy"], cell["reward_model"]] = measurement
    for (policy, model), measurement in seen.items():
        yield {"policy": policy, "reward_model": model}, measurement


def _samples(cell: dict[str, Any], policy: Policy, seed: int) -> list[dict[str, Any]]:
    if cell["seed"] != seed:
        return []
    table = policy.samples().head(2)
    names = {key: cell[key] for key in ("policy", "algorithm", "reward_model")}
    rows = json.loads(table.drop(columns=[name for name in table if name.endswith("_gain")]).to_json(orient="records"))
    return [names | row | {"prompt": readable(row["prompt"])} for row in rows]


def _address(
    rows: list[dict[str, Any]], cells: list[dict[str, Any]], measurements: list[Measurement], policies: list[Policy]
) -> None:
    """Give each row the addresses that its numbers came from."""
    keys = ("policy", "algorithm", "reward_model")
    for row in rows:
        mine = [i for i, cell in enumerate(cells) if all(cell[key] == row[key] for key in keys)]
        row["addresses"] = {
            "measure": [measurements[i].address for i in mine],
            "align": [policies[i].address for i in mine],
        }
