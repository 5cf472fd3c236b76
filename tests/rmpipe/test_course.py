"""Courses of training: steps by hand, order of inputs, and looks that change nothing."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rmpipe import course, softmax  # noqa: E402
from rmpipe.config import StudyError  # noqa: E402
from rmpipe.controlled import Controlled, Descent  # noqa: E402
from rmpipe.course import Course, pretrained  # noqa: E402
from rmpipe.modification import draw_inputs  # noqa: E402

SEED = 100
SGD = {"steps": 1, "optimiser": "sgd", "learning_rate": 0.5}
METHODS = ("supervised", "expected_reinforce", "reinforce")


def begun(method: str = "expected_reinforce", **told: Any) -> Course:
    """A linear policy before finetuning."""
    few = {"train": 60, "test": 20, "hidden": (), "pretraining": Descent(steps=20, learning_rate=0.05), "looks": 2}
    config = Controlled(**{**few, "finetuning": SGD, **told})
    drawn = draw_inputs(config, SEED)
    return Course(config, pretrained(config, drawn, SEED), drawn, method, SEED)


def weights(found: Course) -> list[torch.Tensor]:
    return [each.detach().clone() for each in found.network.parameters()]


def test_a_step_of_expected_reinforce_is_that_by_hand():
    found = begun(temperature=2.0)
    before, drawn = weights(found), found.drawn
    likely = found.logits(drawn.features).softmax(-1).detach()
    felt = likely * (drawn.rewards - (likely * drawn.rewards).sum(-1, keepdim=True)) / found.config.temperature
    list(found.rows())
    moved = (weights(found)[0] - before[0]) / found.config.finetuning.learning_rate
    assert moved.numpy() == pytest.approx((felt.T @ drawn.features / len(felt)).numpy(), abs=1e-5)


def test_a_step_of_supervised_finetuning_is_that_by_hand():
    found = begun("supervised")
    before, drawn = weights(found), found.drawn
    likely = found.logits(drawn.features).softmax(-1).detach()
    felt = torch.nn.functional.one_hot(drawn.labels, 10) - likely
    list(found.rows())
    moved = (weights(found)[0] - before[0]) / found.config.finetuning.learning_rate
    assert moved.numpy() == pytest.approx((felt.T @ drawn.features / len(felt)).numpy(), abs=1e-5)


def test_a_nat_away_from_uniform_costs_what_is_said():
    plain, costly = begun(), begun(kl_coefficient=0.3, kl_to="uniform")
    everything = slice(None)
    kl = softmax.divergence(plain.logits(plain.drawn.features), torch.zeros(60, 10)).mean()
    assert (costly.loss(everything) - plain.loss(everything)).item() == pytest.approx(0.3 * kl.item(), abs=1e-5)
    supervised = begun("supervised", kl_coefficient=0.3, kl_to="uniform")
    assert supervised.loss(everything).item() == begun("supervised").loss(everything).item()


def test_a_cost_of_leaving_the_initial_policy_keeps_near_it():
    far = {"finetuning": {**SGD, "steps": 60}}
    free, held = (list(begun(**far, kl_coefficient=cost).rows()) for cost in (0.0, 1.0))
    assert free[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert 0 < held[-1]["kl"] < free[-1]["kl"] / 2


def test_every_input_comes_once_before_any_comes_again():
    batches = course._batches(10, 4, SEED)
    for _ in range(3):
        parts = [next(batches) for _ in range(3)]
        assert [len(part) for part in parts] == [4, 4, 2]
        assert sorted(torch.cat(parts).tolist()) == list(range(10))


def test_small_batches_learn_the_same_for_every_method_from_the_same_inputs(monkeypatch):
    seen: dict[str, list[Any]] = {method: [] for method in METHODS}
    loss = Course.loss
    monkeypatch.setattr(Course, "loss", lambda self, index, exact=False: (
        exact or seen[self.method].append(index.tolist()), loss(self, index, exact))[1])  # fmt: skip
    for method in METHODS:
        list(begun(method, finetuning=SGD | {"steps": 5, "batch_size": 16}).rows())
    assert len(seen["supervised"]) == 5
    assert seen["supervised"] == seen["expected_reinforce"] == seen["reinforce"]


@pytest.mark.parametrize("method", METHODS)
def test_looking_more_often_changes_nothing(method: str):
    few, many = (begun(method, finetuning=SGD | {"steps": 12}, looks=looks) for looks in (2, 5))
    rows = list(few.rows()), list(many.rows())
    assert [[row["step"] for row in one] for one in rows] == [[0, 12], [0, 3, 6, 9, 12]]
    assert rows[0][-1] == rows[1][-1]


def test_what_is_looked_at_is_the_policy_at_that_step():
    found = begun("reinforce", finetuning=SGD | {"steps": 4})
    last = list(found.rows())[-1]
    drawn, part = found.drawn, found.drawn.modified
    logits = found.logits(drawn.features)
    assert last["reward_modified"] == pytest.approx(softmax.expected_reward(logits, drawn.rewards)[part].mean().item())
    assert last["std_unmodified"] == pytest.approx(softmax.reward_std(logits, drawn.rewards)[~part].mean().item())
    assert last["accuracy_test"] == pytest.approx(
        (found.logits(drawn.test_features).argmax(-1) == drawn.test_labels).float().mean().item()
    )
    value = softmax.expected_reward(logits[part], drawn.rewards[part]).mean()
    by_hand = torch.cat([each.flatten() for each in torch.autograd.grad(value, list(found.network.parameters()))])
    assert last["norm_modified"] == last["loss_norm_modified"] == pytest.approx(by_hand.norm().item(), rel=1e-5)
    size = torch.cat([each.flatten() for each in weights(found)]).norm().item()
    assert last["normalised_norm_modified"] == pytest.approx(last["norm_modified"] / size, rel=1e-5)


def test_the_reward_of_all_is_that_of_both_groups():
    row = begun(modified=0.25).look(0)
    assert row["reward"] == pytest.approx(0.25 * row["reward_modified"] + 0.75 * row["reward_unmodified"], abs=1e-6)


@pytest.mark.parametrize("phase", ["pretraining", "finetuning"])
@pytest.mark.parametrize("method", ["supervised", "reinforce"])
def test_what_diverges_is_refused_with_the_rate_that_is_too_high(phase: str, method: str):
    wild = Descent(steps=20, optimiser="sgd", learning_rate=1e30)
    with pytest.raises(StudyError, match=rf"^{phase}\.learning_rate: training diverged; lower it"):
        list(begun(method, hidden=(8,), **{phase: wild}).rows())


def test_random_numbers_of_others_are_left_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(begun("reinforce").rows())
    assert torch.rand(3).tolist() == expected.tolist()
