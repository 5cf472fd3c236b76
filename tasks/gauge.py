"""What a policy can learn of a reward at each prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmpipe import gradient
from rmpipe import policy as lm
from rmpipe.artifact import Gauge, RewardModel, Rollouts, Scores, Weights
from rmpipe.gauge import LIMITS, Gauging, moments, numbers
from rmpipe.preference import records
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

SHOWN = 4
"""Unlike responses of a prompt that are kept with their rewards."""


@stage(version=1, retry=(ConnectionError, TimeoutError))
def gauge(
    config: Gauging, policy: Weights, rollouts: Rollouts, scores: Scores, others: Rollouts, other_scores: Scores,
    reward: RewardModel, seed: int, *, out: Path, log: Log,
) -> Gauge:  # fmt: skip
    """Mean and std of the reward, and the norm of the gradient of its expectation, prompt by prompt (2310.20703).

    Std and gradient are of unlike draws: a prompt of which all draws have one reward by luck would else be both of low
    std and without a gradient.

    Args:
        rollouts: K responses of the policy to each prompt, which say how much the reward varies.
        scores: their rewards.
        others: other responses to the first of these prompts, of which gradients are taken.
        other_scores: their rewards.
        reward: what gave them, which is asked again where all answers are known.
        seed: of what is drawn for the Jacobian's norm.
    """
    import pandas as pd

    rewards, drawn = scores.rewards().astype("float64"), rollouts.table()
    prompts, model = [row["prompt"] for row in records(drawn, ("prompt",))], lm.load(policy.model, policy.dtype)
    columns = moments(rewards, config.threshold)
    if config.answers:
        columns |= _exact(config, model, prompts, reward, log)
    else:
        columns |= _gradients(config, model, prompts, others, other_scores, log)
    columns |= _limits(config, model, prompts, drawn, rewards, columns, seed)
    texts = {"prompt_id": drawn["prompt_id"], "prompt": list(map(json.dumps, prompts))}
    shown = [_shown(row, values) for row, values in zip(drawn["responses"], rewards, strict=True)]
    texts |= {"response": [each[0]["response"] for each in shown], "samples": [json.dumps(each) for each in shown]}
    table = pd.DataFrame(texts | columns)
    table.to_parquet(out / "prompts.parquet", index=False)
    told = {name: number.json() for name, number in numbers(table, config.low).items()}
    (out / "measurement.json").write_text(json.dumps(told, indent=1))
    values = {name: number["value"] for name, number in told.items() if number}
    flat = f"{values['flat']:.0%} of {len(table)} prompts teach nothing"
    return Gauge.at(out, f"std {values['std']:.3f}, {flat}", **values)


def _gradients(
    config: Gauging, model: lm.LanguageModel, prompts: list[Any], others: Rollouts, other_scores: Scores, log: Log
) -> dict[str, Any]:
    """The norm of each prompt's gradient, also as a share of that of the weights, and the unbiased estimate of its
    square; NaN where it was not taken."""
    import numpy as np

    drawn, rewards = others.table(), other_scores.rewards().astype("float64")
    count = len(drawn) if config.gradients is None else min(config.gradients, len(drawn))
    found = {name: np.full(len(prompts), np.nan) for name in ("norm", "normalised", "squared")}
    if count:
        taken = gradient.policy_gradients(
            model, prompts[:count], [list(each) for each in drawn["responses"][:count]], rewards[:count],
            finished=np.stack(drawn["finished"][:count].to_list()), batch_size=config.batch_size, progress=log.progress,
        )  # fmt: skip
        found["norm"][:count], found["squared"][:count] = taken.norm, taken.squared
        found["normalised"][:count] = taken.norm / taken.parameters
    return found


def _exact(
    config: Gauging, model: lm.LanguageModel, prompts: list[Any], reward: RewardModel, log: Log
) -> dict[str, Any]:
    """Mean, std and gradient over all that can be answered, in the place of what samples tell."""
    import numpy as np

    answers = list(config.answers)
    asked = [prompt for prompt in prompts for _ in answers]
    rewards = np.asarray(scorer_of(reward)(asked, answers * len(prompts)), dtype=float).reshape(len(prompts), -1)
    taken = gradient.exact_gradients(
        model, prompts, answers, rewards, batch_size=config.batch_size, progress=log.progress
    )
    whole = np.sqrt((taken.std**2).mean() + taken.mean.var())  # of all prompts and answers together
    white = taken.std / whole if whole else taken.std
    found = {"mean": taken.mean, "std": taken.std, "norm": taken.norm}
    found |= {"normalised": taken.norm / taken.parameters, "squared": taken.norm**2}
    return found | {"white_std": white, "flat": (white < config.threshold) | (taken.std == 0)}


def _limits(
    config: Gauging, model: lm.LanguageModel, prompts: list[Any], drawn: pd.DataFrame, rewards: NDArray[Any],
    columns: dict[str, Any], seed: int,
) -> dict[str, Any]:  # fmt: skip
    """The Jacobian's norm at some prompts, and the squares of their gradients' norms over those of their limits."""
    import numpy as np

    found = {name: np.full(len(drawn), np.nan) for name in ("gamma", *LIMITS)}
    varied = np.flatnonzero((columns["std"] > 0) & np.isfinite(columns["norm"]))[: config.bounds]
    longest, half = max(int(max(tokens)) for tokens in drawn["tokens"]), float(np.ptp(rewards)) / 2
    for place in varied:
        text = drawn["responses"].iloc[place][0]
        gammas = gradient.jacobian_norm(model, prompts[place], text, places=config.places, seed=seed)
        found["gamma"][place] = gammas.max()
    for name, limit in LIMITS.items():
        told = {"half_range": half} if name == "bound" else {}
        limits = limit(columns["std"][varied], found["gamma"][varied], longest, **told)
        found[name][varied] = columns["squared"][varied] / limits**2
    return found


def _shown(responses: Any, rewards: NDArray[Any]) -> list[dict[str, Any]]:
    """A few unlike responses of a prompt with their rewards, the best first."""
    told = dict(zip(map(str, responses), map(float, rewards), strict=True))
    best = sorted(told.items(), key=lambda item: -item[1])
    few = best if len(best) <= SHOWN else [*best[: SHOWN // 2], *best[-SHOWN // 2 :]]
    return [{"response": text, "reward": reward} for text, reward in few]
