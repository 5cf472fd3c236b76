"""Adapters: few weights that are trained beside many that rest, through PEFT.

What is saved after a training is the model with its adapter added to its weights, so that all that reads models reads
one form.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, field_validator

from rmpipe.config import Config, StudyError


class Lora(Config):
    """Low-rank adaptation (2106.09685): W + alpha / rank B A is used for a resting weight W; B and A are trained."""

    rank: int = Field(16, ge=1)
    alpha: float | None = Field(None, gt=0)
    """Twice the rank, unless said."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of what A reads, in finetuning and in generative reward models; the other trainings know no dropout."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """The layers that are adapted, by the ends of their names; `all-linear`: all but the head."""

    @field_validator("targets")
    @classmethod
    def _of_some_layers(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError('empty, so nothing is adapted; name a layer, such as "q_proj", or "all-linear"')
        if "lm_head" in targets:  # TRL's losses read its weight past the adapter
            raise ValueError("lm_head cannot be adapted; leave it out")
        return targets

    def check(self, where: str) -> None:
        """Refuse an adapter where nothing can train it.

        Args:
            where: what the study calls it.

        Raises:
            StudyError: PEFT is not installed.
        """
        if find_spec("peft") is None:
            raise StudyError(f"{where}: peft is not installed; pip install 'rmpipe[peft]', or leave the adapter out")


def adapted(adapter: Lora | None, task: Literal["CAUSAL_LM", "SEQ_CLS"]) -> dict[str, Any]:
    """What a trainer of TRL must be told to train an adapter; of SEQ_CLS the new head is trained whole beside it.

    Raises:
        StudyError: PEFT is not installed.
    """
    if adapter is None:
        return {}
    adapter.check("training.adapter")
    from peft import LoraConfig

    targets = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    alpha = adapter.alpha or 2 * adapter.rank
    told: dict[str, Any] = {"r": adapter.rank, "lora_alpha": alpha, "lora_dropout": adapter.dropout}
    return {"peft_config": LoraConfig(target_modules=targets, task_type=task, **told)}


def merged(model: Any, *, copied: bool = False) -> Any:
    """A model with its adapter added to its weights; one without an adapter as it is.

    Args:
        copied: leave the model as it is, which is trained on.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    return (copy.deepcopy(model) if copied else model).merge_and_unload()
