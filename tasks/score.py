"""Rewards of any reward model over rollouts or pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rmpipe.artifact import Preferences, RewardModel, Rollouts, Scores
from rmpipe.config import StudyError
from rmpipe.pair import SIDES
from rmpipe.preference import records
from rmpipe.reward import Scorer
from rmpipe.study import Scoring
from tasks.derive import scorer_of
from tasks.execution import Log
from tasks.stage import stage

if TYPE_CHECKING:
    import numpy as np


@stage(version=1, retry=(ConnectionError, TimeoutError))
def score(config: Scoring, reward_model: RewardModel, texts: Rollouts | Preferences, *, out: Path, log: Log) -> Scores:
    """Rewards of all rollouts, (prompts, K), or of the test pairs' chosen and rejected, (n, 2).

    Of a reward model whose weights were kept while it was trained, the pairs are scored at each of these steps too.
    """
    import numpy as np

    scorer = scorer_of(reward_model, batch_tokens=config.batch_tokens)
    if isinstance(texts, Rollouts):
        prompts, responses = texts.pairs()
        rewards = np.asarray(scorer(prompts, responses), dtype=np.float32).reshape(len(texts.table()), -1)
        np.save(out / "rollouts.npy", rewards)
    else:
        rewards = _of_pairs(scorer, texts)
        np.save(out / "pairs.npy", rewards)
    unread = {"unparsed": float(scorer.unparsed)} if hasattr(scorer, "unparsed") else {}
    if unread:
        log.metrics(unread)
    if not isinstance(texts, Rollouts):
        del scorer  # one model at a time
        if looks := reward_model.looks():
            told = {"batch_tokens": config.batch_tokens}
            each = [_of_pairs(scorer_of(reward_model, look, **told), texts) for look in looks]
            np.save(out / "looks.npy", np.stack(each))
    if np.isnan(rewards).any():
        untold = f"of {int(np.isnan(rewards).sum())} of {rewards.size} responses it cannot tell"
        raise StudyError(f"{reward_model.address}: {untold}; it may label pairs, and give no rewards")
    shape = " x ".join(map(str, rewards.shape))
    return Scores.at(out, shape, mean=float(rewards.mean()), std=float(rewards.std(ddof=1)), **unread)


def _of_pairs(scorer: Scorer, pairs: Preferences) -> np.ndarray:
    """Rewards of the test pairs, (n, 2)."""
    import numpy as np

    rows = records(pairs.split("test"))
    prompts, texts = [row["prompt"] for row in rows], [row[side] for side in SIDES for row in rows]
    return np.asarray(scorer(prompts * 2, texts), dtype=np.float32).reshape(2, -1).T
