"""Inputs whose labels are changed, after a policy has learnt several labels of each, to one that it hardly ever gives.

Whatever the policy answers, its reward is then nearly the same: the std of the reward is small at these inputs, and
large at the others, which come from the same source (2310.20703, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rmpipe.config import StudyError, in_one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from rmpipe.controlled import Controlled

DIGITS = (1797, 10)
"""How many inputs and labels scikit-learn's digits have."""


@dataclass(frozen=True)
class Inputs:
    """What is learnt from, and what is held out.

    Attributes:
        features: `(inputs, width)`, 0 to 1.
        first: labels of pretraining, `(inputs, labels an input)`, the true one before the others.
        labels: labels of finetuning, `(inputs,)`.
        modified: which inputs are looked at as modified, `(inputs,)`.
        rewards: in finetuning, `(inputs, labels)`, reward units.
        test_features: of the inputs that are held out, of which none is changed; and so on.
    """

    features: Tensor
    first: Tensor
    labels: Tensor
    modified: Tensor
    rewards: Tensor
    test_features: Tensor
    test_labels: Tensor
    test_rewards: Tensor

    @property
    def groups(self) -> dict[str, Tensor]:
        """Which inputs were modified and which were not, `(inputs,)` each."""
        return {"modified": self.modified, "unmodified": ~self.modified}


def draw_inputs(config: Controlled, seed: int) -> Inputs:
    """Draw what is learnt from, its labels, and which of them are changed.

    A larger share of modified inputs has those of a smaller one among them, changed to the same labels, and a control
    is drawn of the same inputs.

    Raises:
        StudyError: the file cannot be used, or has too few inputs or labels; names the field.
    """
    import torch

    features, classes, count = _read(config)
    train, test = sizes(config, len(features), count)
    random = np.random.default_rng(seed)
    order = random.permutation(len(features))
    learnt, held_out = order[:train], order[train : train + test]
    keys = random.random((train, count))
    keys[np.arange(train), classes[learnt]] = -1.0
    ranked = keys.argsort(axis=1)  # the true label, then all others in a random order
    modified = np.zeros(train, dtype=bool)
    modified[random.permutation(train)[: round(config.modified * train)]] = True
    places = {"true": 0, "inside": 1, "outside": config.labels_per_input}
    changed, kept = (ranked[:, places[name]] for name in (config.modified_to, config.unmodified_to))
    labels, held = np.where(modified, changed, kept), classes[held_out]
    arrays = [
        features[learnt], ranked[:, : config.labels_per_input], labels, modified,
        config.rewards.of(labels, modified, count),
        features[held_out], held, config.rewards.of(held, np.zeros(test, dtype=bool), count),
    ]  # fmt: skip
    return Inputs(*map(torch.from_numpy, arrays))


def check(config: Controlled) -> None:
    """Whether there are as many inputs and labels as are asked for.

    Raises:
        StudyError: the file cannot be used, or has too few of them; names the field.
    """
    if config.path is None:
        sizes(config, *DIGITS)
    else:
        features, _, count = _read(config)
        sizes(config, len(features), count)


def sizes(config: Controlled, size: int, count: int) -> tuple[int, int]:
    """How many inputs are learnt from and held out.

    Args:
        size: inputs there are.
        count: labels there are.

    Raises:
        StudyError: too few; names the field.
    """
    train = size - (config.test or 0) if config.train is None else config.train
    test = size - train if config.test is None else config.test
    if min(train, test) < 1 or train + test > size:
        raise StudyError(f"train: {size} inputs are not enough for {train} and {test} held out; lower train or test")
    if config.labels_per_input >= count:
        told = f"{config.labels_per_input} of {count} labels leave none that one could be changed to"
        raise StudyError(f"labels_per_input: {told}; lower it")
    if not 0 < round(config.modified * train) < train:
        raise StudyError(f"modified: {config.modified} of {train} inputs is none or all; take another share")
    return train, test


def _read(config: Controlled) -> tuple[NDArray[np.float32], NDArray[np.intp], int]:
    """Features from 0 to 1, `(inputs, width)`; each label's place among the labels, `(inputs,)`; how many these are."""
    if config.path is None:
        from sklearn.datasets import load_digits

        features, labels = load_digits(return_X_y=True)
    else:
        features, labels = _arrays(config.path)
    names, classes = np.unique(labels, return_inverse=True)
    scaled = (features - features.min()) / np.ptp(features)
    return scaled.reshape(len(features), -1).astype(np.float32), classes, len(names)


def _arrays(path: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Features and labels of a file of somebody's own, of which nothing is run."""
    form = "give an .npz of numbers as features, (inputs, ...), and labels, (inputs,)"
    try:
        with np.load(path, allow_pickle=False) as file:
            features, labels = file["features"].astype(np.float64), file["labels"]
    except Exception as error:  # no file, no archive, no such array, no numbers
        raise StudyError(f"path: {path} cannot be used ({in_one_line(error)}); {form}") from error
    if labels.ndim != 1 or features.ndim < 2 or len(features) != len(labels):
        raise StudyError(f"path: {path} has features {features.shape} and labels {labels.shape}; {form}")
    if not np.isfinite(features).all() or np.ptp(features) == 0:
        raise StudyError(f"path: {path} has features that are not finite, or all alike; {form}")
    return features, labels
