"""Softmax policies over a handful of labels: rewards, their std and gradients, exact and not estimated.

By Theorem 1 of 2310.20703 the gradient of an input's expected reward is bounded by the std of the reward there,
|grad V(x)| <= 6 L gamma(x) std(x)^(2/3), where rewards lie in [-1, 1], L is the length of a response, here 1, and
gamma(x) is the norm of the Jacobian of the logits.

Functions take tensors and give tensors; logits are what the softmax is taken of, after any temperature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 16
"""Inputs whose Jacobians are held at a time."""


def expected_reward(logits: Tensor, rewards: Tensor) -> Tensor:
    """V(x) = sum_y pi(y|x) r(x, y) of each input.

    Args:
        logits: `(inputs, labels)`.
        rewards: `(inputs, labels)`, reward units.

    Returns:
        `(inputs,)`, reward units.
    """
    return (logits.softmax(-1) * rewards).sum(-1)


def reward_std(logits: Tensor, rewards: Tensor) -> Tensor:
    """The std of the reward of each input over the policy's labels, exact, and so the population's.

    sqrt(sum_y pi(y|x) (r(x, y) - V(x))^2), STD of 2310.20703.

    Args:
        logits: `(inputs, labels)`.
        rewards: `(inputs, labels)`, reward units.

    Returns:
        `(inputs,)`, reward units.
    """
    centred = rewards - expected_reward(logits, rewards)[:, None]
    return expected_reward(logits, centred**2).sqrt()


def sampled_reward(logits: Tensor, rewards: Tensor, generator: torch.Generator) -> Tensor:
    """r(x, y) log pi(y|x) of one y drawn for each input: REINFORCE without a baseline.

    Its gradient is that of `expected_reward` in expectation; its value means nothing.

    Args:
        logits: `(inputs, labels)`.
        rewards: `(inputs, labels)`, reward units.
        generator: of the draws.

    Returns:
        `(inputs,)`.
    """
    drawn = logits.detach().softmax(-1).multinomial(1, generator=generator)
    return (rewards * logits.log_softmax(-1)).gather(-1, drawn)[:, 0]


def entropy(logits: Tensor) -> Tensor:
    """-sum_y pi(y|x) log pi(y|x) of each input, `(inputs,)`, nats."""
    spread = logits.log_softmax(-1)
    return -(spread.exp() * spread).sum(-1)


def divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || reference) of each input.

    Args:
        logits: `(inputs, labels)`.
        reference: logits of the policy that is compared with, `(inputs, labels)`.

    Returns:
        `(inputs,)`, nats.
    """
    spread = logits.log_softmax(-1)
    return (spread.exp() * (spread - reference.log_softmax(-1))).sum(-1)


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-mean over inputs and their labels of log pi(label|x); with one label each, the cross-entropy.

    Args:
        logits: `(inputs, labels)`; logarithms of probabilities are logits too.
        labels: `(inputs, labels an input)`; one that stands there twice counts twice.

    Returns:
        a scalar, nats.
    """
    return -logits.log_softmax(-1).gather(-1, labels).mean()


def gradient_norm(value: Tensor, weights: Iterable[torch.nn.Parameter]) -> float:
    """The Euclidean norm of the gradient of a scalar by all weights together."""
    import torch

    found = torch.autograd.grad(value, list(weights))
    return math.sqrt(sum(float(part.square().sum()) for part in found))


def jacobian_gram(model: torch.nn.Module, features: Tensor) -> Tensor:
    """J J^T of each input, where J is the Jacobian of the logits by all of a model's weights, `(labels, weights)`.

    All norms at an input follow from it: |J^T g|^2 = g^T J J^T g.

    Args:
        model: from features to logits.
        features: `(inputs, width)`.

    Returns:
        `(inputs, labels, labels)`.
    """
    from torch.func import functional_call, jacrev, vmap

    weights = {name: each.detach() for name, each in model.named_parameters()}

    def gram(one: Tensor) -> Tensor:
        by_weight = jacrev(lambda given: functional_call(model, given, (one,)))(weights)
        return sum(part.flatten(1) @ part.flatten(1).T for part in by_weight.values())

    return vmap(gram, chunk_size=CHUNK)(features)


def jacobian_norms(gram: Tensor) -> Tensor:
    """gamma(x), the largest singular value of each input's Jacobian.

    Args:
        gram: J J^T, `(inputs, labels, labels)`.

    Returns:
        `(inputs,)`, by the unit of a weight.
    """
    import torch

    return torch.linalg.eigvalsh(gram.double())[:, -1].clamp(min=0).sqrt().to(gram.dtype)


def reward_gradient_norms(logits: Tensor, rewards: Tensor, gram: Tensor) -> Tensor:
    """|grad V(x)| of each input alone, by all weights.

    The gradient by the logits is pi(y|x) (r(x, y) - V(x)).

    Args:
        logits: `(inputs, labels)`.
        rewards: `(inputs, labels)`, reward units.
        gram: J J^T, `(inputs, labels, labels)`.

    Returns:
        `(inputs,)`, reward units by the unit of a weight.
    """
    return _norms(logits.softmax(-1) * (rewards - expected_reward(logits, rewards)[:, None]), gram)


def supervised_gradient_norms(logits: Tensor, labels: Tensor, gram: Tensor) -> Tensor:
    """|grad log pi(label|x)| of each input alone, by all weights: what supervised finetuning feels of it.

    Args:
        logits: `(inputs, labels)`.
        labels: `(inputs,)`.
        gram: J J^T, `(inputs, labels, labels)`.

    Returns:
        `(inputs,)`, nats by the unit of a weight.
    """
    import torch

    return _norms(torch.nn.functional.one_hot(labels, logits.shape[-1]) - logits.softmax(-1), gram)


def _norms(by_logits: Tensor, gram: Tensor) -> Tensor:
    """|J^T g| of each input."""
    import torch

    return torch.einsum("ni,nij,nj->n", by_logits, gram, by_logits).clamp(min=0).sqrt()
