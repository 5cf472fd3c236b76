"""Preference pairs labelled afresh by the ground truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rmpipe.artifact import Preferences, RewardModel
from rmpipe.config import StudyError
from rmpipe.preference import relabel as relabelled
from rmpipe.split import SPLITS
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1, retry=(ConnectionError, TimeoutError))
def relabel(
    preferences: Preferences, truth: RewardModel, ties: Literal["keep", "drop"] = "drop", *, out: Path, log: Log
) -> Preferences:
    """Swap chosen and rejected where the ground truth prefers the other (2503.15477, Appendix F.1).

    Args:
        ties: what becomes of pairs to which the truth gives one score.
    """
    raw = preferences.table()
    pairs, counts = relabelled(raw, scorer_of(truth), ties=ties)
    kept = {name: int((pairs["split"] == name).sum()) for name in SPLITS}
    for name, count in kept.items():
        if not count and (raw["split"] == name).any():
            found = "gives every pair" if "untold" not in counts else "cannot tell, or gives, every pair"
            raise StudyError(f'ties: the ground truth {found} of the {name} split one score; set ties = "keep"')
    summary = {**counts, "kept": kept}
    pairs.to_parquet(out / "preferences.parquet")
    (out / "summary.json").write_text(json.dumps({**preferences.json("summary.json"), "relabel": summary}, indent=1))
    untold = f", {counts['untold']} not told" if "untold" in counts else ""
    told = f"{len(pairs)} pairs, {int(pairs['swapped'].sum())} swapped{untold}"
    return Preferences.at(out, told, pairs=float(len(pairs)))
