"""Reward models, trained on preference pairs."""

from __future__ import annotations

from pathlib import Path

from rmpipe.artifact import Preferences, RewardModel, Weights
from rmpipe.preference import mix, records
from rmpipe.reward import Trained
from tasks.derive import save_kind
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2)
def train(
    config: Trained,
    base: Weights,
    off_policy: Preferences,
    on_policy: Preferences | None,
    seed: int,
    *,
    out: Path,
    log: Log,
) -> RewardModel:
    """A reward model made from a policy, on a mix of on- and off-policy pairs (2503.15477; 2507.07981).

    `config.pairs` bounds every mix, the one without on-policy pairs too: a policy gives at most one pair a prompt, and
    reward models of unlike shares are only comparable when they are given equally many.
    """
    own = None if on_policy is None else on_policy.table()
    rows = records(mix(own, off_policy.split("reward"), config.on_policy, seed, count=config.pairs))
    config.train(base.model, rows, out / "model", seed=seed, log=log)
    save_kind(config, out)
    return RewardModel.at(out, f"{len(rows)} pairs, {config.on_policy:.0%} on-policy", pairs=float(len(rows)))
