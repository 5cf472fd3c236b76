"""What training on preference pairs did to a policy: to the pairs' likelihoods, and to what it writes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rmpipe import policy as lm
from rmpipe.artifact import Measurement, Preferences, Preferred, Weights
from rmpipe.config import StudyError
from rmpipe.displacement import displaced, gainers, preference_accuracy
from rmpipe.displacing import Tracking
from rmpipe.interval import clustered, share
from rmpipe.pair import SIDES
from rmpipe.preference import records
from rmpipe.text import parted
from tasks.execution import Log
from tasks.stage import stage

SETS = {"trained": "reward", "held_out": "test"}
"""The fixed sets that are followed, and the split that each is of."""
SHOWN = 3
"""Tokens of each pair's first place that gained most, which are counted (2410.08847's tables have 1, 2 and 3)."""


@stage(version=1)
def track(
    config: Tracking, before: Weights, after: Preferred, preferences: Preferences, seed: int, *, out: Path, log: Log
) -> Measurement:
    """log pi of chosen and rejected responses before, during and after; where the mass went; KL and length.

    Definition 1 of 2410.08847: the preferred response is displaced where log pi(y+) falls though the loss falls.

    Args:
        preferences: those that it was trained on, and those held out.
    """
    import pandas as pd

    begin = lm.load(before.model, before.dtype)
    rows = {name: _rows(preferences, split, config.pairs) for name, split in SETS.items()}
    pairs = {name: _ids(begin.tokenizer, part) for name, part in rows.items() if part}
    states: dict[int, dict[str, Any]] = {0: _likelihoods(begin, pairs)}
    for number, look in enumerate(after.looks()):
        states[int(look)] = _likelihoods(lm.load(after.look(look) / "model", after.dtype), pairs)
        log.progress(number + 1, len(after.looks()) + 1)
    end = lm.load(after.model, after.dtype)
    states[_last_step(after)] = _likelihoods(end, pairs)
    frame = pd.concat([_frame(name, rows[name], states) for name in pairs], ignore_index=True)
    frame.to_parquet(out / "prompts.parquet", index=False)
    numbers = {f"{name}.{key}": value for name, part in frame.groupby("set", sort=False)
               for key, value in _numbers(part).items()}  # fmt: skip
    numbers |= _writing(config, begin, end, preferences, seed)
    numbers["pairs"] = {"value": float(len(preferences.split(SETS["trained"]))), "low": None, "high": None}
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    (out / "curves.json").write_text(json.dumps(_curves(states)))
    (out / "gained.json").write_text(json.dumps(_gained(config.top, begin, end, pairs["trained"]), ensure_ascii=False))
    values = {name: number["value"] for name, number in numbers.items() if number}
    told = f"log pi(y+) {values['trained.chosen']:+.2f}, {values['trained.displaced']:.0%} displaced"
    return Measurement.at(out, told, **values)


def _rows(preferences: Preferences, split: str, count: int | None) -> list[dict[str, Any]]:
    return records(preferences.split(split)[:count], ("id", "prompt", "chosen", "rejected"))


def _last_step(after: Preferred) -> int:
    return int(after.record["config"]["training"]["steps"])


def _ids(tokenizer: Any, rows: list[dict[str, Any]]) -> dict[str, list[lm.Pair]]:
    return {side: [parted(tokenizer, row["prompt"], row[side]) for row in rows] for side in SIDES}


def _likelihoods(model: lm.LanguageModel, pairs: dict[str, dict[str, list[lm.Pair]]]) -> dict[str, Any]:
    """log pi of each side of each pair of each set, nats."""
    import numpy as np

    found = {
        name: {side: lm.likelihoods(model, each).numpy() for side, each in sides.items()}
        for name, sides in pairs.items()
    }
    if not all(np.isfinite(values).all() for sides in found.values() for values in sides.values()):
        remedy = "lower trainings.NAME.training.optimiser.learning_rate, of the training that it had"
        raise StudyError(f"its likelihoods are no longer finite; {remedy}")
    return found


def _frame(name: str, rows: list[dict[str, Any]], states: dict[int, dict[str, Any]]) -> Any:
    """A row a pair: likelihoods before and after, and the largest fall of the preferred one between two looks."""
    import numpy as np
    import pandas as pd

    first, last = states[min(states)][name], states[max(states)][name]
    path = np.stack([states[step][name]["chosen"] for step in sorted(states)])
    fall = (np.maximum.accumulate(path, axis=0) - path).max(axis=0)
    columns = {f"{side}_{when}": state[side] for side in SIDES for when, state in (("before", first), ("after", last))}
    told = {key: [row[key] for row in rows] for key in ("id", "chosen", "rejected")}
    asked = [json.dumps(row["prompt"]) for row in rows]
    return pd.DataFrame({"set": name, "prompt": asked, **told, **columns, "fall": fall})


def _numbers(frame: Any) -> dict[str, Any]:
    """Each with an interval, pairs of a prompt drawn together."""
    columns = {
        "chosen": frame["chosen_after"] - frame["chosen_before"],
        "rejected": frame["rejected_after"] - frame["rejected_before"],
        "displaced": displaced(frame["chosen_before"], frame["chosen_after"]).astype(float),
        "fall": frame["fall"],
        "accuracy_before": (frame["chosen_before"] > frame["rejected_before"]).astype(float),
        "accuracy": (frame["chosen_after"] > frame["rejected_after"]).astype(float),
    }
    asked, shares = frame["prompt"].to_list(), ("displaced", "accuracy_before", "accuracy")
    return {
        name: (share if name in shares else clustered)(list(values), asked).json() for name, values in columns.items()
    }


def _curves(states: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Means over each set at each look, the beginning and the end among them."""
    steps = sorted(states)
    curves: dict[str, Any] = {"steps": steps}
    for name, first in states[0].items():
        each = [states[step][name] for step in steps]
        curves[name] = {side: [float((state[side] - first[side]).mean()) for state in each] for side in SIDES}
        curves[name]["accuracy"] = [float(preference_accuracy(state["chosen"], state["rejected"])) for state in each]
    return curves


def _writing(
    config: Tracking, before: lm.LanguageModel, after: lm.LanguageModel, preferences: Preferences, seed: int
) -> dict[str, Any]:
    """KL from the beginning, and lengths, of what it writes to held-out prompts."""
    prompts = preferences.prompts("test")[1][: config.writing.prompts]
    if not prompts:
        return {}
    told = {**lm.options(config.writing, samples=1), "seed": seed}
    drawn = {name: lm.sample(model, prompts, **told) for name, model in (("before", before), ("after", after))}
    values = lm.divergence(after, before, prompts, drawn["after"])
    for name, items in drawn.items():
        values[f"tokens_{name}"] = sum(sum(item.tokens) for item in items) / len(items)
    return {name: {"value": float(value), "low": None, "high": None} for name, value in values.items()}


def _gained(
    top: int, before: lm.LanguageModel, after: lm.LanguageModel, pairs: dict[str, list[lm.Pair]]
) -> dict[str, Any]:
    """Where the mass of the preferred responses' places went.

    `everywhere`: the tokens whose probability, its mean over all places of all preferred responses, gained most.
    `first`: how often a token is among the three that gained most at the first place (2410.08847, appendix H).
    """
    chosen = pairs["chosen"]
    (earlier, first_before), (later, first_after) = _at_places(before, chosen), _at_places(after, chosen)
    mean = later - earlier
    counted = Counter(
        token for index in first_before for token in gainers(first_before[index], first_after[index], SHOWN)
    )
    best = mean.topk(min(top, len(mean)))
    word = before.tokenizer.convert_ids_to_tokens
    return {
        "everywhere": [[word(int(token)), float(value)] for value, token in zip(*best, strict=True)],
        "first": [[word(int(token)), count / len(chosen)] for token, count in counted.most_common(top)],
    }


def _at_places(model: lm.LanguageModel, pairs: list[lm.Pair]) -> tuple[Any, dict[int, Any]]:
    """The mean probability of each token over all places of all responses; log-probabilities at each first place."""
    import torch

    total, places, first = torch.zeros(()), 0, {}
    for index, spread in lm.next_tokens(model, pairs):
        total, places = total + spread.exp().sum(0), places + len(spread)
        first[index] = spread[0].clone().numpy()  # a view would keep the distributions of its whole batch
    return total / max(1, places), first
