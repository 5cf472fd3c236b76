"""On-policy preference pairs: what the policy itself writes, labelled by the ground truth."""

from __future__ import annotations

import json
from pathlib import Path

from rmpipe import policy as lm
from rmpipe.artifact import Preferences, RewardModel, Weights
from rmpipe.preference import pairs_from_samples
from rmpipe.study import Sampling
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def collect(
    config: Sampling, policy: Weights, preferences: Preferences, truth: RewardModel, seed: int, *, out: Path, log: Log
) -> Preferences:
    """Two responses of the policy to each prompt of the reward split, the better one chosen (2503.15477, F.1)."""
    import numpy as np

    _, prompts = preferences.prompts("reward")
    drawn = lm.sample(lm.load(policy.model), prompts, **lm.options(config, samples=2), seed=seed)
    responses = [sample.responses for sample in drawn]
    flat = [(prompt, text) for prompt, texts in zip(prompts, responses, strict=True) for text in texts]
    rewards = np.asarray(scorer_of(truth)([p for p, _ in flat], [t for _, t in flat])).reshape(len(prompts), 2)
    pairs, summary = pairs_from_samples(prompts, responses, rewards)
    pairs.to_parquet(out / "preferences.parquet")
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    return Preferences.at(out, f"{len(pairs)} on-policy pairs", pairs=float(len(pairs)))
