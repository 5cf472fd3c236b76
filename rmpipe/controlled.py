"""The controlled experiment: a small softmax policy whose reward std is small at some inputs, made so on purpose.

The policy learns several labels of each input. Then the label of a few inputs is changed to one that is none of these,
and the policy is finetuned from the same weights on the same inputs: by supervised finetuning, which moves the changed
ones as well as the others, and by REINFORCE, which does not. Rewards, their std and gradients are exact, so that no
estimate can be blamed for it (2310.20703, section 4.1).

The changed labels are wrong, too, and true ones speak against them. `modified_to` and `unmodified_to` tell the two
causes apart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rmpipe import modification, softmax
from rmpipe.config import Config, Runtime
from rmpipe.course import Course, pretrained
from rmpipe.modification import Inputs, draw_inputs
from rmpipe.source import fingerprint_path

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Method = Literal["supervised", "expected_reinforce", "reinforce"]

SCATTERED = 100
"""The most inputs, of the modified and of the others, that are looked at one by one."""


class Descent(Config):
    """How weights are moved."""

    steps: int = Field(ge=1)
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(gt=0)
    batch_size: int | None = Field(None, ge=1)
    """Inputs a step, every one before any comes again; None for all of them."""


class Rewards(Config):
    """What a label is worth."""

    right: float = 1.0
    wrong: float = -1.0
    wrong_modified: float | None = None
    """At a modified input; None for the same. At 0.5 the policy's reward is high there from the beginning."""

    @model_validator(mode="after")
    def _right_is_best(self) -> Rewards:
        for name in ("wrong", "wrong_modified"):
            value = getattr(self, name)
            if value is not None and value >= self.right:
                raise ValueError(f"{name} = {value} is not below right = {self.right}; lower it")
        return self

    def of(self, labels: NDArray[np.intp], modified: NDArray[np.bool_], count: int) -> NDArray[np.float32]:
        """The reward of every label at some inputs.

        Args:
            labels: the right ones, `(inputs,)`.
            modified: whether they were changed, `(inputs,)`.
            count: labels there are.

        Returns:
            `(inputs, labels)`, reward units.
        """
        changed = self.wrong if self.wrong_modified is None else self.wrong_modified
        rewards = np.repeat(np.where(modified, changed, self.wrong)[:, None], count, axis=1)
        rewards[np.arange(len(labels)), labels] = self.right
        return rewards.astype(np.float32)


class Controlled(Config):
    """What is learnt, which labels are changed, and how it is learnt again."""

    data: Literal["digits", "local"] = "digits"
    """`digits`: scikit-learn's, 1,797 images of 8 x 8; `local`: a file of your own."""
    path: Annotated[str | None, Runtime] = None
    """An .npz of `features`, (inputs, ...), and `labels`, (inputs,). Its content is in the address, not its place."""
    train: int | None = Field(500, ge=2)
    """Inputs to learn from; None for all that are not held out."""
    test: int | None = Field(None, ge=1)
    """Inputs held out; None for all the others."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (250, 100)
    """Widths of the hidden layers; none for a linear policy."""
    temperature: float = Field(1.0, gt=0)
    """What logits are divided by, in training and in every measure."""
    labels_per_input: int = Field(3, ge=1)
    """Labels of each input in pretraining, the true one among them."""
    modified: float = Field(0.1, gt=0, lt=1)
    """Share of the inputs to learn from whose label is changed for finetuning."""
    modified_to: Literal["outside", "inside"] = "outside"
    """A label that is none of pretraining's; or, as a control, another of these: as wrong, yet of a large std."""
    unmodified_to: Literal["true", "inside"] = "true"
    """The true label; or, as a control, another of pretraining's. What true labels teach speaks against a changed one,
    whatever its std; where no label is true, the two groups differ only in how likely theirs was. Inputs that are
    held out keep the true ones, which are then unlearnt."""
    pretraining: Descent = Descent(steps=200, learning_rate=2e-3)
    finetuning: Descent = Descent(steps=150, learning_rate=2e-3)
    methods: tuple[Method, ...] = Field(("supervised", "expected_reinforce", "reinforce"), min_length=1)
    """`supervised`: cross-entropy on the labels; `expected_reinforce`: the expected reward, exactly; `reinforce`: by
    one sampled label an input, without a baseline."""
    rewards: Rewards = Rewards()
    kl_coefficient: float = Field(0.0, ge=0)
    """What a nat of KL(pi || `kl_to`) costs in both kinds of REINFORCE, reward units."""
    kl_to: Literal["initial", "uniform"] = "initial"
    looks: int = Field(16, ge=2)
    """How often everything is measured, evenly from before the first step to after the last one."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Controlled:
        if (self.data == "local") != (self.path is not None):
            raise ValueError('path names the file of data = "local", and of no other; give both or neither')
        if self.train is None and self.test is None:
            raise ValueError("train and test: each is all that the other leaves; say how many one of them has")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods: one is named twice; name it once")
        if "inside" in (self.modified_to, self.unmodified_to) and self.labels_per_input < 2:
            raise ValueError('labels_per_input = 1 has no other label "inside"; raise it')
        return self

    def check(self) -> None:
        """Read a file without keeping anything of it.

        Raises:
            StudyError: the file cannot be used, or has too few inputs or labels; names the field.
        """
        modification.check(self)

    def looked_at(self) -> list[int]:
        """The steps of a finetuning after which everything is measured, 0 for before the first."""
        steps = np.linspace(0, self.finetuning.steps, self.looks).round().astype(int)
        return sorted(set(steps.tolist()))

    def content(self) -> str:
        """What the file holds, as text that moves when it does; empty for the digits."""
        return fingerprint_path(self)


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        curves: a row a look and method, see `Course.look`.
        scatter: a row an input before finetuning, see `scatter`.
        numbers: `initial.X` of the policy that all methods began with, and of each METHOD at the end
            `METHOD.gain`, of the expected reward, and `METHOD.accuracy`, all with `_modified`, `_unmodified` and
            `_test` too; and `METHOD.recovered_PART`, the gain as a share of what there was to gain, None for nothing.
    """

    curves: list[dict[str, Any]]
    scatter: list[dict[str, Any]]
    numbers: dict[str, float | None]


def run(config: Controlled, seed: int, *, told: Callable[[dict[str, Any]], None] = lambda row: None) -> Result:
    """Pretrain a policy, change the labels of some inputs, and finetune it from the same weights by each method.

    Args:
        seed: of what is drawn, of the first weights, of the order of inputs, and of sampled labels.
        told: called with each row of the curves as soon as it is known.

    Raises:
        StudyError: the data cannot be used, or training diverged; names the field.
    """
    with _one_thread():
        drawn = draw_inputs(config, seed)
        network = pretrained(config, drawn, seed)
        curves = []
        for method in config.methods:
            for row in Course(config, copy.deepcopy(network), drawn, method, seed).rows():
                told(row)
                curves.append(row)
        points = scatter(config, network, drawn)
    return Result(curves, points, _numbers(curves, config.rewards.right))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads only wait for one another on networks this small."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def scatter(config: Controlled, network: torch.nn.Sequential, drawn: Inputs) -> list[dict[str, Any]]:
    """What single inputs, at most 100 modified ones and 100 others, teach a policy.

    Returns:
        rows of `input`, its number among those to learn from; `std` of the reward over labels, reward units; `norm` of
        the gradient of its expected reward; `gamma`, the norm of the Jacobian of its logits, which with `std` bounds
        `norm`; `supervised_norm`, of the gradient of log pi(label|x); and whether it is `modified`.
    """
    import torch

    index = torch.cat([part.nonzero()[:SCATTERED, 0] for part in drawn.groups.values()]).sort().values
    features, rewards = drawn.features[index], drawn.rewards[index]
    with torch.no_grad():
        logits = network(features) / config.temperature
        gram = softmax.jacobian_gram(network, features) / config.temperature**2
    columns = {
        "input": index,
        "std": softmax.reward_std(logits, rewards),
        "norm": softmax.reward_gradient_norms(logits, rewards, gram),
        "gamma": softmax.jacobian_norms(gram),
        "supervised_norm": softmax.supervised_gradient_norms(logits, drawn.labels[index], gram),
        "modified": drawn.modified[index],
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _numbers(curves: list[dict[str, Any]], most: float) -> dict[str, float | None]:
    """The policy before finetuning, and what each method made of it."""
    measures, parts = ("reward", "std", "norm", "accuracy"), ("modified", "unmodified")
    numbers = {f"initial.{name}_{part}": curves[0][f"{name}_{part}"] for name in measures for part in parts}
    for method in dict.fromkeys(row["method"] for row in curves):
        mine = [row for row in curves if row["method"] == method]
        for place in ("", *(f"_{part}" for part in (*parts, "test"))):
            numbers[f"{method}.gain{place}"] = mine[-1][f"reward{place}"] - mine[0][f"reward{place}"]
            numbers[f"{method}.accuracy{place}"] = mine[-1][f"accuracy{place}"]
        for part in parts:
            room = most - mine[0][f"reward_{part}"]
            numbers[f"{method}.recovered_{part}"] = numbers[f"{method}.gain_{part}"] / room if room > 0 else None
    return numbers
