"""Reward models that need no training: functions, models of others, and transforms of models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe.artifact import Prompts, RewardModel, Scores
from rmpipe.config import StudyError
from rmpipe.metric import write_references
from rmpipe.preference import records
from rmpipe.reward import Kind, Scorer, Trained
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1, retry=(ConnectionError, TimeoutError))
def derive(
    config: Kind, components: list[RewardModel], preferences: Prompts, content: str = "",
    scores: Scores | None = None, *, out: Path, log: Log,
) -> RewardModel:  # fmt: skip
    """Write down a reward model that is a function, a model of somebody else's, or a transform of others.

    Args:
        components: the reward models it transforms.
        preferences: the prompts of each split, for kinds that treat some prompts apart, and what is known of them,
            labels or pairs, for those that compare responses with it.
        content: SHA-256 of a local model's files, or a hub id with its revision.
        scores: rewards of what it is made of over a policy's samples, for kinds that must know them.

    Raises:
        StudyError: a prompt to train on was not sampled.
    """
    prompts = {name: preferences.prompts(name)[1] for name in ("reward", "policy", "test")}
    config.prepare(out, prompts)
    if config.referenced:
        write_references(preferences.table(), out)
    if scores is not None:
        asked = records(scores.inputs["texts"].table(), ("prompt",))
        if len(asked) < (there := len(prompts["policy"])):
            told = f"{len(asked)} of {there} prompts are sampled, and {config.describe()} knows no others"
            raise StudyError(f"sampling.prompts: {told}; raise it to {there}")
        config.learn(out, [row["prompt"] for row in asked], scores.rewards())
    save_kind(config, out)
    return RewardModel.at(out, config.describe())


def save_kind(kind: Kind, out: Path) -> None:
    """Write what a reward model is, so that its folder alone tells."""
    (out / "reward_model.json").write_text(json.dumps(kind.dump(), indent=1))


def scorer_of(model: RewardModel, look: str | None = None, **runtime: Any) -> Scorer:
    """The function of (prompts, responses) -> (n,) rewards that a reward model's folder stands for.

    Args:
        look: a step at which its weights were kept while it was trained; None for the end.
    """
    kind = Kind.parse(model.json("reward_model.json"), where=model.address)
    told = runtime | ({"base": model.base} if isinstance(kind, Trained) else {})
    parts = [scorer_of(part, **runtime) for part in model.components]
    return kind.scorer(model.look(look) if look else model.path, parts, **told)
