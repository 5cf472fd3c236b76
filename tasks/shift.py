"""Sets of pairs that reward models are asked about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from rmpipe.artifact import Preferences, RewardModel
from rmpipe.config import StudyError
from rmpipe.preference import relabel
from rmpipe.shift import Shift, rewritten
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage


@stage(version=1, retry=(ConnectionError, TimeoutError))
def shift(
    config: Shift, content: str, ties: Literal["keep", "drop"], preferences: Preferences, truth: RewardModel | None,
    seed: int, *, out: Path, log: Log,
) -> Preferences:  # fmt: skip
    """A set of pairs: the study's own, rewritten, or from elsewhere (2507.07981, section 5).

    Args:
        content: what moves when the files do that the set is read from.
        ties: what becomes of pairs to which the ground truth gives one score.
        truth: labels pairs that come from elsewhere; those of the study keep their labels.
    """
    import pandas as pd

    originals = preferences.split(config.split)[: config.limit]
    pairs = pd.DataFrame(config.pairs(originals, seed, log))
    pairs["split"] = "test"
    summary: dict[str, Any] = {
        "shift": config.shift,
        "aligned": config.aligned,
        "of": config.split,
        "originals": len(originals),
    }
    if truth is not None:
        pairs, counts = relabel(pairs, scorer_of(truth), ties=ties)
        summary |= {"relabel": counts}
    if pairs.empty:
        raise StudyError("shifts: no pair is left; give more of them, or set ties = 'keep'")
    if config.aligned:
        pairs = _beside(pairs, originals)
    pairs.to_parquet(out / "preferences.parquet")
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    return Preferences.at(out, f"{len(pairs)} pairs, {config.shift}", pairs=float(len(pairs)))


def _beside(pairs: Any, originals: Any) -> Any:
    """Rewritten pairs with the texts that they rewrite."""
    texts = originals.set_index(originals["id"].astype(str))[["chosen", "rejected"]]
    found = texts[~texts.index.duplicated()].loc[rewritten(pairs["id"].astype(str), texts.index)]
    return pairs.assign(original_chosen=found["chosen"].to_list(), original_rejected=found["rejected"].to_list())
