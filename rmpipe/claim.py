"""Claims: comparisons that a study states before anything is run; `rmpipe.contrast` judges them."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from rmpipe.config import Config


class Claim(Config):
    """A comparison that the study states beforehand; the report says whether it held.

    It has one of three forms: `higher` and `lower`, two reward models; `reward_model`, `policy_higher` and
    `policy_lower`, two policies; or a `ladder` of reward models.
    """

    name: str
    claim: str
    policy: str | None = None
    algorithm: str | None = None
    gain: Literal["truth", "proxy"] = "truth"
    assuming: tuple[Literal["less accurate", "no less accurate", "more variance"], ...] = ()
    """What must be so of `higher` beside `lower`, by the measured means, for the claim to be tested at all."""
    higher: str | None = None
    lower: str | None = None
    reward_model: str | None = None
    policy_higher: str | None = None
    policy_lower: str | None = None
    ladder: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _of_one_form(self) -> Claim:
        said = [name for form in FORMS for name in form if getattr(self, name)]
        if tuple(said) not in FORMS:
            forms = "; or ".join(", ".join(form) for form in FORMS)
            raise ValueError(f"a claim names {forms}; this one names {', '.join(said) or 'none of them'}")
        if self.ladder and self.assuming:
            raise ValueError("assuming is for two sides, and a ladder has none; leave it out")
        if self.policy_higher and self.policy:
            raise ValueError("policy says nothing beside policy_higher and policy_lower; leave it out")
        return self


FORMS = (("higher", "lower"), ("reward_model", "policy_higher", "policy_lower"), ("ladder",))
"""What a claim names: all of one form, and nothing of another."""

CLAIMED = {
    "policy": "policies", "policy_higher": "policies", "policy_lower": "policies", "algorithm": "algorithms",
    "higher": "reward_models", "lower": "reward_models", "reward_model": "reward_models", "ladder": "reward_models",
}  # fmt: skip
"""What of a claim is a name, and in which section it must be."""
