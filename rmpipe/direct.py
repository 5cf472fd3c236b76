"""Direct preference optimisation: a policy trained on preference pairs without a reward model, through TRL.

The losses are those of 2410.08847 and its published code. With w and l the log-likelihoods of the chosen and of the
rejected response, sums over their tokens with the end of sequence, and m = (w - w_ref) - (l - l_ref):

- dpo: -mean log sigmoid(beta m) (Rafailov et al. 2023)
- ipo: mean (m - 1 / (2 beta))^2 (Azar et al. 2023)
- cross_entropy: -mean w

and to each, if asked for, -sft mean w is added. TRL's dpo is this one. Its ipo divides w and l by their numbers of
tokens, and its sft is a mean over tokens and not over responses, so those two are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rmpipe import policy
from rmpipe.adapter import adapted
from rmpipe.algorithm import Log, PairTraining, load, padded, paired_ids, run, trainer_arguments
from rmpipe.config import Config
from rmpipe.pair import SIDES
from rmpipe.store import write_whole
from rmpipe.text import held

CHUNK = 2048
"""Pairs whose reference likelihoods a kill may cost."""


class Objective(Config):
    """What is minimised."""

    loss: Literal["dpo", "ipo", "cross_entropy"] = "dpo"
    beta: float = Field(0.1, gt=0)
    """How much it costs to move away from the reference: the KL coefficient."""
    sft: float = Field(0.0, ge=0)
    """Weight of the chosen responses' own log-likelihood beside the loss."""

    def of(self, chosen: Any, rejected: Any, reference_chosen: Any, reference_rejected: Any) -> Any:
        """The loss, a tensor of one number (2410.08847, sections 2 and 6).

        Args:
            chosen: w, a tensor (pairs,), nats.
            rejected: l, (pairs,).
            reference_chosen: w_ref, (pairs,).
            reference_rejected: l_ref, (pairs,).
        """
        from torch.nn.functional import logsigmoid

        margins = (chosen - reference_chosen) - (rejected - reference_rejected)
        if self.loss == "dpo":
            loss = -logsigmoid(self.beta * margins).mean()
        elif self.loss == "ipo":
            loss = (margins - 1 / (2 * self.beta)).square().mean()
        else:
            loss = -chosen.mean()
        return loss - self.sft * chosen.mean() if self.sft else loss


class Direct(Objective):
    """Training on preference pairs: what is minimised, and how."""

    training: PairTraining


def train(
    base: Path, rows: Iterable[dict[str, Any]], out: Path, *, config: Direct, seed: int, log: Log,
    reference: bool = True,
) -> int:  # fmt: skip
    """Train through TRL's DPO, on our own ids, and save the model with its tokenizer.

    The reference's likelihoods are asked for once, before it begins.

    Args:
        base: the folder of the policy that it starts from, which is also the reference.
        rows: {"prompt", "chosen", "rejected"}.
        out: where to; the looks of the training go beside it.
        reference: whether there is one; without it w_ref and l_ref are 0.

    Returns:
        how many pairs were short enough, and so were trained on.

    Raises:
        StudyError: no pair is short enough, or one is longer than the model's context; its weights end not finite.
    """
    from datasets import Dataset
    from trl import DPOConfig

    training = config.training
    model, tokenizer = load(base, dtype=training.dtype)
    examples = paired_ids(tokenizer, rows, training.max_length, held(model.config, tokenizer))
    columns: dict[str, Any] = {name: [row[name] for row in examples] for name in examples[0]}
    columns |= _references(base if reference else None, examples, training, log)
    more: dict[str, Any] = {"beta": config.beta, "max_length": None, "precompute_ref_log_probs": True}
    trainer = _trainer()(
        model,
        args=trainer_arguments(
            DPOConfig, training, seed, log, batch=training.batch_size, micro=training.micro_batch, **more
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=padded(tokenizer),
        **adapted(training.adapter, "CAUSAL_LM"),
    )
    trainer.objective = config
    run(trainer, training, log, out, tokenizer)
    return len(examples)


def _references(
    base: Path | None, rows: list[dict[str, list[int]]], training: PairTraining, log: Log
) -> dict[str, list[float]]:
    """log pi_ref of both sides of each pair, nats, by the names that TRL has for them; 0 without a reference.

    Computed as they are in training, so that margins begin at 0. Some pairs at a time; those that a killed run had done
    are read back.
    """
    import torch

    if base is None:
        return {f"ref_{side}_logps": [0.0] * len(rows) for side in SIDES}
    found: dict[str, list[float]] = {f"ref_{side}_logps": [] for side in SIDES}
    read = cache(lambda: policy.load(base, dtype=training.dtype))  # not where all was read back
    device = "cuda" if torch.cuda.is_available() else "cpu"
    autocast = torch.autocast(device, torch.bfloat16, enabled=training.precision == "mixed")
    for start in range(0, len(rows), CHUNK):
        part, file = rows[start : start + CHUNK], log.scratch / f"reference-{start:09d}.json"
        if not file.exists():
            asked = {side: [(row["prompt_ids"], row[f"{side}_ids"]) for row in part] for side in SIDES}
            with autocast:
                told = {f"ref_{side}_logps": policy.likelihoods(read(), each).tolist() for side, each in asked.items()}
            write_whole(file, json.dumps(told))
        for name, values in json.loads(file.read_text()).items():
            found[name] += values
        log.progress(start + len(part), len(rows))
    return found


def _trainer() -> type:
    """TRL's DPO with ids and reference likelihoods that are already there, and with the paper's losses."""
    from trl import DPOTrainer

    class Trainer(DPOTrainer):
        objective: Objective

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            """TRL's own for all that it logs, and, where it is not TRL's dpo, the loss out of the same forward."""
            said: list[Any] = []

            def overheard(**asked: Any) -> Any:
                said.append(model(**asked))
                return said[-1]

            loss = super()._compute_loss(overheard, inputs, return_outputs)
            if self.objective.loss == "dpo" and not self.objective.sft:
                return loss
            chosen, rejected = said[0].log_probs.sum(1).chunk(2)  # as TRL's batch has them
            return self.objective.of(chosen, rejected, inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])

    return Trainer
