"""Imitation: which inputs are labelled, and how their labels are learnt, before a policy is taught by a reward.

2310.20703 finds that a few labels and a few steps undo what makes rewards teach nothing: they need not be learnt well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from rmpipe.algorithm import Finetuning
from rmpipe.config import Config
from rmpipe.preference import records

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Whose = Literal["all", "low", "high"]


class Imitation(Config):
    """Supervised finetuning on the labels of some inputs, none of them one whose gain is measured."""

    share: float = Field(1.0, gt=0, le=1)
    """Of all other inputs of the policy split, the share that is labelled; drawn by the seed."""
    of: Whose = "all"
    """Whose labels: of any input, or only of those where rewards vary little, or more, under the initial policy."""
    training: Finetuning

    def count(self, inputs: int) -> int:
        """How many of so many inputs are labelled, one at least."""
        return max(1, int(inputs * self.share))


def labelled(count: int, share: float, seed: int) -> NDArray[np.int64]:
    """The inputs that are labelled: `RandomState(seed).permutation(count)[:int(count * share)]` (2310.20703).

    As in the paper's code, a share that is not above 0, or is above 1, takes all, in their own order.
    """
    if share <= 0 or share > 1:
        return np.arange(count)
    return np.random.RandomState(seed).permutation(count)[: int(count * share)]


def rows(table: pd.DataFrame, among: NDArray[np.bool_], config: Imitation, seed: int) -> list[dict[str, Any]]:
    """What is learnt: a row of prompt and completion for each reference of each input that is labelled.

    Args:
        table: prompt and references, a row an input that is not measured.
        among: (inputs,), those that may be labelled.
        config: how many are; as many where only some may be, as far as there are.
        seed: of the draw.
    """
    places = labelled(len(table), 1.0, seed)
    chosen = [place for place in places if among[place]][: config.count(len(table))]
    return [
        {"prompt": row["prompt"], "completion": str(text)}
        for row in records(table.iloc[chosen], ("prompt", "references"))
        for text in row["references"]
    ]
