"""Explicit reward models, trained on preference pairs."""

from __future__ import annotations

from pathlib import Path

from rmpipe.algorithm import train_reward_model
from rmpipe.artifact import Preferences, RewardModel, Weights
from rmpipe.preference import mix
from rmpipe.reward import Explicit
from tasks.derive import save_kind
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def train(
    config: Explicit,
    base: Weights,
    off_policy: Preferences,
    on_policy: Preferences | None,
    seed: int,
    *,
    out: Path,
    log: Log,
) -> RewardModel:
    """A linear head on a policy, by the Bradley-Terry loss, from a mix of on- and off-policy pairs (2503.15477)."""
    pairs = off_policy.split("reward")
    if on_policy is not None:
        pairs = mix(on_policy.table(), pairs, config.on_policy, seed, count=config.pairs)
    rows = pairs[["prompt", "chosen", "rejected"]].to_dict("records")
    train_reward_model(base.model, rows, out / "model", config=config.training, seed=seed, log=log)
    save_kind(config, out)
    return RewardModel.at(out, f"{len(rows)} pairs, {config.on_policy:.0%} on-policy", pairs=float(len(rows)))
