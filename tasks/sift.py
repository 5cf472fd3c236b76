"""Prompts at which a reward model teaches a policy nothing."""

from __future__ import annotations

from pathlib import Path

from rmpipe.artifact import Rollouts, Scores, Sieve
from rmpipe.config import StudyError
from rmpipe.preference import records
from rmpipe.sieve import Sifting, sifted, written
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1)
def sift(config: Sifting, rollouts: Rollouts, scores: Scores, *, out: Path, log: Log) -> Sieve:
    """What becomes of each sampled prompt in RLHF, by its reward's std under the initial policy (2310.20703).

    Args:
        scores: rewards over the rollouts.

    Raises:
        StudyError: no prompt would be kept.
    """
    asked = rollouts.table()
    table = sifted(asked["prompt_id"].to_list(), scores.rewards(), config)
    table.insert(1, "prompt", [written(row["prompt"]) for row in records(asked, ("prompt",))])
    counts = {fate: int((table["fate"] == fate).sum()) for fate in ("keep", "drop", "defer")}
    if not counts["keep"]:
        field, least = "threshold", f"of {config.threshold} or more, whitened"
        if config.low is not None:
            field, least = "low", f"above their quantile {config.low}"
        told = f"no prompt of {len(table)} has a reward std {least}"
        raise StudyError(f"sifting.{field}: {told}; lower it, or train with another reward model")
    table.to_parquet(out / "sieve.parquet", index=False)
    kept, dropped, deferred = map(float, counts.values())
    gone = f"{config.fate}s {len(table) - counts['keep']} of {len(table)} prompts"
    return Sieve.at(out, gone, kept=kept, dropped=dropped, deferred=deferred)
