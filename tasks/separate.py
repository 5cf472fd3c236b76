"""What the hidden representations of an untrained language model foretell of reward models made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import overlap, policy, separation
from rmpipe.artifact import Measurement, Preferences, Weights
from rmpipe.generalising import Separating
from rmpipe.pair import SIDES
from rmpipe.preference import records
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def separate(
    config: Separating, base: Weights, preferences: Preferences, sets: dict[str, Preferences], *, out: Path, log: Log
) -> Measurement:
    """Inner products and cosines of seen with unseen differences, the max-margin separator, and token overlap.

    2507.07981, section 5.1 and Theorem 2: an explicit reward model on fixed representations ranks an unseen pair right
    if the separator of the seen pairs does. The tokens are counted by this model's tokenizer.

    Args:
        preferences: the pairs that reward models are trained on, of which the first are looked at.
        sets: the pairs that they are asked about.
    """
    import pandas as pd

    model = policy.load(base.model, base.dtype)
    seen = _differences(model, preferences.split("reward")[: config.pairs])
    found: dict[str, dict[str, Any]] = {}
    for number, (name, pairs) in enumerate(sets.items()):
        table = pairs.table()
        table = table.iloc[config.looked_at(len(table))]
        parts = separation.separation(seen, _differences(model, table))
        found[name] = {f"{part}.{key}": value for part, each in parts.items() if each for key, value in each.items()}
        found[name] |= _overlap(model.tokenizer, table)
        log.progress(number + 1, len(sets))
    numbers = {f"{name}.{key}": {"value": value, "low": None, "high": None}
               for name, part in found.items() for key, value in part.items()}  # fmt: skip
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    frame = pd.DataFrame([{"set": name, **part} for name, part in found.items()])
    frame.to_parquet(out / "prompts.parquet", index=False)
    values = {name: number["value"] for name, number in numbers.items()}
    return Measurement.at(out, f"{len(seen)} seen pairs against {len(sets)} sets", **values)


def _differences(model: policy.LanguageModel, table: Any) -> Any:
    """h(x, y+) - h(x, y-), (pairs, width)."""
    rows = records(table)
    prompts = [row["prompt"] for row in rows]
    states = [separation.last_hidden(model, prompts, [row[side] for row in rows]) for side in SIDES]
    return separation.differences(*states)


def _overlap(tokenizer: Any, table: Any) -> dict[str, float]:
    """How many tokens rewritten responses share with what they rewrite; nothing where nothing is rewritten."""
    if "original_chosen" not in table:
        return {}
    names = ("original_chosen", "original_rejected", "chosen", "rejected")
    rows = [
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        for texts in zip(*map(table.get, names), strict=True)
    ]
    ids = [list(column) for column in zip(*(row for row in rows if all(row)), strict=True)]
    if not ids:
        return {}
    return {f"overlap.{name}": value for name, value in overlap.mean_overlap(*ids).items()}
