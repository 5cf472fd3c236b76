"""How long pairs and responses may be so that every model of a study can read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rmpipe.config import StudyError
from rmpipe.corpus import Pairs
from rmpipe.pair import FIELDS, SIDES
from rmpipe.preference import records
from rmpipe.prospect import Model
from rmpipe.table import Row
from rmpipe.text import encode, render

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE = 1500
"""Pairs whose tokens are counted, at most."""
MARGIN = 0.95
"""Share of what a model holds that is planned for where some pairs were not counted."""
COMMON = 95
"""Per cent of the prompts, and of the responses, that the limits let through where every model holds them."""
LEAST = 4
"""Tokens below which a limit makes no sense."""
STRETCH = 4
"""How many times longer than planned a response may be in another model's tokens."""


@dataclass(frozen=True)
class Limits:
    """How long texts may be, in tokens of the first policy.

    Attributes:
        prompt: the most of a prompt.
        response: the most of a response.
        new: the most that a policy writes.
        kept: how many pairs that leaves, in words.
        pairs: how many are left for reward models, about.
        prompts: how many prompts each split has left, about; empty where they were not counted.
        lengths: what was counted, in words, by the model's place.
        tight: whether a text may be longer than some model holds all the same.
        why: what was decided, in words; empty where nothing was.
    """

    prompt: int
    response: int
    new: int
    kept: str = ""
    pairs: int = 1 << 20
    prompts: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, str] = field(default_factory=dict)
    tight: bool = True
    why: str = ""


def guessed(models: Sequence[Model], new: int) -> Limits:
    """Limits where pairs or tokenizer were not seen: half of what is held for a prompt, a quarter for a response."""
    holds = min([model.context for model in models if model.context is not None], default=2048)
    prompt, response = min(512, holds // 2), min(512, holds // 4)
    why = f"lengths were not counted: limits are for models that hold {holds} tokens"
    return Limits(prompt, response, min(new, response), "assumed", why=why)


def fitted(models: Sequence[Model], pairs: Pairs, new: int) -> Limits:
    """Limits that let most pairs through, and none that some model does not hold.

    Args:
        models: all that read; the first counts the limits.
        pairs: those that were seen.
        new: the most that a policy may write.

    Raises:
        StudyError: no pair is short enough for some model; names it.
    """
    import numpy as np

    frame = pairs.frame
    if frame is None:
        raise ValueError("pairs that were not seen cannot be counted")
    taken = frame.sample(min(SAMPLE, len(frame)), random_state=0)
    rows = records(taken, (*FIELDS, "split"))
    prompt, response = _limited(models[0].tokenizer, rows)
    read = {model.place: _read(model, rows) for model in models if model.context is not None}
    asked = [_round(np.percentile(each, COMMON)) for each in (prompt, response)]
    new = min(new, _round(np.median(response)))
    most = list(asked)
    while True:
        kept = (prompt <= most[0]) & (response <= most[1])
        if not (full := _full(models, read, kept, new, 1.0 if len(taken) == len(frame) else MARGIN)):
            break
        longer = int(most[1] >= most[0])
        most[longer] = int(0.9 * most[longer])
        if most[longer] < LEAST:
            told = f"no pair is left that {full.place} holds, which is {full.context} tokens"
            raise StudyError(f"--preferences: {pairs.place}: {told}; give shorter ones, or a model that holds more")
    share, times, left = kept.mean(), len(frame) / len(taken), taken[kept]
    told = f"prompts of more than {most[0]} tokens and responses of more than {most[1]} are left out"
    held = ", so that every model holds the others" if most != asked else ""
    return Limits(
        most[0], most[1], new, f"keep {share:.0%} of the pairs", round(times * (left["split"] == "reward").sum()),
        {split: round(times * part["prompt"].astype(str).nunique()) for split, part in left.groupby("split")},
        _told(models[0], prompt, response, read), _tight(models, read, kept, new) or len(taken) < len(frame),
        f"{told}{held}: {1 - share:.0%} of the pairs" if share < 1 else "",
    )  # fmt: skip


def _limited(tokenizer: Any, rows: list[Row]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Tokens of prompts and of the longer responses, each (pairs,), as a data set's limits count them."""
    import numpy as np

    texts = [[render(tokenizer, row["prompt"]) for row in rows], *([row[side] for row in rows] for side in SIDES)]
    counts = [[len(ids) for ids in tokenizer(each, add_special_tokens=False)["input_ids"]] for each in texts]
    return np.array(counts[0]), np.array(counts[1:]).max(0)


def _read(model: Model, rows: list[Row]) -> NDArray[Any]:
    """Tokens of the prompt alone, and of prompt and longer response, (pairs, 2), as a model is given them."""
    import numpy as np

    from rmpipe.scoring import encoded

    def count(prompt: Any, response: str) -> int:
        if model.writes:
            return len(encode(model.tokenizer, prompt, response))
        return len(encoded(model.tokenizer, "conversation", prompt, response))

    return np.array(
        [[count(row["prompt"], ""), max(count(row["prompt"], row[side]) for side in SIDES)] for row in rows]
    )


def _room(models: Sequence[Model], read: dict[str, NDArray[Any]], model: Model, new: int) -> int:
    """Tokens that a response of any policy takes up as this model reads it, about."""
    mine = read[model.place][:, 1].sum()
    return max(
        math.ceil(new * mine / read[one.place][:, 1].sum()) for one in models if one.writes and one.place in read
    )


def _full(
    models: Sequence[Model], read: dict[str, NDArray[Any]], kept: NDArray[np.bool_], new: int, share: float
) -> Model | None:
    """A model that does not hold what is kept, or a prompt of it with a response."""
    for model in models:
        if model.place in read:
            alone, whole = read[model.place][kept].max(0, initial=0)
            if max(whole, alone + _room(models, read, model, new)) > share * (model.context or 0) or not kept.any():
                return model
    return None


def _tight(models: Sequence[Model], read: dict[str, NDArray[Any]], kept: NDArray[np.bool_], new: int) -> bool:
    """Whether a response that is far longer in some model's tokens than planned would not fit it."""
    apart = len({tuple(each[:, 1]) for each in read.values()}) > 1
    return apart and any(
        read[model.place][kept, 0].max() + STRETCH * new > (model.context or 0)
        for model in models
        if model.place in read
    )


def _told(first: Model, prompt: NDArray[Any], response: NDArray[Any], read: dict[str, NDArray[Any]]) -> dict[str, str]:
    """Lengths in words: what half of the texts have at most, what most have, and the longest."""
    said = f"prompts {_spread(prompt)}, responses {_spread(response)} (half have at most, {COMMON} %, the longest)"
    told = {first.place: said}
    return told | {
        place: f"a prompt with its response {_spread(each[:, 1])}"
        for place, each in read.items()
        if place != first.place
    }


def _spread(counts: NDArray[Any]) -> str:
    import numpy as np

    return " / ".join(str(int(number)) for number in (*np.percentile(counts, (50, COMMON)), counts.max()))


def _round(number: float) -> int:
    """Up, to a multiple of 8."""
    return max(8, 8 * math.ceil(number / 8))
