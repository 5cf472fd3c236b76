"""Explicit reward models, trained on preference pairs."""

from __future__ import annotations

from pathlib import Path

from rmpipe.algorithm import train_reward_model
from rmpipe.artifact import Preferences, RewardModel, Weights
from rmpipe.preference import mix, records
from rmpipe.reward import Explicit
from tasks.derive import save_kind
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2)
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
    """A linear head on a policy, by the Bradley-Terry loss, from a mix of on- and off-policy pairs (2503.15477).

    `config.pairs` bounds every mix, the one without on-policy pairs too: a policy gives at most one pair a prompt, and
    reward models of unlike shares are only comparable when they are given equally many.
    """
    own = None if on_policy is None else on_policy.table()
    rows = records(mix(own, off_policy.split("reward"), config.on_policy, seed, count=config.pairs))
    train_reward_model(base.model, rows, out / "model", config=config.training, seed=seed, log=log)
    save_kind(config, out)
    return RewardModel.at(out, f"{len(rows)} pairs, {config.on_policy:.0%} on-policy", pairs=float(len(rows)))
