"""What a rehearsal follows of RLHF, and what it would leave out."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from rmpipe.recipe import DRAWN, recipe
from rmpipe.reinforcement import Algorithm
from rmpipe.study import Sampling


def algorithm(kind: str = "rloo", optimiser: dict[str, object] | None = None, **changes: object) -> Algorithm:
    own = {"learning_rate": 2e-4} | (optimiser or {})
    return Algorithm.family[kind](**{"steps": 20, "optimiser": own} | changes)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 6, 20, 30])
def test_rates_are_those_of_transformers(schedule, warmup):
    told = algorithm(optimiser={"schedule": schedule, "warmup_steps": warmup})
    held = torch.optim.SGD([torch.zeros(1)], lr=2e-4)
    theirs = get_scheduler(told.optimiser.scheduler, held, num_warmup_steps=warmup, num_training_steps=20)
    found = recipe(told, alike(told))
    assert found.rates == pytest.approx([2e-4 * theirs.lr_lambdas[0](step) for step in range(20)], abs=1e-12)


def alike(told):
    """Samples as an algorithm draws its own."""
    return Sampling(**{name: getattr(told, name) for name in DRAWN})


def followed(*names, **told):
    made = algorithm(*names, **told)
    return recipe(made, alike(made))


def test_recipes_are_what_the_algorithm_says():
    found = followed(optimiser={"name": "sgd", "clip": 0}, kl_coefficient=0.3, prompts_per_step=7)
    assert (found.adaptive, found.clip, found.kl, found.prompts, found.samples) == (False, 0, 0.3, 7, 4)
    assert (found.gain, found.tokens) == (1, 1)
    found = followed("grpo", samples_per_prompt=5)
    assert (found.adaptive, found.clip, found.grouped, found.gain, found.tokens) == (True, 1, True, 1, None)
    found = followed("grpo", samples_per_prompt=5, scale_rewards="none")
    assert (found.grouped, found.gain) == (False, 0.8)
    found = followed("grpo", loss="dr_grpo", scale_rewards="none", max_new_tokens=32)
    assert found.tokens == 32


@pytest.mark.parametrize("told", [
    {"optimiser": {"name": "rmsprop"}}, {"adapter": {}}, {"entropy_bonus": 0.1}, {"kl_target": 0.1},
    {"normalise_advantages": True}, {"kind": "grpo", "scale_rewards": "batch"}, {"kind": "grpo", "loss": "grpo"},
    {"temperature": 0.7}, {"top_k": 50}, {"top_p": 0.9},
])  # fmt: skip
def test_what_a_rehearsal_would_leave_out_has_no_recipe(told):
    assert followed(**told) is None


def test_samples_that_rlhf_would_draw_otherwise_are_not_rehearsed_on():
    told = algorithm(max_new_tokens=32)
    assert recipe(told, alike(told)) is not None
    assert recipe(told, Sampling(max_new_tokens=31)) is None
    assert recipe(told, Sampling(max_new_tokens=32, top_k=50)) is None
