"""Explicit reward models (EX-RM): a linear head on a language model, r = <u, h>, trained on preference pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rmpipe.adapter import adapted
from rmpipe.algorithm import Log, PairTraining, load, padded, paired_ids, run, trainer_arguments
from rmpipe.config import Neutral, StudyError
from rmpipe.reward import Scorer, Trained
from rmpipe.text import held, padding_id

if TYPE_CHECKING:
    import torch


class RewardTraining(PairTraining):
    """Bradley-Terry loss, -mean log sigmoid(r_chosen - r_rejected) + c mean (r_chosen + r_rejected)^2."""

    center_rewards_coefficient: float = Field(0.01, ge=0)
    head: Literal["zero", "random"] = "zero"
    """A head started at random adds noise of its own before any training."""


class Explicit(Trained):
    """A linear head on a language model, trained here on preference pairs (Bradley-Terry)."""

    kind: Literal["explicit"] = "explicit"
    truncate: bool = False
    """Cut the beginning off texts that are too long to score, rather than refuse them."""
    read: Annotated[Literal["last", "mean"], Neutral("last")] = "last"
    """Where the head reads: at the last token, or at every token of the response, of which the mean is taken."""
    training: RewardTraining

    def describe(self) -> str:
        """One line for a person."""
        where = ", read at every token of the response" if self.read == "mean" else ""
        return f"explicit: a head on {self.base or 'each policy'}, {self.learnt()}{where}"

    def train(self, base: Path, rows: Iterable[dict[str, Any]], out: Path, *, seed: int, log: Log) -> None:
        """Train the head and the model under it."""
        train_reward_model(base, rows, out, config=self.training, seed=seed, log=log, read=self.read)

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores with the weights in the folder's `model/`."""
        from rmpipe.policy import dtype_of
        from rmpipe.scoring import SequenceScorer

        if folder is None:
            raise StudyError("an explicit reward model is scored from the folder it was trained into; give that folder")
        told: dict[str, Any] = {"truncate": self.truncate, "read": self.read, "batch_tokens": batch_tokens}
        return SequenceScorer(folder / "model", dtype=dtype_of(folder / "model"), **told)


def train_reward_model(
    base: Path, pairs: Iterable[dict[str, Any]], out: Path, *, config: RewardTraining, seed: int, log: Log,
    read: Literal["last", "mean"] = "last",
) -> None:  # fmt: skip
    """Train a linear head, and the model under it, on preference pairs by the Bradley-Terry loss.

    Args:
        base: a causal language model's folder; its unembedding is replaced by a head of one output.
        pairs: {"prompt", "chosen", "rejected"}.
        out: where to; loads with AutoModelForSequenceClassification.
        read: at which tokens the head reads, see `Explicit`.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    _, tokenizer = load(base, model=False)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=config.dtype, use_safetensors=True
    )
    model.config.pad_token_id = padding_id(tokenizer)
    if config.head == "zero":
        torch.nn.init.zeros_(model.score.weight)
    examples = [
        {f"{side}_ids": row["prompt_ids"] + row[f"{side}_ids"] for side in ("chosen", "rejected")}
        | ({"prompt_length": len(row["prompt_ids"])} if read == "mean" else {})
        for row in paired_ids(tokenizer, pairs, config.max_length, held(model.config, tokenizer))
    ]
    more: dict[str, Any] = {"max_length": None, "center_rewards_coefficient": config.center_rewards_coefficient}
    collator = None
    if read == "mean":
        more["remove_unused_columns"], collator = False, _read_everywhere(model)
    trainer = RewardTrainer(
        model,
        args=trainer_arguments(
            RewardConfig, config, seed, log, batch=config.batch_size, micro=config.micro_batch, **more
        ),
        train_dataset=Dataset.from_list(examples),
        processing_class=padded(tokenizer),
        data_collator=collator,
        **adapted(config.adapter, "SEQ_CLS"),
    )
    run(trainer, config, log, out, tokenizer)


def _read_everywhere(model: Any) -> Any:
    """Let a model's head give at each token its mean over the response so far, so that the last token has the whole's.

    The class of the model reads the head's output at the last token that is no padding; so reads the trainer.

    Returns:
        a collator of pairs, which tells the model by `completion_mask` which tokens are the response's.
    """
    import torch
    from trl.trainer.reward_trainer import DataCollatorForPreference

    masks: list[torch.Tensor] = []

    def told(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        masks[:] = [kwargs.pop("completion_mask")]
        return args, kwargs

    def mean(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        mask = masks[0][..., None].to(output)
        return (output * mask).cumsum(1) / mask.cumsum(1).clamp(min=1)

    model.register_forward_pre_hook(told, with_kwargs=True)
    model.score.register_forward_hook(mean)
    collate = DataCollatorForPreference(pad_token_id=model.config.pad_token_id)

    def collated(examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(examples)
        begins = torch.tensor([row["prompt_length"] for row in examples] * 2)
        places = torch.arange(batch["input_ids"].shape[1])
        batch["completion_mask"] = (places >= begins[:, None]).long() * batch["attention_mask"]
        return batch

    return collated
