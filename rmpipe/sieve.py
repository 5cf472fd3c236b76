"""A sieve: which prompts teach a policy nothing, decided once and before training.

Where a reward hardly tells a policy's own responses apart, the gradient of the expected reward vanishes (2310.20703,
Theorem 1). Whatever RLHF spends on such a prompt, this prompt gives little back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from rmpipe.config import Config
from rmpipe.gauge import low, moments
from rmpipe.text import Text

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

KEPT = ("keep", "unsampled")
FATES = (*KEPT, "drop", "defer")
"""What becomes of a prompt; `unsampled` are those that a sieve does not know, which are kept."""

DIFFERENCE = (
    "The filters that implementations of GRPO apply at each step (DAPO's dynamic sampling, verl's filter_groups, "
    "OpenRLHF's dynamic filtering; in TRL a replay buffer, and a proposal) look at a prompt's own K rewards under the "
    "current policy: they pay for the samples that they throw away, and they see when a prompt comes to teach "
    "something. This sieve is decided once, from samples of the initial policy: it costs no sample in training and is "
    "an artifact with its lineage, and it does not see later changes, which is why a prompt may be deferred instead "
    "of dropped."
)
"""How this differs from what others filter while they train, for a report to say."""


class Sifting(Config):
    """Which prompts are left out of RLHF, or put off, for the std of their reward under the initial policy.

    The filters that implementations of GRPO apply look at the current policy at each step; `DIFFERENCE` says what
    follows from that.
    """

    threshold: float = Field(0.05, ge=0)
    """Std of the whitened reward below which a prompt teaches nothing, as `Measuring.threshold`."""
    low: float | None = Field(None, gt=0, lt=1)
    """Instead, the share of prompts of the lowest std: all whose std is at most this quantile, so that ties stay
    together."""
    fate: Literal["drop", "defer"] = "drop"
    """Whether such prompts are not trained on, or after all others in each pass over the prompts."""


def sifted(prompt_ids: Sequence[str], rewards: ArrayLike, config: Sifting) -> pd.DataFrame:
    """What becomes of each prompt, by its reward's std under the initial policy.

    Decided once, before training, and not at each step as in implementations of GRPO: see `DIFFERENCE`.

    Args:
        prompt_ids: of length prompts.
        rewards: `(prompts, samples)`, reward units; NaN throughout for a prompt that was never sampled, which is kept.

    Returns:
        a row a prompt: prompt_id; mean and std, reward units, of its samples (n - 1); white_std, the std once all
        rewards are whitened together; and fate, one of keep, drop and defer.

    Raises:
        ValueError: fewer than two samples a prompt, or a value that is not finite beside others.
    """
    import pandas as pd

    array = np.asarray(rewards, dtype=np.float64)
    sampled = ~np.isnan(array).all(axis=1)
    columns = moments(array[sampled], config.threshold)
    flat = columns.pop("flat")
    nothing = flat if config.low is None else low(columns["std"], config.low)
    fate = np.full(len(array), "keep", dtype=object)
    fate[sampled] = np.where(nothing, config.fate, "keep")
    whole = {name: np.full(len(array), np.nan) for name in columns}
    for name, values in columns.items():
        whole[name][sampled] = values
    return pd.DataFrame({"prompt_id": list(prompt_ids), **whole, "fate": fate})


def fates(prompts: Sequence[Text], table: pd.DataFrame) -> list[str]:
    """What becomes of each prompt, one of `FATES`; told apart by their text, since ids are of one data set each.

    Args:
        table: of a sieve: its columns prompt, as `written`, and fate.
    """
    told = dict(zip(table["prompt"], table["fate"], strict=True))
    return [told.get(written(prompt), "unsampled") for prompt in prompts]


def written(prompt: Text) -> str:
    """A prompt as a sieve's table has it: JSON, the same text for equal prompts."""
    return json.dumps(prompt, sort_keys=True)
