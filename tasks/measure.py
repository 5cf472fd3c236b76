"""What can be told of a reward model before RLHF is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import accuracy, interval, variance
from rmpipe.artifact import Measurement, Rollouts, Scores
from rmpipe.teaching import Measuring
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2)
def measure(
    config: Measuring,
    scores: Scores,
    pair_scores: Scores | None,
    rollouts: Rollouts,
    truth_scores: Scores | None,
    *,
    out: Path,
    log: Log,
) -> Measurement:
    """Reward variance, accuracy with its controls, covariance with the ground truth, each with an interval.

    Args:
        scores: rewards over the policy's rollouts.
        pair_scores: rewards over the test pairs, for the accuracy off-policy, where there are such pairs.
        truth_scores: the ground truth's rewards over the same rollouts, where there is one.
    """
    import pandas as pd

    rewards, table = scores.rewards(), rollouts.table()
    truth = truth_scores.rewards() if truth_scores else None
    columns = per_prompt(rewards, rollouts.lengths(), truth, config.threshold)
    numbers = {name: interval.bootstrap(values, draws=config.draws).json() for name, values in columns.items()}
    numbers |= whitened(rewards, truth, config.draws)
    if pair_scores is not None:
        numbers |= off_policy(pair_scores.pairs(), pair_scores.inputs["texts"].split("test"), config.draws)
    spread = {name: variance.quartiles(columns[name]) for name in ("variance", "variance_raw")}
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    (out / "quartiles.json").write_text(json.dumps(spread))
    pd.DataFrame({"prompt_id": table["prompt_id"], **columns}).to_parquet(out / "prompts.parquet", index=False)
    values = {name: number["value"] for name, number in numbers.items() if number}
    values |= {f"{name}.{mark}": value for name, marks in spread.items() for mark, value in marks.items()}
    return Measurement.at(out, f"variance {values['variance']:.3f}", **values)


def per_prompt(rewards: Any, lengths: Any, truth: Any, threshold: float) -> dict[str, Any]:
    """Every property that has a value at each prompt, with the controls beside the accuracies, under the same tie rule.

    Args:
        rewards: (prompts, samples), reward units.
        lengths: (prompts, samples), tokens or characters.
        truth: (prompts, samples) or None.
        threshold: std of the whitened reward below which a prompt is flat.

    Returns:
        name -> (prompts,).
    """
    white = variance.whiten(rewards)
    columns = {"variance": variance.reward_variance(white), "variance_raw": variance.reward_variance(rewards)}
    columns["flat_share"] = variance.flat(white, threshold).astype(float)
    if truth is None:
        return columns
    columns["covariance"] = variance.covariance(white, variance.whiten(truth))
    columns["correlation"] = variance.correlation(rewards, truth)
    rules: dict[str, accuracy.Ties] = {"on": "both", "on_half": "half"}
    for name, ties in rules.items():
        columns[f"accuracy_{name}"] = accuracy.on_policy_accuracy(rewards, truth, ties)
        controls = accuracy.controls(lengths, truth, ties)
        columns |= {f"control_{name}_{rule}": values for rule, values in controls.items()}
    return columns


def whitened(rewards: Any, truth: Any, draws: int) -> dict[str, Any]:
    """Variance and covariance of whitened rewards, with each resample of prompts whitened by its own spread.

    Args:
        rewards: (prompts, samples), reward units.
        truth: (prompts, samples) or None.
        draws: bootstrap draws over prompts.
    """
    import numpy as np

    samples, sides = rewards.shape[1], [rewards] if truth is None else [rewards, truth]
    moments = [(variance.reward_variance(side), side.mean(axis=1)) for side in map(np.float64, sides)]
    within = {"variance": (moments[0][0], [0, 0])}
    if truth is not None:
        within["covariance"] = (variance.covariance(rewards, truth), [0, 1])
    numbers = {}
    for name, (values, pair) in within.items():
        columns = np.stack([values, *(column for side in pair for column in moments[side])], axis=1)
        share = interval.bootstrap(columns, lambda part: variance.whitened_mean(part, samples), draws=draws)
        numbers[name] = share.json()
    return numbers


def off_policy(pairs: Any, table: Any, draws: int) -> dict[str, Any]:
    """Accuracy with its controls, margin and calibration on the test pairs; pairs of one prompt are resampled together.

    Args:
        pairs: (n, 2), rewards of chosen and rejected, reward units.
        table: the n pairs; the controls judge by the length of their texts.
        draws: bootstrap draws over prompts.
    """
    import numpy as np

    first, second = pairs[:, 0], pairs[:, 1]
    correct = accuracy.ranking_accuracy(first, second)
    lengths = [
        [len(chosen), len(rejected)] for chosen, rejected in zip(table["chosen"], table["rejected"], strict=True)
    ]
    columns = {"accuracy_off": correct, "margin": accuracy.normalised_margin(first, second)}
    controls = accuracy.controls(lengths, [[1, 0]] * len(pairs))
    columns |= {f"control_off_{name}": values for name, values in controls.items()}
    asked = [json.dumps(prompt, default=list) for prompt in table["prompt"]]
    numbers = {name: interval.clustered(values, asked, draws=draws).json() for name, values in columns.items()}
    margins = np.stack([first - second, correct], axis=1)
    error = interval.clustered(
        margins, asked, lambda part: accuracy.calibration(part[:, 0], part[:, 1])["error"], draws=200
    )
    return numbers | {"calibration_error": error.json()}
