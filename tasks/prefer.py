"""A policy, trained on preference pairs without a reward model."""

from __future__ import annotations

from pathlib import Path

from rmpipe import direct
from rmpipe.artifact import Preferences, Preferred, Weights
from rmpipe.direct import Direct
from rmpipe.preference import records
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def prefer(config: Direct, policy: Weights, preferences: Preferences, seed: int, *, out: Path, log: Log) -> Preferred:
    """DPO, IPO or the chosen responses alone, from the policy as its own reference (2410.08847, section 2)."""
    rows = records(preferences.split("reward"))
    kept = direct.train(policy.model, rows, out / "model", config=config, seed=seed, log=log)
    long = f", {len(rows) - kept} are too long" if kept < len(rows) else ""
    return Preferred.at(out, f"{config.loss} on {kept} pairs{long}", pairs=float(kept))
