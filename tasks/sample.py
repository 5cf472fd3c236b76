"""Responses of a policy."""

from __future__ import annotations

from pathlib import Path

from rmpipe import engine
from rmpipe.artifact import Prompts, Rollouts, Weights
from rmpipe.study import Sampling
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def sample(config: Sampling, policy: Weights, preferences: Prompts, seed: int, *, out: Path, log: Log) -> Rollouts:
    """K responses to each prompt of a split; a prompt is read once for all of them.

    The first n prompts are a seeded draw, since `prepare` leaves them in an order drawn by the seed.
    """
    import numpy as np
    import pandas as pd

    names, prompts = (part[: config.prompts] for part in preferences.prompts(config.split))
    drawn = engine.draw(policy, prompts, config, seed=seed, progress=log.progress)
    columns = {
        name: [getattr(item, name) for item in drawn] for name in ("responses", "tokens", "finished", "logprobs")
    }
    pd.DataFrame({"prompt_id": names, "prompt": prompts, "split": config.split, **columns}).to_parquet(
        out / "rollouts.parquet", index=False
    )
    length, finished = float(np.mean(columns["tokens"])), float(np.mean(columns["finished"]))
    return Rollouts.at(out, f"{len(prompts)} prompts x {config.responses}", length=length, finished=finished)
