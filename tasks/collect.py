"""On-policy preference pairs: what the policy itself writes, labelled by the ground truth."""

from __future__ import annotations

import json
from pathlib import Path

from rmpipe import policy as lm
from rmpipe.artifact import Preferences, RewardModel, Weights
from rmpipe.preference import pairs_from_samples
from rmpipe.study import Collecting
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2, retry=(ConnectionError, TimeoutError))
def collect(
    config: Collecting, policy: Weights, preferences: Preferences, truth: RewardModel, seed: int, *, out: Path, log: Log
) -> Preferences:
    """Two responses of the policy to each prompt of the reward split, the better one chosen (2503.15477, F.1).

    The first n prompts are a seeded draw, since `prepare` leaves them in an order drawn by the seed.
    """
    import numpy as np

    prompts = preferences.prompts("reward")[1][: config.prompts]
    options = lm.options(config, samples=2)
    drawn = lm.sample(lm.load(policy.model, policy.dtype), prompts, **options, seed=seed, progress=log.progress)
    responses = [sample.responses for sample in drawn]
    flat = [(prompt, text) for prompt, texts in zip(prompts, responses, strict=True) for text in texts]
    rewards = np.asarray(scorer_of(truth)([p for p, _ in flat], [t for _, t in flat])).reshape(len(prompts), 2)
    pairs, summary = pairs_from_samples(prompts, responses, rewards)
    pairs.to_parquet(out / "preferences.parquet")
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    untold = f", {summary['untold']} not told" if "untold" in summary else ""
    return Preferences.at(out, f"{len(pairs)} on-policy pairs{untold}", pairs=float(len(pairs)))
