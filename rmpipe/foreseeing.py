"""What a study says of forecasts: which reward model will teach best, told before RLHF is paid for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rmpipe.config import Config, Neutral
from rmpipe.labelling import Labelling


class Differentiating(Config):
    """How gradients of samples are taken."""

    weights: int = Field(4096, ge=1)
    """How many of the policy's weights, drawn at random, stand for all."""


class Foreseeing(Config):
    """How gains are foretold from a policy's samples, their rewards and ground-truth labels."""

    gradients: bool = True
    """Whether gradients may be taken: one pass back over each sample, whatever number of reward models there is. They
    let RLHF be gone through on the samples; without them the first step alone is foretold, and roughly."""
    differentiating: Differentiating = Differentiating()
    fewest: int = Field(10, ge=2)
    """Prompts with two labelled responses below which nothing is foretold."""
    least_share: float = Field(0.1, gt=0, le=1)
    """Effective sample size, as a share of the samples if these were many, below which a policy has gone too far from
    them to be told of by them."""
    calibrate: tuple[str, ...] = ()
    """Reward models whose RLHF may be paid for, one or two: forecasts of the others are then gains in reward units."""
    draws: int = Field(1000, ge=100)
    """Bootstrap draws over prompts."""
    labels: Annotated[Labelling | None, Neutral(None)] = None
    """A file of policies' own responses with ground-truth labels, from which gains are foretold instead of from samples
    that the ground truth scores: `labels = "labels.jsonl"`."""
