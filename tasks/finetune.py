"""Policies by supervised finetuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import world
from rmpipe.algorithm import Finetuning
from rmpipe.algorithm import finetune as trained
from rmpipe.artifact import Preferences, Weights
from rmpipe.config import StudyError
from rmpipe.study import Demonstrations
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def finetune(
    config: Finetuning, demonstrations: Demonstrations, content: str, seed: int, base: Weights,
    preferences: Preferences, *, out: Path, log: Log,
) -> Weights:  # fmt: skip
    """A policy: the base, trained on demonstrations with the loss on their completions only.

    Args:
        content: SHA-256 of the demonstrations' file, empty when there is none.
    """
    rows = _rows(demonstrations, preferences, seed)
    trained(base.model, rows, out / "model", config=config, seed=seed, log=log)
    return Weights.at(out, f"{base.address} on {len(rows)} demonstrations", demonstrations=float(len(rows)))


def _rows(demonstrations: Demonstrations, preferences: Preferences, seed: int) -> list[dict[str, Any]]:
    if demonstrations.source == "world":
        return world.demonstrations(demonstrations.quality, seed, demonstrations.count or 2000)
    if demonstrations.source == "local":
        return _local(Path(demonstrations.path or ""))[: demonstrations.count]
    table = preferences.split("reward")[: demonstrations.count]
    return [
        {"prompt": prompt, "completion": text} for prompt, text in zip(table["prompt"], table["chosen"], strict=True)
    ]


def _local(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        for field in ("prompt", "completion"):
            if not row.get(field):
                raise StudyError(
                    f"{file}: row {number}: {field} is missing or empty; every row needs prompt and completion"
                )
    return [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
