"""Implicit reward models (IM-RM): what a language model's own likelihoods say, r = beta (log pi - log pi_ref).

Sums are over the response's tokens, its end of sequence included (2507.07981, section 2; Rafailov et al. 2023). The
loss is that of the explicit ones, Bradley-Terry, which on these rewards is DPO's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rmpipe import policy
from rmpipe.algorithm import Log, PairTraining, load, padded, paired_ids, run, trainer_arguments
from rmpipe.config import StudyError
from rmpipe.pair import SIDES
from rmpipe.reward import Scorer, Trained
from rmpipe.text import Text, parted

if TYPE_CHECKING:
    import numpy as np


class Implicit(Trained):
    """A language model whose likelihoods are the reward, trained here on preference pairs (DPO)."""

    kind: Literal["implicit"] = "implicit"
    beta: float = Field(0.1, gt=0)
    """What a nat is worth, reward units. (2507.07981 has 0.01, DPO's usual value is 0.1.)"""
    reference: bool = True
    """Whether the policy that it starts from is what likelihoods are compared with; else r = beta log pi."""
    training: PairTraining

    def describe(self) -> str:
        """One line for a person."""
        against = "" if self.reference else ", without reference"
        who = self.base or "each policy"
        return f"implicit: the likelihoods of {who}, {self.learnt()}, beta {self.beta:g}{against}"

    def train(self, base: Path, rows: Iterable[dict[str, Any]], out: Path, *, seed: int, log: Log) -> None:
        """Train through TRL's DPO, on our own ids; the reference's likelihoods are asked for once, before it begins."""
        from datasets import Dataset
        from trl import DPOConfig

        model, tokenizer = load(base)
        examples = paired_ids(tokenizer, rows, self.training.max_length)
        columns: dict[str, Any] = {name: [row[name] for row in examples] for name in examples[0]}
        columns |= {f"ref_{side}_logps": self._likelihoods(base, examples, f"{side}_ids") for side in SIDES}
        more: dict[str, Any] = {"beta": self.beta, "max_length": None, "precompute_ref_log_probs": True}
        trainer = _trainer()(
            model,
            args=trainer_arguments(
                DPOConfig,
                self.training,
                seed,
                log,
                batch=self.training.batch_size,
                micro=self.training.micro_batch,
                **more,
            ),
            train_dataset=Dataset.from_dict(columns),
            processing_class=padded(tokenizer),
        )
        run(trainer, self.training, log, out, tokenizer)

    def _likelihoods(self, base: Path, rows: list[dict[str, list[int]]], response: str) -> list[float]:
        """log pi_ref of a side of each pair, nats; 0 without a reference."""
        if not self.reference:
            return [0.0] * len(rows)
        asked = [(row["prompt_ids"], row[response]) for row in rows]
        values: list[float] = policy.likelihoods(policy.load(base), asked).tolist()
        return values

    def scorer(
        self, folder: Path | None, components: Sequence[Scorer] = (), *, base: Path | None = None,
        batch_tokens: int = 8192,
    ) -> Scorer:  # fmt: skip
        """Scores with the language model in the folder's `model/`, against the one at `base`."""
        if folder is None or (self.reference and base is None):
            raise StudyError(
                "an implicit reward model is scored from the folder it was trained into, against the policy that it"
                " started from; give both"
            )
        model = policy.load(folder / "model")
        reference = policy.load(base) if self.reference and base is not None else None

        def score(prompts: Sequence[Text], responses: Sequence[str]) -> np.ndarray:
            pairs = [parted(model.tokenizer, *pair) for pair in zip(prompts, responses, strict=True)]
            rewards = policy.likelihoods(model, pairs)
            if reference is not None:
                rewards = rewards - policy.likelihoods(reference, pairs)
            return (self.beta * rewards).float().numpy()

        return score


def implicit_reward(logprobs: Any, reference: Any, mask: Any, beta: float) -> Any:
    """r = beta sum_t m_t (log pi_t - log pi_ref,t), (n,) reward units (2507.07981, section 2).

    Args:
        logprobs: (n, tokens), nats, of the response's tokens under the model.
        reference: the same under the reference; None for r = beta log pi.
        mask: (n, tokens), 1 at the response's tokens.
        beta: reward units a nat.
    """
    difference = logprobs if reference is None else logprobs - reference
    return beta * (difference * mask).sum(-1)


def _trainer() -> type:
    """TRL's DPO with ids and reference likelihoods that are already there."""
    from trl import DPOTrainer

    class Trainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return Trainer
