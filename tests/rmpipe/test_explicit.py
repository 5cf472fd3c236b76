"""Explicit reward models that read every token of the response."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

from rmpipe import world  # noqa: E402
from rmpipe.algorithm import Optimiser  # noqa: E402
from rmpipe.explicit import Explicit, RewardTraining  # noqa: E402
from rmpipe.text import encode  # noqa: E402
from tasks.execution import Log  # noqa: E402

PAIRS = world.preferences(0, 12)


def by_hand(model: torch.nn.Module, tokenizer: object, prompt: str, response: str) -> torch.Tensor:
    """The mean of <u, h_t> over the response's tokens, its end of sequence included."""
    ids, begin = encode(tokenizer, prompt, response), len(encode(tokenizer, prompt))
    hidden = model.model(torch.tensor([ids])).last_hidden_state[0, begin:]
    return (hidden @ model.score.weight[0]).mean()


def test_a_head_that_reads_every_token_is_trained_and_scored_on_the_mean(base, tmp_path):
    optimiser = Optimiser(name="sgd", learning_rate=0.5, clip=0)
    training = RewardTraining(steps=1, batch_size=12, optimiser=optimiser, center_rewards_coefficient=0, head="random")
    kind = Explicit(base="weak", read="mean", training=training)
    (tmp_path / "scratch").mkdir()
    kind.train(base, PAIRS, tmp_path / "model", seed=1, log=Log("train/0", tmp_path / "scratch"))
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rewards = {
        side: torch.stack([by_hand(model, tokenizer, row["prompt"], row[side]) for row in PAIRS])
        for side in ("chosen", "rejected")
    }
    (-torch.nn.functional.logsigmoid(rewards["chosen"] - rewards["rejected"]).mean()).backward()
    after = load_file(tmp_path / "model" / "model.safetensors")
    for name, weight in model.named_parameters():
        assert torch.allclose(weight - 0.5 * weight.grad, after[name], atol=2e-6), name
    trained = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    scored = kind.scorer(tmp_path)([row["prompt"] for row in PAIRS], [row["chosen"] for row in PAIRS])
    told = [by_hand(trained, tokenizer, row["prompt"], row["chosen"]).item() for row in PAIRS]
    assert scored.tolist() == pytest.approx(told, abs=1e-5)
