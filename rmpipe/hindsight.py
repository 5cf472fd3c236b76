"""Hindsight: a forecast beside what came true."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rmpipe import scorecard
from rmpipe.forecast import LABELS, PREDICTORS
from rmpipe.interval import Estimate
from rmpipe.ranking import over_seeds
from rmpipe.teaching import known_as

ABOUT = ("policy", "algorithm", "reward_model")
JUDGED = "Foretold by labels of your own; what came true is the gain by the study's ground truth, {truth}."
UNJUDGED = "Foretold by labels of your own; no ground_truth says what came true, so nothing is compared."


def told(forecast: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], ground_truth: str | None) -> dict[str, Any]:
    """A forecast with what came true beside each of its rows, and the scorecard of it.

    Args:
        forecast: the answer of a forecast.
        rows: one a seed, policy, algorithm and reward model: what was measured of it before RLHF, and its gains:
            `proxy_gain`, `truth_gain`, and `truth.NAME_gain` of further ground truths, with `_low` and `_high` of each.
        ground_truth: the truth whose gain is `truth_gain`; None where there is none.

    Returns:
        the forecast with `gain` in each row, `{"value", "low", "high"}` as `ranking.over_seeds` has it (that of the
        study's ground truth where labels of one's own stood for it), and `scorecard`.
    """
    import pandas as pd

    table = pd.DataFrame(list(cells(forecast["rows"], rows, ground_truth)))
    keys = ["truth", *ABOUT]
    gains = {} if table.empty else {names: over_seeds(group, "gain") for names, group in table.groupby(keys)}
    nothing = Estimate(math.nan)
    found = [row | {"gain": gains.get(tuple(row[key] for key in keys), nothing).json()} for row in forecast["rows"]]
    card = None if table.empty else scorecard.card(table)
    said = [*forecast["sentences"]]
    if any(row["truth"] == LABELS != ground_truth for row in forecast["rows"]):
        if card:
            card["sentences"] = [JUDGED.format(truth=ground_truth), *card["sentences"]]
        elif ground_truth is None:
            said.append(UNJUDGED)
    return {**forecast, "sentences": said, "rows": found, "scorecard": card}


def sentences(forecast: Mapping[str, Any]) -> list[str]:
    """How the forecast did, or what it says where nothing came true of it."""
    card = forecast["scorecard"]
    return list(card["sentences"] if card else forecast["sentences"])


def cells(
    foretold: Iterable[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], ground_truth: str | None
) -> Iterable[dict[str, Any]]:
    """What `scorecard.card` wants: a row a truth, seed, policy, algorithm and reward model, with every predictor."""
    for each in foretold:
        judge = ground_truth if ground_truth and each["truth"] == LABELS else each["truth"]
        column = f"{known_as(judge, ground_truth)}_gain"
        for row in rows:
            if all(row[name] == each[name] for name in ABOUT) and row.get(column) is not None:
                found = {name: row[name] for name in ("seed", *ABOUT, "kind", "trained", "proxy_gain")}
                found |= {"truth": each["truth"], "judge": judge, "gain": row[column]}
                found |= {f"gain_{end}": row.get(f"{column}_{end}") for end in ("low", "high")}
                found |= {name: _value(each[name]) for name in ("forecast", *PREDICTORS)}
                yield found | _measured(row, found["accuracy_on"], judged=judge == ground_truth)


def _value(number: Mapping[str, float] | None) -> float:
    return math.nan if number is None else number["value"]


def _measured(row: Mapping[str, Any], on: float, judged: bool) -> dict[str, float]:
    """The accuracy off policy, known under the first ground truth alone, and the means that 2503.15477 shows."""
    off = math.nan if row.get("accuracy_off") is None or not judged else float(row["accuracy_off"])
    mean = (on + off) / 2
    return {"accuracy_off": off, "accuracy_mean": mean, "variance_and_accuracy": (mean + float(row["variance"])) / 2}
