"""What can be told of a reward model before RLHF is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rmpipe import accuracy, interval, variance
from rmpipe.artifact import Measurement, Rollouts, Scores
from rmpipe.study import Measuring
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def measure(
    config: Measuring, scores: Scores, pair_scores: Scores, rollouts: Rollouts, truth_scores: Scores | None, *, out: Path, log: Log
) -> Measurement:
    """Reward variance, accuracy with its controls, covariance with the ground truth: each with an interval over prompts.

    Args:
        scores: rewards over the policy's rollouts.
        pair_scores: rewards over the test pairs, for the accuracy off-policy.
        truth_scores: the ground truth's rewards over the same rollouts, where there is one.
    """
    import numpy as np
    import pandas as pd

    rewards, pairs, lengths = scores.rewards(), pair_scores.pairs(), np.stack(rollouts.table()["tokens"].to_list())
    truth = truth_scores.rewards() if truth_scores else None
    columns = per_prompt(rewards, lengths, truth, config.threshold)
    numbers = {name: interval.bootstrap(values, draws=config.draws).json() for name, values in columns.items()}
    numbers |= off_policy(pairs, config.draws)
    (out / "measurement.json").write_text(json.dumps(numbers, indent=1))
    pd.DataFrame({"prompt_id": rollouts.table()["prompt_id"], **columns}).to_parquet(out / "prompts.parquet", index=False)
    (out / "quartiles.json").write_text(json.dumps(variance.quartiles(columns["variance"])))
    values = {name: number["value"] for name, number in numbers.items() if number}
    return Measurement.at(out, f"variance {values['variance']:.3f}", **values)


def per_prompt(rewards: Any, lengths: Any, truth: Any, threshold: float) -> dict[str, Any]:
    """Every property that has a value at each prompt, (prompts,) each, with the controls beside the accuracies."""
    ...
