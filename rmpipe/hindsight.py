"""Hindsight: a forecast beside what came true."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rmpipe import scorecard
from rmpipe.forecast import PREDICTORS
from rmpipe.interval import Estimate, t_interval
from rmpipe.teaching import known_as

ABOUT = ("policy", "algorithm", "reward_model")


def told(forecast: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], ground_truth: str) -> dict[str, Any]:
    """A forecast with what came true beside each of its rows, and the scorecard of it.

    Args:
        forecast: the answer of a forecast.
        rows: one a seed, policy, algorithm and reward model: what was measured of it before RLHF, and its gains:
            `proxy_gain`, `truth_gain`, and `truth.NAME_gain` of further ground truths.
        ground_truth: the truth whose gain is `truth_gain`.

    Returns:
        the forecast with `gain` in each row, `{"value", "low", "high"}` over seeds, and `scorecard`.
    """
    import pandas as pd

    table = pd.DataFrame(list(cells(forecast["rows"], rows, ground_truth)))
    keys = ["truth", *ABOUT]
    gains = {} if table.empty else {names: t_interval(group["gain"].to_numpy()) for names, group in table.groupby(keys)}
    nothing = Estimate(math.nan)
    found = [row | {"gain": gains.get(tuple(row[key] for key in keys), nothing).json()} for row in forecast["rows"]]
    card = None if table.empty else scorecard.card(table)
    return {**forecast, "rows": found, "scorecard": card}


def sentences(forecast: Mapping[str, Any]) -> list[str]:
    """How the forecast did, or what it says where nothing came true of it."""
    card = forecast["scorecard"]
    return list(card["sentences"] if card else forecast["sentences"])


def cells(
    foretold: Iterable[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], ground_truth: str
) -> Iterable[dict[str, Any]]:
    """What `scorecard.card` wants: a row a truth, seed, policy, algorithm and reward model, with every predictor."""
    for each in foretold:
        column = f"{known_as(each['truth'], ground_truth)}_gain"
        for row in rows:
            if all(row[name] == each[name] for name in ABOUT) and row.get(column) is not None:
                found = {name: row[name] for name in ("seed", *ABOUT, "kind", "trained", "proxy_gain")}
                found |= {"truth": each["truth"], "gain": row[column]}
                found |= {name: _value(each[name]) for name in ("forecast", *PREDICTORS)}
                yield found | _measured(row, found["accuracy_on"], judged=each["truth"] == ground_truth)


def _value(number: Mapping[str, float] | None) -> float:
    return math.nan if number is None else number["value"]


def _measured(row: Mapping[str, Any], on: float, judged: bool) -> dict[str, float]:
    """The accuracy off policy, known under the first ground truth alone, and the means that 2503.15477 shows."""
    off = math.nan if row.get("accuracy_off") is None or not judged else float(row["accuracy_off"])
    mean = (on + off) / 2
    return {"accuracy_off": off, "accuracy_mean": mean, "variance_and_accuracy": (mean + float(row["variance"])) / 2}
