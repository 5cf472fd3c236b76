"""Gradients of samples' log-likelihoods: against plain autograd, and what follows from them to first order."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rmpipe import foresight, policy, world
from rmpipe.config import StudyError
from rmpipe.slopes import Slopes, influence, slopes
from rmpipe.text import parted

PROMPTS = world.prompts(0, 5)
RESPONSES = [
    [" oh , the kettle is fine", " yes", " oh , the kettle is fine", "", " oh"],
    [" the gold is lovely", " thanks", " you can love it", " no", " oh"],
    [" oh", " oh", " yes", " yes", " no"],
    [" fine"] * 5,
    [" the price is red", " yes", " no", " thanks", " fine"],
]
FINISHED = np.array([[True, True, True, False, True], [True, False] * 2 + [True], [True] * 5, [False] * 5, [True] * 5])
TRUTH = np.array([
    [0.3, -1.0, 0.3, 2.0, np.nan], [1.0, 0.0, 0.0, 3.0, 1.0], [1.0, 0.0, np.nan, 0.1, 0.1],
    [0.1, 0.4, 0.2, 0.0, 0.3], [np.nan, np.nan, 1.0, np.nan, np.nan],
])  # fmt: skip
COUNTED = foresight.known(TRUTH)
ALL = 10**9


def world_model() -> policy.LanguageModel:
    """The embedded world's, small, of random weights."""
    return policy.LanguageModel(world.new_model(3, hidden=16, layers=2, heads=2).eval(), world.tokenizer())


def gpt2() -> policy.LanguageModel:
    """One of another make: learned positions, biases, one matrix for tokens on the way in and out."""
    torch.manual_seed(0)
    tokenizer = world.tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=64)
    return policy.LanguageModel(GPT2LMHeadModel(config).eval(), tokenizer)


@pytest.fixture(scope="module")
def small() -> policy.LanguageModel:
    """No test changes it."""
    return world_model()


@pytest.fixture(scope="module")
def whole(small) -> np.ndarray:
    """By all of its weights."""
    return by_hand(small)


def found(language_model: policy.LanguageModel, **changes: object) -> Slopes:
    return slopes(language_model, PROMPTS, RESPONSES, **{"finished": FINISHED, "weights": ALL} | changes)


def by_hand(language_model: policy.LanguageModel) -> np.ndarray:
    """The gradient of log pi of every sample alone, by plain autograd, (prompts, samples, weights)."""
    weights = [weight for weight in language_model.model.parameters() if weight.requires_grad]
    rows = []
    for prompt, *row in zip(PROMPTS, RESPONSES, FINISHED, strict=True):
        for text, ended in zip(*row, strict=True):
            prompt_ids, ids = parted(language_model.tokenizer, prompt, text, end=bool(ended))
            logits = language_model.model(torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1]
            value = logits.log_softmax(-1).gather(1, torch.tensor(ids, dtype=torch.long)[:, None]).sum()
            parts = torch.autograd.grad(value, weights)
            rows.append(torch.cat([part.flatten() for part in parts]).double().numpy())
    return np.array(rows).reshape(*TRUTH.shape, -1)


# -- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [world_model, gpt2])
def test_by_all_weights_they_are_those_of_plain_autograd_sample_by_sample(make):
    language_model = make()
    told, exact = found(language_model), by_hand(language_model)
    assert (told.share, told.values.dtype) == (1, np.float32)
    np.testing.assert_allclose(told.values, exact, rtol=1e-3, atol=1e-5 * np.abs(exact).max())
    assert not told.values[0, 3].any()  # a response without a token has no likelihood to raise


def test_weights_that_are_drawn_are_some_of_all_in_their_order(small, whole):
    told = found(small, weights=50, seed=3)
    assert told.values.shape == (*TRUTH.shape, 50)
    assert told.share == 50 / whole.shape[2]
    columns = iter(whole.reshape(25, -1).T)
    for mine in told.values.reshape(25, -1).T:  # each is found behind the one before
        assert any(np.allclose(mine, other, rtol=1e-3, atol=1e-5) for other in columns)


def test_sums_over_weights_that_are_drawn_are_right_on_average(small, whole):
    flat = whole.reshape(25, -1)
    told = [found(small, weights=len(flat[0]) // 4, seed=seed) for seed in range(24)]
    sums = np.array([each.values.reshape(25, -1) @ each.values.reshape(25, -1).T / each.share for each in told])
    error = sums.std(axis=0, ddof=1) / np.sqrt(len(sums))
    apart = np.abs(sums.mean(axis=0) - flat @ flat.T)
    assert (apart <= 4.5 * error + 1e-4).all()
    assert error.max() < 0.1 * (flat @ flat.T).max()


def test_the_seed_says_which_weights_are_drawn(small):
    assert np.array_equal(found(small, weights=9).values, found(small, weights=9).values)
    assert not np.allclose(found(small, weights=9).values, found(small, weights=9, seed=1).values)


def test_equal_responses_are_read_once(small):
    read = []
    hook = small.model.register_forward_pre_hook(lambda _, told: read.append(len(told[0])))
    found(small, weights=9)
    hook.remove()
    assert read == [1] * (3 + 5 + 3 + 1 + 5)  # and what has no token not at all


def test_frozen_weights_have_no_part_in_it():
    language_model = world_model()
    for name, weight in language_model.model.named_parameters():
        weight.requires_grad_("layers.1" in name)
    told, exact = found(language_model), by_hand(language_model)
    np.testing.assert_allclose(told.values, exact, rtol=1e-3, atol=1e-5 * np.abs(exact).max())


def test_a_weight_that_is_not_used_has_a_slope_of_nothing(small):
    language_model = policy.LanguageModel(copy.deepcopy(small.model), small.tokenizer)
    language_model.model.unused = torch.nn.Parameter(torch.ones(4))
    assert found(language_model).values.shape[2] == found(small).values.shape[2] + 4


def test_rows_are_those_of_some_prompts(small):
    told = found(small, weights=9)
    kept = told.rows([3, 0])
    assert np.array_equal(kept.values, told.values[[3, 0]])
    assert kept.share == told.share


def test_a_model_is_left_as_it_was_and_progress_is_told(small):
    before, told = copy.deepcopy(small.model.state_dict()), []
    found(small, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 5) for done in range(1, 6)]
    assert all(torch.equal(before[name], weight) for name, weight in small.model.state_dict().items())
    assert all(weight.grad is None for weight in small.model.parameters())


def test_long_texts_are_refused_before_any_pass_and_broken_weights_are_said_to_be(small):
    passes = []
    hook = small.model.register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(StudyError, match="leave out long texts"):
        slopes(small, PROMPTS, [*RESPONSES[:4], [" fine" * 2000] * 5])
    hook.remove()
    assert passes == []
    broken = world_model()
    next(broken.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(StudyError, match="weights are broken"):
        found(broken)


# -- influence ------------------------------------------------------------------------------------------------------


def halves(seed: int = 1) -> list[np.ndarray]:
    """The prompts that count, as they are parted."""
    return np.array_split(np.random.default_rng(seed).permutation(4), 2)


def of_half(each: np.ndarray, rows: np.ndarray, values: np.ndarray = TRUTH) -> np.ndarray:
    """The gradient of what is expected at these prompts."""
    total = 0.0
    for row in rows:
        there = COUNTED[row]
        centred = values[row, there] - values[row, there].mean()
        total = total + centred @ each[row, there] / (there.sum() - 1) / len(rows)
    return total


def test_influences_are_slopes_along_the_other_half_s_gradient(small, whole):
    exact = np.full(TRUTH.shape, np.nan)
    for mine, others in (halves(), halves()[::-1]):
        exact[others] = whole[others] @ of_half(whole, mine)
    exact[~COUNTED] = np.nan
    np.testing.assert_allclose(influence(found(small), TRUTH, 1), exact, rtol=1e-3, atol=1e-4 * np.nanstd(exact))


def test_the_covariance_with_a_reward_is_the_inner_product_of_both_halves_gradients(small, whole):
    rewards = np.random.default_rng(2).normal(size=TRUTH.shape)
    covariances = foresight.covariance(rewards, influence(found(small), TRUTH, 1))
    for mine, others in (halves(), halves()[::-1]):
        climbed = of_half(whole, others, rewards) @ of_half(whole, mine)
        assert covariances[others].mean() == pytest.approx(climbed, rel=1e-3)


def test_a_sample_s_own_half_has_no_part_in_its_influence(small):
    told, changed = found(small, weights=200), TRUTH.copy()
    mine, others = halves()
    changed[mine] = 3 - 2 * changed[mine]
    before, after = influence(told, TRUTH, 1), influence(told, changed, 1)
    np.testing.assert_allclose(after[mine], before[mine], rtol=1e-6)
    np.testing.assert_allclose(after[others], -2 * before[others], rtol=1e-3, atol=1e-6)


def test_what_has_no_label_has_no_influence_and_two_prompts_with_labels_are_needed(small):
    told = found(small, weights=9)
    assert (np.isnan(influence(told, TRUTH)) == ~COUNTED).all()
    few = np.where(np.arange(5)[:, None] == 1, TRUTH, np.nan)
    with pytest.raises(StudyError, match="truth: prompts with two labelled responses: 1, but two are needed"):
        influence(told, few)
