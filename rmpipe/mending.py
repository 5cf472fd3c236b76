"""Mending a teacher: its rewards levelled prompt by prompt, or the prompts left out that it does not tell apart.

Of two responses to one prompt each orders as the reward model that it mends does; what changes is how far apart a
policy's responses lie, and from which prompts it learns. Whether that teaches more, a ranking shows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from rmpipe.config import Runtime, StudyError
from rmpipe.reward import Change, Transform, prompt_digest
from rmpipe.sieve import Sifting
from rmpipe.text import Text
from rmpipe.variance import matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LEVELS = "levels.json"


class Levelled(Transform):
    """Rewards less their mean, over their std, prompt by prompt, as a policy's own samples have both.

    Accuracy within a prompt is untouched: the better of two responses stays the better. A constant a prompt goes, and
    with `scale = "prompt"` the variance becomes levelled: prompts tell responses apart about as far as one another, but
    for what `prior` takes for chance. With `prior = 0` the whitened variance is 1 (K / (K - 1) over the K samples a
    prompt that it was levelled by). A prompt that was not sampled has the pooled mean and std, and is mended in
    neither: let `sampling.prompts` reach all that RLHF trains on. GRPO divides by the std of each group as it trains;
    this is fixed beforehand, and any algorithm may be taught with it.
    """

    kind: Literal["levelled"] = "levelled"
    policy: Annotated[str, Runtime]
    """Whose samples; RLHF of another policy may be taught with it too."""
    centre: bool = True
    """Whether a prompt's own mean is taken off; the pooled one otherwise."""
    scale: Literal["prompt", "pool"] = "prompt"
    """Whether a prompt's own std is divided by, or the pooled one: the root of the mean variance within prompts. The
    latter brings reward models to one unit, for an `ensemble`."""
    prior: float = Field(1.0, ge=0)
    """How many samples the pooled variance counts for beside a prompt's own K - 1, so that a prompt whose few samples
    tie by chance, as ratings do, is not blown up. 0: a prompt's own std counts alone, where it has any."""

    @property
    def pool(self) -> tuple[str, str]:
        """The policy, and the reward model that it levels."""
        return self.policy, self.of

    def describe(self) -> str:
        """One line for a person."""
        mean, std = "prompt" if self.centre else "pool", self.scale
        whose = f"mean and std of a {mean}" if mean == std else f"mean of a {mean} and std of a {std}"
        return f"levelled: {self.of}, by the {whose} under {self.policy}"

    def learn(self, out: Path, prompts: Sequence[Text], rewards: ArrayLike) -> None:
        """Write down, by digest, the mean of each prompt and its std as `shrunk`, and the pooled ones.

        Raises:
            StudyError: no prompt's rewards vary.
        """
        array = matrix(rewards)
        variances = np.where(np.ptp(array, axis=1) > 0, array.var(axis=1, ddof=1), 0.0)  # no rounded mean of ties
        pooled = float(np.sqrt(variances.mean()))
        if not pooled:
            told = f"{self.of} gives all responses of {self.policy} to a prompt the same reward"
            raise StudyError(f"{told}; there is nothing to level, leave it out")
        means, stds = array.mean(axis=1), shrunk(variances, array.shape[1], self.prior)
        each = {prompt_digest(prompt): pair for prompt, *pair in zip(prompts, means, stds, strict=True)}
        (out / LEVELS).write_text(json.dumps({"pooled": [float(array.mean()), pooled], "prompts": each}))

    def change(self, folder: Path | None) -> Change:
        """Less the mean, over the std."""
        levels = json.loads(((folder or Path()) / LEVELS).read_text())
        mean, std = levels["pooled"]

        def change(rewards: np.ndarray, prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            told = np.array([levels["prompts"].get(prompt_digest(prompt), [mean, std]) for prompt in prompts])
            means = told[:, 0] if self.centre else mean
            return (rewards - means) / (told[:, 1] if self.scale == "prompt" else std)

        return change


def shrunk(variances: NDArray[np.float64], samples: int, prior: float) -> NDArray[np.float64]:
    """The std of each prompt, drawn to the pooled one: that of a scaled inverse chi-squared prior.

    Args:
        variances: of each prompt's samples, n - 1, (prompts,); some are above 0.
        samples: K, to each prompt.
        prior: how many samples the pooled variance counts for.

    Returns:
        (prompts,), above 0: a prompt whose samples all tie has the pooled std's share, or with no prior all of it.
    """
    pooled = variances.mean()
    whole = ((samples - 1) * variances + prior * pooled) / (samples - 1 + prior)
    return np.sqrt(np.where(whole > 0, whole, pooled))


class Sieved(Transform):
    """The same rewards; RLHF leaves out, or puts off, the prompts at which they teach nothing.

    As `sifting` of a whole study, but of one reward model, so that the ranking sets it beside the other.
    """

    kind: Literal["sieved"] = "sieved"
    sifting: Sifting = Sifting()

    def describe(self) -> str:
        """One line for a person."""
        return f"sieved: {self.of}, its prompts of low std {'dropped' if self.sifting.fate == 'drop' else 'deferred'}"

    def change(self, folder: Path | None) -> Change:
        """None."""
        return lambda rewards, prompts, responses: rewards
