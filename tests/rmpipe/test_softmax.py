"""Softmax policies: sums over all labels, gradients by hand and by autograd, and the bound of 2310.20703."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from rmpipe import softmax  # noqa: E402

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "soft_ce_multi_label.json"
RANDOM = torch.Generator().manual_seed(0)
INPUTS, WIDTH, LABELS = 6, 5, 4
FEATURES = torch.rand(INPUTS, WIDTH, generator=RANDOM)
REWARDS = torch.rand(INPUTS, LABELS, generator=RANDOM) * 2 - 1
LOGITS = torch.randn(INPUTS, LABELS, generator=RANDOM)
ANSWERS = torch.tensor([0, 3, 1, 2, 2, 0])


@pytest.fixture
def network() -> torch.nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(WIDTH, 7), torch.nn.ReLU(), torch.nn.Linear(7, LABELS))


def gradient(value: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
    """By autograd, in one row."""
    found = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in found])


# -- rewards ----------------------------------------------------------------------------------------------------------


def test_reward_and_std_are_sums_over_all_labels():
    for logits, rewards, value, std in zip(
        LOGITS, REWARDS, softmax.expected_reward(LOGITS, REWARDS), softmax.reward_std(LOGITS, REWARDS), strict=True
    ):
        weights = [math.exp(each) for each in logits.tolist()]
        likely = [each / sum(weights) for each in weights]
        mean = sum(p * r for p, r in zip(likely, rewards.tolist(), strict=True))
        spread = sum(p * (r - mean) ** 2 for p, r in zip(likely, rewards.tolist(), strict=True))
        assert value.item() == pytest.approx(mean, abs=1e-6)
        assert std.item() == pytest.approx(math.sqrt(spread), abs=1e-6)


def test_a_label_of_one_in_a_million_still_has_a_std():
    # rewards of -1 and 1 with a share p of the latter have a std of 2 sqrt(p (1 - p))
    logits = torch.tensor([[0.0, math.log(1e-6)]])
    assert softmax.reward_std(logits, torch.tensor([[-1.0, 1.0]])).item() == pytest.approx(2e-3, rel=1e-3)


def test_what_the_policy_does_not_move_has_neither_std_nor_gradient():
    same = torch.full((INPUTS, LABELS), 0.5)
    assert softmax.reward_std(LOGITS, same).max() < 1e-6
    assert softmax.reward_gradient_norms(LOGITS, same, torch.eye(LABELS).expand(INPUTS, -1, -1)).max() < 1e-6


def test_divergence_from_uniform_is_what_entropy_lacks():
    uniform = torch.zeros_like(LOGITS)
    lacks = math.log(LABELS) - softmax.entropy(LOGITS)
    assert softmax.divergence(LOGITS, uniform).tolist() == pytest.approx(lacks.tolist(), abs=1e-6)
    assert softmax.divergence(LOGITS, LOGITS + 3).abs().max() < 1e-6  # logits of the same policy


# -- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference")
def test_the_soft_cross_entropy_is_that_of_the_published_code():
    told = json.loads(REFERENCE.read_text())
    logits, labels = torch.tensor(told["inputs"]["probs"]).log(), torch.tensor(told["inputs"]["labels"])
    found = softmax.soft_cross_entropy(logits, labels).item()
    assert found == pytest.approx(told["expected"]["loss"], abs=told["tolerance"])


def test_of_one_label_each_it_is_the_cross_entropy():
    expected = torch.nn.functional.cross_entropy(LOGITS, ANSWERS)
    assert softmax.soft_cross_entropy(LOGITS, ANSWERS[:, None]).item() == pytest.approx(expected.item(), abs=1e-6)


def test_reinforce_has_the_gradient_of_the_expected_reward_in_expectation():
    logits = LOGITS.clone().requires_grad_()
    exact = torch.autograd.grad(softmax.expected_reward(logits, REWARDS).sum(), logits)[0]
    draws = 40_000
    many = logits.repeat(draws, 1)
    generator = torch.Generator().manual_seed(1)
    sampled = softmax.sampled_reward(many, REWARDS.repeat(draws, 1), generator).sum() / draws
    found = torch.autograd.grad(sampled, logits)[0]
    assert found.numpy() == pytest.approx(exact.numpy(), abs=0.02)  # four standard errors of 1 / sqrt(draws)
    assert exact.abs().max() > 0.1


# -- gradients --------------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_linear_policy_is_that_by_hand():
    # d V / d W[y] = pi(y) (r(y) - V) x, and without x for the bias: its norm is |pi (r - V)| sqrt(|x|^2 + 1)
    linear = torch.nn.Linear(WIDTH, LABELS)
    logits = linear(FEATURES)
    likely = logits.softmax(-1)
    felt = likely * (REWARDS - (likely * REWARDS).sum(-1, keepdim=True))
    value = softmax.expected_reward(logits, REWARDS).mean()
    by_weight, by_bias = torch.autograd.grad(value, [linear.weight, linear.bias])
    assert by_weight.numpy() == pytest.approx((felt.T @ FEATURES / INPUTS).detach().numpy(), abs=1e-6)
    assert by_bias.numpy() == pytest.approx(felt.mean(0).detach().numpy(), abs=1e-6)
    norms = felt.norm(dim=-1) * (FEATURES.square().sum(-1) + 1).sqrt()
    found = softmax.reward_gradient_norms(logits, REWARDS, softmax.jacobian_gram(linear, FEATURES))
    assert found.tolist() == pytest.approx(norms.tolist(), abs=1e-5)


def test_norms_of_single_inputs_are_those_of_autograd(network):
    logits, gram = network(FEATURES), softmax.jacobian_gram(network, FEATURES)
    rewarded = softmax.reward_gradient_norms(logits, REWARDS, gram)
    supervised = softmax.supervised_gradient_norms(logits, ANSWERS, gram)
    values, likelihoods = softmax.expected_reward(logits, REWARDS), logits.log_softmax(-1)
    for row in range(INPUTS):
        assert rewarded[row].item() == pytest.approx(gradient(values[row], network).norm().item(), rel=1e-4)
        by_label = gradient(likelihoods[row, ANSWERS[row]], network).norm().item()
        assert supervised[row].item() == pytest.approx(by_label, rel=1e-4)
    mean = gradient(values.mean(), network).norm().item()
    assert softmax.gradient_norm(softmax.expected_reward(network(FEATURES), REWARDS).mean(), network.parameters()) == (
        pytest.approx(mean, rel=1e-5)
    )


def test_gamma_is_the_norm_of_the_whole_jacobian_however_many_inputs_at_a_time(network, monkeypatch):
    logits = network(FEATURES)
    whole = [torch.stack([gradient(each, network) for each in row]) for row in logits]
    expected = [torch.linalg.matrix_norm(each, 2).item() for each in whole]
    monkeypatch.setattr(softmax, "CHUNK", 4)
    assert softmax.jacobian_norms(softmax.jacobian_gram(network, FEATURES)).tolist() == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("sharpness", [1.0, 5.0, 25.0])
def test_the_bound_of_theorem_1_holds_at_every_input(network, sharpness):
    with torch.no_grad():
        network[-1].weight *= sharpness
    features = torch.rand(50, WIDTH, generator=RANDOM)
    rewards = torch.where(torch.rand(50, LABELS, generator=RANDOM) < 0.3, 1.0, -1.0)
    logits, gram = network(features).detach(), softmax.jacobian_gram(network, features)
    std, gamma = softmax.reward_std(logits, rewards), softmax.jacobian_norms(gram)
    assert (softmax.reward_gradient_norms(logits, rewards, gram) <= 6 * gamma * std ** (2 / 3)).all()
