"""Implicit reward models (IM-RM): what a language model's own likelihoods say, r = beta (log pi - log pi_ref).

Sums are over the response's tokens, its end of sequence included (2507.07981, section 2; Rafailov et al. 2023). The
loss is that of the explicit ones, Bradley-Terry, which on these rewards is DPO's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rmpipe import direct, policy
from rmpipe.algorithm import Log, PairTraining
from rmpipe.config import StudyError
from rmpipe.direct import Direct
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
        """As `rmpipe.direct` trains, by DPO: its loss is Bradley-Terry's on these rewards."""
        config = Direct(beta=self.beta, training=self.training)
        direct.train(base, rows, out, config=config, seed=seed, log=log, reference=self.reference)

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
        dtype = policy.dtype_of(folder / "model")
        model = policy.load(folder / "model", dtype=dtype)
        reference = policy.load(base, dtype=dtype) if self.reference and base is not None else None

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
