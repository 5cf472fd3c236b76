"""A course of training: a softmax policy pretrained on several labels of each input, then finetuned by one method.

Small networks on few inputs, in loops of our own: a step takes milliseconds. Everything is measured exactly on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rmpipe import softmax
from rmpipe.config import StudyError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rmpipe.controlled import Controlled, Descent, Method
    from rmpipe.modification import Inputs


def pretrained(config: Controlled, drawn: Inputs, seed: int) -> torch.nn.Sequential:
    """A network from random weights that has learnt all labels of pretraining of each input, by soft cross-entropy.

    Returns:
        from features to logits, before the temperature.

    Raises:
        StudyError: training diverged.
    """
    import torch

    widths = [drawn.features.shape[1], *config.hidden, drawn.rewards.shape[1]]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [layer for pair in pairwise(widths) for layer in (torch.nn.Linear(*pair), torch.nn.ReLU())]
    network = torch.nn.Sequential(*layers[:-1])

    def loss(index: Any) -> Tensor:
        logits = _logits(config, network, drawn.features[index], "pretraining")
        return softmax.soft_cross_entropy(logits, drawn.first[index])

    for _ in _descent(config.pretraining, network, loss, len(drawn.features), seed):
        pass
    _logits(config, network, drawn.features, "pretraining")
    return network


def _logits(config: Controlled, network: torch.nn.Module, features: Tensor, phase: str) -> Tensor:
    """What the softmax is taken of, `(inputs, labels)`, as long as it is finite."""
    logits: Tensor = network(features) / config.temperature
    if not bool(logits.isfinite().all()):
        raise StudyError(f"{phase}.learning_rate: training diverged; lower it")
    return logits


def _descent(
    told: Descent, network: torch.nn.Module, loss: Callable[[Any], Tensor], count: int, seed: int
) -> Iterator[int]:
    """Take steps in place, and give the number of each when it is done."""
    import torch

    kind = torch.optim.Adam if told.optimiser == "adam" else torch.optim.SGD
    optimiser = kind(network.parameters(), lr=told.learning_rate)
    batches = _batches(count, told.batch_size, seed)
    for step in range(1, told.steps + 1):
        optimiser.zero_grad()
        loss(next(batches)).backward()
        optimiser.step()
        yield step


def _batches(count: int, size: int | None, seed: int) -> Iterator[Any]:
    """Which inputs each step takes, without end."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from (slice(None),) if size is None else torch.randperm(count, generator=generator).split(size)


class Course:
    """Finetuning by one method.

    Args:
        network: a pretrained one, whose weights are moved in place.
        drawn: what is learnt from.
        seed: of the order of inputs, and of sampled labels.
    """

    def __init__(self, config: Controlled, network: torch.nn.Module, drawn: Inputs, method: Method, seed: int):
        import torch

        self.config, self.network, self.drawn, self.method, self.seed = config, network, drawn, method, seed
        self.generator = torch.Generator().manual_seed(seed)
        initial = self.logits(drawn.features).detach()
        self.reference = initial if config.kl_to == "initial" else torch.zeros_like(initial)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Finetune, and look as often as is asked for: the rows of `look`."""
        told, asked = self.config.finetuning, self.config.looked_at()
        yield self.look(0)
        for step in _descent(told, self.network, self.loss, len(self.drawn.features), self.seed):
            if step in asked:
                yield self.look(step)

    def logits(self, features: Tensor) -> Tensor:
        """What the policy's softmax is taken of, `(inputs, labels)`."""
        return _logits(self.config, self.network, features, "finetuning")

    def loss(self, index: Any, exact: bool = False) -> Tensor:
        """What is minimised on some inputs, a mean over them.

        Args:
            index: of the inputs to learn from.
            exact: in expectation over labels where the method samples one.
        """
        logits, rewards = self.logits(self.drawn.features[index]), self.drawn.rewards[index]
        if self.method == "supervised":
            return softmax.soft_cross_entropy(logits, self.drawn.labels[index, None])
        if exact or self.method == "expected_reinforce":
            value = softmax.expected_reward(logits, rewards)
        else:
            value = softmax.sampled_reward(logits, rewards, self.generator)
        if self.config.kl_coefficient:
            value = value - self.config.kl_coefficient * softmax.divergence(logits, self.reference[index])
        return -value.mean()

    def look(self, step: int) -> dict[str, Any]:
        """Everything about the policy after a step; no sampling plays a part in it.

        Returns:
            `method`, `step`, and means over the inputs to learn from, or over a PART of them, `modified` or not:

            - `reward`, `reward_PART`, `reward_test`: the expected reward, reward units.
            - `accuracy`, `accuracy_PART`, `accuracy_test`: how often the likeliest label is the right one.
            - `std_PART`: std of the reward over labels, reward units.
            - `norm_PART`: norm of the gradient of `reward_PART`; `normalised_norm_PART`: by the norm of the weights.
            - `loss_norm_PART`: norm of the gradient of what the method minimises, on that part alone.
            - `kl`: KL(pi || `kl_to`), and `entropy`, nats.

        Raises:
            StudyError: training diverged.
        """
        row: dict[str, Any] = {"method": self.method, "step": step}
        row |= {name: float(value) for name, value in self._levels().items()}
        weights = list(self.network.parameters())
        size = math.sqrt(sum(float(each.detach().square().sum()) for each in weights))
        for name, part in self.drawn.groups.items():
            rewards = softmax.expected_reward(self.logits(self.drawn.features[part]), self.drawn.rewards[part])
            row[f"norm_{name}"] = softmax.gradient_norm(rewards.mean(), weights)
            row[f"normalised_norm_{name}"] = row[f"norm_{name}"] / size
            row[f"loss_norm_{name}"] = softmax.gradient_norm(self.loss(part, exact=True), weights)
        return row

    def _levels(self) -> dict[str, Tensor]:
        """What a look needs no gradient for."""
        import torch

        drawn = self.drawn
        with torch.no_grad():
            logits, held_out = self.logits(drawn.features), self.logits(drawn.test_features)
        rewards, std = softmax.expected_reward(logits, drawn.rewards), softmax.reward_std(logits, drawn.rewards)
        right = (logits.argmax(-1) == drawn.labels).float()
        levels = {"reward": rewards.mean(), "accuracy": right.mean()}
        for name, part in drawn.groups.items():
            levels |= {f"reward_{name}": rewards[part].mean(), f"accuracy_{name}": right[part].mean()}
            levels[f"std_{name}"] = std[part].mean()
        levels["reward_test"] = softmax.expected_reward(held_out, drawn.test_rewards).mean()
        levels["accuracy_test"] = (held_out.argmax(-1) == drawn.test_labels).float().mean()
        kl, entropy = softmax.divergence(logits, self.reference), softmax.entropy(logits)
        return levels | {"kl": kl.mean(), "entropy": entropy.mean()}
