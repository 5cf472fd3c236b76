"""Policies by supervised finetuning."""

from __future__ import annotations

from pathlib import Path

from rmpipe.algorithm import Finetuning
from rmpipe.algorithm import finetune as trained
from rmpipe.artifact import Prompts, Weights
from rmpipe.demonstration import Demonstrations
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2)
def finetune(
    config: Finetuning, demonstrations: Demonstrations, content: str, seed: int, base: Weights,
    preferences: Prompts, *, out: Path, log: Log,
) -> Weights:  # fmt: skip
    """A policy: the base, trained on demonstrations with the loss on their completions only.

    Args:
        content: SHA-256 of the demonstrations' file or folder, empty when there is none.
    """
    split = "policy" if demonstrations.labels else "reward"  # what is not held out
    rows = demonstrations.rows(seed, preferences.split(split))
    trained(base.model, rows, out / "model", config=config, seed=seed, log=log)
    return Weights.at(out, f"{base.address} on {len(rows)} demonstrations", demonstrations=float(len(rows)))
