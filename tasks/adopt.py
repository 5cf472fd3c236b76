"""Rollouts and rewards that other programs made, as artifacts of ours."""

from __future__ import annotations

from pathlib import Path

from rmpipe.adoption import Adopted, Adopting, adopted
from rmpipe.artifact import Rollouts, Scores
from rmpipe.config import StudyError
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def adopt(config: Adopting, content: str, *, out: Path, log: Log) -> Rollouts:
    """K responses to each prompt that another program drew.

    They have a column of tokens where these were counted, and none of log-likelihoods.

    Args:
        content: SHA-256 of prompts and responses, which have one address whoever gives them rewards.
    """
    import pandas as pd

    found = adopted(config)
    _check(config, content, found.content)
    table = pd.DataFrame(found.rows).rename(columns={"id": "prompt_id"})
    table.to_parquet(out / "rollouts.parquet", index=False)
    return Rollouts.at(out, f"{len(table)} prompts x {len(table['responses'][0])} from {Path(config.path).name}")


@stage(version=1)
def adopt_scores(
    config: Adopting, reward_model: str, content: str, rollouts: Rollouts, *, out: Path, log: Log
) -> Scores:
    """Rewards of adopted rollouts, (prompts, K), that another program gave.

    Args:
        reward_model: whose rewards, by the name that the file has for them.
        content: SHA-256 of these rewards.
        rollouts: what they are rewards of.
    """
    import numpy as np

    found: Adopted = adopted(config)
    _check(config, content, found.content_of(reward_model))
    rewards = np.array(found.rewards[reward_model])
    np.save(out / "rollouts.npy", rewards)
    shape = " x ".join(map(str, rewards.shape))
    return Scores.at(out, shape, mean=float(rewards.mean()), std=float(rewards.std(ddof=1)))


def _check(config: Adopting, expected: str, found: str) -> None:
    if found != expected:
        raise StudyError(f"{config.path}: it has changed since it was looked into; adopt it again")
