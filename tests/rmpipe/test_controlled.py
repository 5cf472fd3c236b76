"""The controlled experiment: what 2310.20703 found, what its controls say, and the same numbers for the same seed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

torch = pytest.importorskip("torch")

from rmpipe import controlled  # noqa: E402
from rmpipe.config import identity  # noqa: E402
from rmpipe.controlled import Controlled, Course, Result, run  # noqa: E402

SEED = 101
BRIEF = {
    "train": 200, "test": 100, "hidden": (16,), "pretraining": {"steps": 5, "learning_rate": 0.01},
    "finetuning": {"steps": 4, "learning_rate": 0.01}, "looks": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> Result:
    """Of the experiment as it is by default."""
    return run(Controlled(looks=2), SEED)


def of(found: Result, name: str, method: str = "") -> float:
    value = found.numbers[f"{method}.{name}" if method else name]
    assert value is not None
    return value


# -- what is found ----------------------------------------------------------------------------------------------------


def test_modified_inputs_have_a_small_std_and_a_small_gradient(found: Result):
    assert of(found, "initial.std_modified") < of(found, "initial.std_unmodified") / 2
    assert of(found, "initial.norm_modified") < of(found, "initial.norm_unmodified") / 2
    std, norm = (np.array([row[name] for row in found.scatter]) for name in ("std", "norm"))
    assert np.median(norm[std <= np.quantile(std, 0.1)]) < np.median(norm[std > np.median(std)]) / 5


def test_supervised_finetuning_does_not_share_that_weakness(found: Result):
    first = next(row for row in found.curves if row["method"] == "supervised")
    assert first["loss_norm_modified"] > first["loss_norm_unmodified"]
    modified = [row["supervised_norm"] for row in found.scatter if row["modified"]]
    assert np.median(modified) > np.median([row["supervised_norm"] for row in found.scatter])


@pytest.mark.parametrize("method", ["expected_reinforce", "reinforce"])
def test_reinforce_leaves_modified_inputs_behind_and_supervised_finetuning_does_not(found: Result, method: str):
    assert of(found, "recovered_modified", "supervised") > 0.7
    assert of(found, "recovered_unmodified", "supervised") > 0.9
    assert of(found, "recovered_modified", method) < 0.2
    assert of(found, "recovered_unmodified", method) > 0.9


def test_where_no_label_is_true_reinforce_still_does():
    control = run(Controlled(looks=2, unmodified_to="inside", methods=("supervised", "expected_reinforce")), SEED)
    behind = {
        method: of(control, "recovered_unmodified", method) - of(control, "recovered_modified", method)
        for method in ("supervised", "expected_reinforce")
    }
    assert behind["expected_reinforce"] > 0.2
    assert abs(behind["supervised"]) < 0.1


def test_the_bound_holds_at_every_input(found: Result):
    for row in found.scatter:
        assert 0 < row["norm"] <= 6 * row["gamma"] * row["std"] ** (2 / 3)


# -- how it is found --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others():
    first, again, other = (asdict(run(Controlled(**BRIEF), seed)) for seed in (SEED, SEED, SEED + 1))
    assert first == again
    assert first["numbers"] != other["numbers"]


def test_threads_change_no_number_and_are_left_as_they_were():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = run(Controlled(**BRIEF), SEED)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert two == run(Controlled(**BRIEF), SEED)


def test_all_methods_begin_with_the_same_policy(found: Result):
    firsts = [row for row in found.curves if row["step"] == 0]
    assert [row["method"] for row in firsts] == ["supervised", "expected_reinforce", "reinforce"]
    alike = [{n: v for n, v in row.items() if n != "method" and not n.startswith("loss")} for row in firsts]
    assert alike[0] == alike[1] == alike[2]
    assert firsts[0]["kl"] == pytest.approx(0, abs=1e-6)


def test_a_method_gives_the_same_alone_as_after_others():
    together, alone = run(Controlled(**BRIEF), SEED), run(Controlled(**BRIEF, methods=("reinforce",)), SEED)
    assert [row for row in together.curves if row["method"] == "reinforce"] == alone.curves


def test_rows_are_told_as_they_come():
    told: list[dict[str, Any]] = []
    config = Controlled(**BRIEF)
    result = run(config, SEED, told=told.append)
    assert told == result.curves
    assert [row["step"] for row in told] == config.looked_at() * 3 == [0, 1, 3, 4] * 3


def test_gains_are_rewards_at_the_end_less_those_before(found: Result):
    mine = [row for row in found.curves if row["method"] == "supervised"]
    gain = mine[-1]["reward_modified"] - mine[0]["reward_modified"]
    assert of(found, "gain_modified", "supervised") == gain
    assert of(found, "recovered_modified", "supervised") == pytest.approx(gain / (1 - mine[0]["reward_modified"]))
    assert of(found, "accuracy_test", "supervised") == mine[-1]["accuracy_test"]


def test_where_there_is_nothing_to_gain_no_share_of_it_is_told():
    row = {
        f"{name}_{part}": 1.0 for name in ("reward", "std", "norm", "accuracy") for part in ("modified", "unmodified")
    }
    row |= {"method": "supervised", "reward": 1.0, "accuracy": 1.0, "reward_test": 1.0, "accuracy_test": 1.0}
    numbers = controlled._numbers([row | {"reward_modified": 0.0}, row], most=1.0)
    assert (numbers["supervised.recovered_modified"], numbers["supervised.recovered_unmodified"]) == (1.0, None)


def test_the_scatter_has_at_most_a_hundred_of_each(found: Result, monkeypatch: pytest.MonkeyPatch):
    assert [row["modified"] for row in found.scatter].count(True) == 50  # all that there are
    assert len(found.scatter) == 150
    monkeypatch.setattr(controlled, "SCATTERED", 3)
    few = run(Controlled(**BRIEF), SEED).scatter
    assert [row["modified"] for row in few].count(True) == 3
    assert len({row["input"] for row in few}) == len(few) == 6


def test_a_temperature_is_in_every_measure():
    config = Controlled(**BRIEF, temperature=4.0, methods=("expected_reinforce",))
    drawn = controlled.draw_inputs(config, SEED)
    network = controlled.pretrained(config, drawn, SEED)
    course = Course(config, network, drawn, "expected_reinforce", SEED)
    row = controlled.scatter(config, network, drawn)[0]
    value = controlled.softmax.expected_reward(
        course.logits(drawn.features[[row["input"]]]), drawn.rewards[[row["input"]]]
    )
    assert row["norm"] == pytest.approx(controlled.softmax.gradient_norm(value.sum(), network.parameters()), rel=1e-4)


# -- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"data": "local"}, r'path names the file of data = "local", and of no other; give both or neither'),
        ({"path": "mine.npz"}, r'path names the file of data = "local", and of no other; give both or neither'),
        ({"train": None}, "train and test: each is all that the other leaves"),
        ({"methods": ("reinforce", "reinforce")}, "methods: one is named twice"),
        ({"methods": ()}, "at least 1 item"),
        (
            {"unmodified_to": "inside", "labels_per_input": 1},
            'labels_per_input = 1 has no other label "inside"; raise it',
        ),
        ({"rewards": {"wrong": 1.0}}, r"wrong = 1\.0 is not below right = 1\.0; lower it"),
        ({"rewards": {"wrong_modified": 2.0}}, r"wrong_modified = 2\.0 is not below right = 1\.0; lower it"),
        ({"modified": 0.0}, "greater than 0"),
    ],
)
def test_what_does_not_agree_with_itself_is_refused(told: dict[str, Any], said: str):
    with pytest.raises(ValidationError, match=said):
        Controlled(**told)


def test_where_a_file_lies_is_no_part_of_what_is_asked():
    one, other = (Controlled(data="local", path=path) for path in ("here.npz", "there.npz"))
    assert identity(one) == identity(other) != identity(Controlled())


def test_content_moves_with_the_file(tmp_path):
    config = Controlled(data="local", path=str(tmp_path / "mine.npz"))
    np.savez(tmp_path / "mine.npz", features=np.eye(4), labels=np.arange(4))
    first = config.content()
    np.savez(tmp_path / "mine.npz", features=np.eye(5), labels=np.arange(5))
    assert config.content() != first
    assert Controlled().content() == ""
