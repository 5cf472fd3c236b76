"""Responses of a policy that others have labelled, as rollouts and as the ground truth's scores of them."""

from __future__ import annotations

from pathlib import Path

from rmpipe.artifact import Rollouts, Scores
from rmpipe.config import StudyError
from rmpipe.labelling import Labelling, Pool, pool
from tasks.execution import Log
from tasks.stage import stage


@stage(version=2)
def grade(config: Labelling, whose: str, content: str, *, out: Path, log: Log) -> Rollouts:
    """The labelled responses of one policy, as many to each prompt: where there are fewer, the first is repeated.

    Args:
        whose: the policy.
        content: SHA-256 of the file.
    """
    import pandas as pd

    found = _checked(config, whose, content)
    table = pd.DataFrame(found.rows).rename(columns={"id": "prompt_id"}).drop(columns="numbered", errors="ignore")
    table.to_parquet(out / "rollouts.parquet", index=False)
    return Rollouts.at(out, f"{found.told()}, from {Path(config.path).name}")


@stage(version=1)
def grade_labels(config: Labelling, whose: str, content: str, rollouts: Rollouts, *, out: Path, log: Log) -> Scores:
    """The labels of these responses, (prompts, K), NaN where a response is repeated.

    Args:
        whose: the policy.
        content: SHA-256 of the file.
        rollouts: what they are labels of.
    """
    import numpy as np

    found = _checked(config, whose, content)
    labels = np.array(found.labels, dtype=float)
    np.save(out / "rollouts.npy", labels)
    told = {"labels": float(found.count), "mean": float(np.nanmean(labels)), "std": float(np.nanstd(labels, ddof=1))}
    told |= {"pairs": float(found.pairs)} if found.pairs else {}
    return Scores.at(out, found.told(), **told)


def _checked(config: Labelling, whose: str, content: str) -> Pool:
    if config.content() != content:
        raise StudyError(f"{config.path}: it has changed since the study was planned; run it again")
    return pool(config, whose)
