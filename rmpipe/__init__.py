"""Reward models, chosen by what they teach.

The science works alone, on arrays: `rmpipe.reward_variance(rewards)`. The store can be read without any pipeline:
`rmpipe.find("measure", reward_model="off")`, `rmpipe.open("measure/48195f80cea8").table()`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "reward_variance": "variance", "whiten": "variance", "shift_and_scale": "variance", "flat_share": "variance",
    "covariance": "variance", "correlation": "variance", "rloo_advantages": "variance",
    "on_policy_accuracy": "accuracy", "ranking_accuracy": "accuracy", "normalised_margin": "accuracy",
    "calibration": "accuracy", "controls": "accuracy", "bradley_terry_loss": "accuracy",
    "bootstrap": "interval", "t_interval": "interval", "bootstrap_correlation": "interval",
    "find": "store", "open": "store", "Study": "study", "StudyError": "config",
}  # fmt: skip

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: `rmpipe --help` must not wait for numpy."""
    if name not in _PLACES:
        raise AttributeError(f"module 'rmpipe' has no attribute {name!r}")
    return getattr(import_module(f"rmpipe.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
