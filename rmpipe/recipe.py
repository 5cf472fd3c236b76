"""Recipe: what RLHF does at each step, as far as it can be gone through on samples (`rehearsal`), and what cannot."""

from __future__ import annotations

import math

from pydantic import Field

from rmpipe.config import Config
from rmpipe.reinforcement import Algorithm, Grpo, Rloo
from rmpipe.study import Drawing

FOLDS = 4
"""Parts of the prompts, each of which is told of by what the others teach."""
HELD = 2**29
"""Bytes that a rehearsal keeps for going back, at most, but for one reward's."""


class Recipe(Config):
    """What RLHF does at each step, as far as a rehearsal follows it."""

    rates: tuple[float, ...]
    """Learning rate of each step."""
    adaptive: bool
    """Whether a step is Adam's, or plain descent's."""
    clip: float
    """Largest norm of the gradient; 0 for no clipping."""
    kl: float
    """Reward units a nat."""
    prompts: int = Field(ge=1)
    """A step."""
    samples: int = Field(ge=2)
    """A prompt."""
    gain: float = 1.0
    """What rewards count for: less than 1 where the mean that is taken off a sample's has its own in it."""
    grouped: bool = False
    """Whether what is felt is an advantage already, in a group of samples by its spread (`foresight.grouped`)."""
    tokens: float | None = 1.0
    """What the gradient of a response's log-likelihood is divided by; None for the mean length of responses."""

    def held(self, samples: int, weights: int, parts: int) -> int:
        """Bytes that a rehearsal of one reward keeps until it was gone back, about.

        Args:
            samples: of all prompts.
            weights: that stand for all.
            parts: of the prompts, each with a policy of its own.
        """
        return len(self.rates) * parts * (80 * samples + 48 * weights)


DRAWN = ("temperature", "top_k", "top_p", "max_new_tokens")
"""What samples must be drawn by as RLHF draws its own, to stand for these."""


def recipe(algorithm: Algorithm, sampling: Drawing) -> Recipe | None:
    """What a rehearsal follows of an algorithm; None where it would leave out what decides. Weight decay it leaves out.

    Samples must be drawn as the algorithm draws its own, from the policy as it is (temperature 1, all words). GRPO
    takes off the mean of all of a prompt's K rewards, and so feels (K - 1) / K of what RLOO does. Its loss is a mean
    over tokens (dapo), or a sum over them and the greatest length (dr_grpo).
    """
    if unfollowed(algorithm, sampling):
        return None
    own, more = algorithm.optimiser, {}
    if isinstance(algorithm, Grpo):
        tokens = algorithm.max_new_tokens if algorithm.loss == "dr_grpo" else None
        group = algorithm.scale_rewards == "group"  # whose advantages leave a sample's own part out already
        more = {"grouped": group, "gain": 1 if group else 1 - 1 / algorithm.samples_per_prompt, "tokens": tokens}
    return Recipe(
        rates=_rates(algorithm), adaptive=own.name == "adamw", clip=own.clip, kl=algorithm.kl_coefficient,
        prompts=algorithm.prompts_per_step, samples=algorithm.samples_per_prompt, **more,
    )  # fmt: skip


def unfollowed(algorithm: Algorithm, sampling: Drawing) -> str:
    """Why a rehearsal cannot follow an algorithm, with what would have to be otherwise; "" where it can."""
    asked = [name for name in ("adapter", "entropy_bonus", "kl_target", "normalise_advantages")
             if getattr(algorithm, name, None)]  # fmt: skip
    if type(algorithm) not in (Rloo, Grpo) or algorithm.optimiser.name == "rmsprop":
        who = "rmsprop" if type(algorithm) in (Rloo, Grpo) else algorithm.kind
        return f"a rehearsal does not follow {who}"
    if asked:
        return f"a rehearsal does not follow {asked[0]}"
    if isinstance(algorithm, Grpo) and (algorithm.scale_rewards == "batch" or algorithm.loss == "grpo"):
        name = "scale_rewards" if algorithm.scale_rewards == "batch" else "loss"
        return f"a rehearsal does not follow {name} = {getattr(algorithm, name)}"
    if algorithm.temperature != 1 or algorithm.top_k or algorithm.top_p < 1:
        return "RLHF draws otherwise than the policy would by itself (temperature, top_k, top_p)"
    for name in DRAWN:
        if (told := getattr(sampling, name)) != getattr(algorithm, name):
            return f"samples are drawn by {name} = {told}, and RLHF's by {getattr(algorithm, name)}; set them alike"
    return ""


def _rates(algorithm: Algorithm) -> tuple[float, ...]:
    """The learning rate of each step, as transformers schedules it."""
    own, steps = algorithm.optimiser, algorithm.steps
    rise = [min(1.0, step / own.warmup_steps) if own.warmup_steps else 1.0 for step in range(steps)]
    left = [max(0.0, (step - own.warmup_steps) / max(1, steps - own.warmup_steps)) for step in range(steps)]
    fall = {"constant": lambda _: 1.0, "linear": lambda x: 1 - x, "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2}
    return tuple(own.learning_rate * up * fall[own.schedule](x) for up, x in zip(rise, left, strict=True))
