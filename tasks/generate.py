"""How often a reward model that is a language model writes what is right, beside how well it tells right from wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmpipe import policy as lm
from rmpipe.artifact import Preferences, RewardModel, Rollouts, Weights
from rmpipe.generalising import Generating
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1, retry=(ConnectionError, TimeoutError))
def generate(
    config: Generating, reward_model: RewardModel, base: Weights, truth: RewardModel, preferences: Preferences,
    seed: int, *, out: Path, log: Log,
) -> Rollouts:  # fmt: skip
    """Responses of an implicit reward model's language model, and of its base, to held-out prompts (2507.07981, 3.2).

    A prompt counts as solved if one of its responses is right. Implicit reward models can tell right responses without
    being able to write any: their likelihood of writing them is bound to the reference's (Theorem 1).
    """
    import pandas as pd

    prompts = preferences.prompts("test")[1][: config.sampling.prompts]
    scorer = scorer_of(truth)
    columns: dict[str, Any] = {"prompt": prompts}
    told: dict[str, float] = {}
    trained = (reward_model.model, lm.dtype_of(reward_model.model))
    for name, place in (("after", trained), ("before", (base.model, base.dtype))):
        drawn = lm.sample(lm.load(*place), prompts, **lm.options(config.sampling), seed=seed, progress=log.progress)
        texts = [item.responses for item in drawn]
        rewards = _judged(scorer, prompts, texts)
        columns |= {f"responses_{name}": texts, f"solved_{name}": (rewards >= config.right).any(axis=1)}
        columns[f"tokens_{name}"] = [item.tokens for item in drawn]
        told[name] = float(columns[f"solved_{name}"].mean())
    frame = pd.DataFrame(columns)
    frame["responses"], frame["tokens"] = frame["responses_after"], frame["tokens_after"]
    frame.to_parquet(out / "rollouts.parquet", index=False)
    summary = f"{told['after']:.3f} of {len(prompts)} prompts solved, {told['before']:.3f} by the base"
    return Rollouts.at(out, summary, solved=told["after"], solved_by_base=told["before"])


def _judged(scorer: Any, prompts: list[Any], texts: list[list[str]]) -> Any:
    import numpy as np

    flat = [(prompt, text) for prompt, each in zip(prompts, texts, strict=True) for text in each]
    return np.asarray(scorer([prompt for prompt, _ in flat], [text for _, text in flat])).reshape(len(prompts), -1)
